"""Stock as it stood: by when movements happened, by when they were recorded, or both; see docs/adr/0017."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import orjson

from projections.cassandra_store import CassandraReader
from projections.history import EVER
from projections.ledger import VIEW, Folio, Head, bucket_of, folio_of, month_before, month_of
from projections.view import Served
from schemas.inventory import stock_stream
from schemas.values import MAIN, Position

FOLIOS_AT_ONCE = 1_000
READS_AT_ONCE = 8

START = Folio(0, 0, 0, 0, 0, 0, 0, 0)
"""What the first folio follows."""


@dataclass(frozen=True, slots=True)
class Cutoff:
    """What counts: what had happened by `as_of` and was recorded by `known_at` (micros, both included), among the
    first `version` entries.
    """

    as_of: int = EVER
    known_at: int = EVER
    version: int = EVER

    def counts(self, version: int, occurred_at: int, recorded_at: int) -> bool:
        return occurred_at <= self.as_of and recorded_at <= self.known_at and version <= self.version

    def counts_all(self, folio: Folio) -> bool:
        return self.counts(folio.version, folio.latest, folio.recorded_at)

    def counts_none(self, before: Folio, folio: Folio) -> bool:
        """Judged by the first entry that may stand on it: it was recorded no sooner than what it follows."""
        return not self.counts(before.version + 1, folio.earliest, before.recorded_at)


class Standing(NamedTuple):
    """Balances, out of how many entries, and the last version among these. Backdated entries may leave a balance
    below zero: units went out before those came in of which they were taken.
    """

    entries: int = 0
    version: int = 0
    sellable: int = 0
    reserved: int = 0
    allocated: int = 0
    shipped: int = 0

    def plus(self, other: "Standing") -> "Standing":
        return Standing(
            self.entries + other.entries,
            max(self.version, other.version),
            self.sellable + other.sellable,
            self.reserved + other.reserved,
            self.allocated + other.allocated,
            self.shipped + other.shipped,
        )


NOTHING = Standing()


def of_folio(before: Folio, folio: Folio) -> Standing:
    """What a whole folio adds."""
    return Standing(
        folio.version - before.version,
        folio.version,
        folio.sellable - before.sellable,
        folio.reserved - before.reserved,
        folio.allocated - before.allocated,
        folio.shipped - before.shipped,
    )


def of_movement(movement: dict[str, Any]) -> Standing:
    before, after = movement["before"], movement["after"]
    return Standing(1, movement["version"], *(after[name] - before[name] for name in after))


async def standing(
    reader: CassandraReader,
    sku: str,
    cutoff: Cutoff,
    location: str = MAIN,
    after: Sequence[Position] = (),
) -> Standing | None:
    """The balances then; None where nothing is known of the item at all. Nothing counts for a version that it has not
    come to.

    It adds up folios, and reads one by one only the entries of those that the cutoff goes through.
    """
    await reader.caught_up(after, VIEW)
    head: Head | None = await reader.document(VIEW, stock_stream(sku, location))
    if head is None:
        return None
    if head.version < cutoff.version < EVER:
        return NOTHING
    found, cut = NOTHING, list[tuple[Folio, Folio]]()
    for before, folio in pairwise([START, *await _folios(reader, head), folio_of(head)]):
        if cutoff.counts_all(folio):
            found = found.plus(of_folio(before, folio))
        elif not cutoff.counts_none(before, folio):
            cut.append((before, folio))
    for some in _few(cut):
        for entries in await asyncio.gather(*(_entries(reader, head, *one) for one in some)):
            for one in entries:
                if cutoff.counts(one["version"], one["occurred_at"], one["recorded_at"]):
                    found = found.plus(of_movement(one))
    return found


def _few(cut: Sequence[tuple[Folio, Folio]]) -> Iterator[Sequence[tuple[Folio, Folio]]]:
    return (cut[start : start + READS_AT_ONCE] for start in range(0, len(cut), READS_AT_ONCE))


async def _folios(reader: CassandraReader, head: Head) -> list[Folio]:
    """The folios that are turned, up to where the head says that the last one begins."""
    found: list[Folio] = []
    while True:
        since = found[-1].version if found else 0
        place = bucket_of(head.sku), head.sku, head.location, since, head.carried, FOLIOS_AT_ONCE
        rows = await reader.select(VIEW, _FOLIOS, place)
        found += [Folio(*orjson.loads(row["folio"])) for row in rows]
        if len(rows) < FOLIOS_AT_ONCE:
            return found


async def _entries(reader: CassandraReader, head: Head, before: Folio, folio: Folio) -> list[dict[str, Any]]:
    """The movements of a folio. They lie in the months in which they may have been recorded."""
    first = max(head.first_month, month_of(before.recorded_at))
    found: list[dict[str, Any]] = []
    month, missing = month_of(folio.recorded_at), folio.version - before.version
    while len(found) < missing and month >= first:
        place = bucket_of(head.sku), month, head.sku, head.location, before.version, folio.version
        found += [orjson.loads(row["movement"]) for row in await reader.select(VIEW, _ENTRIES, place)]
        month = month_before(month)
    return found


_FOLIOS = (
    "SELECT folio FROM stock_folios_{g}"
    " WHERE bucket = ? AND sku = ? AND location = ? AND version > ? AND version <= ? LIMIT ?"
)
_ENTRIES = (
    "SELECT movement FROM stock_ledger_{g}"
    " WHERE bucket = ? AND month = ? AND sku = ? AND location = ? AND version > ? AND version <= ?"
)


def served(sku: str, cutoff: Cutoff, found: Standing, location: str = MAIN) -> Served:
    """As JSON: what was asked (null: no bound), and the balances."""
    asked = {name: _bound(getattr(cutoff, name)) for name in ("as_of", "known_at")}
    of_version = {"as_of": cutoff.version} if cutoff.version != EVER else {}
    return Served(orjson.dumps({"sku": sku, "location": location, **asked, **of_version, **found._asdict()}))


def _bound(at: int) -> int | None:
    return None if at == EVER else at
