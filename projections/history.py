"""The stock ledger read page by page, newest first, by period, reason, actor and order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import orjson

from projections.cassandra_store import CassandraReader
from projections.cursor import BadCursor, cursor_of, place_of
from projections.ledger import VIEW, Head, bucket_of, month_before, month_of
from projections.view import Served
from schemas.values import MAIN, Position

ROWS_AT_ONCE = 256
ROWS_MAX = 2_048
MONTHS_MAX = 60
"""What one page looks at, at most, in search of movements that are wanted."""

Period = Literal["occurred", "recorded"]

EVER = 2**62
"""Later than any time that a movement has."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which movements: of a period (micros, both ends included) by when they happened or by when they were recorded,
    with a reason, by an actor (`anna` or `merchant/anna`), for an order; empty: all.
    """

    since: int = 0
    until: int = EVER
    by: Period = "occurred"
    reason: str = ""
    actor: str = ""
    order_id: str = ""

    def fits(self, movement: Mapping[str, Any]) -> bool:
        actor = movement["actor_id"]
        return (
            self.since <= movement[f"{self.by}_at"] <= self.until
            and self.reason in ("", movement["reason"])
            and self.actor in ("", actor, f"{movement['actor_kind']}/{actor}")
            and self.order_id in ("", movement["order_id"])
        )

    @property
    def recorded(self) -> tuple[int, int]:
        """When what is wanted may have been recorded: the ledger lies in that order."""
        return (self.since, self.until) if self.by == "recorded" else (0, EVER)


EVERYTHING = Wanted()


class Entry(NamedTuple):
    """A movement as it is stored: JSON, and where it lies."""

    month: int
    version: int
    movement: str


@dataclass(frozen=True, slots=True)
class Page:
    """Movements, newest first; `next` is the cursor of those behind them, empty at the end.

    A page may hold fewer than it might, even none, and have a next one: it looks at so many rows and no more.
    """

    movements: Sequence[str]
    next: str

    def served(self) -> Served:
        fragments = [orjson.Fragment(movement) for movement in self.movements]
        return Served(orjson.dumps({"movements": fragments, "next": self.next or None}))


async def of_item(
    reader: CassandraReader,
    sku: str,
    cursor: str = "",
    limit: int = 50,
    location: str = MAIN,
    after: Sequence[Position] = (),
    wanted: Wanted = EVERYTHING,
) -> Page | None:
    """A page of what happened to a stock item, over all months; None where nothing ever did. Raises BadCursor."""
    await reader.caught_up(after, VIEW)
    head: Head | None = await reader.document(VIEW, f"stock/{sku}/{location}")
    if head is None:
        return None
    search = _Search(reader, head, wanted, *_start(head, cursor, wanted))
    found = await search.entries(limit + 1)
    if len(found) > limit:
        last = found[limit - 1]
        return Page(_texts(found[:limit]), cursor_of(last.month, last.version))
    return Page(_texts(found), "" if search.is_over else cursor_of(search.month, search.below))


def _texts(entries: Sequence[Entry]) -> list[str]:
    return [entry.movement for entry in entries]


@dataclass
class _Search:
    """Goes back in time from version `below` in `month`, within its bounds."""

    reader: CassandraReader
    head: Head
    wanted: Wanted
    month: int
    below: int
    _rows: int = 0
    _months: int = 0

    async def entries(self, count: int) -> list[Entry]:
        """As many as there are, as are wanted, or as may be looked at."""
        found: list[Entry] = []
        while len(found) < count and not self.is_over and not self._is_tired:
            at_once = count - len(found) if self.wanted == EVERYTHING else ROWS_AT_ONCE
            found += filter(self._is_wanted, await self._rows_below(at_once))
        return found

    @property
    def is_over(self) -> bool:
        return self.month < max(self.head.first_month, month_of(self.wanted.recorded[0]))

    @property
    def _is_tired(self) -> bool:
        return self._rows >= ROWS_MAX or self._months >= MONTHS_MAX

    async def _rows_below(self, limit: int) -> list[Entry]:
        """The next rows of this month; where it has no more, the next search is in the month before."""
        place = bucket_of(self.head.sku), self.month, self.head.sku, self.head.location, self.below, limit
        rows = [Entry(**row) for row in await self.reader.select(VIEW, _MONTH, place)]
        self._rows += len(rows)
        if rows:
            self.below = rows[-1].version
        if len(rows) < limit:
            self.month = month_before(self.month)
            self._months += 1
        return rows

    def _is_wanted(self, entry: Entry) -> bool:
        return self.wanted == EVERYTHING or self.wanted.fits(orjson.loads(entry.movement))


_MONTH = (
    "SELECT month, version, movement FROM stock_ledger_{g}"
    " WHERE bucket = ? AND month = ? AND sku = ? AND location = ? AND version < ? LIMIT ?"
)


def _start(head: Head, cursor: str, wanted: Wanted) -> tuple[int, int]:
    """The month to begin with, and the version below which to begin. A cursor's month may be forged: it is
    bounded by the head's.
    """
    if not cursor:
        return month_of(min(wanted.recorded[1], head.recorded_at)), head.version + 1
    month, version = (int(part) for part in place_of(cursor, int, int))
    if not (1 <= month % 100 <= 12 and 0 < version < 2**63):
        raise BadCursor(cursor[:80])
    return min(month, head.last_month), version
