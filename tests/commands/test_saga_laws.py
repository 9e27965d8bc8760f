"""Laws 3, 4 and 5 on a virtual clock: whatever comes in whatever order, every checkout ends, and owes nothing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from commands import order, payment
from commands.decider import Answer, Changes, Command, Context, Decider, Event, Snapshot
from schemas.inventory import ReleaseReservation
from schemas.meta import SECOND
from schemas.order import CancelOrder, EndedOrder, OrderRejected, ShipOrder
from schemas.payment import Payment, PaymentAuthorized, PaymentRequestRepeated, RequestCapture, RequestVoid
from schemas.topics import Topics
from streams import saga
from streams.asked import Asked, Asking, Fact, SagaCommandRejected
from tests.commands.shop_laws import check_always, check_captures, check_end, stumble
from tests.in_memory_shop import DECIDERS, React, Shop

SKUS = ("85123A", "71053", "84406B", "22752")
POSTAGE = "POST"

quantities = st.dictionaries(st.sampled_from(SKUS), st.integers(1, 3), min_size=1, max_size=3)


class Checkouts(RuleBasedStateMachine):
    """A few customers, scarce stock, a moody provider, and no order across topics."""

    react: ClassVar[React] = staticmethod(saga.react)
    deciders: ClassVar[Mapping[str, Decider]] = DECIDERS

    def __init__(self) -> None:
        super().__init__()
        self.shop = Shop(type(self).react, self.deciders)
        self.orders: list[str] = []
        for sku in SKUS:
            self.shop.receive(sku, 8)

    @rule(items=quantities)
    def check_out(self, items: dict[str, int]) -> None:
        self.orders.append(self.shop.check_out(f"cart {len(self.orders)}", "anna", items))

    @rule()
    def check_out_what_needs_no_stock(self) -> None:
        name = f"cart {len(self.orders)}"
        self.orders.append(self.shop.check_out(name, "anna", {POSTAGE: 1}, stocked=False))

    @rule(seed=st.integers(0, 2**32), steps=st.integers(1, 100))
    def work(self, seed: int, steps: int) -> None:
        """Facts, commands and calls come on in any order, some twice, some of the calls to no end; and one writer
        or reader may be frozen all the while.
        """
        chance = Random(seed)
        frozen = chance.choice([None, *DECIDERS])
        for _ in range(steps):
            stumble(self.shop, chance, frozen)
            check_captures(self.shop, self.orders)
        check_always(self.shop)

    @precondition(lambda self: self.orders)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        order_id = data.draw(st.sampled_from(self.orders))
        self.shop.act("order", order_id, CancelOrder(order_id, "changed my mind"), "customer", "anna")

    @rule()
    def ship(self) -> None:
        for order_id in self.orders:
            self.shop.act("order", order_id, ShipOrder(order_id), "merchant")

    @rule(seconds=st.sampled_from([1, 10, 59, 61, 300, 601]))
    def pass_time(self, seconds: int) -> None:
        self.shop.pass_time(seconds * SECOND)
        check_always(self.shop)

    @rule()
    def work_it_off(self) -> None:
        self.shop.quiesce()

    def teardown(self) -> None:
        for _ in range(12):
            self.shop.quiesce()
            self.shop.pass_time(61 * SECOND)
            check_always(self.shop)
        self.shop.quiesce()
        check_end(self.shop, self.orders)


THOROUGH = settings(
    max_examples=200,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
QUICK = settings(
    max_examples=3_000,  # a search ends at what it finds; how soon that is depends on all code that is loaded
    stateful_step_count=25,
    deadline=None,
    database=None,
    phases=(Phase.generate,),
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def test_every_checkout_ends_and_owes_nothing_whatever_the_order_of_facts() -> None:
    run_state_machine_as_test(Checkouts, settings=THOROUGH)


# Planted bugs: each must be found.


def fails(react: React = saga.react, deciders: Mapping[str, Decider] = DECIDERS) -> None:
    machine = type("Planted", (Checkouts,), {"react": staticmethod(react), "deciders": deciders})
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=QUICK)


def without(*classes: type) -> React:
    def react(fact: Fact, topics: Topics) -> list[Asked | SagaCommandRejected]:
        made = saga.react(fact, topics)
        return [m for m in made if isinstance(m, SagaCommandRejected) or not isinstance(m.body, classes)]

    return react


def test_a_saga_that_releases_nothing_is_found() -> None:
    fails(without(ReleaseReservation))


def test_a_saga_that_voids_nothing_is_found() -> None:
    fails(without(RequestVoid))


def test_a_saga_that_captures_before_the_confirmation_is_found() -> None:
    def react(fact: Fact, topics: Topics) -> list[Asked | SagaCommandRejected]:
        made = saga.react(fact, topics)
        event = getattr(fact, "body", None)
        if isinstance(event, PaymentAuthorized):
            capture = RequestCapture(event.payment_id, event.order_id, event.amount, 1)
            made.append(Asking("checkout", fact).payment(event.order_id, capture))
        return made

    fails(react)


def test_an_order_without_a_deadline_is_found() -> None:
    fails(deciders={**DECIDERS, "order": replace(order.DECIDER, deadline=lambda path, record: None)})


def test_an_order_that_forgets_its_claims_when_it_is_rejected_is_found() -> None:
    def evolve(state: Snapshot, event: Event) -> Changes:
        changes = dict(order.DECIDER.evolve(state, event))
        for path, record in changes.items():
            if isinstance(event, OrderRejected) and isinstance(record, EndedOrder):
                changes[path] = replace(record, claims="-" * len(record.claims))
        return changes

    def decide(state: Snapshot, command: Command, context: Context) -> list[Event]:
        events = order.DECIDER.decide(state, command, context)
        return [replace(e, lines=()) if isinstance(e, OrderRejected) else e for e in _all(events)]

    fails(deciders={**DECIDERS, "order": replace(order.DECIDER, decide=decide, evolve=evolve)})


def test_a_payment_that_forgets_a_void_while_its_authorization_is_pending_is_found() -> None:
    def decide(state: Snapshot, command: Command, context: Context) -> list[Event]:
        ledger: Payment | None = state.get(command.stream)
        if isinstance(command, RequestVoid) and ledger and ledger.pending:
            return []
        return list(_all(payment.DECIDER.decide(state, command, context)))

    def answer(state: Snapshot, command: Command, events: Sequence[Event]) -> Answer:
        if isinstance(command, RequestVoid):
            return Answer("nothing")
        return payment.DECIDER.answer(state, command, events)

    fails(deciders={**DECIDERS, "payment": replace(payment.DECIDER, decide=decide, answer=answer)})


def test_a_payment_that_repeats_itself_with_another_key_is_found() -> None:
    def decide(state: Snapshot, command: Command, context: Context) -> list[Event]:
        events = _all(payment.DECIDER.decide(state, command, context))
        return [
            replace(e, key=context.event_id(0)) if isinstance(e, PaymentRequestRepeated) else e
            for e in events
        ]

    fails(deciders={**DECIDERS, "payment": replace(payment.DECIDER, decide=decide)})


def _all(decided: object) -> Iterator[Event]:
    """The events; of a rejection none, which a planted bug may well make of it."""
    yield from decided if isinstance(decided, list | tuple) else ()
