"""Dead letters: poison becomes a letter, its stream waits, everything else goes on; a release applies it in order."""

import asyncio
import json
import os
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import cast

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from projections.view import Batch, Poison
from schemas.avro import fingerprint_of
from schemas.cart import ExpireCart, cart_stream
from schemas.codec import MARKER, Codec
from schemas.letters import DeadLetter
from schemas.meta import CommandMeta, Micros
from schemas.topics import LETTER_VALUE_MAX, RECORD_BYTES_MAX, STREAM_NAME_MAX, Topics
from streams.dead_letters import (
    PARKED,
    RELEASE_ASKED,
    RELEASE_FAILED,
    RELEASED,
    DeadLetters,
    ParkedStreams,
    first_of,
    note,
    release,
)
from streams.deliveries import stream_of
from streams.intake import Intake, UnfitError, expected_on
from streams.record_producer import Outgoing, RecordProducer
from tests.streams.listening import CODEC, Shelf, event, until

A = cart_stream("a").encode()


def reasons(letters: Sequence[DeadLetter]) -> list[str]:
    return [letter.reason for letter in letters]


def command_on_an_event_topic() -> bytes:
    meta = CommandMeta(
        "c", "cart/a", "", Micros(1), Micros(2), None, None, None, "c", "c", "customer", "anna", ""
    )
    return CODEC.encode(ExpireCart("a"), vars(meta))


def event_of(stream: str) -> bytes:
    """An event whose meta names another stream than its body."""
    decoded = CODEC.decode(event("a", 1)[0])
    return CODEC.encode(decoded.body, vars(decoded.meta) | {"stream": stream})


POISONS = {
    "random bytes": (os.urandom(64), b"a", "not Avro single-object encoding"),
    "an unknown fingerprint": (MARKER + b"12345678" + b"rest", b"a", "no schema with fingerprint"),
    "a cut datum": (event("a", 1)[0][:40], b"a", "CartExpired"),
    "another kind of message": (command_on_an_event_topic(), b"a", "ExpireCart does not belong on"),
    "no key": (event("a", 1)[0], None, "no key"),
    "a key that is no text": (event("a", 1)[0], b"\xff\xfe", "the key is not UTF-8"),
    "no value": (None, b"a", "no value"),
    "almost a megabyte": (bytes(1_000_000), b"a", "bytes are more than"),
    "a stream with a long name": (event_of("cart/" + "s" * 300_000), b"a", "the name of its stream"),
    "a long key": (b"garbage", b"k" * 1_000_000, "not Avro single-object encoding"),
}


@pytest.mark.parametrize("poison", POISONS)
async def test_poison_becomes_a_letter_and_parks_its_stream_and_nothing_else(poison, pen, listening):
    value, key, reason = POISONS[poison]
    shelf = Shelf()
    pen.write(("b", 1))
    pen.scribble(value, key, stream=A)
    pen.write(("a", 2), ("b", 2))
    async with listening.to(shelf.apply, shelf.positions):
        await until(lambda: ("b", 2) in shelf.applied)
    assert shelf.applied == [("b", 1), ("b", 2)]
    first, second = listening.letters()
    assert (first.stream, second.stream) == ("cart/a", "cart/a")
    assert reason in first.reason
    assert second.reason == PARKED
    assert first.offset < second.offset
    assert first.value == (value or b"")[: len(first.value)]
    assert first.key == (key or b"")[: len(first.key)]


async def test_a_record_that_names_no_stream_is_lettered_and_passed_over(pen, listening):
    shelf = Shelf()
    pen.scribble(b"garbage")
    pen.scribble(b"more garbage", stream=b"\xff\xff")
    pen.write(("a", 1))
    async with listening.to(shelf.apply, shelf.positions) as listener:
        await until(lambda: shelf.applied == [("a", 1)])
        assert len(listener.letters.parked) == 0
    assert [letter.stream for letter in listening.letters()] == ["", ""]


async def test_a_letter_is_written_before_its_record_is_acknowledged(pen, listening):
    """While letters cannot be written, neither position nor offset passes the poison."""
    shelf, fail = Shelf(), True
    pen.scribble(b"garbage")
    async with listening.to(shelf.apply, shelf.positions) as listener:
        written = listener.letters.write

        async def write(letters):
            if letters and fail:
                raise OSError("no Kafka")
            await written(letters)

        listener.letters.write = write
        await until(lambda: "no Kafka" in listener.source.illness)
        assert shelf.at == {}
        fail = False
        await until(lambda: shelf.at.get((pen.topic, 0)) == 1)
    assert len(listening.letters()) == 1


async def test_what_is_parked_is_known_again_after_a_restart(pen, listening):
    shelf = Shelf()
    pen.scribble(b"garbage", stream=A)
    async with listening.to(shelf.apply, shelf.positions):
        await until(lambda: shelf.at.get((pen.topic, 0)) == 1)
    async with listening.to(shelf.apply, shelf.positions):
        pen.write(("a", 2), ("b", 1))
        await until(lambda: shelf.applied)
    assert shelf.applied == [("b", 1)]
    assert reasons(listening.letters())[1:] == [PARKED]


async def test_one_consumers_poison_parks_nothing_for_another(pen, listening):
    """A record that one store cannot apply may be no trouble to the next."""
    picky, other = Shelf(), Shelf()

    async def cannot_apply_a(batch: Batch):
        if any(stream_of(record) == "cart/a" for record in batch.records):
            raise ValueError("no room for a")
        return await picky.apply(batch)

    pen.write(("a", 1), ("b", 1))
    async with (
        listening.to(cannot_apply_a, picky.positions, "views.picky"),
        listening.to(other.apply, other.positions, "views.other"),
    ):
        await until(lambda: picky.applied and len(other.applied) == 2)
    assert picky.applied == [("b", 1)]
    (letter,) = listening.letters()
    assert (letter.consumer, letter.reason) == ("views.picky", "ValueError: no room for a")
    assert CODEC.decode(letter.value).meta.version == 1


async def test_a_gap_that_the_store_reports_parks_the_stream_with_the_stores_reason(pen, listening):
    shelf = Shelf()

    async def apply(batch: Batch):
        gaps = [
            Poison(stream_of(r), r.offset, "version gap") for r in batch.records if stream_of(r) == "cart/a"
        ]
        rest = [record for record in batch.records if stream_of(record) != "cart/a"]
        await shelf.apply(replace(batch, records=rest))
        return gaps

    async with listening.to(apply, shelf.positions):
        pen.write(("a", 2), ("b", 1))
        await until(lambda: shelf.applied == [("b", 1)])
        await until(lambda: reasons(listening.letters()) == ["version gap"])
        pen.write(("a", 3), ("b", 2))
        await until(lambda: len(shelf.applied) == 2)
    assert reasons(listening.letters()) == ["version gap", PARKED]


async def test_a_released_stream_is_applied_again_in_order_and_goes_on(pen, listening):
    shelf, mended = Shelf(), False

    async def apply(batch: Batch):
        if not mended and any(stream_of(record) == "cart/a" for record in batch.records):
            raise ValueError("a bug")
        return await shelf.apply(batch)

    async with listening.to(apply, shelf.positions) as listener:
        pen.write(("a", 1), ("b", 1))
        pen.write(("a", 2), ("a", 3))
        await until(lambda: len(listening.letters()) == 3)
        mended = True
        parked = await asyncio.to_thread(release, listening.kafka, listening.topics, "cart/a")
        assert parked == [("views.test", pen.topic, 0, "cart/a")]
        pen.write(("a", 4))
        await until(lambda: len(shelf.versions("a")) == 4)
        await until(lambda: len(listener.letters.parked) == 0)
        pen.write(("a", 5))
        await until(lambda: len(shelf.versions("a")) == 5)
    assert shelf.versions("a") == [1, 2, 3, 4, 5]


async def test_a_record_too_large_for_a_letter_is_released_whole(pen, listening):
    """The letter holds its beginning only; the rest is read where the record lies."""
    shelf, mended = Shelf(), False
    large = event("a", 1, traceparent="x" * (LETTER_VALUE_MAX + 50_000))[0]

    async def apply(batch: Batch):
        if not mended and batch.records:
            raise ValueError("a bug")
        return await shelf.apply(batch)

    async with listening.to(apply, shelf.positions) as listener:
        pen.scribble(large, b"a", stream=A)
        pen.write(("a", 2))
        await until(lambda: len(listening.letters()) == 2)
        assert len(listening.letters()[0].value) == LETTER_VALUE_MAX < len(large)
        mended = True
        await asyncio.to_thread(release, listening.kafka, listening.topics, "cart/a")
        await until(lambda: len(listener.letters.parked) == 0)
    assert shelf.versions("a") == [1, 2]


async def test_a_cut_letter_whose_record_is_gone_stays_parked(pen, listening):
    shelf = Shelf()
    pen.scribble(bytes(LETTER_VALUE_MAX + 1), b"a", stream=A)
    pen.write(("b", 1))
    async with listening.to(shelf.apply, shelf.positions) as listener:
        await until(lambda: shelf.applied == [("b", 1)])
        gone = TopicPartition(pen.topic, 0, 1)
        admin = AdminClient({"bootstrap.servers": listening.kafka})
        for deleted in admin.delete_records([gone]).values():
            await asyncio.to_thread(deleted.result, 10)
        await asyncio.to_thread(release, listening.kafka, listening.topics, "cart/a")
        await until(lambda: RELEASE_FAILED in reasons(listening.letters()))
        assert len(listener.letters.parked) == 1


async def test_a_release_asked_while_nobody_listens_is_heard_at_the_next_start(pen, listening):
    shelf = Shelf()

    async def buggy(batch: Batch):
        if batch.records:
            raise KeyError("a bug")
        return await shelf.apply(batch)

    pen.write(("a", 1))
    async with listening.to(buggy, shelf.positions):
        await until(lambda: shelf.at.get((pen.topic, 0)) == 1)
    await asyncio.to_thread(release, listening.kafka, listening.topics, "cart/a", "views.test")
    async with listening.to(shelf.apply, shelf.positions):
        await until(lambda: shelf.applied == [("a", 1)])


async def test_a_stream_whose_letter_still_cannot_be_applied_stays_parked(pen, listening):
    shelf = Shelf()
    pen.scribble(b"garbage", stream=A)
    pen.write(("a", 2))
    async with listening.to(shelf.apply, shelf.positions) as listener:
        await until(lambda: len(listening.letters()) == 2)
        await asyncio.to_thread(release, listening.kafka, listening.topics, "cart/a")
        await until(lambda: RELEASE_FAILED in reasons(listening.letters()))
        pen.write(("a", 3), ("b", 1))
        await until(lambda: shelf.applied)
        assert len(listener.letters.parked) == 1
    assert shelf.applied == [("b", 1)]


async def test_releasing_what_is_not_parked_asks_for_nothing(listening):
    assert await asyncio.to_thread(release, listening.kafka, listening.topics, "cart/a") == []
    assert listening.letters() == []


async def test_an_unknown_fingerprint_is_looked_up_before_it_is_poison(pen, listening, monkeypatch):
    """Another release's schema that stands in `schemas` is learned from there."""
    shelf = Shelf()
    learned = []
    monkeypatch.setattr(Codec, "learn", lambda self, schema: learned.append(schema["name"]))
    other = {"type": "record", "name": "CartExpired", "namespace": "daybook", "fields": []}
    producer = Producer({"bootstrap.servers": listening.kafka})
    producer.produce(
        listening.topics.schemas, json.dumps(other).encode(), fingerprint_of(other).hex().encode()
    )
    assert producer.flush(60) == 0
    pen.scribble(MARKER + fingerprint_of(other), b"a", stream=A)
    async with listening.to(shelf.apply, shelf.positions):
        await until(lambda: shelf.at.get((pen.topic, 0)) == 1)
    assert learned[-1] == "CartExpired"


@pytest.mark.parametrize("unit", ["x", "\U00010400"])
async def test_there_is_a_letter_of_whatever_kafka_took(unit: str):
    """No part of it is bounded by anybody but us; a reason may repeat a record's text."""
    outbox = Outbox()
    long = unit * 1_000_000
    bytes_ = long.encode()[:1_000_000]
    where = ("views", "events", 0, 7)
    letters = DeadLetters("nowhere", Topics("test"), CODEC, cast("RecordProducer", outbox))
    await letters.write([DeadLetter(*where, long, long, bytes_, bytes_, released=False)])
    (written,) = outbox.sent
    parts = [written.key, written.value, *written.headers.values()]
    assert sum(map(len, parts)) <= RECORD_BYTES_MAX
    letter = CODEC.decode(written.value).body
    assert (letter.topic, letter.partition, letter.offset) == where[1:]
    assert all(whole.startswith(part) for whole, part in ((long, letter.stream), (bytes_, letter.key)))
    assert f"the first {LETTER_VALUE_MAX} of 1000000 bytes" in letter.reason


def test_a_record_may_be_applied_whose_stream_has_the_longest_name_and_no_longer_one():
    topics = Topics("test")
    intake = Intake(CODEC, expected_on(topics))
    longest = "cart/" + "s" * (STREAM_NAME_MAX - 5)
    assert intake.read(topics.events("cart"), b"a", event_of(longest)).meta.stream == longest
    with pytest.raises(UnfitError, match="more than 512 bytes"):
        intake.read(topics.events("cart"), b"a", event_of(longest + "s"))


class Outbox:
    """Stands in for the producer: what was given to it lies here."""

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []

    async def send(self, records: Sequence[Outgoing]) -> None:
        self.sent += records


def letter(offset: int, reason: str = "poison", stream: str = "cart/a") -> DeadLetter:
    return DeadLetter("views", "events", 0, offset, stream, reason, b"", b"", released=False)


PARKING = ("views", "events", 0, "cart/a")


def test_a_stream_is_parked_from_its_first_letter_on_and_not_before_it():
    """A store that is filled again from the start gets what came before the poison."""
    parked = ParkedStreams()
    parked.fold(letter(7), 0)
    assert not parked.covers(PARKING, 6)
    assert parked.covers(PARKING, 7)
    assert parked.covers(PARKING, 8)
    assert not parked.covers(("views", "events", 0, "cart/b"), 8)


def test_a_letter_without_a_stream_parks_nothing():
    parked = ParkedStreams()
    parked.fold(letter(7, stream=""), 0)
    assert len(parked) == 0


def of_size(offset: int, size: int = 0, reason: str = "poison") -> DeadLetter:
    return replace(letter(offset, reason), value=bytes(size))


def offsets(letters: Iterable[DeadLetter]) -> list[int]:
    return [letter.offset for letter in letters]


def test_a_release_takes_the_first_letters_in_whatever_order_they_were_written():
    disorder = [3, 9, 1, 7, 9, 1, 5, 8, 2]
    assert offsets(first_of(map(of_size, disorder), 4)) == [1, 2, 3, 5]
    assert offsets(first_of(map(of_size, disorder), 100)) == [1, 2, 3, 5, 7, 8, 9]


def test_of_two_letters_about_one_record_the_later_is_released():
    (found,) = first_of([of_size(1, reason="first"), of_size(2), of_size(1, reason="again")], 1)
    assert found.reason == "again"


def test_a_release_holds_no_more_letters_than_it_takes_at_once():
    """However many wait: each that is read and has no place is let go of."""
    alive: weakref.WeakSet[DeadLetter] = weakref.WeakSet()
    most = 0

    def read() -> Iterator[DeadLetter]:
        nonlocal most
        for offset in [*range(500, 1_000), *range(500)]:
            one = of_size(offset)
            alive.add(one)
            yield one
            most = max(most, len(alive))

    assert offsets(first_of(read(), 20)) == [*range(20)]
    assert most <= 23


def test_a_release_takes_fewer_letters_at_once_where_they_are_large_and_leaves_none_out():
    sizes = {1: 10, 2: 10, 4: 90, 3: 10, 5: 10}
    letters = [of_size(offset, size) for offset, size in sizes.items()]
    assert offsets(first_of(letters, 10, bytes_max=100)) == [1, 2, 3]
    assert offsets(first_of([of_size(7, 200), of_size(8, 1)], 10, bytes_max=100)) == [7]


def test_a_stream_stays_parked_until_all_its_letters_are_applied():
    parked = ParkedStreams()
    parked.fold(letter(7), 0)
    parked.fold(letter(9, PARKED), 1)
    parked.fold(note(PARKING, 7, RELEASED), 2)
    assert parked.covers(PARKING, 9)
    assert not parked.covers(PARKING, 7)
    parked.fold(note(PARKING, 9, RELEASED), 3)
    assert not parked.covers(PARKING, 9)


def test_a_wish_to_release_stands_until_it_failed_or_was_fulfilled():
    parked = ParkedStreams()
    parked.fold(letter(7), 0)
    parked.fold(note(PARKING, 7, RELEASE_ASKED), 1)
    parked.fold(letter(8, PARKED), 2)
    assert parked.asked("views") == [PARKING]
    assert parked.asked("sagas") == []
    parked.fold(note(PARKING, 7, RELEASE_FAILED), 3)
    assert parked.asked("views") == []
