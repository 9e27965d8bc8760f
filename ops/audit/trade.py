"""Laws 3 and 5: every order ends in time, and money is where its order says it is."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from ops.audit.breaches import Breaches
from ops.audit.wire import Record

OrderState: TypeAlias = Literal["placed", "confirmed", "rejected", "cancelled"]

_VERBS = ("authorization", "capture", "void", "refund")
Sums: TypeAlias = dict[str, int]
"""Minor units by verb."""
_Fold: TypeAlias = Callable[[Record], object]


def _no_money() -> Sums:
    return dict.fromkeys(_VERBS, 0)


@dataclass(slots=True)
class _Order:
    """An order as its stream tells it; `owes_money` from when it says that money goes back until it says it went."""

    amount: int
    placed_at: int
    expires_at: int
    state: OrderState = "placed"
    was_confirmed: bool = False
    owes_money: bool = False
    settled: bool = False


@dataclass(slots=True)
class _Payment:
    """A payment as its stream tells it: what moved, and per verb how many requests are unanswered."""

    order_id: str
    moved: Sums = field(default_factory=_no_money)
    unanswered: Sums = field(default_factory=_no_money)

    @property
    def held(self) -> int:
        """What of the customer's money was authorized or captured, and neither let go nor refunded."""
        came = max(self.moved["authorization"], self.moved["capture"])
        return came - self.moved["void"] - self.moved["refund"]


class TradeBooks:
    """Follows every order and payment: a few hundred bytes for each."""

    def __init__(self, breaches: Breaches, grace_us: int) -> None:
        self._breaches = breaches
        self._grace_us = grace_us
        self._orders: dict[str, _Order] = {}
        self._payments: dict[str, _Payment] = {}
        self._request_keys: set[str] = set()
        self._folds: dict[str, _Fold] = {
            "OrderPlaced": self._place,
            "OrderConfirmed": lambda event: self._end(event, "confirmed", ("placed",)),
            "OrderRejected": lambda event: self._end(event, "rejected", ("placed",)),
            "OrderCancelled": lambda event: self._end(event, "cancelled", ("placed", "confirmed")),
            "OrderPaymentOrphaned": self._owe,
            "OrderReturnRequested": self._owe,
            "OrderMoneyReturned": self._return,
            "OrderSettled": self._settle,
            "PaymentAuthorizationRequested": lambda event: self._ask(event, "authorization"),
            "PaymentCaptureRequested": lambda event: self._ask(event, "capture"),
            "PaymentVoidRequested": lambda event: self._ask(event, "void"),
            "PaymentRefundRequested": lambda event: self._ask(event, "refund"),
            "PaymentAuthorized": lambda event: self._move(event, "authorization"),
            "PaymentCaptured": lambda event: self._move(event, "capture"),
            "PaymentVoided": lambda event: self._move(event, "void"),
            "PaymentRefunded": lambda event: self._move(event, "refund"),
            "PaymentDeclined": lambda event: self._hear(event, "authorization"),
            "PaymentCaptureFailed": lambda event: self._hear(event, "capture"),
            "PaymentVoidFailed": lambda event: self._hear(event, "void"),
            "PaymentRefundFailed": lambda event: self._hear(event, "refund"),
        }

    def fold(self, name: str, event: Record) -> None:
        fold = self._folds.get(name)
        if fold is not None:
            fold(event)

    def placed_at(self, order_id: str) -> int | None:
        order = self._orders.get(order_id)
        return order.placed_at if order else None

    def finish(self, now: int) -> None:
        for order_id, order in self._orders.items():
            if order.state == "placed" and now > order.expires_at + self._grace_us:
                self._breaches.add("3", f"order/{order_id} never ended")
        payments_of: dict[str, list[_Payment]] = defaultdict(list)
        for payment in self._payments.values():
            payments_of[payment.order_id].append(payment)
        for order_id, payments in payments_of.items():
            self._check_money(order_id, payments)

    def compare_with_provider(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """The provider's own ledger must tell what the log tells. A row has verb, key, payment_id, amount, outcome."""
        theirs: dict[str, Sums] = defaultdict(_no_money)
        for row in rows:
            if row["key"] not in self._request_keys:
                self._breaches.add(
                    "5", f"the provider did a {row['verb']} that the log never asked for: {row['key']}"
                )
            if row["outcome"] == "succeeded":
                theirs[row["payment_id"]][row["verb"]] += row["amount"]
        for payment_id in theirs.keys() | self._payments.keys():
            self._compare(payment_id, theirs[payment_id])

    # Orders.

    def _place(self, event: Record) -> None:
        if event["order_id"] in self._orders:
            self._breaches.add("3", f"order/{event['order_id']} was placed twice")
        self._orders[event["order_id"]] = _Order(
            event["amount"], event["meta"]["recorded_at"], event["expires_at"]
        )

    def _end(self, event: Record, state: OrderState, before: tuple[OrderState, ...]) -> None:
        order = self._order(event)
        if order is None:
            return
        if order.state not in before:
            self._breaches.add("3", f"order/{event['order_id']} was {order.state} and then {state}")
        late_us = event["meta"]["recorded_at"] - order.expires_at
        if order.state == "placed" and late_us > self._grace_us:
            self._breaches.add(
                "3", f"order/{event['order_id']} ended {late_us / 1_000_000:.1f} s after its deadline"
            )
        order.state = state
        order.was_confirmed = order.was_confirmed or state == "confirmed"
        order.owes_money = event.get("money", "none") != "none"

    def _owe(self, event: Record) -> None:
        order = self._order(event)
        if order is not None and event["money"] != "none":
            order.owes_money = True

    def _return(self, event: Record) -> None:
        order = self._order(event)
        if order is not None:
            order.owes_money = False

    def _settle(self, event: Record) -> None:
        order = self._order(event)
        if order is not None:
            order.settled = True

    def _order(self, event: Record) -> _Order | None:
        order = self._orders.get(event["order_id"])
        if order is None:
            self._breaches.add("3", f"order/{event['order_id']} was never placed")
        return order

    # Payments.

    def _ask(self, event: Record, verb: str) -> None:
        self._request_keys.add(event["key"])
        self._payment(event).unanswered[verb] += 1

    def _hear(self, event: Record, verb: str) -> _Payment:
        payment = self._payment(event)
        payment.unanswered[verb] = max(0, payment.unanswered[verb] - 1)
        return payment

    def _move(self, event: Record, verb: str) -> None:
        self._hear(event, verb).moved[verb] += event["amount"]

    def _payment(self, event: Record) -> _Payment:
        payment = self._payments.get(event["payment_id"])
        if payment is None:
            payment = self._payments[event["payment_id"]] = _Payment(event["order_id"])
        return payment

    # What both must agree on, once all is read: the two topics may be seen in any order.

    def _check_money(self, order_id: str, payments: Iterable[_Payment]) -> None:
        captured = sum(payment.moved["capture"] for payment in payments)
        held = sum(payment.held for payment in payments)
        order = self._orders.get(order_id)
        if order is None:
            self._breaches.add("5", f"order/{order_id} was never placed and has a payment")
            return
        if captured > order.amount:
            self._breaches.add("5", f"order/{order_id} of {order.amount} was charged {captured}")
        if captured and not order.was_confirmed:
            self._breaches.add(
                "5", f"order/{order_id} was {order.state}, never confirmed, and charged {captured}"
            )
        ended = order.state in ("rejected", "cancelled")
        if ended and held and (order.settled or not order.owes_money):
            self._breaches.add(
                "5", f"order/{order_id} was {order.state}, holds {held} and does not say it owes it"
            )

    def _compare(self, payment_id: str, theirs: Sums) -> None:
        """The provider may be ahead where an answer has not come yet; it is never behind."""
        payment = self._payments.get(payment_id) or _Payment("")
        for verb, ours in payment.moved.items():
            is_ahead = theirs[verb] > ours and payment.unanswered[verb]
            if theirs[verb] != ours and not is_ahead:
                self._breaches.add(
                    "5", f"payment/{payment_id}: the provider's {verb} is {theirs[verb]}, the log's {ours}"
                )
