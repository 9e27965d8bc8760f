"""`retry STREAM`, on the real Kafka: who is parked and why, and whether it is afterwards."""

import asyncio
from collections.abc import Sequence

import pytest
import typer
from confluent_kafka import Producer

from ops import retry
from ops.settings import Settings
from projections.view import Batch, Poison
from schemas.codec import Codec
from schemas.letters import DeadLetter
from schemas.meta import Micros, RecordMeta
from schemas.topics import Topics
from streams.deliveries import stream_of
from tests.ops.conftest import Verb
from tests.streams.listening import Listening, Pen, Shelf, until


class Picky:
    """An agent's body that cannot apply cart/a until its bug is mended."""

    def __init__(self) -> None:
        self.shelf = Shelf()
        self.mended = False

    async def apply(self, batch: Batch) -> Sequence[Poison]:
        if not self.mended and any(stream_of(record) == "cart/a" for record in batch.records):
            raise ValueError("a bug")
        return await self.shelf.apply(batch)


@pytest.fixture
def pen(ours: Settings, topics: Topics) -> Pen:
    return Pen(ours.kafka, topics)


@pytest.fixture
def listening(ours: Settings, topics: Topics) -> Listening:
    return Listening(ours.kafka, topics)


def test_nothing_is_parked_and_it_says_so(daybook: Verb) -> None:
    assert daybook("retry", "--list").stdout == "nothing is parked\n"
    refused = daybook("retry", "cart/a")
    assert refused.returncode == 1
    assert "cart/a is not parked; ./daybook retry --list shows what is" in refused.stderr


async def test_a_parked_stream_is_listed_with_its_reason_and_released_when_the_cause_is_gone(
    pen: Pen, listening: Listening, daybook: Verb
) -> None:
    picky = Picky()
    async with listening.to(picky.apply, picky.shelf.positions):
        pen.write(("a", 1), ("a", 2), ("b", 1))
        await until(lambda: len(listening.letters()) == 2)
        shown = await asyncio.to_thread(daybook, "retry", "--list")
        picky.mended = True
        done = await asyncio.to_thread(daybook, "retry", "cart/a")
    assert shown.stdout.splitlines() == [
        f"cart/a for views.test, from offset 0 of {pen.topic}[0] on",
        "  ValueError: a bug",
        "  ./daybook retry --consumer views.test cart/a",
    ]
    assert (done.returncode, done.stdout) == (
        0,
        "cart/a for views.test: released, its letters are applied\n",
    ), done.stderr
    assert picky.shelf.versions("a") == [1, 2]


async def test_a_stream_whose_cause_is_not_gone_stays_parked_and_it_says_why(
    pen: Pen, listening: Listening, daybook: Verb
) -> None:
    picky = Picky()
    async with listening.to(picky.apply, picky.shelf.positions):
        pen.write(("a", 1))
        await until(listening.letters)
        refused = await asyncio.to_thread(daybook, "retry", "cart/a")
    assert refused.returncode == 1
    assert "still parked from offset 0 on; why it was: ValueError: a bug" in refused.stdout


async def test_a_consumer_that_does_not_run_is_named_and_hears_of_it_later(
    pen: Pen, listening: Listening, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picky = Picky()
    async with listening.to(picky.apply, picky.shelf.positions):
        pen.write(("a", 1))
        await until(lambda: picky.shelf.at)
    monkeypatch.setattr(retry, "ANSWER_WITHIN_S", 0.1)
    with pytest.raises(typer.Exit) as ended:
        await asyncio.to_thread(retry.retry, "cart/a")
    assert ended.value.exit_code == 1
    assert "it is heard when views.test runs (again)" in capsys.readouterr().out

    picky.mended = True
    async with listening.to(picky.apply, picky.shelf.positions):
        await until(lambda: picky.shelf.applied == [("a", 1)])


async def test_only_the_consumer_that_was_named_is_asked(
    pen: Pen, listening: Listening, daybook: Verb
) -> None:
    picky = Picky()
    async with listening.to(picky.apply, picky.shelf.positions):
        pen.write(("a", 1))
        await until(listening.letters)
        refused = await asyncio.to_thread(daybook, "retry", "--consumer", "views.other", "cart/a")
    assert refused.returncode == 1
    assert "cart/a is not parked by views.other" in refused.stderr
    assert len(listening.letters()) == 1


def test_a_writers_letter_parks_nothing_and_is_shown_all_the_same(
    ours: Settings, topics: Topics, daybook: Verb
) -> None:
    letter = DeadLetter(
        "commands", topics.commands("cart"), 1, 17, "cart/a", "ZeroDivisionError", b"a", b"", released=False
    )
    meta = RecordMeta("cart/1", Micros(1), "batch")
    producer = Producer({"bootstrap.servers": ours.kafka})
    producer.produce(topics.dead_letters, Codec().encode(letter, vars(meta)), b"commands", 1)
    producer.produce(topics.dead_letters, b"anybody's garbage", b"k", 1)
    assert producer.flush(20) == 0

    assert daybook("retry", "--list").stdout.splitlines() == [
        "nothing is parked",
        "letters that park nothing: 1; the last of them:",
        f"  commands at {topics.commands('cart')}[1]@17: cart/a ZeroDivisionError",
    ]
    assert daybook("retry", "cart/a").returncode == 1


def test_a_stream_or_the_list_must_be_asked_for(daybook: Verb) -> None:
    assert daybook("retry").returncode == 2
    assert daybook("retry", "--list", "cart/a").returncode == 2
