"""Law 6: each command has one effect, and what a caller was told has happened stands in the log."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ops.audit.desk import Desk
from ops.audit.wire import Record

WINDOW_US = 24 * 3600 * 1_000_000
"""Within so long a command's id has one effect, however often it is sent."""

_HAPPENED, _TOLD = "happened", "told"


class Effects:
    """Matches what the writers decided with what the log says happened.

    Both sides name the same effects (a command, a stream that it changed, and the stream's version after it): events
    by their command and version, decisions by the positions they told. Whatever one side names is crossed out when
    the other does; what is not crossed out yet is kept, and the commands' ids.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._done = desk.books.table("done", tuple)
        """By command, the transaction of its effect, and when that was recorded; one object for all its commands."""
        self._doing = desk.books.table("doing", list)
        """By partition, the transaction that is being read: its stamp, its cut, and its effects by command and stream."""
        self._told = desk.books.table("told", tuple)
        """By stream, the version told last, and up to which version decisions are not asked for."""
        self._single = desk.books.table("single", tuple)
        """Effects that one side has named, stamped with the cut."""
        self.begin_late = False
        """The decisions' beginning was deleted: the first one that speaks of a stream may be news or not, and what
        happened before it is not asked for."""

    def happened(self, topic: str, partition: int, meta: Record) -> None:
        """An event. A transaction's effects are counted when the next one begins in its partition."""
        place = f"{topic}[{partition}]"
        doing = self._doing.get(place)
        if doing is None or doing[0][0] != meta["batch_id"]:
            if doing is not None:
                self._count(doing)
            doing = self._doing[place] = [(meta["batch_id"], meta["recorded_at"]), self._desk.cut, {}]
        stamp, _, effects = doing
        command_id = meta["command_id"]
        if command_id not in effects:
            effects[command_id] = {}
            self._check_first(command_id, stamp, meta)
        effects[command_id][meta["stream"]] = meta["version"]

    def told(self, decisions: Record, own_stream: str) -> None:
        """A record of decisions of the aggregate whose streams begin with `own_stream`.

        A position told for the first time is an effect; one told before says that it was so already.
        """
        for decided in decisions["decided"]:
            if decided["outcome"] != "rejected":
                for position in decided["positions"]:
                    if position["stream"].startswith(own_stream):
                        self._tell(decided["command_id"], position["stream"], position["version"])

    def judge(self, cut: int) -> None:
        """What was named before this cut should have been named by both."""
        happening: set[str] = set()
        for place in self._doing:
            doing = self._doing.get(place)
            if doing is not None and doing[1] < cut:
                self._count(doing)
            elif doing is not None:
                happening.update(_effects_in(doing))
        for effect in self._single:
            opened, side = self._single.get(effect) or (cut, "")
            if opened < cut and effect not in happening:
                self._single.pop(effect, None)
                self._judge(effect, side)

    def check_acknowledged(self, version_of: Callable[[str], int], acknowledged: Iterable[str]) -> None:
        """`version_of` tells a stream's last version, `acknowledged` are positions (`stream@version`) of receipts."""
        for position in acknowledged:
            stream, _, told = position.rpartition("@")
            if int(told) > version_of(stream):
                self._desk.breaches.add("6", f"{position} was acknowledged and is not in the log")

    def _judge(self, effect: str, side: str) -> None:
        command_id, _, position = effect.partition(" ")
        stream, _, version = position.rpartition("@")
        if self.begin_late and int(version) <= (self._told.get(stream) or (0, int(version)))[1]:
            return
        cause = {"command_id": command_id, "stream": stream, "version": int(version)}
        if side == _HAPPENED:
            what = f"{position} is the effect of {command_id}, which no decision accepted"
        else:
            what = f"{command_id} was accepted with {position}, which is not its effect"
        self._desk.breaches.add("6", what, cause)

    def _check_first(self, command_id: str, stamp: tuple[str, int], meta: Record) -> None:
        batch_id, recorded_at = self._done.get(command_id) or stamp
        if batch_id != stamp[0] and abs(stamp[1] - recorded_at) < WINDOW_US:
            what = f"{command_id} has a second effect: {meta['stream']}@{meta['version']}"
            self._desk.breaches.add("6", what, meta)
        self._done[command_id] = stamp

    def _count(self, doing: list[Any]) -> None:
        for effect in _effects_in(doing):
            self._cross_out(effect, _HAPPENED, doing[1])
        doing[2] = {}

    def _tell(self, command_id: str, stream: str, version: int) -> None:
        last, not_asked = self._told.get(stream) or (0, version if self.begin_late else 0)
        if version > last:
            self._told[stream] = (version, not_asked)
            self._cross_out(f"{command_id} {stream}@{version}", _TOLD, self._desk.cut)

    def _cross_out(self, effect: str, side: str, cut: int) -> None:
        named = self._single.get(effect)
        if named is None:
            self._single[effect] = (cut, side)
        elif named[1] != side:
            self._single.pop(effect, None)


def _effects_in(doing: list[Any]) -> Iterator[str]:
    for command_id, streams in doing[2].items():
        for stream, version in streams.items():
            yield f"{command_id} {stream}@{version}"
