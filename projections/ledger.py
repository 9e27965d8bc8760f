"""The stock ledger: every event of a stock item with the balances before and after it, who did it, and why."""

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from projections.cassandra_store import CassandraView, Insert, Row
from projections.store import Folded
from projections.view import Fact, UnexpectedFact
from schemas.codec import Decoded
from schemas.inventory import StockEvent
from schemas.meta import DAY, EventMeta
from schemas.topics import murmur2

BUCKETS = 32
"""So many partitions a month: few enough to write in large batches, enough to spread over a cluster."""

FOLIO_MAX = 128
"""So many movements stand on a folio at most: what a question about the past reads one by one where it cuts one."""

LATE = DAY
"""Movements that happened within so long of the newest come in about the order in which they happened."""


@lru_cache(maxsize=65_536)
def bucket_of(sku: str) -> int:
    return (murmur2(sku.encode()) & 0x7FFFFFFF) % BUCKETS


def month_of(recorded_at: int) -> int:
    """yyyymm, in UTC. `recorded_at` never runs backwards in a stream, so neither do the months."""
    return _month_of_day(recorded_at // DAY)


@lru_cache(maxsize=4_096)
def _month_of_day(day: int) -> int:
    then = datetime.fromtimestamp(day * 86_400, UTC)
    return then.year * 100 + then.month


def month_before(month: int) -> int:
    return month - 1 if month % 100 > 1 else month - 100 + 11


class Head(NamedTuple):
    """Where a stock item's ledger has got to: its balances, the months between which its rows lie, its last folio.

    A folio is a run of movements that happened about in order. The one that is being written began behind version
    `carried`, and what stands on it happened between `earliest` and `latest`; `newest` is the latest of all.
    """

    bucket: int
    sku: str
    location: str
    version: int
    recorded_at: int
    sellable: int
    reserved: int
    allocated: int
    shipped: int
    first_month: int
    last_month: int
    carried: int
    earliest: int
    latest: int
    newest: int


def evolve(head: Head | None, event: Decoded[EventMeta]) -> Head:
    body, meta = event.body, event.meta
    if not isinstance(body, StockEvent):
        raise UnexpectedFact(f"{type(body).__name__} is no event of a stock item")
    at = meta.occurred_at
    month = month_of(meta.recorded_at)
    turned = head is None or turns(head, at)
    return Head(
        bucket_of(body.sku),
        body.sku,
        body.location,
        meta.version,
        meta.recorded_at,
        body.sellable,
        body.reserved,
        body.allocated,
        body.shipped,
        head.first_month if head else month,
        month,
        meta.version - 1 if head is None or turned else head.carried,
        at if head is None or turned else min(at, head.earliest),
        at if head is None or turned else max(at, head.latest),
        at if head is None else max(at, head.newest),
    )


def turns(head: Head, occurred_at: int) -> bool:
    """Whether a movement that happened then begins a folio: the last one is full, or lateness begins or ends.

    What is entered late stands on folios of its own, so that the others do not reach back to it.
    """
    is_late = occurred_at < head.newest - LATE
    was_late = head.latest < head.newest - LATE
    return is_late != was_late or head.version - head.carried >= FOLIO_MAX


class Folio(NamedTuple):
    """The foot of a folio: its last version and when that was recorded, the time it spans, the balances carried
    forward.
    """

    version: int
    recorded_at: int
    earliest: int
    latest: int
    sellable: int
    reserved: int
    allocated: int
    shipped: int


def folio_of(head: Head) -> Folio:
    """The last folio, as if it ended here."""
    balances = head.sellable, head.reserved, head.allocated, head.shipped
    return Folio(head.version, head.recorded_at, head.earliest, head.latest, *balances)


_BALANCES = ("sellable", "reserved", "allocated", "shipped")
_NOTHING = dict.fromkeys(_BALANCES, 0)

HEAD = Insert("stock_heads", ("bucket", "sku", "location"), ("version", "head"), partition=1)
MOVEMENT = Insert(
    "stock_ledger", ("bucket", "month", "sku", "location", "version"), ("movement",), partition=2
)
FOLIO = Insert("stock_folios", ("bucket", "sku", "location", "version"), ("folio",), partition=1)


def rows(folded: Folded) -> Iterable[Row]:
    """A row for each event, the foot of each folio that is turned, and the heads: how far the rows have got."""
    for before, fact in folded.steps:
        yield movement(before, fact)
        if before is not None and turns(before, fact.what.meta.occurred_at):
            folio = orjson.dumps(tuple(folio_of(before))).decode()
            yield Row(FOLIO, (*before[:4], folio), before.version)
    for head in folded.after.values():
        yield Row(HEAD, (*head[:4], orjson.dumps(tuple(head)).decode()), head.version)


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
        "corrects": getattr(body, "corrects", None) or "",
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
    version=2,
    kind="stock",
    aggregates=("inventory",),
    evolve=evolve,
    inserts=(HEAD, MOVEMENT, FOLIO),
    rows=rows,
    row_per_fact=True,
    key_of=_key_of,
    load=lambda columns: Head(*orjson.loads(columns["head"])),
)
