"""F13, F14, F20, F22, F30: what stands in the log is refused by its reader, taken back, repeated, poison, or forged."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from confluent_kafka import Producer

from ops.audit.breaches import HOLDS
from ops.audit.law_book import LawBook
from ops.audit.log_reader import Value, open_log
from ops.faults.floor import Floor, caught_up
from ops.faults.scene import Scene
from ops.faults.shop import CODEC, SKU, Shop, command_meta, new_id, now
from ops.faults.verdict import demand, until
from ops.faults.worker_rows import commands_of_long_ago, commands_read_again, produce_again
from schemas.inventory import (
    AdjustStock,
    ReceiveStock,
    ReserveStock,
    StockEvent,
    StockItemRegistered,
    StockReceived,
    StockReservationExpired,
    claim_path,
    stock_stream,
)
from schemas.language import AGGREGATES
from schemas.letters import DeadLetter
from schemas.meta import NO_HASH, EventMeta, Micros, derived_id
from schemas.order import PlaceOrder, payment_id_of
from schemas.values import MAIN, PricedLine

# F13: refused.


def f13(scene: Scene) -> None:
    with scene.floor() as floor:
        scene.inject("agents raise, before and after they apply a batch and send commands")
        agents_raise(floor)
        scene.checked("C11", "C16")


def agents_raise(floor: Floor) -> None:
    shop = floor.shop
    shop.start()
    views = floor.start_projections(DAYBOOK_FAILPOINTS="agent_before_apply=raise@3,agent_after_apply=raise@5")
    sagas = floor.start(
        "sagas", DAYBOOK_FAILPOINTS="saga_before_commands=raise@1,saga_after_commands=raise@3"
    )
    shop.answer(shop.receive_stock(10))
    for _ in range(3):
        place_order(shop, units=1)
    floor.await_quiet()
    caught_up(floor)
    demand(views.lives and sagas.lives, "a role ended")
    demand(shop.granted() == 3, f"{shop.granted()} units for 3 orders")


# F14: taken back.


def f14(scene: Scene) -> None:
    with scene.floor(lawful=False) as floor:  # its chronicler knows nothing of hashes
        scene.inject("a transaction in ten is aborted")
        a_tenth_taken_back(floor)
        scene.checked("C11")


class Chronicle:
    """A transactional producer of its own that writes the history of one stock item, and takes some of it back."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._version = 0
        self._producer = Producer(
            {"bootstrap.servers": shop.kafka, "transactional.id": f"{shop.topics.prefix}-chronicle"}
        )
        self._producer.init_transactions(20)

    def write(self, event: StockEvent, *, abort: bool = False) -> None:
        """As the next version of the stream; the version is used again where this one is taken back."""
        value = CODEC.encode(event, vars(event_meta(event, self._version + 1)))
        headers: list[tuple[str, bytes]] = [("stream", event.stream.encode())]
        self._producer.begin_transaction()
        self._producer.produce(
            self._shop.topics.events("inventory"),
            value,
            event.sku.encode(),
            self._shop.topics.partition_of(event.sku),
            headers=headers,  # type: ignore[arg-type]  # its types know lists of str only
        )
        demand(self._producer.flush(10) == 0, "Kafka did not take it")
        if abort:
            self._producer.abort_transaction(10)
        else:
            self._producer.commit_transaction(10)
            self._version += 1


def event_meta(event: StockEvent, version: int) -> EventMeta:
    """As a deadline's event, of now, without a hash of the event before."""
    at, id_ = Micros(now()), new_id()
    return EventMeta(
        id_, event.stream, version, at, at, id_, id_, id_, "deadline",
        claim_path(event.sku, event.location, "order", 1), id_, 0, 1, "", NO_HASH,
    )  # fmt: skip


def expired(order: str, sellable: int) -> StockReservationExpired:
    return StockReservationExpired(SKU, MAIN, sellable, 0, 0, 0, order, 1, derived_id(order), 1)


def heard_by_the_sagas(floor: Floor) -> bool:
    topics = [floor.shop.topics.events("inventory")]
    reached = floor.committed("sagas", topics)
    return all(reached[place] >= end for place, end in floor.ends(topics).items())


def a_tenth_taken_back(floor: Floor) -> None:
    shop = floor.shop
    floor.start_projections()
    floor.start("sagas")
    chronicle = Chronicle(shop)
    chronicle.write(StockItemRegistered(SKU, MAIN, 0, 0, 0, 0))
    chronicle.write(StockReceived(SKU, MAIN, 77, 0, 0, 0, 77, "delivery 1"))

    kept, taken_back = [new_id() for _ in range(45)], [new_id() for _ in range(5)]
    for number, order in enumerate(kept):
        if number % 9 == 0:
            chronicle.write(expired(taken_back[number // 9], sellable=999), abort=True)
        chronicle.write(expired(order, sellable=77))
    chronicle.write(expired(taken_back[0], sellable=999), abort=True)

    until(lambda: heard_by_the_sagas(floor), 20)
    caught_up(floor)
    told = [CODEC.decode(m.value()) for m in shop.records(shop.topics.commands("order"))]
    named = {command.body.order_id for command in told}
    demand(named == set(kept), f"the sagas made {len(named - set(kept))} commands of what was taken back")
    demand(floor.sellable(SKU) == 77, "the view shows what was taken back")
    movements = floor.history(SKU)
    shown = {one["order_id"] for one in movements if one["order_id"]}
    demand(shown == set(kept), "the ledger shows other movements than those that were kept")
    demand([one["version"] for one in movements] == list(range(47, 0, -1)), "the ledger skips a version")


# F20: again.


def f20(scene: Scene) -> None:
    with scene.shop() as shop:
        scene.inject("all commands produced again; twenty of two days ago")
        commands_read_again(shop)
        commands_of_long_ago(shop)
    with scene.floor(lawful=False) as floor:  # versions do stand there twice
        scene.inject("events and decisions produced again")
        topics_replayed(floor)
        scene.checked("C11")


def place_order(shop: Shop, units: int) -> str:
    """An order of goods that goes as far as it can where nobody takes payments."""
    order = send_order(shop, units)
    until(lambda: asks_for_payment(shop, order), 20, "the order asks for its payment")
    return order


def send_order(shop: Shop, units: int) -> str:
    order = new_id()
    line = PricedLine(1, SKU, "a lantern", units, 255, 1, stocked=True)
    placing = PlaceOrder(order, new_id(), "anna", (line,), units * 255, "GBP", "tok_ok")
    return shop.send(placing, order, aggregate="order", actor_kind="saga", actor_id="checkout")


def asks_for_payment(shop: Shop, order: str) -> bool:
    payments = shop.topics.events("payment")
    return any(payment_id_of(order).encode() == message.key() for message in shop.records(payments))


def said(shop: Shop, kind: str) -> Counter[bytes]:
    """Every value on the topics of a kind, and how often it stands there."""
    topics = [getattr(shop.topics, kind)(aggregate) for aggregate in AGGREGATES]
    return Counter(message.value() for message in shop.records(*topics))


def asked(shop: Shop) -> set[str]:
    """The ids of all commands that anybody ever sent."""
    return {CODEC.decode(value).meta.command_id for value in said(shop, "commands")}


def topics_replayed(floor: Floor) -> None:
    shop = floor.shop
    shop.start()
    floor.start("sagas")
    projections = floor.start_projections()
    shop.answer(shop.receive_stock(10))
    place_order(shop, units=3)
    floor.await_quiet()
    caught_up(floor)
    rows, events, commands = floor.rows(), said(shop, "events"), asked(shop)

    names = [shop.topics.events("inventory"), shop.topics.decisions("inventory"), shop.topics.events("order")]
    again = list(shop.records(*names))
    produce_again(shop, again)
    floor.await_quiet()

    caught_up(floor)
    demand(floor.rows() == rows, "a row changed")
    demand(asked(shop) == commands, "a saga asked for more")
    replayed = Counter(message.value() for message in again if ".events." in message.topic())
    demand(replayed, "nothing was replayed")
    demand(said(shop, "events") == events + replayed, "a worker wrote an event")
    demand(not list(shop.records(shop.topics.dead_letters)), "something was lettered")
    demand(projections.lives, "the projections ended")


# F22: poison.


def f22(scene: Scene) -> None:
    with scene.shop() as shop:
        worker = shop.start()
        shop.answer(shop.receive_stock(1_000))
        for kind in POISON:
            scene.inject(f"among commands: {kind.replace('_', ' ')}")
            poisoned(shop, kind)
        demand(worker.poll() is None, "the worker ended")
        scene.checked("C16")


LARGEST = 1_048_000
"""Key and value together: a little more, and the broker refuses the record."""

STREAM = stock_stream(SKU, MAIN)


def an_adjustment() -> bytes:
    body = AdjustStock(SKU, MAIN, 1, "found", "", None)
    return CODEC.encode(body, command_meta(body, new_id()))


def without_lines(command: type, **fields: Any) -> bytes:
    """A command that asks for nothing: it does not even say whose it is."""
    body = command(location=MAIN, lines=(), **fields)
    meta = {"stream": STREAM}
    named = AdjustStock(SKU, MAIN, 1, "found", "", None)
    return CODEC.encode(body, command_meta(named, new_id()) | meta)


def an_event() -> bytes:
    event = StockReceived(SKU, MAIN, 5, 0, 0, 0, 5, "delivery 1")
    return CODEC.encode(event, vars(event_meta(event, 1)))


def an_adjustment_that_says(**of_itself: str) -> bytes:
    """Well-formed, and yet no client of ours writes such a text."""
    body = AdjustStock(SKU, MAIN, 1, "found", "", None)
    return CODEC.encode(body, command_meta(body, new_id()) | of_itself)


def unknown_fingerprint() -> bytes:
    value = an_adjustment()
    return value[:2] + b"\x01\x02\x03\x04\x05\x06\x07\x08" + value[10:]


GARBAGE = bytes(range(7, 256)) * 3
POISON = {
    "random_bytes": (SKU.encode(), GARBAGE, "not Avro"),
    "unknown_fingerprint": (SKU.encode(), unknown_fingerprint(), "0102030405060708"),
    "truncated": (SKU.encode(), an_adjustment()[:-9], ""),
    "an_event": (SKU.encode(), an_event(), "StockReceived is no command of inventory"),
    "null_key": (None, an_adjustment(), "a command has a key and a value"),
    "null_value": (SKU.encode(), None, "a command has a key and a value"),
    "one_megabyte": (SKU.encode(), b"\x00" * (LARGEST - 100), "not Avro"),
    "one_megabyte_and_a_large_key": (b"k" * 100_000, b"\x00" * (LARGEST - 100_100), "not Avro"),
    "a_key_of_one_megabyte": (b"k" * (LARGEST - 100), b"\x00", "not Avro"),
    "a_reservation_of_no_lines": (
        SKU.encode(),
        without_lines(ReserveStock, order_id="order", attempt=1, expires_at=Micros(now())),
        "",
    ),
    "a_receipt_of_no_lines": (SKU.encode(), without_lines(ReceiveStock, document="delivery 1"), ""),
    "a_long_stream": (SKU.encode(), an_adjustment_that_says(stream="s" * 460_000), "its stream is longer"),
    "a_long_address": (SKU.encode(), an_adjustment_that_says(reply_to="api/" * 230_000), "its reply_to is"),
    "a_long_fingerprint": (
        SKU.encode(),
        an_adjustment_that_says(fingerprint="f" * 920_000),
        "its fingerprint",
    ),
}


def scribble(shop: Shop, topic: str, key: bytes | None, value: bytes | None) -> int:
    """Write what no client of ours would, in the partition of our SKU; returns its offset."""
    producer = Producer({"bootstrap.servers": shop.kafka, "message.max.bytes": 2 * LARGEST})
    offsets: list[int | None] = []
    producer.produce(
        topic,
        value,
        key,
        shop.topics.partition_of(SKU),
        on_delivery=lambda error, message: offsets.append(None if error else message.offset()),
    )
    producer.flush(10)
    (offset,) = offsets
    demand(offset is not None, "the broker refused it")
    assert offset is not None, "as was demanded"
    return offset


def letters(shop: Shop) -> list[DeadLetter]:
    return [CODEC.decode(message.value()).body for message in shop.records(shop.topics.dead_letters)]


def poisoned(shop: Shop, kind: str) -> None:
    """A poisonous command is lettered with its reason, and the next one is answered."""
    key, value, reason = POISON[kind]
    offset = scribble(shop, shop.topics.commands("inventory"), key, value)
    shop.accepted([shop.reserve(new_id())])
    letter = letters(shop)[-1]
    where = (shop.topics.commands("inventory"), shop.topics.partition_of(SKU), offset)
    demand((letter.topic, letter.partition, letter.offset) == where, f"{kind} was not lettered last")
    demand((letter.consumer, letter.stream, letter.released) == ("commands", "", False), f"{kind}: {letter}")
    demand(letter.reason and reason in letter.reason, f"{kind} was lettered because: {letter.reason}")
    demand((value or b"").startswith(letter.value[:1_000]), f"{kind}: another value was lettered")
    demand((key or b"").startswith(letter.key[:1_000]), f"{kind}: another key was lettered")


# F30: forged.


def f30(scene: Scene) -> None:
    with scene.shop() as shop:
        shop.start()
        shop.answer(shop.receive_stock(1_000))
        shop.accepted([shop.reserve(new_id()) for _ in range(30)])
        log = read_copy(shop)
        demand(not breaches_of(log), "the copy itself is broken")
        for how, forge in FORGERIES.items():
            scene.inject(f"in a copy of the log a record is {how}")
            at = scene.random.randrange(5, 20)
            forged_is_named(shop, log, how, forge(shop, log, at), at)
    scene.checked("C14")


Log = Sequence[Value]
"""The events of one partition and all decisions, in their order."""


def read_copy(shop: Shop) -> Log:
    with open_log(shop.kafka, shop.topics.prefix) as reader:
        found = list(reader.values())
    events = [one for one in found if one.topic == shop.topics.events("inventory")]
    return [*events, *(one for one in found if ".decisions." in one.topic)]


def flipped(_: Shop, log: Log, at: int) -> Log:
    value = bytearray(log[at].value)
    value[-1] ^= 1
    return [*log[:at], replace(log[at], value=bytes(value)), *log[at + 1 :]]


def deleted(_: Shop, log: Log, at: int) -> Log:
    return [*log[:at], *log[at + 1 :]]


def swapped(_: Shop, log: Log, at: int) -> Log:
    return [*log[:at], log[at + 1], log[at], *log[at + 2 :]]


def cut_short(_: Shop, log: Log, at: int) -> Log:
    return [*log[:at], replace(log[at], value=log[at].value[:-3]), *log[at + 1 :]]


def made_up(_: Shop, log: Log, at: int) -> Log:
    """A forger who counts rightly, and cannot know the hash that the next record holds."""
    decoded = CODEC.decode(log[at].value)
    body = replace(decoded.body, quantity=decoded.body.quantity + 1)
    forged = CODEC.encode(body, vars(decoded.meta))
    return [*log[:at], replace(log[at], value=forged), *log[at + 1 :]]


FORGERIES: dict[str, Callable[[Shop, Log, int], Log]] = {
    "flipped": flipped,
    "deleted": deleted,
    "swapped with the next": swapped,
    "cut short": cut_short,
    "made up": made_up,
}


def forged_is_named(shop: Shop, log: Log, how: str, forged: Log, at: int) -> None:
    """The first breach names the record, the one after it whose hash no longer fits, or the bytes themselves."""
    told = breaches_of(forged)
    demand(told, f"a record that was {how} went unnoticed")
    meta = CODEC.decode(log[at].value).meta
    names = [f"{meta.stream}@{meta.version + step}" for step in (0, 1)]
    topic = f"{shop.topics.events('inventory')}[{log[at].partition}]"
    demand(any(name in told for name in [*names, topic]), f"{how} at {names[0]}, and told is: {told}")


def breaches_of(log: Log) -> str:
    """What law 8 says: versions and hashes."""
    book = LawBook()
    for one in log:
        book.feed(one.topic, one.partition, one.value)
    verdicts = book.finish(now())
    return "" if verdicts["8"] == HOLDS else verdicts["8"]
