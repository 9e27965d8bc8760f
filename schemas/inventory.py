"""Inventory: how many units there are, and to whom they are promised. Stream `stock/{sku}/{location}`."""

from typing import Literal, TypeAlias

from schemas.frozen import frozen
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


@frozen
class ReceiptLine:
    sku: str
    quantity: int


@frozen
class ReceiveStock:
    """Goods came in under a document; registers the item if it is new."""

    location: str
    document: str
    lines: tuple[ReceiptLine, ...]

    @property
    def stream(self) -> str:
        return stock_stream(self.lines[0].sku, self.location)


@frozen
class _OneItem:
    sku: str
    location: str

    @property
    def stream(self) -> str:
        return stock_stream(self.sku, self.location)


@frozen
class ChangeStockPolicy(_OneItem):
    safety_stock: int
    low_stock_at: int


@frozen
class AdjustStock(_OneItem):
    """A fact about the shelf: `delta` units more or fewer, and why; `corrects` names an earlier event's id."""

    delta: int
    reason: str
    note: str
    corrects: str | None


@frozen
class ExpireReservation(_OneItem):
    """Sent by the deadline of one claim."""

    order_id: str
    line: int


@frozen
class _OrderLines:
    """What an order asks of one inventory partition; `attempt` counts from 1 how often it has asked."""

    order_id: str
    location: str
    lines: tuple[Line, ...]
    attempt: int

    @property
    def stream(self) -> str:
        return stock_stream(self.lines[0].sku, self.location)


@frozen
class ReserveStock(_OrderLines):
    """All lines or none."""

    expires_at: Micros


@frozen
class ReleaseReservation(_OrderLines):
    reason: str


@frozen
class AllocateStock(_OrderLines):
    """All lines or none; also a claim that expired meanwhile, if its units are still free."""


@frozen
class ReleaseAllocation(_OrderLines):
    reason: str


@frozen
class ShipStock(_OrderLines):
    """Every line that is covered is shipped; the others are refused one by one."""


# Events. Each carries the balances after it.


@frozen
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


@frozen
class StockItemRegistered(StockEvent):
    pass


@frozen
class StockReceived(StockEvent):
    quantity: int
    document: str


@frozen
class StockPolicyChanged(StockEvent):
    safety_stock: int
    low_stock_at: int


@frozen
class StockAdjusted(StockEvent):
    """`before` and `after` are the sellable units; `after - before` is what was asked."""

    before: int
    after: int
    reason: str
    note: str
    corrects: str | None


@frozen
class StockShortfallFound(StockEvent):
    """Promises exceed what is on the shelf by `uncovered` units."""

    uncovered: int


@frozen
class ClaimEvent(StockEvent):
    """`quantity` units moved for the `line`-th line of an order."""

    order_id: str
    line: int
    claim_id: str
    quantity: int


@frozen
class StockReserved(ClaimEvent):
    expires_at: Micros


@frozen
class StockReservationRefused(ClaimEvent):
    """`available` is what could have been granted at that moment."""

    available: int


@frozen
class StockReservationReleased(ClaimEvent):
    """`quantity` is 0 where the claim had expired before: its units were free already."""

    reason: str


@frozen
class StockReservationExpired(ClaimEvent):
    pass


@frozen
class StockAllocated(ClaimEvent):
    """`from_reserved` units were reserved until now (0 for a claim that had expired)."""

    from_reserved: int


@frozen
class StockAllocationRefused(ClaimEvent):
    available: int


@frozen
class StockAllocationReleased(ClaimEvent):
    reason: str


@frozen
class StockShipped(ClaimEvent):
    pass


@frozen
class StockShipmentRefused(ClaimEvent):
    reason: str


@frozen
class StockDepleted(StockEvent):
    """Nothing is available any more."""


@frozen
class StockReplenished(StockEvent):
    """Something is available again."""

    available: int


@frozen
class LowStockReached(StockEvent):
    available: int
    low_stock_at: int


# State: one record for the quantities of an item, one for each live claim on it.


@frozen
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


@frozen
class _Claim:
    sku: str
    location: str
    order_id: str
    line: int
    quantity: int


@frozen
class ActiveClaim(_Claim):
    expires_at: Micros


@frozen
class ExpiredClaim(_Claim):
    """Its units are free again; it may still be allocated as long as they are."""


@frozen
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
