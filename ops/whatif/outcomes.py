"""What became of the orders of a period, under two sets of rules, side by side."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from commands.decider import Event
from ops.whatif.world import Rules, World
from schemas.inventory import StockReservationExpired
from schemas.meta import EventMeta
from schemas.order import OrderCancelled, OrderConfirmed, OrderPlaced, OrderRejected
from schemas.topics import Topics
from streams.asked import Asked

AFTERWARDS = 3_600_000_000
"""So long after the last command (microseconds) everything has come to its end."""


@dataclass(frozen=True)
class Outcome:
    """An order: what was asked for (units of stocked and other lines, minor units), and how it ended."""

    order_id: str
    owner: str
    currency: str
    amount: int
    units: int
    status: str = "placed"
    reason: str = ""


@dataclass
class Outcomes:
    """The orders placed since an instant, as the events tell them."""

    since: int
    orders: dict[str, Outcome] = field(default_factory=dict)
    expired: int = 0

    def hear(self, event: Event, meta: EventMeta) -> None:
        match event:
            case OrderPlaced() if meta.occurred_at >= self.since:
                units = sum(line.quantity for line in event.lines)
                self.orders[event.order_id] = Outcome(
                    event.order_id, event.owner, event.currency, event.amount, units
                )
            case OrderConfirmed():
                self._end(event.order_id, "confirmed", "")
            case OrderRejected():
                self._end(event.order_id, "rejected", event.reason)
            case OrderCancelled():
                self._end(event.order_id, "cancelled", event.reason)
            case StockReservationExpired() if meta.occurred_at >= self.since:
                self.expired += 1
            case _:
                pass

    def _end(self, order_id: str, status: str, reason: str) -> None:
        if order_id in self.orders:
            self.orders[order_id] = replace(self.orders[order_id], status=status, reason=reason)

    def figures(self) -> dict[str, int]:
        """What is counted, by name; units and money are those of the orders that stand."""
        orders = self.orders.values()
        stand = [order for order in orders if order.status == "confirmed"]
        ends = Counter(_named(order) for order in orders)
        money = Counter[str]()
        for order in stand:
            money[order.currency] += order.amount
        return {
            "orders placed": len(self.orders),
            **{f"orders {name}": count for name, count in sorted(ends.items())},
            "units confirmed": sum(order.units for order in stand),
            **{f"money confirmed, {currency} minor units": sum_ for currency, sum_ in sorted(money.items())},
            "reservations expired": self.expired,
        }


def _named(order: Outcome) -> str:
    """A cancellation's reason is the caller's own words; there are as many as there are callers."""
    return f"rejected ({order.reason})" if order.status == "rejected" else order.status


def outcomes(
    asked: Iterable[Asked],
    today: Rules,
    candidate: Rules,
    since: int,
    topics: Topics,
    progress: Callable[[int], None],
) -> Outcomes:
    """Decide the commands anew, in the order given (by when they happened): by today's rules up to `since`, then by
    the candidate's.
    """
    found = Outcomes(since)
    world = World(today, topics, found.hear)
    for count, one in enumerate(asked, 1):
        world.advance(one.meta.issued_at)
        if world.now >= since:
            world.rules = candidate
        world.ask(one)
        progress(count)
    world.advance(world.now + AFTERWARDS)
    return found


def compared(today: Outcomes, candidate: Outcomes) -> Iterator[tuple[str, int, int, int]]:
    """Name, today's figure, the candidate's, and the difference."""
    ours, theirs = today.figures(), candidate.figures()
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        was, is_ = ours.get(name, 0), theirs.get(name, 0)
        yield name, was, is_, is_ - was


def order_by_order(today: Outcomes, candidates: Mapping[str, Outcome]) -> Sequence[dict[str, Any]]:
    """A row for each order that was placed under either: what it came to under both (None: not placed)."""
    ids = [*today.orders, *(one for one in candidates if one not in today.orders)]
    return [_row(one, today.orders.get(one), candidates.get(one)) for one in ids]


def _row(order_id: str, was: Outcome | None, is_: Outcome | None) -> dict[str, Any]:
    known = was or is_
    assert known is not None, "it was placed under one of them"
    row: dict[str, Any] = {"order_id": order_id, "owner": known.owner, "currency": known.currency}
    for side, one in (("today", was), ("candidate", is_)):
        for name in ("status", "reason", "units", "amount"):
            row[f"{side}_{name}"] = getattr(one, name, None)
    return row
