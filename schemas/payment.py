"""The payment: a small ledger of what the provider was asked and what it answered. Stream `payment/{id}`."""

from typing import Literal, TypeAlias

from schemas.frozen import frozen
from schemas.meta import MINUTE, SECOND, Micros

Verb = Literal["authorization", "capture", "void", "refund"]
ProviderOutcome = Literal["succeeded", "declined", "failed", "unknown"]
PaymentStatus = Literal["pending", "done", "nothing", "failed"]

ANSWER_LIMIT = 10 * SECOND
"""A request unanswered for so long is repeated: who should have asked the provider may have died."""

BACK_OFF = 1 * SECOND
BACK_OFF_MAX = 5 * MINUTE
"""After an unknown answer the request is repeated, the pause doubling each time."""

NOTICE_PATIENCE = 1 * SECOND
"""So long after the provider's own notice the request is repeated, unless the answer to it has come by then."""


@frozen
class PaymentMessage:
    payment_id: str

    @property
    def stream(self) -> str:
        return payment_stream(self.payment_id)


def payment_stream(payment_id: str) -> str:
    return f"payment/{payment_id}"


@frozen
class RequestAuthorization(PaymentMessage):
    order_id: str
    owner: str
    amount: int
    currency: str
    token: str
    attempt: int


@frozen
class RequestCapture(PaymentMessage):
    order_id: str
    amount: int
    attempt: int


@frozen
class RequestVoid(PaymentMessage):
    order_id: str
    currency: str
    attempt: int


@frozen
class RequestRefund(PaymentMessage):
    order_id: str
    amount: int
    attempt: int


@frozen
class RecordProviderResult(PaymentMessage):
    """What the provider said to the request whose idempotency key is `key`."""

    verb: str
    key: str
    outcome: str
    reference: str
    code: str
    provider_event_id: str | None


@frozen
class NoteProviderEvent(PaymentMessage):
    """What the provider tells unasked (a webhook) of the request whose idempotency key is `key`: a hint, since it
    may come twice, late, out of order or never. `provider_event_id` is the same however often it is told.
    """

    order_id: str
    amount: int
    currency: str
    verb: str
    key: str
    outcome: str
    provider_event_id: str


@frozen
class RepeatPaymentRequest(PaymentMessage):
    """Sent by the payment's deadline while the answer to `key` is not known."""

    verb: str
    key: str
    attempt: int


@frozen
class _PaymentFact:
    payment_id: str
    order_id: str
    amount: int
    currency: str

    @property
    def stream(self) -> str:
        return payment_stream(self.payment_id)


@frozen
class PaymentRequested(_PaymentFact):
    """`key` is the provider's idempotency key: the id of the first such event. `reference` is the provider's
    own id of what is captured, voided or refunded (empty for an authorization, which has a `token`).
    """

    key: str
    owner: str
    token: str
    reference: str
    repeat_at: Micros


@frozen
class PaymentAuthorizationRequested(PaymentRequested):
    pass


@frozen
class PaymentCaptureRequested(PaymentRequested):
    pass


@frozen
class PaymentVoidRequested(PaymentRequested):
    pass


@frozen
class PaymentRefundRequested(PaymentRequested):
    pass


@frozen
class PaymentVoidDeferred(_PaymentFact):
    """A void was asked while an authorization or a capture is pending; it is done when that is known."""


@frozen
class PaymentRequestRepeated(PaymentRequested):
    verb: str
    attempt: int


@frozen
class PaymentResult(_PaymentFact):
    """`amount` is what this answer moved (0 where it moved nothing)."""

    key: str
    reference: str


@frozen
class PaymentAuthorized(PaymentResult):
    pass


@frozen
class PaymentCaptured(PaymentResult):
    pass


@frozen
class PaymentVoided(PaymentResult):
    pass


@frozen
class PaymentRefunded(PaymentResult):
    pass


@frozen
class PaymentDeclined(PaymentResult):
    code: str


@frozen
class PaymentCaptureFailed(PaymentResult):
    code: str


@frozen
class PaymentVoidFailed(PaymentResult):
    code: str


@frozen
class PaymentRefundFailed(PaymentResult):
    code: str


@frozen
class PaymentUnknown(PaymentResult):
    """The call ended without an answer; it is asked again with the first key at `repeat_at`."""

    verb: str
    repeat_at: Micros


@frozen
class ProviderEventNoted(_PaymentFact):
    """The provider says that it has an answer to what is pending: it is asked again at `repeat_at`, at the latest.

    It moves nothing; `amount` is what is pending.
    """

    key: str
    verb: str
    outcome: str
    provider_event_id: str
    repeat_at: Micros


@frozen
class ProviderEventIgnored(_PaymentFact):
    """What the provider said contradicts the payment; `why` names in what. No id where it was asked for it."""

    key: str
    verb: str
    why: str
    provider_event_id: str | None = None


PaymentCommand: TypeAlias = (
    RequestAuthorization
    | RequestCapture
    | RequestVoid
    | RequestRefund
    | RecordProviderResult
    | NoteProviderEvent
    | RepeatPaymentRequest
)
PaymentEvent: TypeAlias = (
    PaymentAuthorizationRequested
    | PaymentCaptureRequested
    | PaymentVoidRequested
    | PaymentRefundRequested
    | PaymentVoidDeferred
    | PaymentRequestRepeated
    | PaymentAuthorized
    | PaymentCaptured
    | PaymentVoided
    | PaymentRefunded
    | PaymentDeclined
    | PaymentCaptureFailed
    | PaymentVoidFailed
    | PaymentRefundFailed
    | PaymentUnknown
    | ProviderEventNoted
    | ProviderEventIgnored
)


# State.


@frozen
class PendingRequest:
    """What the provider was asked and has not answered for certain; repeated, same `key`, at `repeat_at`."""

    verb: str
    key: str
    amount: int
    token: str
    reference: str
    attempt: int
    repeat_at: Micros


@frozen
class SettledRequest:
    """`amount` is what was asked; None where it was settled before that was remembered."""

    key: str
    outcome: str
    amount: int | None = None


@frozen
class Payment:
    """Amounts in minor units. One request at a time is under way; `settled` remembers the latest answers, `heard`
    the ids of the latest provider events that were written down.
    """

    payment_id: str
    order_id: str
    owner: str
    currency: str
    authorized: int
    captured: int
    voided: int
    refunded: int
    authorization: str
    capture: str
    pending: PendingRequest | None
    void_deferred: bool
    settled: tuple[SettledRequest, ...]
    heard: tuple[str, ...] = ()

    @property
    def voidable(self) -> int:
        return self.authorized - self.captured - self.voided

    @property
    def refundable(self) -> int:
        return self.captured - self.refunded


PaymentState: TypeAlias = Payment
