"""The views on a real Redis: newer versions win, positions are compared, and a flushed store heals itself."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import redis

from projections import cart, command, product, stock
from projections.compare import Difference, FoldOfLog, against_log, digests_of
from projections.generations import first_generation
from projections.receipt import ForeignReceipt, NotCaughtUp
from projections.redis_store import Call, Keys, RedisReader, RedisSettings, RedisStore, RedisView
from projections.registry import REDIS_VIEWS
from projections.store import Folded, Stand
from projections.view import Batch, PositionMoved, StoreUnavailable
from schemas.catalog import ProductRetired
from schemas.meta import DAY
from schemas.topics import partition_of
from schemas.values import Position
from tests.projections.conftest import forget
from tests.projections.shop import added, changed, created, decided, published, received, reserved
from tests.projections.story import TOPICS, Story, deliver

NOW = 4_000_000_000_000_000
"""Long after every test: what is not expired by then does not expire."""


@pytest.fixture
def server(redis_settings: RedisSettings) -> Iterator[redis.Redis]:
    host, _, port = redis_settings.address.rpartition(":")
    with redis.Redis(host=host, port=int(port)) as client:
        yield client


def a_shop() -> Story:
    story = Story()
    for n in range(6):
        story.tell(published(f"S{n}", "tin", "even" if n % 2 == 0 else "odd"))
        story.tell(received(f"S{n}", 50, 50), reserved(f"S{n}", 50, n, quantity=n))
        story.tell(created(f"C{n}"), added(f"C{n}", "S1", 1), added(f"C{n}", "S2", 2))
        story.decide(decided(f"D{n}", at=NOW))
    return story.tell(ProductRetired("S4"), changed("S5", "tin", "gold"))


async def assert_equals_the_log(store: RedisStore, story: Story) -> None:
    for view in REDIS_VIEWS:
        await assert_equals(store, view, story)


async def assert_equals(store: RedisStore, view: RedisView[Any], story: Story, generation: int = 1) -> None:
    should = FoldOfLog(store, view)
    should.add(record for record in story.records if view.reads(record.topic))
    assert should.digests
    assert await against_log(should, generation, NOW) == set()


def snapshot(server: redis.Redis, settings: RedisSettings) -> dict[bytes, bytes]:
    return {name: server.dump(name) or b"" for name in server.scan_iter(f"{settings.prefix}:*")}


def restore(server: redis.Redis, settings: RedisSettings, old: dict[bytes, bytes]) -> None:
    forget(settings)
    for name, value in old.items():
        server.restore(name, 0, value)


async def against_log_of(store: RedisStore, batch: Batch) -> set[Difference]:
    should = FoldOfLog(store, product.VIEW)
    should.add(batch.records)
    return await against_log(should, 1, NOW)


def batch_of(story: Story, view_topic: str) -> Batch:
    """All records of the one partition that this story has written of a topic."""
    records = [record for record in story.records if record.topic == view_topic]
    return Batch(view_topic, records[0].partition, 0, records[-1].offset + 2, records)


async def test_every_key_equals_the_fold_of_the_log(redis_store: RedisStore) -> None:
    story = a_shop()
    assert await deliver(redis_store, story, size=3) == []
    await assert_equals_the_log(redis_store, story)


async def test_a_planted_wrong_missing_or_extra_key_is_named(
    redis_store: RedisStore, redis_settings: RedisSettings, server: redis.Redis
) -> None:
    story = a_shop()
    await deliver(redis_store, story)
    keys = Keys(redis_settings.prefix, stock.VIEW, 1)
    server.set(keys.document("stock/S1/main"), b'2\n{"sku":"S1"}')
    server.delete(keys.document("stock/S2/main"))
    server.set(keys.document("stock/S99/main"), b"1\n{}")
    server.zadd(keys.index(stock.DEMAND), {"S3": 77})

    should = FoldOfLog(redis_store, stock.VIEW)
    should.add(record for record in story.records if stock.VIEW.reads(record.topic))
    found = {(one.kind, one.name) for one in await against_log(should, 1, NOW)}
    assert found == {
        ("differs", "{S1/main}"), ("missing", "{S2/main}"), ("extra", "{S99/main}"),
        ("differs", "index:{demand} S3"),
    }  # fmt: skip


async def test_a_second_store_goes_on_where_the_first_one_stopped(
    redis_store: RedisStore, redis_settings: RedisSettings
) -> None:
    story = a_shop()
    await deliver(redis_store, story)
    second = RedisStore(redis_settings, REDIS_VIEWS)
    ends = story.ends(second.topics(TOPICS))
    assert await second.positions(ends) == ends
    story.tell(added("C1", "S3", 5))
    assert await deliver(second, story) == []
    await assert_equals_the_log(second, story)
    await second.close()


async def test_a_batch_that_does_not_begin_at_the_position_is_sent_to_it(redis_store: RedisStore) -> None:
    batch = batch_of(Story().tell(created("1"), added("1", "A", 1)), TOPICS.events("cart"))
    await redis_store.apply(batch)
    with pytest.raises(PositionMoved) as moved:
        await redis_store.apply(batch)
    assert moved.value.next == batch.next


async def test_a_released_stream_is_applied_without_moving_the_position(
    redis_store: RedisStore, redis_reader: RedisReader
) -> None:
    batch = batch_of(
        Story().tell(created("1"), added("1", "A", 1), added("1", "B", 1)), TOPICS.events("cart")
    )
    first, unreadable, third = batch.records
    gap = replace(batch, records=[first, third])
    poisons = await redis_store.apply(gap)
    assert [poison.stream for poison in poisons] == ["cart/1"]
    # The position waits until the letters are written.
    assert await redis_store.apply(gap.without(poisons)) == []

    again = replace(batch, expected=batch.next, records=[unreadable, third])
    assert await redis_store.apply(again) == []
    served = await cart.by_id(redis_reader, "1")
    assert served
    assert (served.version, served.document()["units"]) == (3, 2)


async def test_a_stale_writer_cannot_set_a_document_an_index_or_a_position_back(
    redis_store: RedisStore, redis_settings: RedisSettings, redis_reader: RedisReader
) -> None:
    story = Story().tell(published("A", "tin"), changed("A", "gold"))
    batch = batch_of(story, TOPICS.events("catalog"))
    first = replace(batch, records=batch.records[:1], next=2)
    stale = RedisStore(redis_settings, REDIS_VIEWS)
    await redis_store.apply(first)
    frozen = await stale._load(product.VIEW, 1, ["product/A"])
    await redis_store.apply(replace(batch, expected=2, records=batch.records[1:]))

    late = Folded({"product/A": None}, frozen, ())
    stand = await stale._put(product.VIEW, first, late, Stand(1, first.next))
    assert stand.next == batch.next
    await stale.overwrite(product.VIEW, 1, late, {})

    served = await product.by_sku(redis_reader, "A")
    assert served
    assert served.document()["categories"] == ["gold"]
    assert (await product.listed(redis_reader, "tin")).document()["total"] == 0
    assert (await product.listed(redis_reader, "gold")).document()["total"] == 1
    await stale.close()


async def test_a_store_that_is_flushed_in_mid_run_rebuilds_itself(
    redis_store: RedisStore, redis_settings: RedisSettings
) -> None:
    story = a_shop()
    await deliver(redis_store, story)
    forget(redis_settings)  # what FLUSHALL does, to these keys only: the server is shared
    story.tell(added("C1", "S3", 5), reserved("S1", 50, 9))
    assert await deliver(redis_store, story) == []
    await assert_equals_the_log(redis_store, story)


async def test_a_flush_between_what_is_read_and_what_is_written_hides_nothing(
    redis_store: RedisStore, redis_settings: RedisSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The documents come behind it, and must not pass for all that was lost."""
    monkeypatch.setattr("projections.redis_store.first_generation", first_generation)
    story, run, flushes = a_shop(), redis_store._scripts.run, [2, 9]

    async def flushed(calls: Sequence[Call]) -> Any:
        puts = [call for call in calls if call[0] == "put"]
        if puts and flushes:
            flushes[0] -= 1
            if not flushes[0]:
                flushes.pop(0)
                forget(redis_settings)
        return await run(calls)

    monkeypatch.setattr(redis_store._scripts, "run", flushed)
    assert await deliver(redis_store, story, size=2) == []
    assert flushes == []
    await deliver(redis_store, story)  # the partitions that were done when it was flushed
    for view in REDIS_VIEWS:
        await assert_equals(redis_store, view, story, await redis_store.live(view))


async def test_an_older_state_that_is_restored_between_two_batches_is_gone_on_from(
    redis_store: RedisStore, server: redis.Redis, redis_settings: RedisSettings
) -> None:
    """Nobody asks before each batch: what is written to it says so, and nothing of it is there."""
    batch = batch_of(
        Story().tell(published("A", "tin"), changed("A", "gold"), changed("A", "lead")),
        TOPICS.events("catalog"),
    )
    ones = [replace(batch, expected=n, next=n + 1, records=batch.records[n : n + 1]) for n in range(3)]
    await redis_store.apply(ones[0])
    old = snapshot(server, redis_settings)
    await redis_store.apply(ones[1])
    restore(server, redis_settings, old)

    with pytest.raises(PositionMoved) as moved:
        await redis_store.apply(ones[2])
    assert moved.value.next == 1
    assert snapshot(server, redis_settings) == old
    for one in ones[1:]:
        await redis_store.apply(one)
    assert await against_log_of(redis_store, batch) == set()


async def test_what_was_written_beside_poison_is_folded_again_if_the_store_loses_it(
    redis_store: RedisStore,
    server: redis.Redis,
    redis_settings: RedisSettings,
    redis_reader: RedisReader,
) -> None:
    """The position does not speak for it yet: an older snapshot may stand at the same one."""
    whole, other = [str(n) for n in range(20) if partition_of(str(n), TOPICS.partitions) == 0][:2]
    story = Story().tell(created(whole), created(other), added(other, "B", 1), added(other, "C", 1))
    batch = batch_of(story.tell(added(whole, "A", 1)), TOPICS.events("cart"))
    begun = replace(batch, next=batch.records[2].offset, records=batch.records[:2])
    await redis_store.apply(begun)
    old = snapshot(server, redis_settings)

    gap = replace(batch, expected=begun.next, records=batch.records[3:])
    poisons = await redis_store.apply(gap)
    assert [poison.stream for poison in poisons] == [f"cart/{other}"]
    restore(server, redis_settings, old)
    assert await redis_store.apply(gap.without(poisons)) == []
    served = await cart.by_id(redis_reader, whole)
    assert served
    assert served.version == 2


async def test_a_partition_that_comes_back_is_not_remembered_as_it_was(
    redis_store: RedisStore, redis_settings: RedisSettings
) -> None:
    """Meanwhile another one has applied what was parked, and the position has not moved."""
    story = Story().tell(created("1"), added("1", "A", 1), added("1", "B", 1))
    batch = batch_of(story, TOPICS.events("cart"))
    first = replace(batch, records=batch.records[:1])
    await redis_store.apply(first)
    other = RedisStore(redis_settings, REDIS_VIEWS)
    assert await other.apply(replace(batch, expected=batch.next, records=batch.records[1:2])) == []
    await other.close()

    place = batch.topic, batch.partition
    assert await redis_store.positions([place]) == {place: batch.next}
    assert await redis_store.apply(replace(batch, expected=batch.next, records=batch.records[2:])) == []


async def test_an_answer_that_is_lost_is_no_reason_to_go_back(
    redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    story, run, lost = a_shop(), redis_store._scripts.run, [True]

    async def unheard(calls: Sequence[Call]) -> Any:
        answers = await run(calls)
        if lost and any(call[0] == "put" for call in calls):
            lost.pop()
            raise StoreUnavailable("nobody heard the answer")
        return answers

    batch = batch_of(story, TOPICS.events("cart"))
    begun = replace(batch, next=batch.records[1].offset, records=batch.records[:1])
    rest = replace(batch, expected=begun.next, records=batch.records[1:])
    await redis_store.apply(begun)
    monkeypatch.setattr(redis_store._scripts, "run", unheard)
    with pytest.raises(StoreUnavailable):
        await redis_store.apply(rest)
    assert await redis_store.apply(rest) == []
    await deliver(redis_store, story)
    await assert_equals_the_log(redis_store, story)


async def test_what_was_written_before_generations_were_drawn_goes_on_being_served(
    redis_store: RedisStore,
    server: redis.Redis,
    redis_settings: RedisSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await deliver(redis_store, a_shop())
    server.delete(Keys(redis_settings.prefix, product.VIEW, 0).live)
    monkeypatch.setattr("projections.redis_store.first_generation", lambda: 77)
    assert await redis_store.live(product.VIEW) == 1


async def test_an_idle_source_notices_a_flush_by_an_empty_batch(
    redis_store: RedisStore, redis_settings: RedisSettings
) -> None:
    batch = batch_of(Story().tell(created("1")), TOPICS.events("cart"))
    await redis_store.apply(batch)
    nothing = replace(batch, expected=batch.next, records=())
    assert await redis_store.apply(nothing) == []
    forget(redis_settings)
    with pytest.raises(PositionMoved) as moved:
        await redis_store.apply(nothing)
    assert moved.value.next == 0


async def test_a_lost_document_is_a_gap_and_parks_its_stream_only(
    redis_store: RedisStore, redis_settings: RedisSettings, server: redis.Redis
) -> None:
    story = Story().tell(created("1"), created("2"))
    await deliver(redis_store, story)
    server.delete(Keys(redis_settings.prefix, cart.VIEW, 1).document("cart/1"))
    second = RedisStore(redis_settings, REDIS_VIEWS)  # nothing in its memory
    poisons = await deliver(second, story.tell(added("1", "A", 1), added("2", "A", 1)))
    assert [(poison.stream, "version 2 follows 0" in poison.reason) for poison in poisons] == [
        ("cart/1", True)
    ]
    await second.close()


async def test_scripts_that_the_server_forgot_are_loaded_again(
    redis_store: RedisStore, server: redis.Redis
) -> None:
    story = a_shop()
    await deliver(redis_store, story)
    server.script_flush()
    assert await deliver(redis_store, story.tell(added("C1", "S3", 5))) == []
    await assert_equals_the_log(redis_store, story)


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    nobody = RedisSettings("127.0.0.1:1", "nobody", timeout_s=1)
    store, reader = RedisStore(nobody, REDIS_VIEWS), RedisReader(nobody)
    with pytest.raises(StoreUnavailable):
        await store.positions([(TOPICS.events("cart"), 0)])
    with pytest.raises(StoreUnavailable):
        await reader.ping()
    await store.close()
    await reader.close()


async def test_without_memory_writes_wait_and_reads_go_on(
    redis_store: RedisStore, redis_reader: RedisReader, server: redis.Redis
) -> None:
    story = Story().tell(created("1"))
    await deliver(redis_store, story)
    batch = batch_of(story.tell(added("1", "A", 1)), TOPICS.events("cart"))
    more = replace(batch, expected=2, records=batch.records[1:])
    limit = server.config_get("maxmemory")["maxmemory"] or 0
    server.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreUnavailable):
            await redis_store.apply(more)
        served = await cart.by_id(redis_reader, "1")
    finally:
        server.config_set("maxmemory", limit)
    assert served
    assert served.version == 1
    assert await redis_store.apply(more) == []
    await assert_equals(redis_store, cart.VIEW, story)


async def test_the_first_outcome_of_a_command_stands_for_a_day(
    redis_store: RedisStore, redis_settings: RedisSettings, redis_reader: RedisReader,
    server: redis.Redis,
) -> None:  # fmt: skip
    story = Story().decide(decided("1", at=NOW)).decide(decided("1", outcome="rejected", at=NOW + 1))
    await deliver(redis_store, story, size=1)
    served = await command.by_id(redis_reader, "1")
    assert served
    assert served.document()["outcome"] == "accepted"
    key = Keys(redis_settings.prefix, command.VIEW, 1).document("command/1")
    at, past = divmod(NOW + DAY, 1_000)
    seconds, micros = server.time()
    assert server.pttl(key) == pytest.approx(at - (seconds * 1_000 + micros // 1_000), abs=5_000)
    assert past == 0


async def test_products_are_listed_by_page_by_category_and_by_demand(
    redis_store: RedisStore, redis_reader: RedisReader
) -> None:
    await deliver(redis_store, a_shop())

    async def skus(**how: object) -> list[str]:
        page = (await product.listed(redis_reader, **how)).document()  # type: ignore[arg-type]
        return [found["sku"] for found in page["products"]]

    assert await skus() == ["S0", "S1", "S2", "S3", "S5"]
    assert await skus(limit=2, page=2) == ["S2", "S3"]
    assert await skus(category="odd") == ["S1", "S3"]
    assert await skus(category="none such") == []
    assert await skus(sort="hot", limit=3) == ["S5", "S3", "S2"]
    assert await skus(sort="hot", category="even", limit=1, page=2) == ["S0"]


async def test_skus_are_resolved_together(redis_store: RedisStore, redis_reader: RedisReader) -> None:
    await deliver(redis_store, a_shop())
    found = await product.by_skus(redis_reader, ["S1", "S4", "S99"])
    assert {sku: one.retired for sku, one in found.items()} == {"S1": False, "S4": True}


async def test_a_read_waits_for_its_receipt_and_ignores_streams_of_others(
    redis_store: RedisStore, redis_reader: RedisReader
) -> None:
    await deliver(redis_store, a_shop())
    seen = (Position("cart/C1", 3), Position("order/O1", 9))
    served = await cart.by_id(redis_reader, "C1", seen)
    assert served
    assert served.etag == '"3"'
    with pytest.raises(ForeignReceipt):
        await stock.by_sku(redis_reader, "S1", after=seen)
    with pytest.raises(NotCaughtUp) as late:
        await cart.by_id(redis_reader, "C1", [Position("cart/C1", 4)])
    assert late.value.missing == (Position("cart/C1", 4),)


async def test_a_document_keeps_its_keys_apart_by_generation(
    redis_settings: RedisSettings, redis_store: RedisStore
) -> None:
    await deliver(redis_store, a_shop())
    assert await digests_of(redis_store, cart.VIEW, 1)
    assert await digests_of(redis_store, cart.VIEW, 2) == {}
    assert await digests_of(redis_store, cart.VIEW, 11) == {}
