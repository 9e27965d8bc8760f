"""The desk at which the books are kept: the tables, the breaches, the cuts, and what counts as late."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from ops.audit.breaches import Breaches
from ops.audit.tables import Books, BooksInMemory, Table

Place: TypeAlias = tuple[str, int]
"""A topic and a partition of it."""

AT_REST = 1 << 62
"""The cut behind which all lies: the log is at rest, whatever is open now stays open."""

SAGAS_WITHIN_US = 10 * 60 * 1_000_000
"""So long a word may take from one aggregate to another: the sagas that carry it may be away."""

Kind: TypeAlias = Literal["checkout", "claim", "money", "order", "reminder"]


@dataclass
class Desk:
    """What the parts of a law book share.

    A *cut* is a look at where every partition ends, uncommitted records included. When all that is committed has been
    read up to there, whatever was opened before the cut and is still open is never closed by anything: the records
    that a transaction, or a cause, has elsewhere were written before it could be read. `cut` counts them; what is
    opened is stamped with it.
    """

    breaches: Breaches = field(default_factory=Breaches)
    books: Books = field(default_factory=BooksInMemory)
    cut: int = 0


@dataclass(slots=True)
class _Clock:
    """A partition's last time, and since when its writer has been writing without a long silence."""

    last: int
    awake_since: int


class Deadlines:
    """What must have ended when, and how late something was; times are microseconds.

    A log does not say when its writers were down. So, if `silence_us` is given, the time before a partition's writer
    was seen again after so long a silence is nobody's fault; without it every microsecond counts.
    """

    def __init__(self, desk: Desk, grace_us: int, silence_us: int | None = None) -> None:
        self._grace_us = grace_us
        self._silence_us = silence_us
        self._due: Table[tuple[str, int]] = desk.books.table("due")
        self._clocks: Table[_Clock] = desk.books.table("clocks", _Clock)
        self._here: Place = ("", 0)
        self._clock = _Clock(0, 0)

    def tick(self, place: Place, at: int) -> None:
        """An event of this partition was recorded at `at`."""
        if self._silence_us is None:
            return
        clock = self._clocks.get(_name(place))
        if clock is None:
            clock = self._clocks[_name(place)] = _Clock(at, at)
        if at - clock.last > self._silence_us:
            clock.awake_since = at
        clock.last = max(clock.last, at)
        self._here, self._clock = place, clock

    def late_us(self, due: int, at: int) -> int:
        """How late it is at `at`, beyond what is forgiven; 0 if it is not."""
        late_us = at - max(due, self._clock.awake_since)
        return late_us if late_us > self._grace_us else 0

    def expect(self, kind: Kind, key: str, due: int) -> None:
        self._due[f"{due:020} {kind} {key}"] = self._here

    def met(self, kind: Kind, key: str, due: int) -> None:
        self._due.pop(f"{due:020} {kind} {key}", None)

    def missed(self, now: int | None = None) -> Iterator[tuple[Kind, str]]:
        """What is overdue and was not met: its kind and key. Without `now` each partition's own time counts."""
        latest = self._latest() if now is None else now
        for entry in self._due:
            due, kind, key = entry.split(" ", 2)
            if int(due) > latest:
                return
            if self._is_missed(entry, int(due), now):
                self._due.pop(entry, None)
                yield kind, key  # type: ignore[misc]  # what `expect` wrote

    def _latest(self) -> int:
        return max((clock.last for name in self._clocks if (clock := self._clocks.get(name))), default=0)

    def _is_missed(self, entry: str, due: int, now: int | None) -> bool:
        if now is not None:
            return now > due + self._grace_us
        place = self._due.get(entry)
        clock = self._clocks.get(_name(place)) if place is not None else None
        return clock is not None and clock.last - max(due, clock.awake_since) > self._grace_us


class Matters:
    """What was opened and waits to be closed by another record, stamped with the cut before which it was opened."""

    def __init__(self, desk: Desk, name: str) -> None:
        self._desk = desk
        self._open: Table[tuple[int, Any]] = desk.books.table(name)

    def open(self, key: str, what: Any = None) -> None:
        self._open[key] = (self._desk.cut, what)

    def close(self, key: str) -> tuple[int, Any] | None:
        """None where it is not open."""
        return self._open.pop(key, None)

    def overdue(self, cut: int) -> Iterator[tuple[str, Any]]:
        """What was opened before this cut; it is closed thereby."""
        for key in self._open:
            opened, what = self._open.get(key) or (cut, None)
            if opened < cut:
                self._open.pop(key, None)
                yield key, what


def _name(place: Place) -> str:
    return f"{place[0]}[{place[1]}]"
