"""Trade that never was, and yet keeps every law: stock events of many SKUs, written as the command worker writes them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import accumulate
from random import Random

from schemas.codec import Codec
from schemas.inventory import (
    StockAdjusted,
    StockAllocated,
    StockAllocationReleased,
    StockEvent,
    StockItemRegistered,
    StockReceived,
    StockReservationExpired,
    StockReservationReleased,
    StockReserved,
    StockShipped,
)
from schemas.meta import MINUTE, NO_HASH, SECOND, derived_id
from schemas.values import MAIN

BEGINNING = 1_291_161_600 * SECOND
BETWEEN_EVENTS = SECOND // 100
DELIVERY = 5_000


@dataclass
class _Claim:
    """A promise to one order; it moves on or ends."""

    order: str
    quantity: int
    expires_at: int
    is_allocated: bool = False


@dataclass
class _Item:
    sku: str
    version: int = 0
    digest: bytes = NO_HASH
    sellable: int = 0
    reserved: int = 0
    allocated: int = 0
    shipped: int = 0
    claims: list[_Claim] = field(default_factory=list)

    @property
    def head(self) -> tuple[str, str, int, int, int, int]:
        return self.sku, MAIN, self.sellable, self.reserved, self.allocated, self.shipped

    def of(self, claim: _Claim) -> tuple[str, int, str, int]:
        return claim.order, 0, derived_id(claim.order, "0", self.sku, MAIN), claim.quantity


class StockHistory:
    """Iterates over (key, Kafka value), the same for the same seed. All SKUs are wanted alike, or by Zipf's law: the
    n-th of them a n-th as often as the first.
    """

    def __init__(self, records: int, skus: int, seed: int = 1, *, by_zipf: bool = False) -> None:
        self._records = records
        self._records = records
        self._weights = [*accumulate(1 / n if by_zipf else 1 for n in range(1, skus + 1))]
        self._random = Random(seed)  # noqa: S311  # a seed decides everything: that is the point
        self._items = [_Item(f"{10_000 + n}") for n in range(skus)]
        self._codec = Codec()
        self._now = BEGINNING

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        choose = self._random.choices
        for _ in range(self._records):
            (item,) = choose(self._items, cum_weights=self._weights)
            self._now += BETWEEN_EVENTS
            yield item.sku, self._written(item, self._next(item))

    def _next(self, item: _Item) -> StockEvent:
        """What happens to the item now; its balances are those after it."""
        if item.version == 0:
            return StockItemRegistered(*item.head)
        if item.sellable - item.reserved - item.allocated < 10:
            item.sellable += DELIVERY
            return StockReceived(*item.head, DELIVERY, "a delivery")
        if self._random.random() < 0.02:
            item.sellable += 1
            return StockAdjusted(
                *item.head, item.sellable - 1, item.sellable, "found", "behind the shelf", None
            )
        if not item.claims or (len(item.claims) < 50 and self._random.random() < 0.35):
            return self._reserved(item)
        return self._moved_on(item, self._random.randrange(len(item.claims)))

    def _reserved(self, item: _Item) -> StockEvent:
        claim = _Claim(self._id(), self._random.randint(1, 9), self._now + 10 * MINUTE)
        item.claims.append(claim)
        item.reserved += claim.quantity
        return StockReserved(*item.head, *item.of(claim), claim.expires_at)  # type: ignore[arg-type]  # an instant

    def _moved_on(self, item: _Item, number: int) -> StockEvent:
        claim, is_well = item.claims[number], self._random.random() < 0.95
        if not claim.is_allocated and is_well and self._now < claim.expires_at:
            claim.is_allocated = True
            item.reserved -= claim.quantity
            item.allocated += claim.quantity
            return StockAllocated(*item.head, *item.of(claim), claim.quantity)
        del item.claims[number]
        if claim.is_allocated:
            item.allocated -= claim.quantity
            if not is_well:
                return StockAllocationReleased(*item.head, *item.of(claim), "cancelled")
            item.sellable, item.shipped = item.sellable - claim.quantity, item.shipped + claim.quantity
            return StockShipped(*item.head, *item.of(claim))
        item.reserved -= claim.quantity
        if self._now >= claim.expires_at:
            return StockReservationExpired(*item.head, *item.of(claim))
        return StockReservationReleased(*item.head, *item.of(claim), "cancelled")

    def _written(self, item: _Item, event: StockEvent) -> bytes:
        item.version += 1
        command, trace = self._id(), self._id()
        meta = {
            "event_id": derived_id(command, "0"),
            "stream": event.stream,
            "version": item.version,
            "occurred_at": self._now,
            "recorded_at": self._now,
            "command_id": command,
            "correlation_id": trace,
            "causation_id": trace,
            "actor_kind": "saga",
            "actor_id": "checkout",
            "batch_id": f"{trace[:12]}-{item.version}",
            "batch_index": 0,
            "batch_size": 1,
            "traceparent": f"00-{trace.replace('-', '')}-{trace[:8]}{trace[-8:]}-01",
            "previous": item.digest,
        }
        value = self._codec.encode(event, meta)
        item.digest = sha256(value).digest()
        return value

    def _id(self) -> str:
        digits = f"{self._random.getrandbits(128):032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
