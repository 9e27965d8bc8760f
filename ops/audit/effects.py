"""Law 6: each command has one effect, and what a caller was told has happened stands in the log."""

from collections.abc import Callable, Iterable
from typing import TypeAlias

from ops.audit.breaches import Breaches
from ops.audit.wire import Record

WINDOW_US = 24 * 3600 * 1_000_000
"""Within so long a command's id has one effect, however often it is sent."""

Effect: TypeAlias = tuple[str, str, int]
"""A command's id, a stream that it changed, and that stream's version after it."""
_Stamp: TypeAlias = tuple[str, int]
"""A transaction's id and when it was recorded; one object for all its commands, for there are many."""


class Effects:
    """Matches what the writers decided with what the log says happened.

    Both sides name the same effects: events by their command and version, decisions by the positions they told.
    Whatever one side names is crossed out when the other does; memory holds what is not crossed out yet, and the
    commands' ids.
    """

    def __init__(self, breaches: Breaches) -> None:
        self._breaches = breaches
        self._done: dict[str, _Stamp] = {}
        self._doing: dict[tuple[str, int], tuple[_Stamp, dict[str, dict[str, int]]]] = {}
        self._told: dict[str, int] = {}
        self._happened_only: set[Effect] = set()
        self._told_only: set[Effect] = set()

    def happened(self, topic: str, partition: int, meta: Record) -> None:
        """An event. A transaction's effects are counted when the next one begins in its partition."""
        stamp, effects = self._doing.get((topic, partition), (("", 0), {}))
        if stamp[0] != meta["batch_id"]:
            self._count(effects)
            stamp, effects = (meta["batch_id"], meta["recorded_at"]), {}
            self._doing[topic, partition] = stamp, effects
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
                    self._tell(decided["command_id"], position["stream"], position["version"], own_stream)

    def finish(self, version_of: Callable[[str], int], acknowledged: Iterable[str]) -> None:
        """`version_of` tells a stream's last version, `acknowledged` are positions (`stream@version`) of receipts."""
        for _, effects in self._doing.values():
            self._count(effects)
        for command_id, stream, version in sorted(self._happened_only):
            self._breaches.add(
                "6", f"{stream}@{version} is the effect of {command_id}, which no decision accepted"
            )
        for command_id, stream, version in sorted(self._told_only):
            self._breaches.add(
                "6", f"{command_id} was accepted with {stream}@{version}, which is not its effect"
            )
        for position in acknowledged:
            stream, _, told = position.rpartition("@")
            if int(told) > version_of(stream):
                self._breaches.add("6", f"{position} was acknowledged and is not in the log")

    def _check_first(self, command_id: str, stamp: _Stamp, meta: Record) -> None:
        batch_id, recorded_at = self._done.get(command_id, stamp)
        if batch_id != stamp[0] and abs(stamp[1] - recorded_at) < WINDOW_US:
            self._breaches.add("6", f"{command_id} has a second effect: {meta['stream']}@{meta['version']}")
        self._done[command_id] = stamp

    def _count(self, effects: dict[str, dict[str, int]]) -> None:
        for command_id, streams in effects.items():
            for stream, version in streams.items():
                self._cross_out((command_id, stream, version), self._told_only, self._happened_only)

    def _tell(self, command_id: str, stream: str, version: int, own_stream: str) -> None:
        if stream.startswith(own_stream) and version > self._told.get(stream, 0):
            self._told[stream] = version
            self._cross_out((command_id, stream, version), self._happened_only, self._told_only)

    @staticmethod
    def _cross_out(effect: Effect, other_side: set[Effect], this_side: set[Effect]) -> None:
        if effect in other_side:
            other_side.remove(effect)
        else:
            this_side.add(effect)
