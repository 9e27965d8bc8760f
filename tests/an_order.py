"""One order of two lines of goods and one of postage, on its way; and what the sagas make of it."""

from collections.abc import Sequence
from typing import Any

from commands.decider import Command, Event
from schemas.codec import Decoded
from schemas.decisions import Decided, Rejected
from schemas.meta import NO_HASH, SECOND, EventMeta, Micros, derived_id
from schemas.order import (
    FLIGHT_LIMIT,
    REMINDER_INTERVAL,
    OrderCancelled,
    OrderCaptured,
    OrderCartClosed,
    OrderConfirmed,
    OrderEvent,
    OrderLinesAllocated,
    OrderLinesReserved,
    OrderPaymentAuthorized,
    OrderPlaced,
    OrderRejected,
    OrderShipmentRequested,
    OrderStockSecured,
    payment_id_of,
)
from schemas.topics import Topics
from schemas.values import Line, PricedLine, RefusedLine
from streams.asked import Asked, Fact, SagaCommandRejected

NOW = Micros(1_000 * SECOND)
REMIND_AT = Micros(NOW + REMINDER_INTERVAL)
ORDER, CART, OWNER = derived_id("order"), derived_id("cart"), "anna"
PAYMENT = payment_id_of(ORDER)
TOPICS = Topics(partitions=2)
LAMP, BOWL = Line(1, "LAMP", 2), Line(2, "BOWL", 3)
"""They live in different inventory partitions."""

AMOUNT, CURRENCY, TOKEN = 1_700, "GBP", "tok_ok"
LINES = (
    PricedLine(1, "LAMP", "A lamp", 2, 500, 1, stocked=True),
    PricedLine(2, "BOWL", "A bowl", 3, 200, 1, stocked=True),
    PricedLine(3, "POST", "Postage", 1, 100, 1, stocked=False),
)


def step(*lines: Line) -> tuple[str, str, str, str, tuple[Line, ...], int, str]:
    """What every event of this order begins with that triggers a step."""
    return ORDER, CART, OWNER, PAYMENT, lines, AMOUNT, CURRENCY


def refused(line: Line, available: int = 0) -> RefusedLine:
    return RefusedLine(line.line, line.sku, line.quantity, available)


def rejected(*lines: Line, reason: str, money: str = "none") -> OrderRejected:
    return OrderRejected(*step(*lines), "reserved", money, "reopen", REMIND_AT, reason)


def cancelled(
    *lines: Line, reason: str, held: str = "reserved", money: str = "none", cart: str = "reopen"
) -> OrderCancelled:
    return OrderCancelled(*step(*lines), held, money, cart, REMIND_AT, reason)


PLACED: Sequence[OrderEvent] = (
    OrderPlaced(ORDER, CART, OWNER, PAYMENT, LINES, AMOUNT, CURRENCY, TOKEN, Micros(NOW + FLIGHT_LIMIT)),
)
LAMP_RESERVED = (*PLACED, OrderLinesReserved(ORDER, (LAMP,)))
SECURED = (*LAMP_RESERVED, OrderLinesReserved(ORDER, (BOWL,)), OrderStockSecured(*step(LAMP, BOWL), TOKEN))
CONFIRMED = (
    *SECURED,
    OrderPaymentAuthorized(ORDER, PAYMENT, AMOUNT),
    OrderConfirmed(*step(LAMP, BOWL), REMIND_AT),
)
ALLOCATED = (*CONFIRMED, OrderLinesAllocated(ORDER, (LAMP,)), OrderLinesAllocated(ORDER, (BOWL,)))
CAPTURED = (*ALLOCATED, OrderCaptured(ORDER, PAYMENT, AMOUNT))
READY = (*CAPTURED, OrderCartClosed(ORDER, "completed"))
LEAVING = (*READY, OrderShipmentRequested(*step(LAMP, BOWL), 1, REMIND_AT))


def recorded(event: Event) -> Decoded[EventMeta]:
    """The event as a saga reads it."""
    meta = EventMeta(
        derived_id(type(event).__name__), event.stream, 1, Micros(NOW - SECOND), NOW, "command", "story",
        "cause", "saga", "checkout", "batch", 0, 1, "00-trace", NO_HASH,
    )  # fmt: skip
    return Decoded(meta, event)


def decided(
    type_: str, stream: str, *lines: Line, refused: Sequence[RefusedLine] = (), status: str = "", **more: Any
) -> Decided:
    """The answer to what a saga asked for this order."""
    rejection = more.get("rejection")
    outcome = "rejected" if rejection else "refused" if refused else "accepted"
    return Decided(
        derived_id(type_), type_, stream, tuple(line.line for line in lines), more.get("attempt", 1),
        more.get("reply_to", f"order/{ORDER}"), "", outcome, status, tuple(refused), rejection, (), "story",
        "00-trace", None, NOW,
    )  # fmt: skip


EXPIRED = Rejected("CommandExpired", "expired", "too late")


def bodies(asked: Sequence[Asked | SagaCommandRejected]) -> list[Command]:
    return [one.body for one in asked if isinstance(one, Asked)]


def asked_after(react: Any, events: Sequence[Event]) -> list[Command]:
    """The commands that follow from these events."""
    facts: list[Fact] = [recorded(event) for event in events]
    return [body for fact in facts for body in bodies(react(fact, TOPICS))]
