"""The cancellation: what an order that ended holds goes back; claims, then money, then the cart."""

from commands.decider import Event
from schemas.cart import CompleteCart, ReopenCart
from schemas.decisions import Decided
from schemas.inventory import ReleaseAllocation, ReleaseReason, ReleaseReservation, StockReservationExpired
from schemas.order import (
    OrderCancelled,
    OrderClaimsOrphaned,
    OrderPaymentOrphaned,
    OrderRejected,
    OrderReturn,
    OrderReturnRequested,
    OrderStep,
    RecordCartAnswer,
    RecordMoneyReturn,
    RecordRelease,
)
from schemas.payment import (
    PaymentRefunded,
    PaymentRefundFailed,
    PaymentVoided,
    PaymentVoidFailed,
    RequestRefund,
    RequestVoid,
)
from schemas.topics import Topics
from schemas.values import MAIN, Line
from streams.asked import Asked, Asking, Fact, asking_order, cart_outcome, code_of, money_outcome

ACTOR = "cancellation"


def react(fact: Fact, topics: Topics) -> list[Asked]:
    asking = Asking(ACTOR, fact)
    if isinstance(fact, Decided):
        order_id = asking_order(fact)
        return [] if order_id is None else _hear(fact, order_id, asking)
    return _give_back(fact.body, asking, topics)


def _give_back(event: Event, asking: Asking, topics: Topics) -> list[Asked]:
    match event:
        case OrderRejected():
            return _return(event, 1, "rejected", asking, topics)
        case OrderCancelled():
            return _return(event, 1, "cancelled", asking, topics)
        case OrderReturnRequested():
            return _return(event, event.attempt, "reminded", asking, topics)
        case OrderClaimsOrphaned():
            return _release(event, event.held, 1, "orphaned", asking, topics)
        case OrderPaymentOrphaned():
            return _return_money(event, event.money, 1, asking)
        case StockReservationExpired():
            return [asking.order(RecordRelease(event.order_id, (event.line,), "expired"))]
        case _:
            return _report_payment(event, asking)


def _return(
    event: OrderReturn, attempt: int, reason: ReleaseReason, asking: Asking, topics: Topics
) -> list[Asked]:
    return [
        *_release(event, event.held, attempt, reason, asking, topics),
        *_return_money(event, event.money, attempt, asking),
        *_close_cart(event, attempt, asking),
    ]


def _release(
    step: OrderStep, held: str, attempt: int, reason: ReleaseReason, asking: Asking, topics: Topics
) -> list[Asked]:
    """Either release ends a claim in whatever state it is; which one tells a reader what was known."""
    release = ReleaseAllocation if held == "allocated" else ReleaseReservation

    def body(lines: tuple[Line, ...]) -> ReleaseAllocation | ReleaseReservation:
        return release(step.order_id, MAIN, lines, attempt, reason)

    return asking.stock(step.stream, step.lines, topics, body)


def _return_money(step: OrderStep, money: str, attempt: int, asking: Asking) -> list[Asked]:
    if money == "void":
        void = RequestVoid(step.payment_id, step.order_id, step.currency, attempt)
        return [asking.payment(step.order_id, void)]
    if money == "refund":
        refund = RequestRefund(step.payment_id, step.order_id, step.amount, attempt)
        return [asking.payment(step.order_id, refund)]
    return []


def _close_cart(event: OrderReturn, attempt: int, asking: Asking) -> list[Asked]:
    """A cart whose order was not confirmed is reopened; one that was completed stays so."""
    if event.cart == "reopen":
        return [asking.cart(event.order_id, ReopenCart(event.cart_id, event.order_id, attempt))]
    if event.cart == "complete":
        return [asking.cart(event.order_id, CompleteCart(event.cart_id, event.order_id, attempt))]
    return []


def _report_payment(event: Event, asking: Asking) -> list[Asked]:
    match event:
        case PaymentVoided():
            return [_money(event, "void", "done", "", asking)]
        case PaymentRefunded():
            return [_money(event, "refund", "done", "", asking)]
        case PaymentVoidFailed():
            return [_money(event, "void", "failed", event.code, asking)]
        case PaymentRefundFailed():
            return [_money(event, "refund", "failed", event.code, asking)]
        case _:
            return []


def _money(event: Event, verb: str, outcome: str, code: str, asking: Asking) -> Asked:
    return asking.order(RecordMoneyReturn(event.order_id, event.payment_id, verb, outcome, code))


def _hear(decided: Decided, order_id: str, asking: Asking) -> list[Asked]:
    _, _, key = decided.stream.partition("/")
    outcome, code = money_outcome(decided), code_of(decided)
    match decided.type:
        case "ReleaseReservation" | "ReleaseAllocation":
            how = "failed" if decided.rejection else "released"
            return [asking.order(RecordRelease(order_id, decided.lines, how))]
        case "RequestVoid":
            return [asking.order(RecordMoneyReturn(order_id, key, "void", outcome, code))]
        case "RequestRefund":
            return [asking.order(RecordMoneyReturn(order_id, key, "refund", outcome, code))]
        case "ReopenCart":
            return [asking.order(RecordCartAnswer(order_id, key, cart_outcome(decided, "reopened")))]
        case _:
            return []
