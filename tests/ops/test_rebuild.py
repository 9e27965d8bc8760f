"""`rebuild VIEW`, on the real servers: what the log says is what is read afterwards, and nothing less before."""

import asyncio
import json
import os
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
from projections.cassandra_store import CassandraReader, CassandraSettings
from projections.compare import Difference
from projections.history import of_item
from projections.rebuild import KafkaLog, Rebuilt
from projections.redis_store import Keys, RedisReader, RedisSettings, RedisStore
from projections.registry import REDIS_VIEWS
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
    """Five units of A came in, two are reserved; B was damaged."""
    story = Story().tell(
        received("A", 5, 5), reserved("A", 5, 2, 2), received("B", 5, 5), adjusted("B", 5, 4)
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
    assert (level(ours, "A")["reserved"], level(ours, "B")["sellable"]) == (2, 4)


def test_a_document_that_is_wrong_is_named_and_mended(daybook: Verb, ours: Settings) -> None:
    assert daybook("rebuild", "stock").returncode == 0
    host, _, port = ours.redis.rpartition(":")
    with redis.Redis(host=host, port=int(port)) as client:
        spoilt = json.dumps({"sellable": 99}).encode()
        client.set(Keys(ours.topic_prefix, stock.VIEW, 2).document("stock/A/main"), b"2\n" + spoilt)

    done = daybook("rebuild", "stock")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == [
        "rows of the old generation were wrong and are right now: 1",
        "  {A/main} differs",
    ]
    assert level(ours, "A")["sellable"] == 5


def test_a_view_in_cassandra_is_rebuilt_in_the_same_way(daybook: Verb, ours: Settings) -> None:
    try:
        done = daybook("rebuild", "ledger")
        assert done.returncode == 0, done.stderr
        movements = asyncio.run(history("B"))
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


def test_ctrl_c_in_the_middle_leaves_the_live_view_as_it_was(
    daybook: Verb, ours: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert daybook("rebuild", "stock").returncode == 0
    before = level(ours, "A")

    class Interrupted(KafkaLog):
        """Ctrl-C comes when the first batch has been read, which goes no further until it was heard."""

        def batches(self, partition: Partition, start: int, end: int) -> Iterator[Batch]:
            for batch in super().batches(partition, start, end):
                os.kill(os.getpid(), signal.SIGINT)
                threading.Event().wait(2)
                yield batch

    monkeypatch.setattr(rebuild, "KafkaLog", Interrupted)
    with pytest.raises(typer.Exit) as ended:
        rebuild.rebuild("stock")
    assert ended.value.exit_code == 130
    assert "interrupted" in capsys.readouterr().err
    assert live_generation(ours) == 2
    assert level(ours, "A") == before


def test_whoever_waits_is_told_how_far_it_is(
    ours: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rebuild, "SAY_EVERY_S", 0.01)
    rebuild.rebuild("stock")
    said = capsys.readouterr().err
    assert "stock: preparing the next generation (0 s)" in said
    assert "stock: comparing, then switching" in said
    assert live_generation(ours) == 2


def test_a_generation_that_is_not_what_the_log_says_is_reported_row_by_row() -> None:
    wrong = tuple(Difference(f"{{C{n}}}", "missing", b"") for n in range(12))
    lines = list(rebuild.told(Rebuilt("cart", 3, 27, (), wrong, ()), 1.0))
    assert lines[0] == "generation 3 of cart is not what the log says and was dropped; the live one stays"
    assert lines[1:3] == ["rows of the new generation differ from the log: 12", "  {C0} missing"]
    assert lines[-1] == "  and 2 more"


def test_what_could_not_be_applied_is_named() -> None:
    poison = Poison("cart/1", 7, "UnexpectedFact: version 3 follows 1")
    lines = list(rebuild.told(Rebuilt("cart", 3, 27, (poison,), (), ()), 1.0))
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
