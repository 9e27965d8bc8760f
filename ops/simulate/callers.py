"""The callers: customers and a merchant who ask for things, ask again when nobody answers, and remember every word."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, Literal

from confluent_kafka import KafkaException, TopicPartition

from ops.simulate.broker import Headers, Place
from ops.simulate.clients import MemoryConsumer
from ops.simulate.clockwork import Process, Waker, current
from ops.simulate.network import Network
from ops.simulate.wire import DECODER, record_of
from schemas.cart import (
    AddItemsToCart,
    CartItem,
    ChangeItemQuantity,
    CheckOutCart,
    CreateCart,
    RemoveItemFromCart,
    order_id_of,
)
from schemas.catalog import PublishProduct, RetireProduct
from schemas.codec import UndecodableError
from schemas.decisions import Decided, Decisions
from schemas.inventory import AdjustStock, ChangeStockPolicy, ReceiptLine, ReceiveStock, ReserveStock
from schemas.language import AGGREGATES
from schemas.meta import SECOND, CommandMeta, Micros, derived_id
from schemas.order import CancelOrder, ShipOrder
from schemas.topics import Topics
from schemas.values import MAIN, Line

Told = Literal["accepted", "refused", "rejected", "unknown"]
Kind = Literal["publish", "retire", "receive", "adjust", "policy", "set aside", "check out"]

SKUS = ("85123A", "22423", "84879", "47566", "20725", "POST")
"""The last is no goods: postage."""
HOT = 2
"""So many of them have too little stock."""
PATIENCE_S = 3.0
TRIES = 4
VALID = 30 * SECOND
HOW_MANY: dict[Kind, int] = {
    "receive": 4,
    "publish": 4,
    "retire": 1,
    "adjust": 4,
    "policy": 2,
    "set aside": 4,
    "check out": 16,
}
RUSHES = 5
RUSH = 200_000
"""People come in waves, so that they are in each other's way."""
SPAN = 300 * SECOND
"""The time over which callers begin, in microseconds."""


@dataclass(frozen=True)
class Errand:
    """What one caller sets out to do, so many microseconds after the start. `number` names it for ever."""

    at: int
    kind: Kind
    number: int


@dataclass(slots=True)
class Heard:
    """One command, and what its caller was told last. `last_until` is the latest `not_after` it was sent with."""

    aggregate: str
    type: str
    sent: int
    last_until: int
    told: Told = "unknown"
    decided: Decided | None = None


def plan_errands(random: Random) -> tuple[Errand, ...]:
    kinds: list[Kind] = [kind for kind, count in HOW_MANY.items() for _ in range(count)]
    rushes = [random.randrange(SPAN) for _ in range(RUSHES)]
    first = [Errand(random.randrange(SECOND), "receive", n) for n in range(len(SKUS) - 1)]
    rest = [
        Errand(random.choice(rushes) + random.randrange(RUSH), kind, n)
        for n, kind in enumerate(kinds, len(first))
    ]
    return (*first, *sorted(rest, key=lambda errand: errand.at))


@dataclass
class Callers:
    """All callers in one process of their own, which nobody kills: they are not ours."""

    process: Process
    network: Network
    topics: Topics
    random: Random
    heard: dict[str, Heard] = field(default_factory=dict)
    set_aside: set[str] = field(default_factory=set)
    """Orders that are none: somebody reserved in their name."""

    def __post_init__(self) -> None:
        self._waiting: dict[str, Waker] = {}
        self.process.spawn(self._listen)

    def send_out(self, errands: Sequence[Errand]) -> None:
        clock = self.network.clock
        for errand in errands:
            run = partial(self._run, errand)
            clock.at(clock.now + errand.at, None, self.process.spawn, run)

    def _run(self, errand: Errand) -> None:
        # Of its own, so that an errand is the same whatever the others do: a history can be shortened.
        _ERRANDS[errand.kind](Caller(self, errand, Random(f"errand {errand.number}")))

    # Asking.

    def ask(self, aggregate: str, body: Any, command_id: str, kind: str, actor: str) -> Decided | None:
        """What became of it; None if nobody said, however often it was asked."""
        clock = self.network.clock
        for _ in range(TRIES):
            until = Micros(clock.now + VALID)
            meta = CommandMeta(
                command_id, body.stream, "", clock.now, until, None, None, "api/sim", command_id, command_id,
                kind, actor, type(body).__name__,
            )  # fmt: skip
            heard = self.heard.setdefault(command_id, Heard(aggregate, type(body).__name__, 0, 0))
            heard.sent, heard.last_until = heard.sent + 1, max(heard.last_until, until)
            decided = self._ask_once(
                record_of(self.topics, aggregate, body.stream.split("/")[1], body, meta), heard
            )
            if decided is not None:
                return decided
            clock.sleep(self.random.uniform(0.1, 3.0))
        return None

    def _ask_once(self, what: tuple[Place, tuple[bytes, bytes, Headers]], heard: Heard) -> Decided | None:
        place, record = what
        clock, broker = self.network.clock, self.network.broker
        command_id = DECODER.decode(record[1]).meta.command_id
        try:
            self.network.call(self.process, "send", PATIENCE_S, lambda: broker.append(place, [record]), [])
        except KafkaException:
            return None
        if heard.decided is None:
            self._waiting[command_id] = current().waker()
            clock.park(PATIENCE_S * SECOND)
            self._waiting.pop(command_id, None)
        return heard.decided

    def _listen(self) -> None:
        settings = {"group.id": "callers", "isolation.level": "read_committed"}
        reader = MemoryConsumer(self.network, self.process, self.random, settings)
        topics = [self.topics.decisions(aggregate) for aggregate in AGGREGATES]
        reader.assign(
            [TopicPartition(topic, n, 0) for topic in topics for n in range(self.topics.partitions)]
        )
        while True:
            message = reader.poll(3_600)
            if message is None:
                continue
            for one in [message, *reader.consume(1_000, 0)]:
                self._hear(one.value() or b"")

    def _hear(self, value: bytes) -> None:
        try:
            body = DECODER.decode(value).body
        except UndecodableError:
            return
        for decided in body.decided if isinstance(body, Decisions) else ():
            heard = self.heard.get(decided.command_id)
            if heard is not None and heard.decided is None and not is_late(decided):
                heard.decided, heard.told = decided, decided.outcome  # type: ignore[assignment]  # an Outcome is a Told
            wake = self._waiting.get(decided.command_id)
            if wake is not None:
                wake()


def is_late(decided: Decided) -> bool:
    """It was not decided at all: it came after its time, and may be sent again."""
    return decided.rejection is not None and decided.rejection.kind == "expired"


@dataclass
class Caller:
    """One caller on one errand."""

    callers: Callers
    errand: Errand
    random: Random
    _asked: int = 0

    def ask(self, aggregate: str, body: Any, kind: str = "merchant", actor: str = "anna") -> Decided | None:
        self._asked += 1
        command_id = derived_id("errand", str(self.errand.number), str(self._asked))
        return self.callers.ask(aggregate, body, command_id, kind, actor)

    def wait(self, least_s: float, most_s: float) -> None:
        self.callers.network.clock.sleep(self.random.uniform(least_s, most_s))


def _publish(caller: Caller) -> None:
    sku = caller.random.choice(SKUS)
    price = caller.random.randrange(100, 900)
    caller.ask(
        "catalog", PublishProduct(sku, f"the {sku}", "of tin", ("home",), "", price, "GBP", sku != "POST")
    )


def _retire(caller: Caller) -> None:
    caller.ask("catalog", RetireProduct(caller.random.choice(SKUS)))


def _receive(caller: Caller) -> None:
    goods = SKUS[:-1]
    number = caller.errand.number
    sku = goods[number] if number < len(goods) else caller.random.choice(goods)
    most = 8 if sku in SKUS[:HOT] else 120
    line = ReceiptLine(sku, caller.random.randrange(1, most))
    caller.ask("inventory", ReceiveStock(MAIN, f"delivery {number}", (line,)))


def _adjust(caller: Caller) -> None:
    delta = caller.random.choice((-5, -2, -1, 1, 3))
    caller.ask("inventory", AdjustStock(caller.random.choice(SKUS[:-1]), MAIN, delta, "damaged", "", None))


def _policy(caller: Caller) -> None:
    body = ChangeStockPolicy(caller.random.choice(SKUS[:-1]), MAIN, caller.random.randrange(3), 5)
    caller.ask("inventory", body)


def _set_aside(caller: Caller) -> None:
    """Another channel reserves and never comes back: the reservation ends by itself."""
    clock = caller.callers.network.clock
    line = Line(1, caller.random.choice(SKUS[:-1]), caller.random.randrange(1, 3))
    until = Micros(clock.now + caller.random.randrange(20, 200) * SECOND)
    order_id = derived_id("another channel", str(caller.errand.number))
    caller.callers.set_aside.add(order_id)
    caller.ask("inventory", ReserveStock(order_id, MAIN, (line,), 1, until))


def _check_out(caller: Caller) -> None:
    random, owner = caller.random, f"customer-{caller.errand.number % 9}"
    cart_id = derived_id("cart", str(caller.errand.number))
    ask = partial(_as_customer, caller, owner)
    ask(CreateCart(cart_id, owner, "GBP"))
    items = tuple(
        CartItem(sku, f"the {sku}", random.randrange(1, 4), 250, "GBP", 1, sku != "POST")
        for sku in random.sample(SKUS, random.choice((1, 1, 2, 3)))
    )
    ask(AddItemsToCart(cart_id, items))
    if random.random() < 0.3:
        ask(ChangeItemQuantity(cart_id, items[0].sku, random.randrange(1, 4)))
    if random.random() < 0.1:
        ask(RemoveItemFromCart(cart_id, items[0].sku))
    caller.wait(0, 0.2)
    ask(CheckOutCart(cart_id, "tok_ok"))
    if random.random() < 0.15:
        ask(CheckOutCart(cart_id, "tok_ok"))
    _afterwards(caller, order_id_of(cart_id, 1), ask)


def _afterwards(caller: Caller, order_id: str, ask: Callable[[Any], object]) -> None:
    """The customer may change his mind, early or late; the merchant ships what is confirmed by then."""
    random = caller.random
    if random.random() < 0.25:
        caller.wait(0, random.choice((1, 8, 70)))
        ask(CancelOrder(order_id, "changed my mind"))
    if random.random() < 0.6:
        caller.wait(0, random.choice((3, 30, 90)))
        caller.ask("order", ShipOrder(order_id))
        caller.wait(5, 60)
        caller.ask("order", ShipOrder(order_id))


def _as_customer(caller: Caller, owner: str, body: Any) -> Decided | None:
    aggregate = "order" if isinstance(body, CancelOrder) else "cart"
    return caller.ask(aggregate, body, "customer", owner)


_ERRANDS: dict[Kind, Callable[[Caller], None]] = {
    "publish": _publish,
    "retire": _retire,
    "receive": _receive,
    "adjust": _adjust,
    "policy": _policy,
    "set aside": _set_aside,
    "check out": _check_out,
}
