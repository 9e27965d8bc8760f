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
from schemas.cart import CheckedOutCart, CompletedCart, OpenCart, cart_stream
from schemas.inventory import ActiveClaim, AllocatedClaim, ExpiredClaim, ReleaseReservation
from schemas.meta import SECOND
from schemas.order import (
    CancelOrder,
    ConfirmedOrder,
    EndedOrder,
    OrderConfirmed,
    OrderPlaced,
    OrderRejected,
    PlacedOrder,
    SettledOrder,
    ShipOrder,
    order_stream,
    payment_id_of,
)
from schemas.payment import Payment, PaymentAuthorized, PaymentRequestRepeated, RequestCapture, RequestVoid
from schemas.topics import Topics
from streams import saga
from streams.asked import Asked, Asking, Fact, SagaCommandRejected
from tests.in_memory_shop import DECIDERS, React, Shop

SKUS = ("85123A", "71053", "84406B", "22752")
POSTAGE = "POST"
GRACE = 2 * SECOND

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


def stumble(shop: Shop, chance: Random, frozen: str | None) -> None:
    """One process does one thing, unless its aggregate is frozen."""
    sources = [source for source in shop.sources() if source[1] != frozen]
    queues = [place for place in shop.queues() if place[0] != frozen]
    match chance.choices(("deliver", "decide", "call", "hint", "again", "die"), (45, 40, 10, 5, 4, 1))[0]:
        case "deliver" if sources:
            shop.deliver(chance.choice(sources))
        case "decide" if queues:
            shop.decide(chance.choice(queues))
        case "call" if shop.calls:
            willing, lost, heard = (chance.random() < likely for likely in (0.8, 0.1, 0.8))
            shop.call(chance.randrange(len(shop.calls)), willing=willing, lost=lost, heard=heard)
        case "hint" if shop.provider.notices:
            shop.hint(chance.randrange(len(shop.provider.notices)))
        case "again" if shop.facts:
            shop.rewind(chance.choice(sorted(shop.facts)), chance.randint(1, 5))
        case "die" if shop.calls:
            shop.calls.pop(0)


def check_captures(shop: Shop, orders: Sequence[str]) -> None:
    """Law 5 at any moment."""
    for order_id in orders:
        if isinstance(shop.get(order_stream(order_id)), PlacedOrder | None):
            assert not shop.provider.captured(payment_id_of(order_id)), "law 5: captured, not confirmed"


def check_always(shop: Shop) -> None:
    """Laws 3 and 4 as time goes by."""
    for record in shop.records.values():
        if isinstance(record, PlacedOrder):
            assert record.expires_at + GRACE >= shop.now, "law 3: a placed order outlived its deadline"
        if isinstance(record, ActiveClaim):
            assert record.expires_at + GRACE >= shop.now, "law 4: a reservation outlived its limit"


def check_end(shop: Shop, orders: Sequence[str]) -> None:
    """Laws 3, 4 and 5 when everything is quiet."""
    assert shop.letters == [], "an order refused to hear a saga"
    assert not [r for r in shop.records.values() if isinstance(r, ActiveClaim)], (
        "law 4: a reservation lives on"
    )
    for order_id in orders:
        record = shop.get(order_stream(order_id))
        assert isinstance(record, ConfirmedOrder | SettledOrder), f"law 3: {record}"
        check_money(shop, order_id, record)
        check_claims(shop, order_id, record)
        check_cart(shop, order_id, record)


def check_money(shop: Shop, order_id: str, record: ConfirmedOrder | SettledOrder) -> None:
    payment_id = payment_id_of(order_id)
    events = shop.events_of(order_stream(order_id))
    assert len(shop.provider.moved[payment_id, "capture"]) <= 1, "law 5: charged twice"
    if shop.provider.moved[payment_id, "capture"]:
        assert any(isinstance(event, OrderConfirmed) for event in events), "law 5: captured, never confirmed"
    assert shop.provider.held(payment_id) == 0, "law 5: money is held that nobody will capture"
    amount = next(e.amount for e in events if isinstance(e, OrderPlaced))
    kept = isinstance(record, ConfirmedOrder) or record.ending == "completed"
    assert shop.provider.captured(payment_id) == (amount if kept else 0), f"law 5: {record}"
    check_ledger(shop, payment_id)


def check_ledger(shop: Shop, payment_id: str) -> None:
    """The payment's own ledger says what the provider's says."""
    ledger: Payment | None = shop.get(f"payment/{payment_id}")
    moved = shop.provider.moved
    for verb in ("authorized", "captured", "voided", "refunded"):
        name = {"authorized": "authorization", "captured": "capture", "voided": "void"}.get(verb, "refund")
        assert (getattr(ledger, verb) if ledger else 0) == sum(moved[payment_id, name]), f"{ledger}: {verb}"
    told = [getattr(event, "provider_event_id", None) for event in shop.events_of(f"payment/{payment_id}")]
    heard = [event_id for event_id in told if event_id is not None]
    assert len(heard) == len(set(heard)), "a provider's event was written down twice"


def check_claims(shop: Shop, order_id: str, record: ConfirmedOrder | SettledOrder) -> None:
    claims = [
        claim
        for claim in shop.records.values()
        if isinstance(claim, ActiveClaim | ExpiredClaim | AllocatedClaim) and claim.order_id == order_id
    ]
    if isinstance(record, SettledOrder):
        assert claims == [], "a settled order holds claims"
    else:
        assert all(isinstance(claim, AllocatedClaim) for claim in claims)


def check_cart(shop: Shop, order_id: str, record: ConfirmedOrder | SettledOrder) -> None:
    events = shop.events_of(order_stream(order_id))
    cart = shop.get(cart_stream(events[0].cart_id))
    assert not isinstance(cart, CheckedOutCart), "a cart waits for ever"
    was_confirmed = any(isinstance(event, OrderConfirmed) for event in events)
    assert isinstance(cart, CompletedCart if was_confirmed else OpenCart)


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
