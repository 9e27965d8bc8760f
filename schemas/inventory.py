"""Inventory: how many units there are, and to whom they are promised. Stream `stock/{sku}/{location}`."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from schemas.meta import MINUTE, Micros
from schemas.values import Line

RESERVATION_LIMIT = 10 * MINUTE

AdjustmentReason = Literal[
    "damaged", "shrinkage", "found", "count_correction", "channel_transfer", "reversal", "unknown"
]
ReleaseReason = Literal["rejected", "cancelled", "orphaned", "reminded"]
ShipmentRefusal = Literal["not_allocated", "not_on_shelf"]


def stock_stream(sku: str, location: str) -> str:
    return f"stock/{sku}/{location}"


def claim_path(sku: str, location: str, order_id: str, line: int) -> str:
    """Where the state record of one claim lies, beside its stock item."""
    return f"claim/{sku}/{location}/{order_id}/{line}"


# Commands. A command's lines all live in one inventory partition (`schemas.topics.partition_of(sku)`).


@dataclass(frozen=True)
class ReceiptLine:
    sku: str
    quantity: int


@dataclass(frozen=True)
class ReceiveStock:
    """Goods came in under a document; registers the item if it is new."""

    location: str
    document: str
    lines: tuple[ReceiptLine, ...]

    @property
    def stream(self) -> str:
        return stock_stream(self.lines[0].sku, self.location)


@dataclass(frozen=True)
class _OneItem:
    sku: str
    location: str

    @property
    def stream(self) -> str:
        return stock_stream(self.sku, self.location)


@dataclass(frozen=True)
class ChangeStockPolicy(_OneItem):
    safety_stock: int
    low_stock_at: int


@dataclass(frozen=True)
class AdjustStock(_OneItem):
    """A fact about the shelf: `delta` units more or fewer, and why; `corrects` names an earlier event's id."""

    delta: int
    reason: str
    note: str
    corrects: str | None


@dataclass(frozen=True)
class ExpireReservation(_OneItem):
    """Sent by the deadline of one claim."""

    order_id: str
    line: int


@dataclass(frozen=True)
class _OrderLines:
    """What an order asks of one inventory partition; `attempt` counts from 1 how often it has asked."""

    order_id: str
    location: str
    lines: tuple[Line, ...]
    attempt: int

    @property
    def stream(self) -> str:
        return stock_stream(self.lines[0].sku, self.location)


@dataclass(frozen=True)
class ReserveStock(_OrderLines):
    """All lines or none."""

    expires_at: Micros


@dataclass(frozen=True)
class ReleaseReservation(_OrderLines):
    reason: str


@dataclass(frozen=True)
class AllocateStock(_OrderLines):
    """All lines or none; also a claim that expired meanwhile, if its units are still free."""


@dataclass(frozen=True)
class ReleaseAllocation(_OrderLines):
    reason: str


@dataclass(frozen=True)
class ShipStock(_OrderLines):
    """Every line that is covered is shipped; the others are refused one by one."""


# Events. Each carries the balances after it.


@dataclass(frozen=True)
class StockEvent:
    sku: str
    location: str
    sellable: int
    reserved: int
    allocated: int
    shipped: int

    @property
    def stream(self) -> str:
        return stock_stream(self.sku, self.location)


@dataclass(frozen=True)
class StockItemRegistered(StockEvent):
    pass


@dataclass(frozen=True)
class StockReceived(StockEvent):
    quantity: int
    document: str


@dataclass(frozen=True)
class StockPolicyChanged(StockEvent):
    safety_stock: int
    low_stock_at: int


@dataclass(frozen=True)
class StockAdjusted(StockEvent):
    """`before` and `after` are the sellable units; `after - before` is what was asked."""

    before: int
    after: int
    reason: str
    note: str
    corrects: str | None


@dataclass(frozen=True)
class StockShortfallFound(StockEvent):
    """Promises exceed what is on the shelf by `uncovered` units."""

    uncovered: int


@dataclass(frozen=True)
class ClaimEvent(StockEvent):
    """`quantity` units moved for the `line`-th line of an order."""

    order_id: str
    line: int
    claim_id: str
    quantity: int


@dataclass(frozen=True)
class StockReserved(ClaimEvent):
    expires_at: Micros


@dataclass(frozen=True)
class StockReservationRefused(ClaimEvent):
    """`available` is what could have been granted at that moment."""

    available: int


@dataclass(frozen=True)
class StockReservationReleased(ClaimEvent):
    """`quantity` is 0 where the claim had expired before: its units were free already."""

    reason: str


@dataclass(frozen=True)
class StockReservationExpired(ClaimEvent):
    pass


@dataclass(frozen=True)
class StockAllocated(ClaimEvent):
    """`from_reserved` units were reserved until now (0 for a claim that had expired)."""

    from_reserved: int


@dataclass(frozen=True)
class StockAllocationRefused(ClaimEvent):
    available: int


@dataclass(frozen=True)
class StockAllocationReleased(ClaimEvent):
    reason: str


@dataclass(frozen=True)
class StockShipped(ClaimEvent):
    pass


@dataclass(frozen=True)
class StockShipmentRefused(ClaimEvent):
    reason: str


@dataclass(frozen=True)
class StockDepleted(StockEvent):
    """Nothing is available any more."""


@dataclass(frozen=True)
class StockReplenished(StockEvent):
    """Something is available again."""

    available: int


@dataclass(frozen=True)
class LowStockReached(StockEvent):
    available: int
    low_stock_at: int


# State: one record for the quantities of an item, one for each live claim on it.


@dataclass(frozen=True)
class StockItem:
    sellable: int
    reserved: int
    allocated: int
    shipped: int
    safety_stock: int
    low_stock_at: int

    @property
    def available(self) -> int:
        return max(0, self.sellable - self.reserved - self.allocated - self.safety_stock)


@dataclass(frozen=True)
class _Claim:
    sku: str
    location: str
    order_id: str
    line: int
    quantity: int


@dataclass(frozen=True)
class ActiveClaim(_Claim):
    expires_at: Micros


@dataclass(frozen=True)
class ExpiredClaim(_Claim):
    """Its units are free again; it may still be allocated as long as they are."""


@dataclass(frozen=True)
class AllocatedClaim(_Claim):
    pass


InventoryCommand: TypeAlias = (
    ReceiveStock
    | ChangeStockPolicy
    | AdjustStock
    | ReserveStock
    | ReleaseReservation
    | ExpireReservation
    | AllocateStock
    | ReleaseAllocation
    | ShipStock
)
InventoryEvent: TypeAlias = (
    StockItemRegistered
    | StockReceived
    | StockPolicyChanged
    | StockAdjusted
    | StockShortfallFound
    | StockReserved
    | StockReservationRefused
    | StockReservationReleased
    | StockReservationExpired
    | StockAllocated
    | StockAllocationRefused
    | StockAllocationReleased
    | StockShipped
    | StockShipmentRefused
    | StockDepleted
    | StockReplenished
    | LowStockReached
)
Claim: TypeAlias = ActiveClaim | ExpiredClaim | AllocatedClaim
InventoryState: TypeAlias = StockItem | Claim
