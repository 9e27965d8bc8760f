"""What nobody can read becomes a dead letter with its reason; the worker lives and the next command is answered."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ops.faults.log_rows import (
    GARBAGE,
    POISON,
    an_adjustment,
    letters,
    poisoned,
    scribble,
    unknown_fingerprint,
)
from ops.faults.shop import CODEC, SKU, Shop, exit_code


@pytest.mark.parametrize("kind", POISON)
def test_f22_poison_among_commands_is_lettered_and_the_next_one_is_answered(shop: Shop, kind: str):
    worker = shop.start()
    shop.answer(shop.receive_stock(10))
    poisoned(shop, kind)
    assert worker.poll() is None
    assert len(letters(shop)) == 1
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
