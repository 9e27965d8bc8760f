"""The stock ledger: every event of a stock item with the balances before and after it, who did it, and why."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from projections.cassandra_store import CassandraReader, CassandraView, Insert, Row
from projections.cursor import BadCursor, cursor_of, place_of
from projections.store import Folded
from projections.view import Fact, Served, UnexpectedFact
from schemas.codec import Decoded
from schemas.inventory import StockEvent
from schemas.meta import SECOND, EventMeta
from schemas.topics import murmur2
from schemas.values import MAIN, Position

BUCKETS = 32
"""So many partitions a month: few enough to write in large batches, enough to spread over a cluster."""


@lru_cache(maxsize=65_536)
def bucket_of(sku: str) -> int:
    return (murmur2(sku.encode()) & 0x7FFFFFFF) % BUCKETS


def month_of(recorded_at: int) -> int:
    """yyyymm, in UTC. `recorded_at` never runs backwards in a stream, so neither do the months."""
    return _month_of_day(recorded_at // (86_400 * SECOND))


@lru_cache(maxsize=4_096)
def _month_of_day(day: int) -> int:
    then = datetime.fromtimestamp(day * 86_400, UTC)
    return then.year * 100 + then.month


def month_before(month: int) -> int:
    return month - 1 if month % 100 > 1 else month - 100 + 11


@dataclass(frozen=True, slots=True)
class Head:
    """Where a stock item's ledger has got to: its balances, and the months between which its rows lie."""

    bucket: int
    sku: str
    location: str
    sellable: int
    reserved: int
    allocated: int
    shipped: int
    first_month: int
    last_month: int
    version: int


def evolve(head: Head | None, event: Decoded[EventMeta]) -> Head:
    body: StockEvent = event.body
    if not isinstance(body, StockEvent):
        raise UnexpectedFact(f"{type(body).__name__} is no event of a stock item")
    month = month_of(event.meta.recorded_at)
    return Head(
        bucket_of(body.sku),
        body.sku,
        body.location,
        body.sellable,
        body.reserved,
        body.allocated,
        body.shipped,
        head.first_month if head else month,
        month,
        event.meta.version,
    )


_BALANCES = ("sellable", "reserved", "allocated", "shipped")
_NOTHING = dict.fromkeys(_BALANCES, 0)

HEAD = Insert(
    "stock_heads",
    ("bucket", "sku", "location"),
    ("version", *_BALANCES, "first_month", "last_month"),
    partition=1,
)
MOVEMENT = Insert(
    "stock_ledger", ("bucket", "month", "sku", "location", "version"), ("movement",), partition=2
)


def rows(folded: Folded) -> Iterable[Row]:
    """A row for each event, and the heads, which show how far the rows have got."""
    for before, fact in folded.steps:
        yield movement(before, fact)
    for head in folded.after.values():
        yield HEAD.row_of(head)


def movement(before: Head | None, fact: Fact) -> Row:
    """Refusals and policies are written down too: a row per version shows that none is missing."""
    body, meta = fact.what.body, fact.what.meta
    place = (bucket_of(body.sku), month_of(meta.recorded_at), body.sku, body.location, meta.version)
    return Row(MOVEMENT, (*place, orjson.dumps(_shown(before, body, meta)).decode()), meta.version)


def _shown(before: Head | None, body: Any, meta: EventMeta) -> dict[str, Any]:
    """The row as it is served: what happened, the balances around it, who did it, and what caused it."""
    return {
        "version": meta.version,
        "type": type(body).__name__,
        "occurred_at": meta.occurred_at,
        "recorded_at": meta.recorded_at,
        "before": _balances(before) if before else _NOTHING,
        "after": _balances(body),
        "quantity": _quantity_of(body),
        "reason": getattr(body, "reason", ""),
        "note": getattr(body, "note", ""),
        "document": getattr(body, "document", ""),
        "order_id": getattr(body, "order_id", ""),
        "line": getattr(body, "line", 0),
        "actor_kind": meta.actor_kind,
        "actor_id": meta.actor_id,
        "command_id": meta.command_id,
        "correlation_id": meta.correlation_id,
        "causation_id": meta.causation_id,
        "event_id": meta.event_id,
        "traceparent": meta.traceparent,
    }


def _balances(of: Head | StockEvent) -> dict[str, int]:
    return {
        "sellable": of.sellable,
        "reserved": of.reserved,
        "allocated": of.allocated,
        "shipped": of.shipped,
    }


def _quantity_of(body: Any) -> int:
    """The units that the event speaks of; of an adjustment signed, as it was asked."""
    if hasattr(body, "quantity"):
        return int(body.quantity)
    return int(body.after - body.before) if hasattr(body, "after") else 0


def _key_of(stream: str) -> tuple[int, str, str]:
    sku, _, location = stream.removeprefix("stock/").rpartition("/")
    return bucket_of(sku), sku, location


VIEW = CassandraView(
    name="ledger",
    version=1,
    kind="stock",
    aggregates=("inventory",),
    evolve=evolve,
    inserts=(HEAD, MOVEMENT),
    rows=rows,
    row_per_fact=True,
    key_of=_key_of,
    load=lambda columns: Head(**columns),
)


async def history(
    reader: CassandraReader,
    sku: str,
    cursor: str = "",
    limit: int = 50,
    location: str = MAIN,
    after: Sequence[Position] = (),
) -> Served:
    """A page of what happened to a stock item, newest first, over all months; `next` is a cursor or null."""
    await reader.caught_up(after, VIEW)
    head = await reader.document(VIEW, f"stock/{sku}/{location}")
    month, below = _start(head, cursor)
    found: list[dict[str, Any]] = []
    while head and len(found) <= limit and month >= head.first_month:
        place = (bucket_of(sku), month, sku, location, below, limit + 1 - len(found))
        found += await reader.select(VIEW, _MONTH, place)
        month = month_before(month)
    more = len(found) > limit
    last = found[limit - 1] if more else None
    page = [orjson.Fragment(row["movement"]) for row in found[:limit]]
    return Served(
        orjson.dumps({"movements": page, "next": last and cursor_of(last["month"], last["version"])})
    )


_MONTH = (
    "SELECT month, version, movement FROM stock_ledger_{g}"
    " WHERE bucket = ? AND month = ? AND sku = ? AND location = ? AND version < ? LIMIT ?"
)


def _start(head: Head | None, cursor: str) -> tuple[int, int]:
    """The month to begin with, and the version below which to begin. A cursor's month may be forged: it is
    bounded by the head's.
    """
    if not cursor:
        return (head.last_month, head.version + 1) if head else (0, 0)
    month, version = (int(part) for part in place_of(cursor, int, int))
    if not (1 <= month % 100 <= 12 and 0 < version < 2**63):
        raise BadCursor(cursor[:80])
    return (min(month, head.last_month), version) if head else (0, 0)
