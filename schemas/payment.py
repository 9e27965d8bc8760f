"""The payment: a small ledger of what was asked of the provider and what it answered. Stream `payment/{id}`."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from schemas.meta import Micros

Verb = Literal["authorization", "capture", "void", "refund"]
ProviderOutcome = Literal["succeeded", "declined", "failed", "unknown"]


@dataclass(frozen=True)
class PaymentMessage:
    payment_id: str

    @property
    def stream(self) -> str:
        return payment_stream(self.payment_id)


def payment_stream(payment_id: str) -> str:
    return f"payment/{payment_id}"


@dataclass(frozen=True)
class RequestAuthorization(PaymentMessage):
    order_id: str
    owner: str
    amount: int
    currency: str
    token: str
    attempt: int


@dataclass(frozen=True)
class RequestCapture(PaymentMessage):
    order_id: str
    amount: int
    attempt: int


@dataclass(frozen=True)
class RequestVoid(PaymentMessage):
    order_id: str
    attempt: int


@dataclass(frozen=True)
class RequestRefund(PaymentMessage):
    order_id: str
    amount: int
    attempt: int


@dataclass(frozen=True)
class RecordProviderResult(PaymentMessage):
    """What the provider said to the request whose idempotency key is `key`."""

    verb: str
    key: str
    outcome: str
    reference: str
    code: str
    provider_event_id: str | None


@dataclass(frozen=True)
class RepeatPaymentRequest(PaymentMessage):
    """Sent by the payment's deadline while the answer to `key` is not known."""

    verb: str
    key: str
    attempt: int


@dataclass(frozen=True)
class _PaymentFact:
    payment_id: str
    order_id: str
    amount: int
    currency: str

    @property
    def stream(self) -> str:
        return payment_stream(self.payment_id)


@dataclass(frozen=True)
class PaymentRequested(_PaymentFact):
    """`key` is the provider's idempotency key: the id of this event. `reference` is the provider's own id of what
    is captured, voided or refunded (empty for an authorization, which has a `token`)."""

    key: str
    owner: str
    token: str
    reference: str
    repeat_at: Micros


@dataclass(frozen=True)
class PaymentAuthorizationRequested(PaymentRequested):
    pass


@dataclass(frozen=True)
class PaymentCaptureRequested(PaymentRequested):
    pass


@dataclass(frozen=True)
class PaymentVoidRequested(PaymentRequested):
    pass


@dataclass(frozen=True)
class PaymentRefundRequested(PaymentRequested):
    pass


@dataclass(frozen=True)
class PaymentRequestRepeated(PaymentRequested):
    verb: str
    attempt: int


@dataclass(frozen=True)
class PaymentResult(_PaymentFact):
    """`amount` is what this answer moved (0 where it moved nothing)."""

    key: str
    reference: str


@dataclass(frozen=True)
class PaymentAuthorized(PaymentResult):
    pass


@dataclass(frozen=True)
class PaymentCaptured(PaymentResult):
    pass


@dataclass(frozen=True)
class PaymentVoided(PaymentResult):
    pass


@dataclass(frozen=True)
class PaymentRefunded(PaymentResult):
    pass


@dataclass(frozen=True)
class PaymentDeclined(PaymentResult):
    code: str


@dataclass(frozen=True)
class PaymentCaptureFailed(PaymentResult):
    code: str


@dataclass(frozen=True)
class PaymentVoidFailed(PaymentResult):
    code: str


@dataclass(frozen=True)
class PaymentRefundFailed(PaymentResult):
    code: str


@dataclass(frozen=True)
class PaymentUnknown(PaymentResult):
    """The call ended without an answer; it is asked again with the first key at `repeat_at`."""

    verb: str
    repeat_at: Micros


@dataclass(frozen=True)
class ProviderEventIgnored(_PaymentFact):
    key: str
    verb: str
    why: str


PaymentCommand: TypeAlias = (
    RequestAuthorization
    | RequestCapture
    | RequestVoid
    | RequestRefund
    | RecordProviderResult
    | RepeatPaymentRequest
)
PaymentEvent: TypeAlias = (
    PaymentAuthorizationRequested
    | PaymentCaptureRequested
    | PaymentVoidRequested
    | PaymentRefundRequested
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
    | ProviderEventIgnored
)


@dataclass(frozen=True)
class Payment:
    order_id: str


PaymentState: TypeAlias = Payment
