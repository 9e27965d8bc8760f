"""Law 3, after the end: what an order still waits for, and by when it must have asked for it again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

from ops.audit.desk import Deadlines, Desk
from ops.audit.wire import Record


@dataclass(slots=True)
class _Waiting:
    """What an order waits for, as its own stream tells it; at `remind_at` it asks again."""

    stage: Literal["placed", "confirmed", "ended", "settled"] = "confirmed"
    remind_at: int = 0
    due: int | None = None  # what the deadlines know of it
    charge: bool = False
    cart: bool = False
    unallocated: set[int] = field(default_factory=set)  # numbers of lines, as in `leaving`
    leaving: set[int] = field(default_factory=set)

    @property
    def is_over(self) -> bool:
        waits = self.charge or self.cart or self.unallocated or self.leaving
        return self.stage == "settled" or (self.stage == "confirmed" and not waits)

    @property
    def asks_again_at(self) -> int | None:
        """None where it need not: while it is placed its deadline is a law of its own."""
        return None if self.is_over or self.stage == "placed" else self.remind_at

    @property
    def law(self) -> str:
        """Which one it breaks if it waits for ever: the fifth wants a charge for every confirmed order."""
        return "5" if self.stage == "confirmed" and self.charge else "3"

    def __str__(self) -> str:
        match self.stage:
            case "placed":
                return "was placed and has not ended"
            case "ended":
                return "has ended and is not settled"
        waits = {
            "charged": self.charge,
            "allocated": self.unallocated,
            "shipped as was asked": self.leaving,
            "told that its cart is closed": self.cart,
        }
        return f"was confirmed and is not {', nor '.join(what for what, lacks in waits.items() if lacks)}"


class OpenOrders:
    """Follows every order from its placement until it waits for nothing; then it is forgotten.

    How long it waits is nobody's fault: a provider may be away for a day. That it waits in silence is.
    """

    def __init__(self, desk: Desk, deadlines: Deadlines) -> None:
        self._breaches = desk.breaches
        self._deadlines = deadlines
        self._open = desk.books.table("open-orders", _Waiting)

    def fold(self, name: str, event: Record) -> None:
        change = _CHANGES.get(name)
        if change is None:
            return
        order_id = event["order_id"]
        waiting = self._open.get(order_id) or _Waiting()
        change(waiting, event)
        self._expect(order_id, waiting)
        if waiting.is_over:
            self._open.pop(order_id, None)
        else:
            self._open[order_id] = waiting

    def miss(self, order_id: str) -> None:
        """Its time to ask again was up."""
        self._break(order_id, ", and does not ask again")

    def check_settled(self) -> None:
        """To be asked by who has waited until nothing was owed any more."""
        for order_id in self._open:
            self._break(order_id)

    def _expect(self, order_id: str, waiting: _Waiting) -> None:
        due = waiting.asks_again_at
        if due == waiting.due:
            return
        if waiting.due is not None:
            self._deadlines.met("reminder", order_id, waiting.due)
        if due is not None:
            self._deadlines.expect("reminder", order_id, due)
        waiting.due = due

    def _break(self, order_id: str, more: str = "") -> None:
        waiting = self._open.get(order_id)
        if waiting is not None:
            what = f"order/{order_id} {waiting}{more}"
            self._breaches.add(waiting.law, what, {"stream": f"order/{order_id}"})


# What each event changes.


def _place(waiting: _Waiting, _: Record) -> None:
    waiting.stage = "placed"


def _confirm(waiting: _Waiting, event: Record) -> None:
    waiting.stage, waiting.remind_at = "confirmed", event["remind_at"]
    waiting.charge = waiting.cart = True
    waiting.unallocated = _numbers(event)


def _ask(waiting: _Waiting, event: Record) -> None:
    waiting.remind_at = event["remind_at"]


def _ask_for_shipment(waiting: _Waiting, event: Record) -> None:
    waiting.remind_at = event["remind_at"]
    waiting.leaving |= _numbers(event)


def _allocate(waiting: _Waiting, event: Record) -> None:
    waiting.unallocated -= _numbers(event)


def _ship(waiting: _Waiting, event: Record) -> None:
    waiting.unallocated -= _numbers(event)
    waiting.leaving -= _numbers(event)


def _keep(waiting: _Waiting, event: Record) -> None:
    waiting.leaving -= _numbers(event)


def _charge(waiting: _Waiting, _: Record) -> None:
    waiting.charge = False


def _charge_later(waiting: _Waiting, event: Record) -> None:
    waiting.remind_at = event["retry_at"]


def _close_cart(waiting: _Waiting, _: Record) -> None:
    waiting.cart = False


def _end(waiting: _Waiting, event: Record) -> None:
    waiting.stage, waiting.remind_at = "ended", event["remind_at"]


def _settle(waiting: _Waiting, _: Record) -> None:
    waiting.stage = "settled"


def _numbers(event: Record) -> set[int]:
    return {line["line"] for line in event["lines"]}


_Change: TypeAlias = Callable[[_Waiting, Record], None]
_CHANGES: Mapping[str, _Change] = MappingProxyType(
    {
        "OrderPlaced": _place,
        "OrderConfirmed": _confirm,
        "OrderConfirmationRepeated": _ask,
        "OrderCaptureRequested": _ask,
        "OrderCaptureFailed": _charge_later,
        "OrderCaptured": _charge,
        "OrderLinesAllocated": _allocate,
        "OrderCartClosed": _close_cart,
        "OrderShipmentRequested": _ask_for_shipment,
        "OrderLinesShipped": _ship,
        "OrderShipmentRefused": _keep,
        "OrderRejected": _end,
        "OrderCancelled": _end,
        "OrderCompleted": _end,
        "OrderReturnRequested": _end,
        "OrderSettled": _settle,
    }
)
