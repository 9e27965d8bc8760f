"""What nobody can read becomes a dead letter with its reason; the worker lives and the next command is answered."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from confluent_kafka import Producer

from schemas.inventory import AdjustStock, ReceiveStock, ReserveStock, StockReceived, stock_stream
from schemas.letters import DeadLetter
from schemas.meta import NO_HASH, Micros
from schemas.values import MAIN
from tests.faults.bench_shop import CODEC, SKU, Shop, command_meta, exit_code, new_id, now
from tests.messages import EVENT

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
    meta = vars(EVENT) | {"stream": STREAM, "version": 1, "previous": NO_HASH}
    return CODEC.encode(StockReceived(SKU, MAIN, 5, 0, 0, 0, 5, "delivery 1"), meta)


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
    assert offset is not None, "the broker refused it"
    return offset


def letters(shop: Shop) -> list[DeadLetter]:
    return [CODEC.decode(message.value()).body for message in shop.records(shop.topics.dead_letters)]


@pytest.mark.parametrize("kind", POISON)
def test_f22_poison_among_commands_is_lettered_and_the_next_one_is_answered(shop: Shop, kind: str):
    key, value, reason = POISON[kind]
    worker = shop.start()
    shop.answer(shop.receive_stock(10))

    offset = scribble(shop, shop.topics.commands("inventory"), key, value)
    answered = shop.answer(shop.reserve(new_id()))

    assert answered.outcome == "accepted"
    assert worker.poll() is None
    (letter,) = letters(shop)
    where = (shop.topics.commands("inventory"), shop.topics.partition_of(SKU), offset)
    assert (letter.topic, letter.partition, letter.offset) == where
    assert (letter.consumer, letter.stream, letter.released) == ("commands", "", False)
    assert letter.reason
    assert reason in letter.reason
    assert (value or b"").startswith(letter.value[:1_000])
    assert (key or b"").startswith(letter.key[:1_000])
    assert shop.granted() == 1
    assert shop.laws() == {}


def test_f22_a_heap_of_large_poison_holds_nobody_up(shop: Shop):
    """Twenty records of a megabyte lie there when it starts."""
    commands = shop.topics.commands("inventory")
    wrong = [scribble(shop, commands, *POISON["one_megabyte"][:2]) for _ in range(20)]
    worker = shop.start()
    assert shop.answer(shop.receive_stock(10), 25).outcome == "accepted"
    assert [letter.offset for letter in letters(shop)] == wrong
    assert worker.poll() is None


@contextmanager
def restarted(shop: Shop) -> Iterator[None]:
    """What is written meanwhile is found by a successor that has nothing but the topics."""
    worker = shop.start(state="first")
    shop.answer(shop.receive_stock(10))
    worker.send_signal(signal.SIGTERM)
    assert exit_code(worker) == 0
    yield
    shop.start(state="second")


FOREIGN = {
    "random bytes": (SKU.encode(), GARBAGE),
    "no key": (None, GARBAGE),
    "no value": (SKU.encode(), None),
    "unknown fingerprint": (SKU.encode(), unknown_fingerprint()),
    "wrong type": (SKU.encode(), an_adjustment()),
    "a key that is no text": (b"\xff\xfe", GARBAGE),
}
FOREIGN_VALUES = {value for _, value in FOREIGN.values()}


@pytest.mark.parametrize("kind", ["state", "decisions", "events"])
def test_f22_poison_on_a_topic_of_the_workers_own_stops_no_successor(shop: Shop, kind: str):
    topic = getattr(shop.topics, kind)("inventory")
    # Where it compacts, Kafka itself refuses a record without a key, and one without a value only deletes.
    foreign = [(key, value) for key, value in FOREIGN.values() if kind != "state" or (key and value)]
    with restarted(shop):
        offsets = [scribble(shop, topic, key, value) for key, value in foreign]
    assert shop.answer(shop.receive_stock(5), 25).outcome == "accepted"
    assert received(shop) == 15
    assert [(letter.topic, letter.offset) for letter in letters(shop)] == [(topic, o) for o in offsets]
    assert all(letter.reason for letter in letters(shop))


def received(shop: Shop) -> int:
    """The units on the shelf, as the last event of the item says; what is no event is passed over."""
    found = [message.value() for message in shop.records(shop.topics.events("inventory"))]
    events = [CODEC.decode(value).body for value in found if value not in FOREIGN_VALUES]
    return int(events[-1].sellable)
