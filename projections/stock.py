"""How many units there are of a SKU at a location, how many are promised, and how many can still be had."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import orjson

from projections.redis_store import Mark, RedisReader, RedisView
from projections.view import Served, UnexpectedFact
from schemas.codec import Decoded
from schemas.inventory import StockEvent, StockPolicyChanged, stock_stream
from schemas.meta import EventMeta
from schemas.values import MAIN, Position

DEMAND = "demand"
"""The index of SKUs by units wanted: see `hot`."""


@dataclass(frozen=True, slots=True)
class StockLevel:
    sku: str
    location: str
    sellable: int = 0
    reserved: int = 0
    allocated: int = 0
    shipped: int = 0
    safety_stock: int = 0
    low_stock_at: int = 0
    version: int = 0

    @property
    def available(self) -> int:
        return max(0, self.sellable - self.reserved - self.allocated - self.safety_stock)

    @property
    def wanted(self) -> int:
        """Units that customers hold or have got."""
        return self.reserved + self.allocated + self.shipped


def evolve(level: StockLevel | None, event: Decoded[EventMeta]) -> StockLevel:
    """Every stock event carries the balances after it, so there is nothing to add up."""
    body: StockEvent = event.body
    if not isinstance(body, StockEvent):
        raise UnexpectedFact(f"{type(body).__name__} is no event of a stock item")
    policy = body if isinstance(body, StockPolicyChanged) else level
    return StockLevel(
        body.sku,
        body.location,
        body.sellable,
        body.reserved,
        body.allocated,
        body.shipped,
        policy.safety_stock if policy else 0,
        policy.low_stock_at if policy else 0,
        event.meta.version,
    )


def dump(level: StockLevel) -> bytes:
    return orjson.dumps(
        {
            "sku": level.sku,
            "location": level.location,
            "sellable": level.sellable,
            "reserved": level.reserved,
            "allocated": level.allocated,
            "shipped": level.shipped,
            "safety_stock": level.safety_stock,
            "low_stock_at": level.low_stock_at,
            "available": level.available,
            "version": level.version,
        }
    )


def load(json: bytes) -> StockLevel:
    fields = orjson.loads(json)
    del fields["available"]
    return StockLevel(**fields)


def marks(_before: StockLevel | None, after: StockLevel) -> Iterable[Mark]:
    """The demand for a SKU is that at the main location: it is set, never added up."""
    if after.location == MAIN:
        yield Mark(DEMAND, after.sku, after.wanted)


VIEW = RedisView(
    name="stock",
    version=1,
    kind="stock",
    aggregates=("inventory",),
    evolve=evolve,
    dump=dump,
    load=load,
    marks=marks,
)


async def by_sku(
    reader: RedisReader, sku: str, location: str = MAIN, after: Sequence[Position] = ()
) -> Served | None:
    await reader.caught_up(after, VIEW)
    return await reader.document(VIEW, stock_stream(sku, location))
