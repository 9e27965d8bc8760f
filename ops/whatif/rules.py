"""Candidates to try: each takes today's rules and gives other ones. Write your own beside them, in any module."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from commands.decider import Command, Context, Decider, Event, Record, Snapshot
from commands.rejections import Rejection
from ops.whatif.world import Promise, Rules
from schemas.cart import CartCheckedOut, CheckOutCart
from schemas.inventory import ReserveStock, StockItem, stock_stream
from schemas.meta import MINUTE, Micros
from schemas.payment import PaymentRequested
from schemas.topics import Topics
from schemas.values import MAIN, PricedLine
from streams.asked import Asked, Fact, SagaCommandRejected, trigger_of

SHORT_LIMIT = 2 * MINUTE
SLOW_ANSWER = 3 * MINUTE
SAFETY_STOCK = 5


def short_reservations_and_slow_payments(today: Rules) -> Rules:
    """Reservations of 2 minutes instead of 10, and payments that answer after 3 minutes for every tenth customer."""

    def react(fact: Fact, topics: Topics) -> list[Asked | SagaCommandRejected]:
        until = Micros(trigger_of(fact).recorded_at + SHORT_LIMIT)
        return [_until(made, until) for made in today.react(fact, topics)]

    return slow_payments(replace(today, react=react))


def slow_payments(today: Rules) -> Rules:
    """The slow payments alone, to see what the reservations add to them."""

    def provider(request: PaymentRequested) -> Promise:
        promise = today.provider(request)
        return promise._replace(after=SLOW_ANSWER) if _is_tenth(request.owner) else promise

    return replace(today, provider=provider)


def safety_stock(today: Rules) -> Rules:
    """The last five units of everything are not sold."""
    inventory = today.deciders["inventory"]

    def decide(state: Snapshot, command: Command, context: Context) -> Sequence[Event] | Rejection:
        return inventory.decide(_Cautious(state), command, context)

    return _with(today, replace(inventory, decide=decide))


def partial_acceptance(today: Rules) -> Rules:
    """An order takes what there is instead of all or nothing: a checkout leaves out what is not available."""
    cart = today.deciders["cart"]

    def decide(state: Snapshot, command: Command, context: Context) -> Sequence[Event] | Rejection:
        events = cart.decide(state, command, context)
        if isinstance(events, Rejection) or not isinstance(command, CheckOutCart):
            return events
        return [_cut(state, event) if isinstance(event, CartCheckedOut) else event for event in events]

    return _with(today, replace(cart, decide=decide))


class _Cautious:
    """The state as it would be if every item had a safety stock."""

    def __init__(self, state: Snapshot) -> None:
        self._state = state

    def get(self, path: str) -> Record | None:
        record = self._state.get(path)
        if isinstance(record, StockItem):
            return replace(record, safety_stock=max(record.safety_stock, SAFETY_STOCK))
        return record


def _is_tenth(owner: str) -> bool:
    """Every tenth customer, by the number that the name ends in, such as `c-17850`."""
    return owner.endswith("0")


def _until(made: Any, until: Micros) -> Any:
    if isinstance(made, Asked) and isinstance(made.body, ReserveStock):
        return replace(made, body=replace(made.body, expires_at=until))
    return made


def _cut(state: Snapshot, event: CartCheckedOut) -> CartCheckedOut:
    """What is left of a checkout, numbered anew: an order counts its lines from 1 on, without a gap. One of which
    nothing is left stays as it was, and is refused.
    """
    left = [line for line in (_available(state, line) for line in event.lines) if line.quantity]
    if not left:
        return event
    lines = tuple(replace(line, line=number) for number, line in enumerate(left, start=1))
    return replace(event, lines=lines, amount=sum(line.quantity * line.unit_price for line in lines))


def _available(state: Snapshot, line: PricedLine) -> PricedLine:
    if not line.stocked:
        return line
    item: StockItem | None = state.get(stock_stream(line.sku, MAIN))
    return replace(line, quantity=min(line.quantity, item.available if item else 0))


def _with(today: Rules, decider: Decider) -> Rules:
    return replace(today, deciders={**today.deciders, decider.aggregate: decider})
