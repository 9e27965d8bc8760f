"""`rebuild VIEW`, on the real servers: what the log says is what is read afterwards, and nothing less before."""

import asyncio
import json
import os
import re
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest
import redis
import typer
from confluent_kafka import Producer

from ops import rebuild
from ops.settings import Settings
from projections import stock
from projections.building import Course
from projections.cassandra_store import CassandraReader, CassandraSettings
from projections.compare import Difference
from projections.generations import Succession
from projections.history import of_item
from projections.rebuild import KafkaLog, Rebuilt
from projections.redis_store import Keys, RedisReader, RedisSettings, RedisStore
from projections.registry import REDIS_VIEWS
from projections.verdict import Verdict
from projections.view import Batch, Partition, Poison
from schemas.codec import Codec
from schemas.topics import Topics
from tests.ops.conftest import Verb
from tests.ops.test_prepare import execute
from tests.projections.shop import adjusted, received, reserved
from tests.projections.story import Story

T = TypeVar("T")


@pytest.fixture(autouse=True)
def _history(ours: Settings, topics: Topics) -> None:
    """Five units of A came in, two are reserved; D was damaged. The first generation is 1, and not drawn."""
    host, _, port = ours.redis.rpartition(":")
    with redis.Redis(host=host, port=int(port)) as client:
        client.set(Keys(ours.topic_prefix, stock.VIEW, 0).live, 1)
    story = Story().tell(
        received("A", 5, 5), reserved("A", 5, 2, 2), received("D", 5, 5), adjusted("D", 5, 4)
    )
    codec, producer = Codec(), Producer({"bootstrap.servers": ours.kafka})
    for record in story.records:
        key = (record.key or b"").decode()
        value = codec.encode(record.message.body, vars(record.message.meta))
        producer.produce(topics.events("inventory"), value, key, topics.partition_of(key))
    assert producer.flush(20) == 0


def test_a_view_that_was_never_written_is_built_from_the_log(daybook: Verb, ours: Settings) -> None:
    done = daybook("rebuild", "stock")
    assert done.returncode == 0, done.stderr
    assert "generation 2 of stock is live: 4 records" in done.stdout
    assert (level(ours, "A")["reserved"], level(ours, "D")["sellable"]) == (2, 4)


def test_where_a_document_was_wrong_it_is_named_and_somebody_must_say_why(
    daybook: Verb, ours: Settings
) -> None:
    rebuild.rebuild("stock")
    host, _, port = ours.redis.rpartition(":")
    with redis.Redis(host=host, port=int(port)) as client:
        spoilt = json.dumps({"sellable": 99}).encode()
        client.set(Keys(ours.topic_prefix, stock.VIEW, 2).document("stock/A/main"), b"2\n" + spoilt)

    refused = daybook("rebuild", "stock")
    assert refused.returncode == 1, refused.stderr
    assert refused.stdout.splitlines() == [
        "generation 3 of stock is kept, and was not switched to; the live one stays",
        "rows of the live generation that the log contradicts: 1",
        "  {A/main} differs",
        'to switch all the same: ./daybook rebuild stock --accept "why they differ"',
    ]
    assert live_generation(ours) == 2
    done = daybook("rebuild", "stock", "--accept", "somebody wrote by hand")
    assert done.returncode == 0, done.stderr
    assert "accepted: somebody wrote by hand" in done.stdout
    assert level(ours, "A")["sellable"] == 5


def test_one_key_is_made_anew_and_the_generation_before_is_brought_back(
    ours: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        rebuild.rebuild("stock")
    rebuild.rebuild("stock", back=True)
    assert live_generation(ours) == 2
    assert "generation 3 is kept: ./daybook rebuild stock --back" in capsys.readouterr().out
    rebuild.rebuild("stock", key="A/main")
    assert "stock/A/main@2 is what the log says: nothing to heal" in capsys.readouterr().out
    with pytest.raises(typer.Exit) as ended:
        rebuild.rebuild("stock", key="A/main", back=True)
    assert ended.value.exit_code == 2


def test_a_second_rebuild_of_a_view_is_refused_while_one_runs(
    daybook: Verb, ours: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    with rebuild.alone("stock", ours):
        refused = daybook("rebuild", "stock")
        assert daybook("rebuild", "cart").returncode == 0
    assert refused.returncode == 2
    assert "another rebuild of it is running" in refused.stderr


def test_a_view_in_cassandra_is_rebuilt_in_the_same_way(daybook: Verb, ours: Settings) -> None:
    try:
        done = daybook("rebuild", "ledger")
        assert done.returncode == 0, done.stderr
        movements = asyncio.run(history("D"))
    finally:
        execute(ours.cassandra, f"DROP KEYSPACE IF EXISTS {ours.keyspace}")
    assert [(row["type"], row["after"]["sellable"]) for row in movements] == [
        ("StockAdjusted", 4),
        ("StockReceived", 5),
    ]


def test_a_view_nobody_knows_is_answered_with_those_there_are(daybook: Verb) -> None:
    refused = daybook("rebuild", "dreams")
    assert refused.returncode == 2
    assert "there are in Redis product, stock, cart, command; in Cassandra order, ledger" in refused.stderr


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_pauses_it_and_the_same_command_goes_on(
    told: signal.Signals, ours: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rebuild.rebuild("stock")
    before = level(ours, "A")

    class Interrupted(KafkaLog):
        """The signal comes when the second batch has been read, which goes no further until it was heard."""

        def batches(self, partition: Partition, start: int, end: int) -> Iterator[Batch]:
            for batch in super().batches(partition, start, end):
                if partition[1]:
                    os.kill(os.getpid(), told)
                    threading.Event().wait(2)
                yield batch

    monkeypatch.setattr(rebuild, "KafkaLog", Interrupted)
    with pytest.raises(typer.Exit) as ended:
        rebuild.rebuild("stock")
    assert ended.value.exit_code == 130
    assert "generation 3 is paused at" in capsys.readouterr().err
    assert live_generation(ours) == 2
    assert level(ours, "A") == before
    monkeypatch.setattr(rebuild, "KafkaLog", KafkaLog)
    rebuild.rebuild("stock")
    assert re.search(r"generation 3 of stock is live: .*, going on at \d+ offsets", capsys.readouterr().out)


def test_whoever_waits_is_told_how_far_it_is_and_how_long_it_will_take(
    ours: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rebuild, "SAY_EVERY_S", 0.01)
    rebuild.rebuild("stock")
    assert "stock: preparing" in capsys.readouterr().err
    assert live_generation(ours) == 2

    course, at = Course(generation=2), {("events", 0): 10}
    course.building(at, {("events", 0): 110})
    at["events", 0] = 60
    said = rebuild.progress(course)
    assert re.fullmatch(
        r"generation 2: read 60 of 110 offsets \(went on at 10\), [\d,]+/s, [\d,]+ s left", said
    )


def test_a_generation_that_is_not_what_the_log_says_is_reported_row_by_row() -> None:
    wrong = tuple(Difference(f"{{C{n}}}", "missing", b"") for n in range(12))
    lines = list(rebuild.told(Rebuilt("cart", 3, 27, (), Verdict("live", wrong)), 1.0))
    assert lines[0] == "generation 3 of cart is kept, and was not switched to; the live one stays"
    assert lines[1:3] == ["rows of the new generation that the log contradicts: 12", "  {C0} missing"]
    assert lines[-2:] == ["  and 2 more", "this is a bug to report; --anew builds another one"]


def test_what_could_not_be_applied_is_named() -> None:
    poison = Poison("cart/1", 7, "UnexpectedFact: version 3 follows 1")
    lines = list(rebuild.told(Rebuilt("cart", 3, 27, (poison,), Verdict("log"), Succession()), 1.0))
    assert lines[-1] == "  cart/1 at offset 7: UnexpectedFact: version 3 follows 1"


def level(ours: Settings, sku: str) -> dict[str, Any]:
    async def read(reader: RedisReader) -> dict[str, Any]:
        served = await stock.by_sku(reader, sku)
        assert served is not None
        return served.document()

    return in_redis(RedisReader(RedisSettings(ours.redis, ours.topic_prefix)), read)


def live_generation(ours: Settings) -> int:
    store = RedisStore(RedisSettings(ours.redis, ours.topic_prefix), REDIS_VIEWS)
    generation: int = in_redis(store, lambda store: store.live(stock.VIEW))
    return generation


def in_redis(connected: Any, ask: Callable[[Any], Awaitable[T]]) -> T:
    async def asked() -> T:
        try:
            return await ask(connected)
        finally:
            await connected.close()

    return asyncio.run(asked())


async def history(sku: str) -> list[dict[str, Any]]:
    reader = CassandraReader(CassandraSettings.from_environment())
    try:
        page = await of_item(reader, sku)
    finally:
        await reader.close()
    assert page
    return list(page.served().document()["movements"])
