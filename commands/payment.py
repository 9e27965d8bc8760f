"""The payment decides: what may be asked of the provider next, and what its answers moved."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias, assert_never

from commands.decider import Answer, Context, Deadline, Record, of_one_record
from commands.rejections import PaymentHoldsTooLittle, PaymentIsCaptured, Rejection, UnknownPayment
from schemas.meta import Micros
from schemas.payment import (
    ANSWER_LIMIT,
    BACK_OFF,
    BACK_OFF_MAX,
    NOTICE_PATIENCE,
    NoteProviderEvent,
    Payment,
    PaymentAuthorizationRequested,
    PaymentAuthorized,
    PaymentCaptured,
    PaymentCaptureFailed,
    PaymentCaptureRequested,
    PaymentCommand,
    PaymentDeclined,
    PaymentEvent,
    PaymentRefunded,
    PaymentRefundFailed,
    PaymentRefundRequested,
    PaymentRequestRepeated,
    PaymentStatus,
    PaymentUnknown,
    PaymentVoidDeferred,
    PaymentVoided,
    PaymentVoidFailed,
    PaymentVoidRequested,
    PendingRequest,
    ProviderEventIgnored,
    ProviderEventNoted,
    RecordProviderResult,
    RepeatPaymentRequest,
    RequestAuthorization,
    RequestCapture,
    RequestRefund,
    RequestVoid,
    SettledRequest,
)

SETTLED_KEPT = 16
"""So many of the latest keys and their outcomes are remembered; an older one is ignored, in writing."""
HEARD_KEPT = 16
"""So many of the latest provider events are known by their ids. To forget one is harmless: told again, it can but bring
forward a question that is still open, or be written down as ignored once more. No event of the provider moves money.
"""
VOID_CAME_FIRST = "void_came_first"
UNKNOWN_KEY = "unknown_key"

STEWARDS = frozenset({"merchant", "operator", "saga", "deadline", "provider"})
"""Who may act on a payment beside its owner."""

Events: TypeAlias = Sequence[PaymentEvent]
Head: TypeAlias = tuple[str, str, int, str]
"""How every payment event begins: payment, order, amount, currency."""
Success: TypeAlias = PaymentAuthorized | PaymentCaptured | PaymentVoided | PaymentRefunded
Failure: TypeAlias = PaymentDeclined | PaymentCaptureFailed | PaymentVoidFailed | PaymentRefundFailed
Requested: TypeAlias = (
    PaymentAuthorizationRequested | PaymentCaptureRequested | PaymentVoidRequested | PaymentRefundRequested
)


def decide(payment: Payment | None, command: PaymentCommand, context: Context) -> Events | Rejection:
    if not _may_act(context, _owner(payment, command)):
        return UnknownPayment(f"there is no payment {command.payment_id}")
    match command:
        case RequestAuthorization():
            return _authorize(payment, command, context)
        case RequestVoid():
            return _void(payment, command, context)
        case _ if payment is None:
            return UnknownPayment(f"there is no payment {command.payment_id}")
        case RequestCapture():
            return _capture(payment, command, context)
        case RequestRefund():
            return _refund(payment, command, context)
        case RecordProviderResult():
            return _record(payment, command, context)
        case NoteProviderEvent():
            return _note(payment, command, context)
        case RepeatPaymentRequest():
            return _repeat(payment, command, context)
        case _:
            assert_never(command)


def _may_act(context: Context, owner: str) -> bool:
    return context.actor_kind in STEWARDS or (context.actor_kind == "customer" and context.actor_id == owner)


def _owner(payment: Payment | None, command: PaymentCommand) -> str:
    """Nobody's, while nobody asked for the payment."""
    if payment is not None:
        return payment.owner
    return command.owner if isinstance(command, RequestAuthorization) else ""


# What is asked. One request at a time is under way; the same again is answered by what became of the first.


def _authorize(payment: Payment | None, command: RequestAuthorization, context: Context) -> Events:
    if payment is not None:
        return []
    head = (command.payment_id, command.order_id, command.amount, command.currency)
    key, repeat_at = context.event_id(0), Micros(context.now + ANSWER_LIMIT)
    return [PaymentAuthorizationRequested(*head, key, command.owner, command.token, "", repeat_at)]


def _capture(payment: Payment, command: RequestCapture, context: Context) -> Events | Rejection:
    if payment.captured or _is_pending(payment, "capture"):
        return []
    if payment.pending or payment.void_deferred or not 0 < command.amount <= payment.voidable:
        return PaymentHoldsTooLittle(f"{payment.voidable} is authorized, {command.amount} asked")
    request = _request(payment, command.amount, payment.authorization, context, 0)
    return [PaymentCaptureRequested(*request)]


def _void(payment: Payment | None, command: RequestVoid, context: Context) -> Events | Rejection:
    """A payment that is asked to let go before it was asked to hold, never will hold anything."""
    if payment is None:
        head = (command.payment_id, command.order_id, 0, command.currency)
        return [PaymentDeclined(*head, "", "", VOID_CAME_FIRST)]
    if payment.captured:
        return PaymentIsCaptured(f"{payment.captured} is captured: refund it")
    if _is_pending(payment, "authorization") or _is_pending(payment, "capture"):
        return [] if payment.void_deferred else [PaymentVoidDeferred(*_head(payment, payment.voidable))]
    if payment.pending or not payment.voidable:
        return []
    return [_void_request(payment, context, 0)]


def _void_request(payment: Payment, context: Context, index: int) -> PaymentVoidRequested:
    return PaymentVoidRequested(*_request(payment, payment.voidable, payment.authorization, context, index))


def _refund(payment: Payment, command: RequestRefund, context: Context) -> Events | Rejection:
    if _is_pending(payment, "refund") or (payment.captured and not payment.refundable):
        return []
    if payment.pending or not 0 < command.amount <= payment.refundable:
        return PaymentHoldsTooLittle(f"{payment.refundable} is captured, {command.amount} asked back")
    return [PaymentRefundRequested(*_request(payment, command.amount, payment.capture, context, 0))]


def _request(
    payment: Payment, amount: int, reference: str, context: Context, index: int
) -> tuple[str, str, int, str, str, str, str, str, Micros]:
    """A request for what was authorized or captured under `reference`; its key is the id of its own event."""
    key, repeat_at = context.event_id(index), Micros(context.now + ANSWER_LIMIT)
    return *_head(payment, amount), key, payment.owner, "", reference, repeat_at


def _head(payment: Payment, amount: int) -> Head:
    return payment.payment_id, payment.order_id, amount, payment.currency


def _is_pending(payment: Payment, verb: str) -> bool:
    return payment.pending is not None and payment.pending.verb == verb


# What the provider says.


def _record(payment: Payment, command: RecordProviderResult, context: Context) -> Events:
    pending = _pending_under(payment, command.key)
    if pending is None:
        return _ignore(payment, command)
    if command.outcome == "unknown":
        pause = min(BACK_OFF << min(pending.attempt - 1, 16), BACK_OFF_MAX)
        head = (*_head(payment, pending.amount), pending.key, pending.reference)
        return [PaymentUnknown(*head, pending.verb, Micros(context.now + pause))]
    result = _result(payment, pending, command)
    after = evolve(payment, result)
    if payment.void_deferred and after.voidable:
        return [result, _void_request(after, context, 1)]
    return [result]


def _ignore(payment: Payment, command: RecordProviderResult) -> Events:
    """The same answer again is no news, nor is doubt of what is certain; a contradiction is written down."""
    why = _contradiction(payment, command)
    if command.outcome == "unknown" and why != UNKNOWN_KEY:
        return []
    return [ProviderEventIgnored(*_head(payment, 0), command.key, command.verb, why)] if why else []


def _contradiction(payment: Payment, command: RecordProviderResult | NoteProviderEvent) -> str:
    """How it differs from what was settled under its key; empty where it says the same."""
    known = _settled_under(payment, command.key)
    if known is None:
        return UNKNOWN_KEY
    said = "succeeded" if command.outcome == "succeeded" else "failed"
    return "" if said == known.outcome else f"settled_as_{known.outcome}"


def _settled_under(payment: Payment, key: str) -> SettledRequest | None:
    return next((settled for settled in payment.settled if settled.key == key), None)


def _note(payment: Payment, command: NoteProviderEvent, context: Context) -> Events:
    """A hint moves no money: at most the provider is asked soon, under the first key, what has become of it.

    Until then the answer that is perhaps on its way may come. Of what is settled it is no news.
    """
    if command.provider_event_id in payment.heard:
        return []
    pending = _pending_under(payment, command.key)
    why = _mismatch(payment, command) or ("" if pending else _contradiction(payment, command))
    if why:
        head = (*_head(payment, 0), command.key, command.verb)
        return [ProviderEventIgnored(*head, why, command.provider_event_id)]
    if pending is None:
        return []
    repeat_at = min(pending.repeat_at, Micros(context.now + NOTICE_PATIENCE))
    head = (*_head(payment, pending.amount), pending.key, pending.verb)
    return [ProviderEventNoted(*head, command.outcome, command.provider_event_id, repeat_at)]


def _pending_under(payment: Payment, key: str) -> PendingRequest | None:
    pending = payment.pending
    return pending if pending is not None and pending.key == key else None


def _mismatch(payment: Payment, command: NoteProviderEvent) -> str:
    """What the provider names otherwise than the payment asked it; empty where all is the same."""
    if command.order_id != payment.order_id:
        return "order_differs"
    if command.currency != payment.currency:
        return "currency_differs"
    asked = _amount_under(payment, command.key)
    return "" if asked in (None, command.amount) else "amount_differs"


def _amount_under(payment: Payment, key: str) -> int | None:
    """What was asked under a key; None where that is not remembered."""
    asked = _pending_under(payment, key) or _settled_under(payment, key)
    return asked.amount if asked else None


def _result(payment: Payment, pending: PendingRequest, command: RecordProviderResult) -> Success | Failure:
    if command.outcome == "succeeded":
        return _success(payment, pending, command.reference)
    head = (*_head(payment, 0), pending.key, "", command.code)
    match pending.verb:
        case "authorization":
            return PaymentDeclined(*head)
        case "capture":
            return PaymentCaptureFailed(*head)
        case "void":
            return PaymentVoidFailed(*head)
        case _:
            return PaymentRefundFailed(*head)


def _success(payment: Payment, pending: PendingRequest, reference: str) -> Success:
    head = (*_head(payment, pending.amount), pending.key, reference)
    match pending.verb:
        case "authorization":
            return PaymentAuthorized(*head)
        case "capture":
            return PaymentCaptured(*head)
        case "void":
            return PaymentVoided(*head)
        case _:
            return PaymentRefunded(*head)


def _repeat(payment: Payment, command: RepeatPaymentRequest, context: Context) -> Events:
    """Ask again with the first key; the provider does it once."""
    pending = _pending_under(payment, command.key)
    if pending is None or context.now < pending.repeat_at:
        return []
    attempt = pending.attempt + 1
    pause = ANSWER_LIMIT + min(BACK_OFF << min(attempt - 1, 16), BACK_OFF_MAX)
    head = (*_head(payment, pending.amount), pending.key, payment.owner, pending.token, pending.reference)
    return [PaymentRequestRepeated(*head, Micros(context.now + pause), pending.verb, attempt)]


# What is true afterwards.


def evolve(payment: Payment | None, event: PaymentEvent) -> Payment:
    """`PaymentDeclined` of a payment that nobody asked for is its first event: it holds nothing, for ever."""
    before = payment or _nothing(event)
    match event:
        case (
            PaymentAuthorizationRequested()
            | PaymentCaptureRequested()
            | PaymentVoidRequested()
            | PaymentRefundRequested()
        ):
            return _asked(before, event)
        case PaymentRequestRepeated() | PaymentUnknown():
            return _to_be_repeated(before, event)
        case PaymentVoidDeferred():
            return replace(before, void_deferred=True)
        case PaymentAuthorized() | PaymentCaptured() | PaymentVoided() | PaymentRefunded():
            return _moved(_settled(before, event.key, "succeeded"), event)
        case PaymentDeclined() if event.key:
            return replace(_settled(before, event.key, "failed"), void_deferred=False)
        case PaymentCaptureFailed() | PaymentVoidFailed() | PaymentRefundFailed():
            return _settled(before, event.key, "failed")
        case ProviderEventNoted():
            return _heard(_to_be_repeated(before, event), event)
        case ProviderEventIgnored():
            return _heard(before, event)
        case PaymentDeclined():
            return before
        case _:
            assert_never(event)


def _nothing(event: PaymentEvent) -> Payment:
    owner = event.owner if isinstance(event, PaymentAuthorizationRequested) else ""
    return Payment(
        event.payment_id, event.order_id, owner, event.currency, 0, 0, 0, 0, "", "", None, False, ()
    )


def _asked(payment: Payment, event: Requested) -> Payment:
    verb = _VERBS[type(event)]
    pending = PendingRequest(verb, event.key, event.amount, event.token, event.reference, 1, event.repeat_at)
    return replace(payment, pending=pending, void_deferred=payment.void_deferred and verb != "void")


_VERBS = {
    PaymentAuthorizationRequested: "authorization",
    PaymentCaptureRequested: "capture",
    PaymentVoidRequested: "void",
    PaymentRefundRequested: "refund",
}


def _to_be_repeated(
    payment: Payment, event: PaymentRequestRepeated | PaymentUnknown | ProviderEventNoted
) -> Payment:
    if payment.pending is None:
        return payment
    attempt = event.attempt if isinstance(event, PaymentRequestRepeated) else payment.pending.attempt
    return replace(payment, pending=replace(payment.pending, attempt=attempt, repeat_at=event.repeat_at))


def _heard(payment: Payment, event: ProviderEventNoted | ProviderEventIgnored) -> Payment:
    if event.provider_event_id is None:
        return payment
    return replace(payment, heard=(*payment.heard, event.provider_event_id)[-HEARD_KEPT:])


def _settled(payment: Payment, key: str, outcome: str) -> Payment:
    request = SettledRequest(key, outcome, _amount_under(payment, key))
    settled = (*payment.settled, request)[-SETTLED_KEPT:]
    return replace(payment, pending=None, settled=settled)


def _moved(payment: Payment, event: Success) -> Payment:
    match event:
        case PaymentAuthorized():
            authorized = payment.authorized + event.amount
            return replace(payment, authorized=authorized, authorization=event.reference)
        case PaymentCaptured():
            captured = payment.captured + event.amount
            return replace(payment, captured=captured, capture=event.reference, void_deferred=False)
        case PaymentVoided():
            return replace(payment, voided=payment.voided + event.amount)
        case PaymentRefunded():
            return replace(payment, refunded=payment.refunded + event.amount)
        case _:
            assert_never(event)


# What the order learns at once: a word.


def answer(payment: Payment | None, command: PaymentCommand, _events: Events) -> Answer:
    return Answer("" if payment is None else _status(payment, command))


def _status(payment: Payment, command: PaymentCommand) -> PaymentStatus:
    match command:
        case RequestAuthorization():
            if _is_pending(payment, "authorization"):
                return "pending"
            return "done" if payment.authorized else "failed"
        case RequestCapture():
            return "done" if payment.captured else "pending"
        case RequestVoid():
            if payment.pending or payment.void_deferred:
                return "pending"
            return "done" if payment.voided else "nothing"
        case RequestRefund():
            return "pending" if payment.pending else "done"
        case RecordProviderResult() | NoteProviderEvent() | RepeatPaymentRequest():
            return "pending" if payment.pending else "done"
        case _:
            assert_never(command)


def deadline(_path: str, record: Record) -> Deadline | None:
    payment: Payment = record
    pending = payment.pending
    if pending is None:
        return None
    command = RepeatPaymentRequest(payment.payment_id, pending.verb, pending.key, pending.attempt + 1)
    return Deadline(pending.repeat_at, command)


DECIDER = of_one_record("payment", decide, evolve, answer, deadline)
