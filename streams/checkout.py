"""The checkout: from a cart to a confirmed order; stock first, then money, then the confirmation."""

from commands.decider import Event
from schemas.cart import CartCheckedOut, CompleteCart
from schemas.decisions import Decided
from schemas.inventory import RESERVATION_LIMIT, AllocateStock, ReserveStock
from schemas.meta import Micros
from schemas.order import (
    OrderCaptureRequested,
    OrderConfirmationRepeated,
    OrderConfirmed,
    OrderPlaced,
    OrderStep,
    OrderStockSecured,
    PlaceOrder,
    RecordAllocation,
    RecordCapture,
    RecordCartAnswer,
    RecordPaymentAnswer,
    RecordStockAnswer,
)
from schemas.payment import (
    PaymentAuthorized,
    PaymentCaptured,
    PaymentCaptureFailed,
    PaymentDeclined,
    RequestAuthorization,
    RequestCapture,
)
from schemas.topics import Topics
from schemas.values import MAIN, Line
from streams.asked import (
    Asked,
    Asking,
    Fact,
    asking_order,
    cart_outcome,
    code_of,
    money_outcome,
)

ACTOR = "checkout"


def react(fact: Fact, topics: Topics) -> list[Asked]:
    asking = Asking(ACTOR, fact)
    if isinstance(fact, Decided):
        order_id = asking_order(fact)
        return [] if order_id is None else _hear(fact, order_id, asking)
    if isinstance(fact.body, OrderPlaced):
        until = Micros(fact.meta.recorded_at + RESERVATION_LIMIT)
        return _reserve(fact.body, until, asking, topics)
    return _go_on(fact.body, asking, topics)


def _go_on(event: Event, asking: Asking, topics: Topics) -> list[Asked]:
    match event:
        case CartCheckedOut():
            return [_place(event, asking)]
        case OrderStockSecured():
            return [_authorize(event, asking)]
        case OrderConfirmed():
            return _confirm(event, asking, topics)
        case OrderConfirmationRepeated():
            return _confirm_again(event, asking, topics)
        case OrderCaptureRequested():
            return [_capture(event, event.attempt, asking)]
        case _:
            return _report_payment(event, asking)


def _place(event: CartCheckedOut, asking: Asking) -> Asked:
    whose, total = (event.order_id, event.cart_id, event.owner), (event.amount, event.currency)
    return asking.new_order(PlaceOrder(*whose, event.lines, *total, event.token, event.contact))


def _reserve(event: OrderPlaced, until: Micros, asking: Asking, topics: Topics) -> list[Asked]:
    stocked = tuple(Line(line.line, line.sku, line.quantity) for line in event.lines if line.stocked)
    return asking.stock(
        event.stream, stocked, topics, lambda lines: ReserveStock(event.order_id, MAIN, lines, 1, until)
    )


def _authorize(event: OrderStockSecured, asking: Asking) -> Asked:
    body = RequestAuthorization(
        event.payment_id, event.order_id, event.owner, event.amount, event.currency, event.token, 1
    )
    return asking.payment(event.order_id, body)


def _confirm(event: OrderConfirmed, asking: Asking, topics: Topics) -> list[Asked]:
    complete = asking.cart(event.order_id, CompleteCart(event.cart_id, event.order_id, 1))
    return [*_allocate(event, 1, asking, topics), _capture(event, 1, asking), complete]


def _confirm_again(event: OrderConfirmationRepeated, asking: Asking, topics: Topics) -> list[Asked]:
    asked = _allocate(event, event.attempt, asking, topics)
    if event.cart == "complete":
        body = CompleteCart(event.cart_id, event.order_id, event.attempt)
        asked.append(asking.cart(event.order_id, body))
    return asked


def _allocate(step: OrderStep, attempt: int, asking: Asking, topics: Topics) -> list[Asked]:
    return asking.stock(
        step.stream, step.lines, topics, lambda lines: AllocateStock(step.order_id, MAIN, lines, attempt)
    )


def _capture(step: OrderStep, attempt: int, asking: Asking) -> Asked:
    body = RequestCapture(step.payment_id, step.order_id, step.amount, attempt)
    return asking.payment(step.order_id, body)


def _report_payment(event: Event, asking: Asking) -> list[Asked]:
    match event:
        case PaymentAuthorized():
            return [asking.order(RecordPaymentAnswer(event.order_id, event.payment_id, "done", ""))]
        case PaymentDeclined():
            body = RecordPaymentAnswer(event.order_id, event.payment_id, "failed", event.code)
            return [asking.order(body)]
        case PaymentCaptured():
            return [asking.order(RecordCapture(event.order_id, event.payment_id, "done", ""))]
        case PaymentCaptureFailed():
            return [asking.order(RecordCapture(event.order_id, event.payment_id, "failed", event.code))]
        case _:
            return []


def _hear(decided: Decided, order_id: str, asking: Asking) -> list[Asked]:
    """Every answer becomes one command to the order; a rejection is a refusal of all that was asked."""
    _, _, key = decided.stream.partition("/")
    code = code_of(decided)
    match decided.type:
        case "ReserveStock":
            return [asking.order(RecordStockAnswer(order_id, decided.lines, decided.refused, code))]
        case "AllocateStock":
            return [asking.order(RecordAllocation(order_id, decided.lines, decided.refused, code))]
        case "RequestAuthorization":
            return [asking.order(RecordPaymentAnswer(order_id, key, money_outcome(decided), code))]
        case "RequestCapture":
            return [asking.order(RecordCapture(order_id, key, money_outcome(decided), code))]
        case "CompleteCart":
            return [asking.order(RecordCartAnswer(order_id, key, cart_outcome(decided, "completed")))]
        case _:
            return []
