"""All laws over all aggregates, the sagas and the real command worker: whatever is asked, repeated, lost or late."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from random import Random
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from commands import inventory, payment
from commands.decider import Command, Context, Decider, Event, Record, Snapshot
from commands.journal import LogDamagedError
from commands.registry import DECIDERS
from commands.window import Window
from commands.writer import Kept, Writer
from ops.audit.law_book import LawBook
from ops.audit.wire import AvscReader
from projections import stock
from projections.registry import CASSANDRA_VIEWS, REDIS_VIEWS
from projections.view import Recorded, View, fold, offered
from schemas.cart import (
    AddItemsToCart,
    CartCheckedOut,
    CartItem,
    ChangeItemQuantity,
    CheckedOutCart,
    CheckOutCart,
    ClearCart,
    CompletedCart,
    CreateCart,
    RemoveItemFromCart,
    cart_stream,
)
from schemas.catalog import PublishProduct, RetireProduct
from schemas.inventory import (
    ActiveClaim,
    AdjustStock,
    AllocatedClaim,
    ChangeStockPolicy,
    ReceiptLine,
    ReceiveStock,
    ReleaseReservation,
    StockAdjusted,
    StockAllocated,
    StockItem,
    StockPolicyChanged,
    StockReceived,
    StockReserved,
    StockShipped,
    stock_stream,
)
from schemas.language import AGGREGATES
from schemas.meta import DAY, NO_HASH, SECOND, EventMeta, derived_id
from schemas.order import (
    CancelOrder,
    ConfirmedOrder,
    OrderConfirmed,
    SettledOrder,
    ShipOrder,
    order_stream,
)
from schemas.payment import PaymentAuthorized, PaymentRequestRepeated, RequestCapture, RequestVoid
from schemas.topics import Topics
from schemas.values import MAIN
from streams import saga
from streams.asked import Asked, Asking, Fact, SagaCommandRejected
from tests.commands.shop_laws import check_always, check_captures, check_claims, check_money, stumble
from tests.in_memory_shop import React
from tests.written_shop import Written, WrittenShop

SKUS = ("85123A", "71053", "22752")
POSTAGE = "POST"
OWNERS = ("anna", "ben")
MONTH = 31 * DAY
VIEWS = (*REDIS_VIEWS, *CASSANDRA_VIEWS)

skus = st.sampled_from((*SKUS, POSTAGE))
owners = st.sampled_from(OWNERS)
quantities = st.integers(1, 4)
baskets = st.dictionaries(skus, quantities, min_size=1, max_size=3)
chances = st.integers(0, 2**32)


class Trade(RuleBasedStateMachine):
    """Merchants and customers do whatever they can; processes are slow, die, and hear the same thing twice."""

    react: ClassVar[React] = staticmethod(saga.react)
    deciders: ClassVar[Mapping[str, Decider]] = DECIDERS
    views: ClassVar[Sequence[View[Any]]] = VIEWS
    decided: ClassVar[set[str]] = set()
    """The names of all commands that any run has come to."""

    def __init__(self) -> None:
        super().__init__()
        self.shop = WrittenShop(type(self).react, self.deciders)
        self.watch = Watch(self.shop)
        self.carts: list[tuple[str, str]] = []
        for sku in SKUS:
            self.shop.receive(sku, 6)

    # What merchants do.

    @rule(sku=skus, price=st.integers(1, 3))
    def publish(self, sku: str, price: int) -> None:
        body = PublishProduct(sku, sku, "", (), "", price, "GBP", stocked=sku != POSTAGE)
        self.shop.act("catalog", sku, body, "merchant")

    @rule(sku=skus)
    def retire(self, sku: str) -> None:
        self.shop.act("catalog", sku, RetireProduct(sku), "merchant")

    @rule(sku=st.sampled_from(SKUS), quantity=quantities)
    def receive(self, sku: str, quantity: int) -> None:
        body = ReceiveStock(MAIN, "delivery", (ReceiptLine(sku, quantity),))
        self.shop.act("inventory", sku, body, "merchant")

    @rule(sku=st.sampled_from(SKUS), delta=st.integers(-4, 4))
    def adjust(self, sku: str, delta: int) -> None:
        body = AdjustStock(sku, MAIN, delta, "damaged", "", None)
        self.shop.act("inventory", sku, body, "merchant")

    @rule(sku=st.sampled_from(SKUS), safety=st.integers(0, 2), low=st.integers(0, 3))
    def change_policy(self, sku: str, safety: int, low: int) -> None:
        self.shop.act("inventory", sku, ChangeStockPolicy(sku, MAIN, safety, low), "merchant")

    @rule()
    def ship(self) -> None:
        for order_id in self.orders():
            self.shop.act("order", order_id, ShipOrder(order_id), "merchant")

    # What customers do.

    @rule(owner=owners)
    def open_cart(self, owner: str) -> None:
        cart_id = derived_id(f"cart {len(self.carts)}")
        self.carts.append((cart_id, owner))
        self.shop.act("cart", cart_id, CreateCart(cart_id, owner, "GBP"), "customer", owner)

    @rule(owner=owners, items=baskets)
    def check_out_a_new_cart(self, owner: str, items: Mapping[str, int]) -> None:
        self.open_cart(owner)
        cart_id, _ = self.carts[-1]
        for sku, quantity in items.items():
            self.shop.act("cart", cart_id, adding(cart_id, sku, quantity), "customer", owner)
        self.shop.act("cart", cart_id, CheckOutCart(cart_id, "tok"), "customer", owner)

    @precondition(lambda self: self.carts)
    @rule(data=st.data(), sku=skus, quantity=quantities, actor=owners)
    def change_a_cart(self, data: st.DataObject, sku: str, quantity: int, actor: str) -> None:
        cart_id, owner = data.draw(st.sampled_from(self.carts))
        change = data.draw(st.sampled_from(CHANGES))
        before = len(self.shop.events())
        self.shop.act("cart", cart_id, change(cart_id, sku, quantity), "customer", actor)
        if actor != owner:
            assert len(self.shop.events()) == before, "a stranger changed a cart"

    @precondition(lambda self: self.orders())
    @rule(data=st.data(), actor=owners)
    def cancel(self, data: st.DataObject, actor: str) -> None:
        order_id = data.draw(st.sampled_from(self.orders()))
        self.shop.act("order", order_id, CancelOrder(order_id, "changed my mind"), "customer", actor)

    # What processes do.

    @rule(seed=chances, steps=st.integers(1, 200))
    def work(self, seed: int, steps: int) -> None:
        """Facts, commands and calls come on in any order, some twice, some of the calls to no end; and one writer
        or reader may be frozen all the while.
        """
        chance = Random(seed)
        frozen = chance.choice([None, "cart", "order", "inventory", "payment"])
        for _ in range(steps):
            stumble_harder(self.shop, chance, frozen)
            check_captures(self.shop, self.orders())
        self.look()

    @precondition(lambda self: self.orders())
    @rule(seed=chances)
    def work_for_long(self, seed: int) -> None:
        self.work(seed, 200)

    @rule()
    def work_it_off(self) -> None:
        self.shop.quiesce()
        self.look()

    @rule(seconds=st.sampled_from([1, 10, 59, 61, 300, 601]))
    def pass_time(self, seconds: int) -> None:
        self.shop.pass_time(seconds * SECOND)
        self.look()

    @rule(
        owner=owners,
        items=baskets,
        seed=chances,
        steps=st.integers(5, 20),
        seconds=st.sampled_from([61, 601]),
    )
    def leave_a_checkout_waiting(
        self, owner: str, items: Mapping[str, int], seed: int, steps: int, seconds: int
    ) -> None:
        """It gets somewhere, and then nobody works until its deadlines end what they must."""
        self.check_out_a_new_cart(owner, items)
        self.work(seed, steps)
        self.pass_time(seconds)

    @rule()
    def pass_a_month(self) -> None:
        """If nobody waits for anything: else a month of reminders would go by."""
        self.shop.quiesce()
        if self.shop.next_due(but="cart") > self.shop.now + MONTH:
            self.shop.commit()
            self.shop.pass_time(MONTH)
        self.look()

    @rule(seed=chances)
    def restart_the_worker(self, seed: int) -> None:
        self.shop.restart(on_a_new_machine=Random(seed).random() < 0.5)
        self.look()

    # What must be true.

    def orders(self) -> list[str]:
        return self.watch.orders

    def look(self) -> None:
        self.watch.look()
        check_always(self.shop)

    def teardown(self) -> None:
        """All is well again: goods come, everybody works, time passes."""
        self.shop.write_in_vain(0)
        for sku in SKUS:
            self.shop.receive(sku, 1_000)
        for _ in range(12):
            self.shop.quiesce()
            self.shop.pass_time(61 * SECOND)
            self.look()
        self.shop.quiesce()
        self.look()
        check_rest(self.shop, self.orders())
        check_views(self.shop, self.views)
        type(self).decided |= {one.type for one in self.shop.decisions()}


def adding(cart_id: str, sku: str, quantity: int) -> AddItemsToCart:
    item = CartItem(sku, sku, quantity, 100, "GBP", 1, stocked=sku != POSTAGE)
    return AddItemsToCart(cart_id, (item,))


CHANGES = (
    adding,
    ChangeItemQuantity,
    lambda cart_id, sku, _: RemoveItemFromCart(cart_id, sku),
    lambda cart_id, _sku, _: ClearCart(cart_id),
    lambda cart_id, _sku, _: CheckOutCart(cart_id, "tok"),
    lambda cart_id, _sku, _: CheckOutCart(cart_id, "tok"),
)


def stumble_harder(shop: WrittenShop, chance: Random, frozen: str | None) -> None:
    """As `stumble`, and what can only happen where there is a log: batches, repetitions, lost transactions."""
    queues = [place for place in shop.queues() if place[0] != frozen]
    match chance.choices(("stumble", "batch", "ask again", "in vain", "restart"), (88, 5, 4, 2, 1))[0]:
        case "stumble":
            stumble(shop, chance, frozen)
        case "batch" if queues:
            shop.decide_some(chance.choice(queues), chance.randint(2, 10))
        case "ask again":
            before = len(shop.events())
            if in_time := shop.in_time():
                shop.ask_again(chance.choice(in_time))
            assert len(shop.events()) == before, "law 6: asked again, it had another effect"
        case "in vain":
            shop.write_in_vain(chance.randint(1, 4))
        case "restart":
            shop.restart(on_a_new_machine=chance.random() < 0.5)


class Watch:
    """Laws 1, 2, 6 and 8 as the log grows: each event is looked at once, the records after it as well."""

    def __init__(self, shop: WrittenShop) -> None:
        self.orders: list[str] = []
        self._shop = shop
        self._looked_at = 0
        self._ends: dict[str, tuple[int, bytes]] = {}
        self._batches: dict[str, str] = {}
        self._on_hand: dict[str, int] = {}
        self._items: dict[str, StockItem] = {}

    def look(self) -> None:
        for written in self._shop.log[self._looked_at :]:
            if ".events." in written.topic:
                self._look_at(written)
        self._looked_at = len(self._shop.log)
        self._weigh()
        assert self._shop.dead == [], "a decider tripped"

    def _look_at(self, written: Written) -> None:
        meta: EventMeta = written.message.meta
        assert self._ends.get(meta.stream, (0, NO_HASH)) == (meta.version - 1, meta.previous), "law 8"
        self._ends[meta.stream] = meta.version, sha256(written.value).digest()
        batch = self._batches.setdefault(meta.command_id, meta.batch_id)
        assert batch == meta.batch_id, f"law 6: {meta.command_id} had two effects"
        event = written.message.body
        if isinstance(event, CartCheckedOut):
            self.orders.append(event.order_id)
        if meta.stream.startswith("stock/"):
            self._count(meta.stream, event)

    def _count(self, stream: str, event: Event) -> None:
        before = self._items.get(stream, StockItem(0, 0, 0, 0, 0, 0))
        came, taken = 0, 0
        match event:
            case StockReceived(quantity=quantity):
                came = quantity
            case StockAdjusted(before=was, after=after):
                came = after - was
            case StockShipped(quantity=quantity):
                came = -quantity
            case StockReserved(quantity=quantity):
                taken = quantity
            case StockAllocated(quantity=quantity, from_reserved=reserved):
                taken = quantity - reserved
        assert taken <= before.available or not taken, f"law 2: {taken} of {before.available} in {stream}"
        self._on_hand[stream] = self._on_hand.get(stream, 0) + came
        self._items[stream] = replace(
            before,
            sellable=event.sellable, reserved=event.reserved, allocated=event.allocated, shipped=event.shipped,
        )  # fmt: skip
        if isinstance(event, StockPolicyChanged):
            policy = {"safety_stock": event.safety_stock, "low_stock_at": event.low_stock_at}
            self._items[stream] = replace(self._items[stream], **policy)

    def _weigh(self) -> None:
        """Law 1."""
        claimed = dict.fromkeys(self._items, (0, 0))
        for record in self._shop.records.values():
            if isinstance(record, ActiveClaim | AllocatedClaim):
                stream = stock_stream(record.sku, record.location)
                reserved, allocated = claimed[stream]
                held = isinstance(record, ActiveClaim)
                claimed[stream] = (
                    reserved + record.quantity * held,
                    allocated + record.quantity * (not held),
                )
        for stream, item in self._items.items():
            assert self._shop.records[stream] == item, f"law 1: {stream}"
            assert item.sellable == self._on_hand[stream] >= 0, f"law 1: {stream}: {item}"
            assert (item.reserved, item.allocated) == claimed[stream], f"law 1: {stream}: {item}"


def check_rest(shop: WrittenShop, orders: Sequence[str]) -> None:
    """When everything is quiet: the orders, the carts, the state, and what the auditor says of the log."""
    assert shop.letters == [], "an order refused to hear a saga"
    for order_id in orders:
        record = shop.get(order_stream(order_id))
        assert isinstance(record, ConfirmedOrder | SettledOrder), f"law 3: {record}"
        check_money(shop, order_id, record)
        check_claims(shop, order_id, record)
    check_carts(shop)
    assert state_of(shop) == shop.records, "the state is not the fold of the log"
    verdicts = audited(shop)
    assert set(verdicts.values()) == {"holds"}, verdicts


def check_carts(shop: WrittenShop) -> None:
    """A cart waits for no order, and is completed by the one that was confirmed."""
    confirmed = {e.body.cart_id: e.body.order_id for e in shop.events() if isinstance(e.body, OrderConfirmed)}
    for path, cart in shop.records.items():
        if path.startswith("cart/"):
            assert not isinstance(cart, CheckedOutCart), "a cart waits for ever"
            completed_by = cart.order_id if isinstance(cart, CompletedCart) else None
            assert completed_by == confirmed.get(path.removeprefix(cart_stream("")))


def state_of(shop: WrittenShop) -> Mapping[str, Record]:
    """All records, folded anew from the log."""
    records: dict[str, Record] = {}
    for written in shop.log:
        _, kind, aggregate = written.topic.split(".")
        if kind == "events":
            for path, record in DECIDERS[aggregate].evolve(records, written.message.body).items():
                if record is None:
                    records.pop(path, None)
                else:
                    records[path] = record
    return records


READER = AvscReader()


def audited(shop: WrittenShop) -> Mapping[str, str]:
    """The verdicts of the auditor, who has nothing of our code but the schemas."""
    book = LawBook(READER)
    for written in shop.log:
        book.feed(written.topic, written.partition, written.value)
    return book.finish(shop.now)


def check_views(shop: WrittenShop, views: Sequence[View[Any]]) -> None:
    """Law 7: however a view came by the log, it is the fold of it, and says of the stock what the writer says."""
    for view in views:
        once: dict[str, Any] = {}
        again: dict[str, Any] = {}
        recorded = [as_recorded(one) for one in shop.log if view.reads(one.topic)]
        facts, poisons = offered(view, recorded)
        poisons += fold(view, once, facts)
        for part in (facts[: len(facts) // 2], facts[: len(facts) // 3], facts):
            poisons += fold(view, again, part)
        assert poisons == []
        assert once == again
        if view.name == stock.VIEW.name:
            check_levels(shop, once)


def check_levels(shop: WrittenShop, levels: Mapping[str, Any]) -> None:
    for path, item in shop.records.items():
        if isinstance(item, StockItem):
            level = levels[path]
            assert (level.sellable, level.reserved, level.allocated) == (
                item.sellable,
                item.reserved,
                item.allocated,
            ), "law 7"


def as_recorded(one: Written) -> Recorded:
    return Recorded(one.topic, one.partition, one.offset, one.key, one.message)


USUAL = settings(
    max_examples=12,
    stateful_step_count=20,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
DEEP = settings(USUAL, max_examples=300, stateful_step_count=30)
SEARCH = settings(USUAL, max_examples=1_500, phases=(Phase.generate,), derandomize=True)


def test_no_trade_breaks_a_law() -> None:
    run_state_machine_as_test(Trade, settings=USUAL)


@pytest.mark.deep
def test_no_trade_breaks_a_law_however_long_it_is_looked_for() -> None:
    run_state_machine_as_test(Trade, settings=DEEP)

    assert Trade.decided >= {command.__name__ for a in AGGREGATES.values() for command in a.commands}


# A bug planted in each of the protections, to see that the machine has eyes.


def without(*classes: type) -> React:
    def react(fact: Fact, topics: Topics) -> list[Asked | SagaCommandRejected]:
        made = saga.react(fact, topics)
        return [m for m in made if isinstance(m, SagaCommandRejected) or not isinstance(m.body, classes)]

    return react


def captures_early(fact: Fact, topics: Topics) -> list[Asked | SagaCommandRejected]:
    made = saga.react(fact, topics)
    event = getattr(fact, "body", None)
    if isinstance(event, PaymentAuthorized):
        capture = RequestCapture(event.payment_id, event.order_id, event.amount, 1)
        made.append(Asking("checkout", fact).payment(event.order_id, capture))
    return made


class Generous:
    """A snapshot in which every item has a unit more than there is."""

    def __init__(self, state: Snapshot) -> None:
        self._state = state

    def get(self, path: str) -> Record | None:
        record = self._state.get(path)
        return (
            replace(record, safety_stock=record.safety_stock - 1) if isinstance(record, StockItem) else record
        )


def oversells(state: Snapshot, command: Command, context: Context) -> Any:
    return inventory.decide(Generous(state), command, context)


def repeats_with_another_key(state: Snapshot, command: Command, context: Context) -> Any:
    events = payment.DECIDER.decide(state, command, context)
    if not isinstance(events, list | tuple):
        return events
    return [
        replace(e, key=context.event_id(0)) if isinstance(e, PaymentRequestRepeated) else e for e in events
    ]


def deciders_with(**changed: Any) -> dict[str, Any]:
    """The deciders, one of them with another function."""
    ((aggregate, change),) = changed.items()
    return {"deciders": {**DECIDERS, aggregate: replace(DECIDERS[aggregate], **change)}}


def forgetful_view() -> View[Any]:
    """What comes after the first event is not new to it."""

    def evolve(level: Any, event: Any) -> Any:
        return replace(level, version=event.meta.version) if level else stock.evolve(level, event)

    return replace(stock.VIEW, evolve=evolve)


def knows_no_command(self: Window, command_ids: Sequence[str], now: int) -> Mapping[str, Any]:
    return {}


found = Writer._found


def forgets_where_streams_end(self: Writer, path: str, value: bytes | None) -> Kept | None:
    kept = found(self, path, value)
    return kept and kept._replace(version=0, hash=NO_HASH)


PLANTED: Mapping[str, dict[str, Any]] = {
    "nothing is released": {"react": staticmethod(without(ReleaseReservation))},
    "nothing is voided": {"react": staticmethod(without(RequestVoid))},
    "money is taken before the confirmation": {"react": staticmethod(captures_early)},
    "more is sold than there is": deciders_with(inventory={"decide": oversells}),
    "an order has no deadline": deciders_with(order={"deadline": lambda path, record: None}),
    "a request is repeated under another key": deciders_with(payment={"decide": repeats_with_another_key}),
    "a view misses what happens": {"views": (forgetful_view(),)},
}
PATCHED: Mapping[str, tuple[type, str, Any]] = {
    "no command is known when it comes again": (Window, "find", knows_no_command),
    "a new writer begins its streams anew": (Writer, "_found", forgets_where_streams_end),
}


FOUND_SOON = {
    "nothing is released",
    "more is sold than there is",
    "no command is known when it comes again",
}


@pytest.mark.parametrize(
    "bug",
    [pytest.param(bug, marks=() if bug in FOUND_SOON else pytest.mark.deep) for bug in (*PLANTED, *PATCHED)],
)
def test_a_planted_bug_is_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a law, or by the worker's own comparison of its log with its state."""
    if bug in PATCHED:
        monkeypatch.setattr(*PATCHED[bug])
    machine = type("Planted", (Trade,), PLANTED.get(bug, {}))
    with pytest.raises((AssertionError, LogDamagedError)):
        run_state_machine_as_test(machine, settings=SEARCH)
