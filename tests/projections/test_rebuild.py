"""F26: a view is built anew beside the live one, judged, and switched to in one step; killed anywhere, it goes on."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

import orjson
import pytest
import redis
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # public, not marked as such

from ops.local_stack import Addresses
from projections import cart, generations, history, ledger, stock, verdict
from projections.building import Rebuildable, RebuildFailed
from projections.cassandra_store import CassandraReader, CassandraSettings, CassandraStore
from projections.compare import Difference, digests_of
from projections.rebuild import KafkaLog, Rebuilding, Rebuilt
from projections.redis_connection import RedisConnection
from projections.redis_store import Keys, RedisReader, RedisSettings, RedisStore
from projections.registry import CASSANDRA_VIEWS, REDIS_VIEWS
from projections.verdict import Verdict
from projections.view import Batch, Partition, View
from schemas.codec import Codec
from tests.projections.conftest import forget
from tests.projections.shop import added, adjusted, created, received, reserved
from tests.projections.story import TOPICS, Story, deliver

Of = Callable[[int | None], Rebuildable]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No reader is about that believes in what was live a moment ago, and no projection that must be given time."""
    monkeypatch.setattr(generations, "GRACE_S", 0.0)
    monkeypatch.setattr(verdict, "STANDS_STILL_S", 0.3)


@pytest.fixture
def redis_of(redis_settings: RedisSettings) -> Of:
    return partial(RedisStore, redis_settings, REDIS_VIEWS)


@pytest.fixture
def cassandra_of(cassandra_settings: CassandraSettings) -> Of:
    return partial(CassandraStore, cassandra_settings, CASSANDRA_VIEWS)


@pytest.fixture
def server(redis_settings: RedisSettings) -> Iterator[redis.Redis]:
    host, _, port = redis_settings.address.rpartition(":")
    with redis.Redis(host=host, port=int(port)) as client:
        yield client


def rebuilding(of: Of, story: Any, view: View[Any] = cart.VIEW) -> Rebuilding:
    return Rebuilding(view, tuple(view.topics(TOPICS)), of, story)


def some_carts(count: int = 9) -> Story:
    story = Story()
    for n in range(count):
        story.tell(created(f"C{n}"), added(f"C{n}", "A", 1), added(f"C{n}", "B", 2))
    return story


def previous(done: Rebuilt) -> int:
    """What can be brought back now that it is live."""
    assert done.switched is not None
    return done.switched.previous


class Killed(Exception):  # what happens to the process, in a word
    """Nothing more is done."""


class CutShort:
    """A log in the midst of which whoever reads it is killed."""

    def __init__(self, story: Story, batches: int) -> None:
        self.story, self.left = story, batches

    def ends(self, topics: Iterable[str]) -> dict[Partition, int]:
        return self.story.ends(topics)

    def batches(self, partition: Partition, start: int, end: int) -> Iterator[Batch]:
        for batch in self.story.batches(partition, start, end):
            if not self.left:
                raise Killed
            self.left -= 1
            yield batch


class Growing(CutShort):
    """A log to which, each time its end is asked for, something is added."""

    def ends(self, topics: Iterable[str]) -> dict[Partition, int]:
        if self.left:
            self.left -= 1
            self.story.tell(added("C1", f"S{self.left}", 1))
        return self.story.ends(topics)

    def batches(self, partition: Partition, start: int, end: int) -> Iterator[Batch]:
        return self.story.batches(partition, start, end)


@asynccontextmanager
async def meanwhile(work: Callable[[], Any]) -> AsyncIterator[None]:
    """The work is done again and again beside what is tested; what it raises is raised."""

    async def again() -> None:
        while True:
            await work()
            await asyncio.sleep(0)

    task = asyncio.create_task(again())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()


async def test_a_view_is_rebuilt_beside_the_live_one_switched_to_and_the_old_one_kept(
    redis_store: RedisStore, redis_of: Of, redis_reader: RedisReader
) -> None:
    story = some_carts()
    await deliver(redis_store, story)
    before = await cart.by_id(redis_reader, "C1")
    done = await rebuilding(redis_of, story).rebuild()

    assert (done.generation, previous(done), done.records) == (2, 1, 27)
    assert (done.verdict, done.poisons) == (Verdict("live"), ())
    assert await redis_store.live(cart.VIEW) == 2
    assert await cart.by_id(redis_reader, "C1") == before
    assert await digests_of(redis_store, cart.VIEW, 1) == await digests_of(redis_store, cart.VIEW, 2)


async def test_readers_see_a_whole_view_at_every_moment_while_the_log_grows(
    redis_store: RedisStore, redis_of: Of, redis_reader: RedisReader
) -> None:
    story, seen = some_carts(), [0]
    await deliver(redis_store, story)

    async def read() -> None:
        served = await cart.by_id(redis_reader, "C1")
        assert served is not None
        assert served.version >= seen[-1]
        seen.append(served.version)

    async with meanwhile(read), meanwhile(lambda: deliver(redis_store, story)):
        done = await rebuilding(redis_of, Growing(story, 2)).rebuild()
    await deliver(redis_store, story.tell(added("C1", "Z", 1)))
    await read()
    assert (done.is_live, done.verdict.witness, done.records) == (True, "live", 29)
    assert seen[-1] == 6


async def test_where_the_live_one_is_wrong_it_is_switched_only_when_somebody_says_why(
    redis_store: RedisStore,
    redis_settings: RedisSettings,
    redis_of: Of,
    redis_reader: RedisReader,
    server: redis.Redis,
) -> None:
    story = Story().tell(received("A", 5, 5), reserved("A", 5, 2), received("B", 5, 5))
    await deliver(redis_store, story)
    keys = Keys(redis_settings.prefix, stock.VIEW, 1)
    server.set(keys.document("stock/A/main"), b'2\n{"sellable":99}')
    server.delete(keys.document("stock/B/main"))
    server.set(keys.document("stock/C/main"), b"1\n{}")

    refused = await rebuilding(redis_of, story, stock.VIEW).rebuild()
    assert (refused.is_live, refused.verdict.wrong) == (False, ())
    assert [(one.kind, one.name) for one in refused.verdict.spoilt] == [
        ("differs", "{A/main}"), ("missing", "{B/main}"), ("extra", "{C/main}")
    ]  # fmt: skip
    assert await redis_store.live(stock.VIEW) == 1

    done = await rebuilding(redis_of, story, stock.VIEW).rebuild(accept="somebody wrote by hand")
    assert (done.is_live, done.generation, done.records) == (True, refused.generation, 0)
    assert (await redis_store.succession(stock.VIEW)).accepted == "somebody wrote by hand"
    served = await stock.by_sku(redis_reader, "A")
    assert served
    assert served.document()["reserved"] == 2
    server.delete(Keys(redis_settings.prefix, stock.VIEW, 2).document("stock/B/main"))
    assert not (await rebuilding(redis_of, story, stock.VIEW).rebuild()).is_live, (
        "another difference, another reason"
    )


async def test_a_store_that_was_emptied_is_no_witness_and_the_log_is_asked_instead(
    redis_store: RedisStore, redis_settings: RedisSettings, redis_of: Of, server: redis.Redis
) -> None:
    story = some_carts()
    await deliver(redis_store, story)
    for name in server.scan_iter(f"{redis_settings.prefix}:*"):
        server.delete(name)
    done = await rebuilding(redis_of, story).rebuild()
    assert (done.verdict, previous(done)) == (Verdict("log"), 0)


async def test_both_are_compared_at_one_position_also_where_the_log_grows_while_it_is_read(
    redis_of: Of,
) -> None:
    class Running(CutShort):
        """Whoever reads it gets more than he asked for, and more each time."""

        def batches(self, partition: Partition, start: int, end: int) -> Iterator[Batch]:
            self.left += 1
            self.story.tell(added("C1", f"S{self.left}", 1))
            return self.story.batches(partition, start, 1 << 40)

    done = await rebuilding(redis_of, Running(some_carts(), 0)).rebuild()
    assert (done.is_live, done.verdict) == (True, Verdict("log"))


async def test_killed_at_any_step_it_goes_on_and_what_is_live_is_whole(
    redis_store: RedisStore,
    redis_settings: RedisSettings,
    redis_of: Of,
    server: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At each round trip to the store in turn; after each kill another rebuild goes on to the end."""
    ask, fuse = RedisConnection.ask, [-1]

    async def ask_or_die(connection: RedisConnection, commands: Any) -> Any:
        fuse[0] -= 1
        if fuse[0] == 0:
            raise Killed
        return await ask(connection, commands)

    monkeypatch.setattr(RedisConnection, "ask", ask_or_die)
    story = some_carts(3)
    await deliver(redis_store, story)
    should = await digests_of(redis_store, cart.VIEW, 1)
    for step in count(1):
        fuse[0] = step
        try:
            await rebuilding(redis_of, story).rebuild()
            break
        except Killed:
            assert await digests_of(redis_store, cart.VIEW, await redis_store.live(cart.VIEW)) == should
        assert (await rebuilding(redis_of, story).rebuild()).is_live
        assert await digests_of(redis_store, cart.VIEW, await redis_store.live(cart.VIEW)) == should
        documents = server.scan_iter(f"{redis_settings.prefix}:{cart.VIEW.title}:*")
        assert len({name.split(b":")[2] for name in documents}) == 2, f"killed at step {step}"
    assert step > 25


async def test_what_was_paused_goes_on_where_it_stood_unless_it_shall_be_anew(
    redis_store: RedisStore, redis_of: Of
) -> None:
    story = some_carts()
    await deliver(redis_store, story)
    for _ in range(2):
        with pytest.raises(Killed):
            await rebuilding(redis_of, CutShort(story, 1)).rebuild()
        assert await redis_store.live(cart.VIEW) == 1
    went_on = rebuilding(redis_of, story)
    done = await went_on.rebuild()
    assert (done.is_live, done.generation) == (True, 2)
    assert went_on.course.resumed == 2 * (27 - done.records) > 0, "each record and the hole behind it"

    with pytest.raises(Killed):
        await rebuilding(redis_of, CutShort(story, 1)).rebuild()
    done = await rebuilding(redis_of, story).rebuild(anew=True)
    assert (done.generation, done.records) == (4, 27)
    assert await digests_of(redis_store, cart.VIEW, 3) == {}


async def test_a_new_version_is_compared_with_the_one_before_it_but_for_what_it_declares(
    redis_store: RedisStore, redis_settings: RedisSettings
) -> None:
    def dump(level: Any) -> bytes:
        return orjson.dumps(orjson.loads(stock.dump(level)) | {"version": level.version, "colour": "red"})

    story = Story().tell(received("A", 5, 5), reserved("A", 5, 2), received("B", 5, 5))
    await deliver(redis_store, story)
    newer = replace(stock.VIEW, version=stock.VIEW.version + 1, dump=dump)
    refused = await rebuilding(partial(RedisStore, redis_settings, (newer,)), story, newer).rebuild()
    assert (refused.is_live, len(refused.verdict.spoilt), refused.verdict.wrong) == (False, 2, ())

    declaring = replace(newer, declared=frozenset({"colour"}))
    done = await rebuilding(partial(RedisStore, redis_settings, (declaring,)), story, declaring).rebuild()
    assert (done.verdict, previous(done)) == (Verdict("live"), 0)


def test_a_declared_column_or_table_is_not_judged(cassandra_settings: CassandraSettings) -> None:
    view = replace(ledger.VIEW, declared=frozenset({"head", "stock_folios"}))
    store = CassandraStore(cassandra_settings, (view,))
    assert store.undeclared(view, 'stock_heads.version [1,"A","main"]', b'[7,"[1,2]"]') == b"[7]"
    assert store.undeclared(view, 'stock_ledger.movement [1,2,"A","main",3]', b'["{}"]') == b'["{}"]'
    assert store.undeclared(view, 'stock_folios.folio [1,"A","main",3]', b'["[]"]') is None


async def test_what_was_begun_for_an_older_version_of_the_view_is_dropped(
    redis_store: RedisStore, redis_settings: RedisSettings, redis_of: Of
) -> None:
    story, newer = some_carts(), replace(cart.VIEW, version=cart.VIEW.version + 1)
    with pytest.raises(Killed):
        await rebuilding(redis_of, CutShort(story, 2)).rebuild()
    assert await digests_of(redis_store, cart.VIEW, 2) != {}
    assert (await rebuilding(partial(RedisStore, redis_settings, (newer,)), story, newer).rebuild()).is_live
    assert await digests_of(redis_store, cart.VIEW, 2) == {}
    assert (await redis_store.succession(cart.VIEW)).building == 0


async def test_the_generation_before_is_brought_back_as_far_as_the_log_and_the_one_before_that_is_gone(
    redis_store: RedisStore, redis_of: Of, redis_reader: RedisReader
) -> None:
    story = some_carts()
    with pytest.raises(RebuildFailed, match="no generation that could be brought back"):
        await rebuilding(redis_of, story).bring_back()
    await deliver(redis_store, story)
    for _ in range(2):
        await rebuilding(redis_of, story).rebuild()
    assert await digests_of(redis_store, cart.VIEW, 1) == {}
    await deliver(redis_store, story.tell(added("C1", "Z", 1)))

    back = await rebuilding(redis_of, story).bring_back()
    assert (back.generation, previous(back), back.records) == (2, 3, 1)
    assert await redis_store.live(cart.VIEW) == 2
    served = await cart.by_id(redis_reader, "C1")
    assert served
    assert served.version == 4
    assert (await rebuilding(redis_of, story).bring_back()).generation == 3


async def test_a_generation_that_is_emptied_while_it_is_brought_back_is_not_switched_to(
    redis_store: RedisStore, redis_settings: RedisSettings, redis_of: Of
) -> None:
    """It would be folded again behind documents that came after the loss."""
    flushes = [lambda: forget(redis_settings)]

    class Flushed(RedisStore):
        async def _put(self, view: Any, batch: Any, folded: Any, then: Any) -> Any:
            while flushes:
                flushes.pop()()
            return await super()._put(view, batch, folded, then)

    story = some_carts()
    await deliver(redis_store, story)
    await rebuilding(redis_of, story).rebuild()
    await deliver(redis_store, story.tell(added("C1", "Z", 1)))
    of = partial(Flushed, redis_settings, REDIS_VIEWS)
    with pytest.raises(RebuildFailed, match="was emptied"):
        await rebuilding(of, story).bring_back()


async def test_a_next_generation_that_is_not_what_the_log_says_never_goes_live(
    redis_store: RedisStore, redis_settings: RedisSettings
) -> None:
    """The planted bug: a store that loses every third document."""

    class Forgetful(RedisStore):
        async def _put(self, view: Any, batch: Any, folded: Any, then: Any) -> Any:
            kept = {s: d for s, d in folded.after.items() if then.generation == 1 or int(s[-1]) % 3}
            return await super()._put(view, batch, replace(folded, after=kept), then)

    story = some_carts()
    await deliver(redis_store, story)
    of = partial(Forgetful, redis_settings, REDIS_VIEWS)
    done = await rebuilding(of, story).rebuild(accept="whatever it holds")
    assert done.verdict.wrong == tuple(Difference(f"{{C{n}}}", "missing", b"") for n in (0, 3, 6))
    assert (done.is_live, await redis_store.live(cart.VIEW)) == (False, 1)
    assert (await redis_store.succession(cart.VIEW)).building == 2


async def test_the_ledger_is_rebuilt_in_tables_of_its_own_and_brought_back(
    cassandra_store: CassandraStore, cassandra_of: Of, cassandra_reader: CassandraReader
) -> None:
    story = Story()
    for n in range(40):
        story.tell(received(f"S{n}", 5, 5), reserved(f"S{n}", 5, 2), adjusted(f"S{n}", 5, 4))
    await deliver(cassandra_store, story)
    await cassandra_store._connection.execute(
        "UPDATE stock_ledger_v2_g1 USING TIMESTAMP 50 SET movement = '{}'"
        " WHERE bucket = ? AND month = ? AND sku = ? AND location = ? AND version = ?",
        (ledger.bucket_of("S9"), ledger.month_of(story.now), "S9", "main", 2),
    )
    with pytest.raises(Killed):
        await rebuilding(cassandra_of, CutShort(story, 9), ledger.VIEW).rebuild()
    refused = await rebuilding(cassandra_of, story, ledger.VIEW).rebuild()
    assert (refused.is_live, refused.generation, 0 < refused.records < 120) == (False, 2, True)
    assert [(one.kind, "S9" in one.name) for one in refused.verdict.spoilt] == [("differs", True)]
    done = await rebuilding(cassandra_of, story, ledger.VIEW).rebuild(accept="a row was spoilt")
    assert (done.is_live, done.generation) == (True, 2)

    assert await deliver(cassandra_store, story.tell(received("S7", 1, 5))) == []
    assert await versions(cassandra_reader, "S7") == [4, 3, 2, 1]
    assert (await rebuilding(cassandra_of, story, ledger.VIEW).bring_back()).generation == 1
    assert await cassandra_store.live(ledger.VIEW) == 1
    assert await versions(cassandra_reader, "S7") == [4, 3, 2, 1]


async def versions(reader: CassandraReader, sku: str) -> list[int]:
    page = await history.of_item(reader, sku)
    assert page
    return [row["version"] for row in page.served().document()["movements"]]


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
