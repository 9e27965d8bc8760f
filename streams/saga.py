"""The three sagas in one: which of them hears what, and what an order refuses to hear is not lost."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from schemas.cart import CartCheckedOut
from schemas.decisions import Decided
from schemas.inventory import StockReservationExpired
from schemas.order import (
    OrderCancelled,
    OrderCaptureRequested,
    OrderClaimsOrphaned,
    OrderConfirmationRepeated,
    OrderConfirmed,
    OrderPaymentOrphaned,
    OrderPlaced,
    OrderRejected,
    OrderReturnRequested,
    OrderShipmentRequested,
    OrderStockSecured,
    PlaceOrder,
    RecordAllocation,
    RecordCapture,
    RecordCartAnswer,
    RecordMoneyReturn,
    RecordPaymentAnswer,
    RecordRelease,
    RecordShipment,
    RecordStockAnswer,
)
from schemas.payment import (
    PaymentAuthorized,
    PaymentCaptured,
    PaymentCaptureFailed,
    PaymentDeclined,
    PaymentRefunded,
    PaymentRefundFailed,
    PaymentVoided,
    PaymentVoidFailed,
)
from schemas.topics import Topics
from streams import cancellation, checkout, shipment
from streams.asked import Asked, Fact, SagaCommandRejected

React: TypeAlias = Callable[[Fact, Topics], list[Asked]]

SAGAS: tuple[React, ...] = (checkout.react, cancellation.react, shipment.react)
"""An answer is shown to each; an event to the one that it moves."""

HEARD: Mapping[type, React] = MappingProxyType(
    {
        CartCheckedOut: checkout.react,
        OrderPlaced: checkout.react,
        OrderStockSecured: checkout.react,
        OrderConfirmed: checkout.react,
        OrderConfirmationRepeated: checkout.react,
        OrderCaptureRequested: checkout.react,
        PaymentAuthorized: checkout.react,
        PaymentDeclined: checkout.react,
        PaymentCaptured: checkout.react,
        PaymentCaptureFailed: checkout.react,
        OrderRejected: cancellation.react,
        OrderCancelled: cancellation.react,
        OrderReturnRequested: cancellation.react,
        OrderClaimsOrphaned: cancellation.react,
        OrderPaymentOrphaned: cancellation.react,
        StockReservationExpired: cancellation.react,
        PaymentVoided: cancellation.react,
        PaymentRefunded: cancellation.react,
        PaymentVoidFailed: cancellation.react,
        PaymentRefundFailed: cancellation.react,
        OrderShipmentRequested: shipment.react,
    }
)
"""Every event that moves a saga. Of all others nothing follows, so the agent does not even decode them."""

TOLD = frozenset(
    told.__name__
    for told in (
        PlaceOrder,
        RecordStockAnswer,
        RecordPaymentAnswer,
        RecordAllocation,
        RecordCapture,
        RecordCartAnswer,
        RecordShipment,
        RecordRelease,
        RecordMoneyReturn,
    )
)
"""What only sagas say, and only to an order."""


def react(fact: Fact, topics: Topics) -> list[Asked | SagaCommandRejected]:
    """The commands that follow from a fact, to be sent before it is acknowledged; and dead letters."""
    if isinstance(fact, Decided):
        return [*(asked for saga in SAGAS for asked in saga(fact, topics)), *_unheard(fact)]
    saga = HEARD.get(type(fact.body))
    return [*saga(fact, topics)] if saga else []


def _unheard(decided: Decided) -> list[SagaCommandRejected]:
    """The order's own answers are not reported back; a rejected one is for a person to see."""
    if decided.rejection is not None and decided.type in TOLD:
        return [SagaCommandRejected(decided.stream, decided.command_id, decided.type, decided.rejection)]
    return []
