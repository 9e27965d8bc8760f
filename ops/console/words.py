"""Events in words, for people who know the trade and not the code."""

import re
from collections.abc import Iterable, Mapping, Sized
from typing import Any

MINOR_DIGITS = {
    "JPY": 0,
    "KRW": 0,
    "VND": 0,
    "CLP": 0,
    "ISK": 0,
    "BHD": 3,
    "KWD": 3,
    "JOD": 3,
    "OMR": 3,
    "TND": 3,
}
"""Of currencies whose minor unit is not a hundredth (ISO 4217)."""

SENTENCES: Mapping[str, str] = {
    "CartCreated": "Cart opened for {owner}",
    "ItemAddedToCart": "{quantity} of {sku} added, {quantity_after} in the cart",
    "CartItemQuantityChanged": "{sku} changed from {quantity_before} to {quantity}",
    "ItemRemovedFromCart": "{sku} taken out",
    "CartCheckedOut": "Cart checked out: {lines}, {money}",
    "CartReopened": "Cart open again: its order came to nothing",
    "OrderPlaced": "Order placed: {lines}, {money}",
    "OrderLinesReserved": "Stock reserved for {lines}",
    "OrderLinesRefused": "Stock refused for {lines}: {refused}",
    "OrderStockSecured": "All stock is secured; {money} to be authorized",
    "OrderPaymentAuthorized": "Payment authorized",
    "OrderPaymentDeclined": "Payment declined: {code}",
    "OrderConfirmed": "Order confirmed, {money}",
    "OrderConfirmationRepeated": "What was not answered is asked again (attempt {attempt})",
    "OrderRejected": "Order rejected: {reason}",
    "OrderCancelled": "Order cancelled: {reason}",
    "OrderLinesAllocated": "{lines} allocated",
    "OrderClaimsReturned": "Claims on {lines} {how}",
    "OrderClaimsOrphaned": "Claims on {lines} came after the end and go back",
    "OrderPaymentOrphaned": "Money came after the end and goes back: {money_back}",
    "OrderShipmentRequested": "Shipment of {lines} requested",
    "OrderLinesShipped": "{lines} shipped",
    "OrderShipmentRefused": "Shipment refused for {lines}: {refused}",
    "OrderCaptured": "Payment captured",
    "OrderCaptureFailed": "Capture failed: {code}",
    "OrderCaptureRequested": "Capture asked for again (attempt {attempt})",
    "OrderMoneyReturned": "Money returned by {verb}",
    "OrderCartClosed": "Its cart is {how}",
    "OrderReturnRequested": "What is owed is asked for again (attempt {attempt})",
    "OrderSettled": "Order settled: nothing is owed any more",
    "OrderContactErased": "Name, e-mail and address erased",
    "StockReceived": "{quantity} of {sku} received under {document}",
    "StockAdjusted": "{sku} adjusted from {before} to {after}: {reason}",
    "StockPolicyChanged": "{sku}: {safety_stock} kept back, low at {low_stock_at}",
    "StockShortfallFound": "{sku}: {uncovered} promised that are not there",
    "StockReserved": "{quantity} of {sku} reserved",
    "StockReservationRefused": "{quantity} of {sku} refused: {available} available",
    "StockReservationReleased": "{quantity} of {sku} released: {reason}",
    "StockReservationExpired": "Reservation of {quantity} of {sku} expired",
    "StockAllocated": "{quantity} of {sku} allocated",
    "StockAllocationRefused": "Allocation of {quantity} of {sku} refused: {available} available",
    "StockAllocationReleased": "Allocation of {quantity} of {sku} released: {reason}",
    "StockShipped": "{quantity} of {sku} shipped",
    "StockShipmentRefused": "Shipment of {quantity} of {sku} refused: {reason}",
    "StockDepleted": "{sku}: nothing is available any more",
    "StockReplenished": "{sku}: {available} available again",
    "LowStockReached": "{sku} is low: {available} available, warned at {low_stock_at}",
    "PaymentAuthorizationRequested": "Provider asked to authorize {money}",
    "PaymentCaptureRequested": "Provider asked to capture {money}",
    "PaymentVoidRequested": "Provider asked to void {money}",
    "PaymentRefundRequested": "Provider asked to refund {money}",
    "PaymentVoidDeferred": "A void waits for what is pending",
    "PaymentRequestRepeated": "Provider asked again to {verb} {money} (attempt {attempt})",
    "PaymentAuthorized": "{money} authorized",
    "PaymentCaptured": "{money} captured",
    "PaymentVoided": "{money} voided",
    "PaymentRefunded": "{money} refunded",
    "PaymentDeclined": "Provider declined: {code}",
    "PaymentCaptureFailed": "Provider could not capture: {code}",
    "PaymentVoidFailed": "Provider could not void: {code}",
    "PaymentRefundFailed": "Provider could not refund: {code}",
    "PaymentUnknown": "No answer from the provider to the {verb}: it will be asked again",
    "ProviderEventNoted": "Provider says of the {verb}: {outcome}; it will be asked",
    "ProviderEventIgnored": "What the provider says of the {verb} is not believed: {why}",
}
"""By the event's class, from its fields; what is missing here is told by its name alone."""


def sentence(event: Any) -> str:
    """Only what a sentence names is shown: what else an event holds stays where it is."""
    name = type(event).__name__
    template = SENTENCES.get(name)
    return template.format_map(_Fields(event)) if template else spoken(name)


def spoken(name: str) -> str:
    """CartCheckedOut → Cart checked out."""
    return " ".join(re.findall("[A-Z][a-z]*", name)).capitalize()


def counted(things: Sized, one: str) -> str:
    return f"{len(things):,} {one}" if len(things) == 1 else f"{len(things):,} {one}s"


def money(amount: int, currency: str) -> str:
    """From minor units: 1530, GBP → 15.30 GBP."""
    digits = MINOR_DIGITS.get(currency, 2)
    return f"{amount / 10**digits:,.{digits}f} {currency}"


class _Fields(dict[str, str]):
    """The fields of an event as a sentence says them, made when they are asked for."""

    def __init__(self, event: Any) -> None:
        super().__init__()
        self._event = event

    def __missing__(self, name: str) -> str:
        match name:
            case "money":
                return money(self._event.amount, self._event.currency)
            case "money_back":
                return str(self._event.money)
            case "lines":
                return counted(self._event.lines, "line")
            case "refused":
                return ", ".join(_refusals(self._event.lines))
            case _:
                return str(getattr(self._event, name)) or "—"


def _refusals(lines: Iterable[Any]) -> Iterable[str]:
    return (f"{line.quantity} of {line.sku}, {line.available} available" for line in lines)
