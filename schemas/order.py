"""The order, memory of the checkout: its stream says what was asked and came back. Stream `order/{id}`."""

from typing import Literal, TypeAlias

from schemas.frozen import frozen
from schemas.meta import SECOND, Micros, derived_id
from schemas.personal import SealedContact
from schemas.values import Line, PricedLine, RefusedLine

FLIGHT_LIMIT = 60 * SECOND
"""A placed order that is not decided after so long is rejected."""

REMINDER_INTERVAL = 60 * SECOND
"""So often an order asks again for what it is still owed."""

LINES_PER_RECORD = 100
"""An order of more lines keeps them in records of their own, so that its root stays small."""

OrderRejectionReason = Literal["stock", "payment", "timeout"]
AnswerOutcome = Literal["done", "pending", "nothing", "failed"]
MoneyReturn = Literal["none", "void", "refund"]
CartStep = Literal["none", "reopen", "complete"]
ClaimKind = Literal["reserved", "allocated"]
Ending = Literal["rejected", "cancelled", "completed"]


@frozen
class OrderMessage:
    order_id: str

    @property
    def stream(self) -> str:
        return order_stream(self.order_id)


def order_stream(order_id: str) -> str:
    return f"order/{order_id}"


def order_lines_path(order_id: str, chunk: int) -> str:
    """Where the `chunk`-th record of lines (from 0) of a long order lies, beside its root."""
    return f"order/{order_id}/lines/{chunk}"


def payment_id_of(order_id: str, attempt: int = 1) -> str:
    """The `attempt`-th payment (from 1) of an order."""
    return derived_id(order_id, "payment", str(attempt))


# Commands.


@frozen
class PlaceOrder(OrderMessage):
    cart_id: str
    owner: str
    lines: tuple[PricedLine, ...]
    amount: int
    currency: str
    token: str
    contact: SealedContact | None = None


@frozen
class RecordStockAnswer(OrderMessage):
    """Inventory's answer to one ReserveStock: all its lines (by number) are granted; none, if any is refused.

    `code` is the type of the rejection if the command had no effect at all: every line counts as refused.
    """

    lines: tuple[int, ...]
    refused: tuple[RefusedLine, ...]
    code: str


@frozen
class RecordAllocation(OrderMessage):
    """As RecordStockAnswer, of one AllocateStock."""

    lines: tuple[int, ...]
    refused: tuple[RefusedLine, ...]
    code: str


@frozen
class RecordRelease(OrderMessage):
    """Claims that are gone: `released` when asked to, `expired` by themselves; or `failed`: the release had
    no effect and will be asked again.
    """

    lines: tuple[int, ...]
    how: str


@frozen
class RecordShipment(OrderMessage):
    """Of the `attempt`-th ShipStock: its lines are shipped, save those refused (all, if it has a `code`)."""

    lines: tuple[int, ...]
    refused: tuple[RefusedLine, ...]
    attempt: int
    code: str


@frozen
class RecordPaymentAnswer(OrderMessage):
    """Of an authorization: done, pending (asked, not known yet) or failed (declined, with the code)."""

    payment_id: str
    outcome: str
    code: str


@frozen
class RecordCapture(OrderMessage):
    payment_id: str
    outcome: str
    code: str


@frozen
class RecordMoneyReturn(OrderMessage):
    """Of a void or a refund; `nothing`: the payment holds no money and never will."""

    payment_id: str
    verb: str
    outcome: str
    code: str


@frozen
class RecordCartAnswer(OrderMessage):
    """`how`: reopened, completed, refused (the cart had moved on by itself); failed: to be asked again."""

    cart_id: str
    how: str


@frozen
class CancelOrder(OrderMessage):
    reason: str


@frozen
class ExpireOrder(OrderMessage):
    """Sent by the order's deadline while it is placed."""


@frozen
class RemindOrder(OrderMessage):
    """Sent by the order's deadline while anything is owed."""


@frozen
class ShipOrder(OrderMessage):
    pass


@frozen
class EraseOrderContact(OrderMessage):
    """Sent by an operator when the customer's key is destroyed."""


# Events. Those that trigger a step carry all that the step needs.


@frozen
class OrderStep(OrderMessage):
    """`lines` are the stocked lines that the step concerns."""

    cart_id: str
    owner: str
    payment_id: str
    lines: tuple[Line, ...]
    amount: int
    currency: str


@frozen
class OrderPlaced(OrderMessage):
    cart_id: str
    owner: str
    payment_id: str
    lines: tuple[PricedLine, ...]
    amount: int
    currency: str
    token: str
    expires_at: Micros
    contact: SealedContact | None = None


@frozen
class OrderLinesReserved(OrderMessage):
    lines: tuple[Line, ...]


@frozen
class OrderLinesRefused(OrderMessage):
    """`withheld` are the numbers of lines that were asked for in the same command and hold nothing either."""

    lines: tuple[RefusedLine, ...]
    withheld: tuple[int, ...]


@frozen
class OrderStockSecured(OrderStep):
    token: str


@frozen
class OrderPaymentAuthorized(OrderMessage):
    payment_id: str
    amount: int


@frozen
class OrderPaymentDeclined(OrderMessage):
    payment_id: str
    code: str


@frozen
class OrderConfirmed(OrderStep):
    """Allocate the lines, capture the amount, complete the cart; what is unheard of at `remind_at`, again."""

    remind_at: Micros


@frozen
class OrderConfirmationRepeated(OrderStep):
    """A confirmed order asks again for what it has not heard of: `lines` to be allocated, and the cart."""

    attempt: int
    cart: str
    remind_at: Micros


@frozen
class OrderReturn(OrderStep):
    """What an ended order asks for: `lines` are claims to be released (`held`: reserved or allocated), `money`
    is none, void or refund, `cart` none, reopen or complete; again at `remind_at`, while it is owed.
    """

    held: str
    money: str
    cart: str
    remind_at: Micros


@frozen
class OrderRejected(OrderReturn):
    reason: str


@frozen
class OrderCancelled(OrderReturn):
    reason: str


@frozen
class OrderLinesAllocated(OrderMessage):
    lines: tuple[Line, ...]


@frozen
class OrderClaimsReturned(OrderMessage):
    """`how`: released, and that is their end; or expired: free, yet an allocation may still get them back."""

    lines: tuple[Line, ...]
    how: str


@frozen
class OrderClaimsOrphaned(OrderStep):
    """Claims that were granted after the order had ended; they are released."""

    held: str


@frozen
class OrderPaymentOrphaned(OrderStep):
    """Money that came after the order had ended; `money` says how it goes back."""

    money: str


@frozen
class OrderShipmentRequested(OrderStep):
    attempt: int
    remind_at: Micros


@frozen
class OrderLinesShipped(OrderMessage):
    lines: tuple[Line, ...]


@frozen
class OrderShipmentRefused(OrderMessage):
    lines: tuple[RefusedLine, ...]


@frozen
class OrderShipped(OrderMessage):
    pass


@frozen
class OrderCaptured(OrderMessage):
    payment_id: str
    amount: int


@frozen
class OrderCaptureFailed(OrderMessage):
    """Asked again at `retry_at`."""

    payment_id: str
    code: str
    retry_at: Micros


@frozen
class OrderCaptureRequested(OrderStep):
    """The capture is asked for again, for the `attempt`-th time (the first time is the confirmation)."""

    attempt: int
    remind_at: Micros


@frozen
class OrderMoneyReturned(OrderMessage):
    payment_id: str
    verb: str
    amount: int


@frozen
class OrderCartClosed(OrderMessage):
    how: str


@frozen
class OrderReturnRequested(OrderReturn):
    """An ended order asks once more for what is owed, for the `attempt`-th time."""

    attempt: int


@frozen
class OrderCompleted(OrderMessage):
    """Shipped and captured; if its cart is not closed yet, that is asked for again at `remind_at`."""

    remind_at: Micros


@frozen
class OrderSettled(OrderMessage):
    """The order has ended, and nothing is owed any more."""


@frozen
class OrderContactErased(OrderMessage):
    """The customer's key is destroyed: the contact that the order was placed with cannot be read any more."""


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
    | EraseOrderContact
)
OrderEvent: TypeAlias = (
    OrderPlaced
    | OrderLinesReserved
    | OrderLinesRefused
    | OrderStockSecured
    | OrderPaymentAuthorized
    | OrderPaymentDeclined
    | OrderConfirmed
    | OrderConfirmationRepeated
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
    | OrderCompleted
    | OrderSettled
    | OrderContactErased
)


# State: a small root, in which each line is one letter; many lines are in records of their own.

Claim = Literal["-", "x", "o", "r", "e", "a", "d"]
"""Of a line: - needs no stock, x refused; or o asked, r reserved, e expired, a allocated, d done with."""

Parcel = Literal["-", "?", "s"]
"""Of a line: - not asked to be shipped (or refused), ? asked and not answered, s shipped."""

Money = Literal["none", "asked", "declined", "authorized", "captured", "returned"]


@frozen
class OrderLines:
    """Some of the stocked lines of a long order; never changes."""

    order_id: str
    lines: tuple[Line, ...]


@frozen
class _LivingOrder:
    """`claims` has one `Claim` for each line, in order; `lines` are the stocked, unless they lie apart.

    Every state says at its end whether the order has a contact that is not erased.
    """

    order_id: str
    cart_id: str
    owner: str
    amount: int
    currency: str
    lines: tuple[Line, ...]
    claims: str
    money: str

    @property
    def payment_id(self) -> str:
        return payment_id_of(self.order_id)


@frozen
class PlacedOrder(_LivingOrder):
    token: str
    expires_at: Micros
    has_contact: bool = False


@frozen
class ConfirmedOrder(_LivingOrder):
    """`parcels` has one `Parcel` for each line; `cart` is complete while that is owed, else none."""

    parcels: str
    cart: str
    shipments: int
    captures: int
    attempt: int
    remind_at: Micros
    has_contact: bool = False


@frozen
class EndedOrder(_LivingOrder):
    """`held` says which release ends its claims, `cart` what is owed to the cart."""

    ending: str
    held: str
    cart: str
    attempt: int
    remind_at: Micros
    has_contact: bool = False


@frozen
class SettledOrder:
    order_id: str
    owner: str
    ending: str
    has_contact: bool = False


Order: TypeAlias = PlacedOrder | ConfirmedOrder | EndedOrder | SettledOrder
OrderState: TypeAlias = PlacedOrder | ConfirmedOrder | EndedOrder | SettledOrder | OrderLines
