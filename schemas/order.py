"""The order: the memory of the checkout; its stream records what was asked and what came back. Stream `order/{id}`."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from schemas.meta import SECOND, Micros, derived_id
from schemas.values import Line, PricedLine, RefusedLine

FLIGHT_LIMIT = 60 * SECOND
"""A placed order that is not decided after so long is rejected."""

REMINDER_INTERVAL = 60 * SECOND
"""So often an ended order asks again for what is still owed to it."""

OrderRejectionReason = Literal["stock", "payment", "timeout"]
AnswerOutcome = Literal["done", "pending", "nothing", "failed"]
Money = Literal["none", "void", "refund"]


@dataclass(frozen=True)
class OrderMessage:
    order_id: str

    @property
    def stream(self) -> str:
        return order_stream(self.order_id)


def order_stream(order_id: str) -> str:
    return f"order/{order_id}"


def payment_id_of(order_id: str, attempt: int = 1) -> str:
    """The `attempt`-th payment (from 1) of an order."""
    return derived_id(order_id, "payment", str(attempt))


# Commands.


@dataclass(frozen=True)
class PlaceOrder(OrderMessage):
    cart_id: str
    owner: str
    lines: tuple[PricedLine, ...]
    amount: int
    currency: str
    token: str


@dataclass(frozen=True)
class RecordStockAnswer(OrderMessage):
    """Inventory's answer to one ReserveStock: the lines it spoke of (by number), granted unless refused."""

    lines: tuple[int, ...]
    refused: tuple[RefusedLine, ...]


@dataclass(frozen=True)
class RecordAllocation(OrderMessage):
    lines: tuple[int, ...]
    refused: tuple[RefusedLine, ...]


@dataclass(frozen=True)
class RecordRelease(OrderMessage):
    """Claims that are gone: released when asked to (`how = released`) or expired by themselves (`expired`)."""

    lines: tuple[int, ...]
    how: str


@dataclass(frozen=True)
class RecordShipment(OrderMessage):
    lines: tuple[int, ...]
    refused: tuple[RefusedLine, ...]


@dataclass(frozen=True)
class RecordPaymentAnswer(OrderMessage):
    """Of an authorization: done, pending (asked, not known yet) or failed (declined, with the code)."""

    payment_id: str
    outcome: str
    amount: int
    code: str


@dataclass(frozen=True)
class RecordCapture(OrderMessage):
    payment_id: str
    outcome: str
    amount: int
    code: str


@dataclass(frozen=True)
class RecordMoneyReturn(OrderMessage):
    """Of a void or a refund; `nothing`: the payment holds no money and never will."""

    payment_id: str
    verb: str
    outcome: str
    amount: int
    code: str


@dataclass(frozen=True)
class RecordCartAnswer(OrderMessage):
    """`how`: reopened, completed, or refused (the cart had moved on by itself)."""

    cart_id: str
    how: str


@dataclass(frozen=True)
class CancelOrder(OrderMessage):
    reason: str


@dataclass(frozen=True)
class ExpireOrder(OrderMessage):
    """Sent by the order's deadline while it is placed."""


@dataclass(frozen=True)
class RemindOrder(OrderMessage):
    """Sent by the order's deadline while anything is owed."""

    attempt: int


@dataclass(frozen=True)
class ShipOrder(OrderMessage):
    pass


# Events. Those that trigger a step carry all that the step needs.


@dataclass(frozen=True)
class OrderStep(OrderMessage):
    """`lines` are the stocked lines that the step concerns."""

    cart_id: str
    owner: str
    payment_id: str
    lines: tuple[Line, ...]
    amount: int
    currency: str


@dataclass(frozen=True)
class OrderPlaced(OrderMessage):
    cart_id: str
    owner: str
    payment_id: str
    lines: tuple[PricedLine, ...]
    amount: int
    currency: str
    token: str
    expires_at: Micros


@dataclass(frozen=True)
class OrderLinesReserved(OrderMessage):
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class OrderLinesRefused(OrderMessage):
    lines: tuple[RefusedLine, ...]


@dataclass(frozen=True)
class OrderStockSecured(OrderStep):
    token: str


@dataclass(frozen=True)
class OrderPaymentAuthorized(OrderMessage):
    payment_id: str
    amount: int


@dataclass(frozen=True)
class OrderPaymentDeclined(OrderMessage):
    payment_id: str
    code: str


@dataclass(frozen=True)
class OrderConfirmed(OrderStep):
    pass


@dataclass(frozen=True)
class OrderRejected(OrderStep):
    """`lines`: claims to be released; `money`: what must be asked of the payment (none or void)."""

    reason: str
    money: str


@dataclass(frozen=True)
class OrderCancelled(OrderStep):
    reason: str
    money: str


@dataclass(frozen=True)
class OrderLinesAllocated(OrderMessage):
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class OrderClaimsReturned(OrderMessage):
    lines: tuple[Line, ...]
    how: str


@dataclass(frozen=True)
class OrderClaimsOrphaned(OrderStep):
    """Claims that were granted after the order had ended; they are released."""


@dataclass(frozen=True)
class OrderPaymentOrphaned(OrderStep):
    """Money that came after the order had ended; `money` says how it goes back."""

    money: str


@dataclass(frozen=True)
class OrderShipmentRequested(OrderStep):
    pass


@dataclass(frozen=True)
class OrderLinesShipped(OrderMessage):
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class OrderShipmentRefused(OrderMessage):
    lines: tuple[RefusedLine, ...]


@dataclass(frozen=True)
class OrderShipped(OrderMessage):
    pass


@dataclass(frozen=True)
class OrderCaptured(OrderMessage):
    payment_id: str
    amount: int


@dataclass(frozen=True)
class OrderCaptureFailed(OrderMessage):
    """Asked again at `retry_at`."""

    payment_id: str
    code: str
    retry_at: Micros


@dataclass(frozen=True)
class OrderCaptureRequested(OrderStep):
    """The capture is asked for again, for the `attempt`-th time (the first time is the confirmation)."""

    attempt: int


@dataclass(frozen=True)
class OrderMoneyReturned(OrderMessage):
    payment_id: str
    verb: str
    amount: int


@dataclass(frozen=True)
class OrderCartClosed(OrderMessage):
    how: str


@dataclass(frozen=True)
class OrderReturnRequested(OrderStep):
    """An ended order asks once more for what is owed: `lines` are claims, then money, then the cart."""

    attempt: int
    money: str
    cart: bool


@dataclass(frozen=True)
class OrderSettled(OrderMessage):
    """Nothing is owed any more."""


@dataclass(frozen=True)
class OrderCompleted(OrderMessage):
    pass


OrderCommand: TypeAlias = (
    PlaceOrder
    | RecordStockAnswer
    | RecordAllocation
    | RecordRelease
    | RecordShipment
    | RecordPaymentAnswer
    | RecordCapture
    | RecordMoneyReturn
    | RecordCartAnswer
    | CancelOrder
    | ExpireOrder
    | RemindOrder
    | ShipOrder
)
OrderEvent: TypeAlias = (
    OrderPlaced
    | OrderLinesReserved
    | OrderLinesRefused
    | OrderStockSecured
    | OrderPaymentAuthorized
    | OrderPaymentDeclined
    | OrderConfirmed
    | OrderRejected
    | OrderCancelled
    | OrderLinesAllocated
    | OrderClaimsReturned
    | OrderClaimsOrphaned
    | OrderPaymentOrphaned
    | OrderShipmentRequested
    | OrderLinesShipped
    | OrderShipmentRefused
    | OrderShipped
    | OrderCaptured
    | OrderCaptureFailed
    | OrderCaptureRequested
    | OrderMoneyReturned
    | OrderCartClosed
    | OrderReturnRequested
    | OrderSettled
    | OrderCompleted
)


@dataclass(frozen=True)
class PlacedOrder:
    owner: str


OrderState: TypeAlias = PlacedOrder
