"""F26: a view is built anew beside the live one, compared, and switched to in one step; killed, it begins again."""

import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import redis
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # public, not marked as such

from ops.local_stack import Addresses
from projections import cart, history, ledger, rebuild, stock
from projections.cassandra_store import CassandraReader, CassandraSettings, CassandraStore
from projections.compare import digests_of
from projections.rebuild import KafkaLog, Rebuildable
from projections.redis_store import Keys, RedisReader, RedisSettings, RedisStore
from projections.registry import CASSANDRA_VIEWS, REDIS_VIEWS
from projections.view import Batch, Partition
from schemas.codec import Codec
from tests.projections.shop import added, adjusted, created, received, reserved
from tests.projections.story import TOPICS, Story, deliver


@pytest.fixture(autouse=True)
def _no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """No reader is about that must be waited for."""
    monkeypatch.setattr(rebuild, "GRACE_S", 0.0)


@pytest.fixture
def redis_of(redis_settings: RedisSettings) -> Callable[[int | None], Rebuildable]:
    return partial(RedisStore, redis_settings, REDIS_VIEWS)


@pytest.fixture
def cassandra_of(cassandra_settings: CassandraSettings) -> Callable[[int | None], Rebuildable]:
    return partial(CassandraStore, cassandra_settings, CASSANDRA_VIEWS)


def some_carts(count: int = 9) -> Story:
    story = Story()
    for n in range(count):
        story.tell(created(f"C{n}"), added(f"C{n}", "A", 1), added(f"C{n}", "B", 2))
    return story


class Growing:
    """A log to which, each time its end is asked for, something is added and given to the live store as well."""

    def __init__(self, story: Story, times: int) -> None:
        self.story, self.times = story, times

    def ends(self, topics: Iterable[str]) -> dict[Partition, int]:
        if self.times:
            self.times -= 1
            self.story.tell(added("C1", f"S{self.times}", 1))
        return self.story.ends(topics)

    def batches(self, partition: Partition, start: int, end: int) -> Iterator[Batch]:
        return self.story.batches(partition, start, end)


async def test_a_view_is_rebuilt_beside_the_live_one_and_switched_to(
    redis_store: RedisStore, redis_of: Callable[[int | None], Rebuildable], redis_reader: RedisReader
) -> None:
    story = some_carts()
    await deliver(redis_store, story)
    before = await cart.by_id(redis_reader, "C1")
    done = await rebuild.rebuild(cart.VIEW, [TOPICS.events("cart")], redis_of, story)

    assert (done.switched, done.generation, done.records) == (True, 2, 27)
    assert (done.wrong, done.mended, done.poisons) == ((), (), ())
    assert await redis_store.live(cart.VIEW) == 2
    assert await cart.by_id(redis_reader, "C1") == before
    assert await digests_of(redis_store, cart.VIEW, 1) == {}


async def test_the_live_store_goes_on_in_the_new_generation(
    redis_store: RedisStore, redis_of: Callable[[int | None], Rebuildable], redis_reader: RedisReader
) -> None:
    story = some_carts()
    await deliver(redis_store, story)
    await rebuild.rebuild(cart.VIEW, [TOPICS.events("cart")], redis_of, story)
    assert await deliver(redis_store, story.tell(added("C1", "Z", 1))) == []
    served = await cart.by_id(redis_reader, "C1")
    assert served
    assert served.version == 4


async def test_a_corrupted_key_is_named_and_mended(
    redis_store: RedisStore,
    redis_settings: RedisSettings,
    redis_of: Callable[[int | None], Rebuildable],
    redis_reader: RedisReader,
) -> None:
    story = Story().tell(received("A", 5, 5), reserved("A", 5, 2), received("B", 5, 5))
    await deliver(redis_store, story)
    host, _, port = redis_settings.address.rpartition(":")
    with redis.Redis(host=host, port=int(port)) as client:
        client.set(Keys(redis_settings.prefix, stock.VIEW, 1).document("stock/A/main"), b'2\n{"sellable":99}')
        client.delete(Keys(redis_settings.prefix, stock.VIEW, 1).document("stock/B/main"))
    done = await rebuild.rebuild(stock.VIEW, [TOPICS.events("inventory")], redis_of, story)

    assert [(one.kind, one.name) for one in done.mended] == [("differs", "{A/main}"), ("missing", "{B/main}")]
    served = await stock.by_sku(redis_reader, "A")
    assert served
    assert served.document()["reserved"] == 2


async def test_a_rebuild_catches_up_with_what_comes_meanwhile(
    redis_store: RedisStore, redis_of: Callable[[int | None], Rebuildable]
) -> None:
    story = some_carts()
    await deliver(redis_store, story)
    done = await rebuild.rebuild(cart.VIEW, [TOPICS.events("cart")], redis_of, Growing(story, times=2))
    assert (done.switched, done.records) == (True, 29)


async def test_a_rebuild_that_was_killed_half_way_twice_begins_again_under_a_new_number(
    redis_store: RedisStore, redis_of: Callable[[int | None], Rebuildable]
) -> None:
    story = some_carts()
    await deliver(redis_store, story)

    class Killed(Growing):
        def batches(self, partition: Partition, start: int, end: int) -> Iterator[Batch]:
            yield next(self.story.batches(partition, start, end))
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            await rebuild.rebuild(cart.VIEW, [TOPICS.events("cart")], redis_of, Killed(story, 0))
        assert await redis_store.live(cart.VIEW) == 1
    done = await rebuild.rebuild(cart.VIEW, [TOPICS.events("cart")], redis_of, story)
    assert (done.switched, done.generation) == (True, 4)
    for unfinished in (1, 2, 3):
        assert await digests_of(redis_store, cart.VIEW, unfinished) == {}


async def test_a_next_generation_that_is_not_what_the_log_says_is_not_switched_to(
    redis_store: RedisStore, redis_settings: RedisSettings
) -> None:
    """The planted bug: a store that loses every third document."""

    class Forgetful(RedisStore):
        async def _write(self, view: Any, generation: int, folded: Any) -> None:
            kept = {s: d for s, d in folded.after.items() if generation == 1 or hash_of(s) % 3}
            await super()._write(view, generation, replace(folded, after=kept))

    def hash_of(stream: str) -> int:
        return int(stream[-1])

    story = some_carts()
    await deliver(redis_store, story)
    of = partial(Forgetful, redis_settings, REDIS_VIEWS)
    done = await rebuild.rebuild(cart.VIEW, [TOPICS.events("cart")], of, story)
    assert [(one.kind, one.name) for one in done.wrong] == [
        ("missing", "{C0}"), ("missing", "{C3}"), ("missing", "{C6}")
    ]  # fmt: skip
    assert (done.switched, await redis_store.live(cart.VIEW)) == (False, 1)
    assert await digests_of(redis_store, cart.VIEW, 2) == {}


async def test_the_ledger_is_rebuilt_in_tables_of_its_own(
    cassandra_store: CassandraStore,
    cassandra_of: Callable[[int | None], Rebuildable],
    cassandra_reader: CassandraReader,
) -> None:
    story = Story()
    for n in range(40):
        story.tell(received(f"S{n}", 5, 5), reserved(f"S{n}", 5, 2), adjusted(f"S{n}", 5, 4))
    await deliver(cassandra_store, story)
    await cassandra_store._connection.execute(
        "UPDATE stock_heads_v2_g1 USING TIMESTAMP 50 SET head = '[]' WHERE bucket = ? AND sku = ? AND location = ?",
        ledger.VIEW.key_of("stock/S7/main"),
    )
    done = await rebuild.rebuild(ledger.VIEW, [TOPICS.events("inventory")], cassandra_of, story)
    assert (done.switched, done.generation, done.records) == (True, 2, 120)
    assert [(one.kind, "S7" in one.name) for one in done.mended] == [("differs", True)]

    assert await deliver(cassandra_store, story.tell(received("S7", 1, 5))) == []
    page = await history.of_item(cassandra_reader, "S7")
    assert page
    assert [row["version"] for row in page.served().document()["movements"]] == [4, 3, 2, 1]


@pytest.fixture
async def topic(stack: Addresses) -> AsyncIterator[str]:
    name = f"test-{uuid.uuid4().hex[:12]}.events.cart"
    admin = AdminClient({"bootstrap.servers": stack.kafka})
    admin.create_topics([NewTopic(name, 1, 1)])[name].result()
    yield name
    admin.delete_topics([name])[name].result()


def test_the_log_is_read_to_its_end_without_what_was_aborted(stack: Addresses, topic: str) -> None:
    codec = Codec()
    producer = Producer({"bootstrap.servers": stack.kafka, "transactional.id": topic})
    producer.init_transactions(20)
    story = Story().tell(created("1"), added("1", "A", 1), added("1", "B", 1))
    for record, commit in zip(story.records, (True, False, True), strict=True):
        producer.begin_transaction()
        value = codec.encode(record.message.body, vars(record.message.meta))
        producer.produce(topic, value, partition=0)
        producer.flush(20)
        (producer.commit_transaction if commit else producer.abort_transaction)(20)

    log = KafkaLog(stack.kafka, codec.decode)
    try:
        ends = log.ends([topic])
        batches = list(log.batches((topic, 0), 0, ends[topic, 0]))
    finally:
        log.close()
    assert ends == {(topic, 0): 6}
    assert batches[-1].next == 6
    assert [r.message.meta.version for batch in batches for r in batch.records] == [1, 3]
