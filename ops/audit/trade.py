"""Laws 3 and 5: every order ends in time, and money is where its order says it is."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from ops.audit.desk import AT_REST, SAGAS_WITHIN_US, Deadlines, Desk, Kind, Matters
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
    was_charged: bool = False
    owes_money: bool = False
    settled: bool = False


@dataclass(slots=True)
class _Payment:
    """A payment as its stream tells it: what moved, and per verb how many requests are unanswered."""

    order_id: str
    keys: list[str] = field(default_factory=list)  # of its requests, as the provider knows them
    moved: Sums = field(default_factory=_no_money)
    unanswered: Sums = field(default_factory=_no_money)

    @property
    def held(self) -> int:
        """What of the customer's money was authorized or captured, and neither let go nor refunded."""
        came = max(self.moved["authorization"], self.moved["capture"])
        return came - self.moved["void"] - self.moved["refund"]


class TradeBooks:
    """Follows every order and payment: a few hundred bytes for each."""

    def __init__(self, desk: Desk, deadlines: Deadlines) -> None:
        self._breaches = desk.breaches
        self._deadlines = deadlines
        self._orders = desk.books.table("orders", _Order)
        self._payments = desk.books.table("payments", _Payment)
        self._payments_of = desk.books.table("payments-of", list)
        """By order."""
        self._touched = Matters(desk, "touched")
        """Orders whose money must be looked at, stamped with the cut before which they or their payments moved last."""
        self._folds: dict[str, _Fold] = {
            "OrderPlaced": self._place,
            "OrderConfirmed": lambda event: self._end(event, "confirmed", ("placed",)),
            "OrderRejected": lambda event: self._end(event, "rejected", ("placed",)),
            "OrderCancelled": lambda event: self._end(event, "cancelled", ("placed", "confirmed")),
            "OrderCaptured": self._charge,
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

    def judge(self, cut: int) -> None:
        """The money of every order that has not moved since this cut, nor has any of its payments.

        Until such an order ends and says what it owes it has time; asked at rest, it has had it.
        """
        for order_id, at in self._touched.overdue(cut):
            if self._check_charges(order_id) and self._holds_in_silence(order_id):
                if cut == AT_REST:
                    self.miss("money", order_id)
                else:
                    self._deadlines.expect("money", order_id, at + SAGAS_WITHIN_US)

    def miss(self, kind: Kind, order_id: str) -> None:
        """An order did not end, or did not say that it owes money, although its time was up."""
        order = self._orders.get(order_id)
        if kind == "order":
            self._breaches.add("3", f"order/{order_id} never ended", {"stream": f"order/{order_id}"})
        elif order is not None and self._holds_in_silence(order_id):
            held = sum(payment.held for payment in self._payments_for(order_id))
            self._breaches.add(
                "5",
                f"order/{order_id} was {order.state}, holds {held} and does not say it owes it",
                {"stream": f"order/{order_id}"},
            )

    def compare_with_provider(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """The provider's own ledger must tell what the log tells. A row has verb, key, payment_id, amount, outcome."""
        theirs: dict[str, Sums] = defaultdict(_no_money)
        ours = {payment_id: self._payments.get(payment_id) or _Payment("") for payment_id in self._payments}
        asked = {key for payment in ours.values() for key in payment.keys}
        for row in rows:
            if row["key"] not in asked:
                self._breaches.add(
                    "5", f"the provider did a {row['verb']} that the log never asked for: {row['key']}"
                )
            if row["outcome"] == "succeeded":
                theirs[row["payment_id"]][row["verb"]] += row["amount"]
        for payment_id in theirs.keys() | ours.keys():
            self._compare(payment_id, theirs[payment_id])

    # Orders.

    def _place(self, event: Record) -> None:
        order_id, meta = event["order_id"], event["meta"]
        if self._orders.get(order_id) is not None:
            self._breaches.add("3", f"order/{order_id} was placed twice", meta)
        self._orders[order_id] = _Order(event["amount"], meta["recorded_at"], event["expires_at"])
        self._deadlines.expect("order", order_id, event["expires_at"])

    def _end(self, event: Record, state: OrderState, before: tuple[OrderState, ...]) -> None:
        order = self._order(event)
        if order is None:
            return
        order_id, meta = event["order_id"], event["meta"]
        if order.state not in before:
            self._breaches.add("3", f"order/{order_id} was {order.state} and then {state}", meta)
        late_us = self._deadlines.late_us(order.expires_at, meta["recorded_at"])
        if order.state == "placed" and late_us:
            what = f"order/{order_id} ended {late_us / 1_000_000:.1f} s after its deadline"
            self._breaches.add("3", what, meta)
        self._deadlines.met("order", order_id, order.expires_at)
        order.state = state
        order.was_confirmed = order.was_confirmed or state == "confirmed"
        order.owes_money = event.get("money", "none") != "none"

    def _charge(self, event: Record) -> None:
        order = self._order(event)
        if order is not None:
            order.was_charged = True

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
            self._breaches.add("3", f"order/{event['order_id']} was never placed", event["meta"])
        else:
            self._touched.open(event["order_id"], event["meta"]["recorded_at"])
        return order

    # Payments.

    def _ask(self, event: Record, verb: str) -> None:
        payment = self._payment(event)
        payment.keys.append(event["key"])
        payment.unanswered[verb] += 1

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
            known = self._payments_of.get(event["order_id"]) or []
            self._payments_of[event["order_id"]] = [*known, event["payment_id"]]
        self._touched.open(payment.order_id, event["meta"]["recorded_at"])
        return payment

    # What both must agree on, once both are read: the two topics may be seen in any order.

    def _check_charges(self, order_id: str) -> bool:
        """Whether it is there at all. It was charged what it comes to if it says so, never more, and only if it was
        confirmed.
        """
        captured = sum(payment.moved["capture"] for payment in self._payments_for(order_id))
        order, cause = self._orders.get(order_id), {"stream": f"order/{order_id}"}
        if order is None:
            self._breaches.add("5", f"order/{order_id} was never placed and has a payment")
            return False
        if captured > order.amount:
            self._breaches.add("5", f"order/{order_id} of {order.amount} was charged {captured}", cause)
        if order.was_charged and captured < order.amount:
            what = f"order/{order_id} says that it was charged {order.amount}, and its payments {captured}"
            self._breaches.add("5", what, cause)
        if captured and not order.was_confirmed:
            self._breaches.add(
                "5", f"order/{order_id} was {order.state}, never confirmed, and charged {captured}", cause
            )
        return True

    def _holds_in_silence(self, order_id: str) -> bool:
        """Whether it has ended, and holds money of which it does not say that it owes it."""
        order = self._orders.get(order_id)
        if order is None or order.state not in ("rejected", "cancelled"):
            return False
        held = sum(payment.held for payment in self._payments_for(order_id))
        return held != 0 and (order.settled or not order.owes_money)

    def _payments_for(self, order_id: str) -> Iterator[_Payment]:
        for payment_id in self._payments_of.get(order_id) or ():
            yield self._payments.get(payment_id) or _Payment(order_id)

    def _compare(self, payment_id: str, theirs: Sums) -> None:
        """The provider may be ahead where an answer has not come yet; it is never behind."""
        payment = self._payments.get(payment_id) or _Payment("")
        for verb, ours in payment.moved.items():
            is_ahead = theirs[verb] > ours and payment.unanswered[verb]
            if theirs[verb] != ours and not is_ahead:
                self._breaches.add(
                    "5", f"payment/{payment_id}: the provider's {verb} is {theirs[verb]}, the log's {ours}"
                )
