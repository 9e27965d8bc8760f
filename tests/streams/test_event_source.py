"""The event source: nothing skipped, nothing aborted seen, nothing acknowledged before it is written."""

import asyncio
import threading
import time
from itertools import pairwise
from statistics import median

from confluent_kafka import Consumer, TopicPartition

from projections.view import Batch, StoreUnavailable
from schemas.codec import HEADER_BYTES
from streams.deliveries import DATA_ERRORS, Delivery
from streams.event_source import EventSource
from streams.failpoints import FailpointError
from tests.streams.listening import Listening, Shelf, event, until


def committed(listening: Listening, consumer: str = "views.test", partition: int = 0) -> int:
    """Where the group would go on."""
    reader = Consumer(
        {"bootstrap.servers": listening.kafka, "group.id": f"{listening.topics.prefix}.{consumer}"}
    )
    try:
        (found,) = reader.committed([TopicPartition(listening.topics.events("cart"), partition)], timeout=60)
        return int(found.offset)
    finally:
        reader.close()


async def test_what_is_committed_arrives_in_order_and_its_positions_follow_one_another(pen, listening):
    shelf = Shelf()
    pen.write(("a", 1), ("a", 2))
    async with listening.to(shelf.apply, shelf.positions) as listener:
        await until(lambda: len(shelf.applied) == 2)
        pen.write(("a", 3), ("b", 1))
        await until(lambda: len(shelf.applied) == 4)
    assert shelf.applied == [("a", 1), ("a", 2), ("a", 3), ("b", 1)]
    batches = [delivery.batch for delivery in listener.deliveries if delivery.batch.partition == 0]
    assert [batch.expected for batch in batches] == [0, *(batch.next for batch in batches[:-1])]


async def test_aborted_transactions_are_never_seen(pen, listening):
    shelf = Shelf()
    for version in range(1, 11):
        pen.write(("a", version), abort=version % 3 == 0)
    async with listening.to(shelf.apply, shelf.positions):
        await until(lambda: ("a", 10) in shelf.applied)
    assert shelf.versions("a") == [1, 2, 4, 5, 7, 8, 10]


async def test_without_read_committed_an_aborted_event_would_be_seen(pen, listening):
    """F14 red: the test above rests on the isolation level and nothing else."""
    shelf = Shelf()
    pen.write(("a", 1), abort=True)
    async with listening.to(shelf.apply, shelf.positions, isolation="read_uncommitted"):
        await until(lambda: shelf.applied == [("a", 1)])


async def test_an_agent_that_raises_skips_nothing(pen, listening):
    shelf = Shelf()
    raised: list[Batch] = []

    async def fails_twice(batch: Batch):
        if batch.records and len(raised) < 2:
            raised.append(batch)
            raise FailpointError("agent")
        return await shelf.apply(batch)

    async with listening.to(fails_twice, shelf.positions):
        pen.write(("a", 1), ("a", 2))
        pen.write(("a", 3))
        await until(lambda: len(shelf.applied) == 3)
    assert shelf.versions("a") == [1, 2, 3]
    assert len(raised) == 2


async def test_acknowledging_on_an_exception_would_skip(pen, listening):
    """F13 red: what plain Faust does. The events that met the exception are gone."""
    shelf = Shelf()
    raised: list[Batch] = []

    async def fails_once(batch: Batch):
        if batch.records and not raised:
            raised.append(batch)
            raise FailpointError("agent")
        shelf.at = {(batch.topic, batch.partition): batch.expected}
        return await shelf.apply(batch)

    async def settle_as_faust_does(delivery: Delivery, body):
        try:
            await body(delivery.batch)
        except FailpointError:
            pass
        finally:
            delivery.handler.settled(delivery, [])

    pen.write(("a", 1))
    async with listening.to(fails_once, None, settling=settle_as_faust_does):
        await until(lambda: raised)
        pen.write(("a", 2))
        await until(lambda: shelf.applied)
    assert shelf.versions("a") == [2]


async def test_a_store_that_is_down_is_waited_for_with_bounded_memory_and_offsets_wait_too(pen, listening):
    shelf = Shelf(down=False)
    async with listening.to(shelf.apply, shelf.positions, flights_max=2) as listener:
        pen.write(("a", 1))
        await until(lambda: shelf.applied == [("a", 1)])
        shelf.down = True
        for version in range(2, 8):
            pen.write(("a", version))
        attempts = shelf.attempts
        await until(lambda: shelf.attempts >= attempts + 4)
        assert listener.source.illness.startswith("StoreUnavailable")
        assert listener.source._in_flight <= 2
        assert committed(listening) <= 2
        shelf.down = False
        await until(lambda: ("a", 7) in shelf.applied)
        assert listener.source.illness == ""
    assert shelf.versions("a") == [1, 2, 3, 4, 5, 6, 7]


async def test_what_comes_while_a_store_writes_waits_in_kafkas_queue_and_batches_grow(pen, listening):
    shelf, written = Shelf(), asyncio.Event()

    async def writes_slowly(batch: Batch):
        await written.wait()
        return await shelf.apply(batch)

    async with listening.to(writes_slowly, shelf.positions) as listener:
        pen.write(("a", 1))
        await until(lambda: listener.deliveries)
        for version in range(2, 6):
            pen.write(("a", version))
        await until(lambda: listener.source.lag.events == 10)  # an event and a marker each: all is here
        assert len(listener.deliveries) == 1
        written.set()
        await until(lambda: len(shelf.applied) == 5)
        await until(lambda: listener.source.lag.events == 0)
    assert shelf.versions("a") == [1, 2, 3, 4, 5]


async def test_batches_for_a_store_with_a_pace_begin_that_far_apart(pen, listening):
    shelf = Shelf()
    began: list[float] = []

    async def apply(batch: Batch):
        if batch.records:
            began.append(time.monotonic())
        return await shelf.apply(batch)

    async with listening.to(apply, shelf.positions, pace_s=0.5):
        for version in range(1, 4):
            pen.write(("a", version))
            await until(lambda seen=("a", version): seen in shelf.applied)  # type: ignore[misc]  # a default binds it now
    assert all(later - earlier >= 0.45 for earlier, later in pairwise(began))


async def test_what_lies_far_behind_is_read_without_a_pace(pen, listening, monkeypatch):
    monkeypatch.setattr("streams.event_source.MESSAGES_FOR_STORE_MAX", 10)
    shelf = Shelf()
    pen.write(*[("a", version) for version in range(1, 101)])
    async with listening.to(shelf.apply, shelf.positions, pace_s=30.0):
        await until(lambda: len(shelf.applied) >= 100)
    assert shelf.versions("a") == list(range(1, 101))


async def test_what_concerns_nobody_here_is_passed_over_undecoded_and_acknowledged(pen, listening):
    shelf = Shelf(at={(pen.topic, 0): 2})
    value, _ = event("a", 1)
    async with listening.to(shelf.apply, None, unheard=frozenset({value[:HEADER_BYTES]})) as listener:
        pen.write(("a", 1), ("a", 2))
        await until(lambda: committed(listening) == 2)
    assert listener.deliveries == []
    async with listening.to(shelf.apply, None):
        pen.write(("a", 3))
        await until(lambda: shelf.applied)
    assert shelf.applied == [("a", 3)]


async def test_a_source_goes_on_where_its_store_says_whatever_the_group_committed(pen, listening):
    shelf = Shelf()
    pen.write(("a", 1), ("a", 2))
    async with listening.to(shelf.apply, shelf.positions):
        await until(lambda: len(shelf.applied) == 2)
    assert committed(listening) == 2
    restored = Shelf(at={(pen.topic, 0): 1})
    async with listening.to(restored.apply, restored.positions):
        await until(lambda: restored.applied)
    assert restored.applied == [("a", 2)]


async def test_a_source_without_a_store_goes_on_where_the_group_committed(pen, listening):
    shelf = Shelf()

    async def keep(batch: Batch):
        shelf.applied += [("a", record.message.meta.version) for record in batch.records]
        return []

    pen.write(("a", 1))
    async with listening.to(keep):
        await until(lambda: shelf.applied == [("a", 1)])
    pen.write(("a", 2))
    async with listening.to(keep):
        await until(lambda: len(shelf.applied) == 2)
    assert shelf.applied == [("a", 1), ("a", 2)]


async def test_a_store_flushed_in_mid_run_is_filled_again_from_the_start(pen, listening):
    shelf = Shelf()
    async with listening.to(shelf.apply, shelf.positions):
        pen.write(("a", 1), ("a", 2))
        await until(lambda: len(shelf.applied) == 2)
        shelf.at.clear()
        shelf.applied.clear()
        # Nothing new is written: the source itself asks now and then.
        await until(lambda: shelf.applied == [("a", 1), ("a", 2)])


async def test_stopping_finishes_what_is_under_way_and_commits_it(pen, listening):
    shelf, entered, go_on = Shelf(), asyncio.Event(), asyncio.Event()

    async def slow(batch: Batch):
        entered.set()
        await go_on.wait()
        return await shelf.apply(batch)

    pen.write(("a", 1))
    async with listening.to(slow, shelf.positions) as listener:
        await entered.wait()
        stopping = asyncio.create_task(listener.stop())
        await until(listener.source._stopping.is_set)
        assert not stopping.done()
        go_on.set()
        await stopping
    assert shelf.versions("a") == [1]
    assert committed(listening) == 1


async def test_a_partition_goes_to_another_member_only_after_what_is_under_way_was_written(pen, listening):
    shelf, entered, go_on = Shelf(), asyncio.Event(), asyncio.Event()
    other, order = Shelf(), []

    async def slow(batch: Batch):
        if batch.records:
            entered.set()
            await go_on.wait()
            order.append("first member wrote")
        return await shelf.apply(batch)

    async def positions_of_the_other(partitions):
        order.append("second member began")
        other.at = dict(shelf.at)
        return await other.positions(partitions)

    pen.write(("a", 1))
    pen.write(("b", 1), partition=1)
    async with listening.to(slow, shelf.positions) as first:
        await entered.wait()
        revoked = told_of_revocation(first.source)
        async with listening.to(other.apply, positions_of_the_other):
            await until(revoked.is_set)
            go_on.set()
            await until(lambda: "second member began" in order)
            await until(lambda: len(shelf.applied) + len(other.applied) == 2)
            # The first had paused its partitions while it waited; what is left to it must not stay paused.
            pen.write(("a", 2))
            pen.write(("b", 2), partition=1)
            await until(lambda: len(shelf.applied) + len(other.applied) == 4)
    assert order.index("first member wrote") < order.index("second member began")
    assert sorted(shelf.applied + other.applied) == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]


def told_of_revocation(source: EventSource) -> threading.Event:
    """Set when its partitions are being taken away; nothing of that can be seen from outside."""
    begun, revoke = threading.Event(), source._revoked

    def tell(partitions: list[TopicPartition]) -> None:
        begun.set()
        revoke(partitions)

    source._revoked = tell  # type: ignore[method-assign]
    return begun


async def test_a_store_that_is_down_at_the_start_is_waited_for(pen, listening):
    shelf = Shelf(down=True)
    pen.write(("a", 1))
    asked = []

    async def positions(partitions):
        asked.append(partitions)
        return await shelf.positions(partitions)

    async with listening.to(shelf.apply, positions):
        await until(lambda: len(asked) >= 2)
        assert shelf.attempts == 0
        shelf.down = False
        await until(lambda: shelf.applied == [("a", 1)])


async def test_a_record_reaches_its_agent_within_milliseconds_of_its_acknowledgement(pen, listening):
    """Half of them, in one round of three on a busy machine: a source that waits for its next turn (250 ms) would not."""
    arrived: asyncio.Queue[float] = asyncio.Queue()

    async def note(batch: Batch):
        for _ in batch.records:
            arrived.put_nowait(time.monotonic())
        return []

    async def wait_for(version: int) -> float:
        value, _ = event("a", version)
        await asyncio.to_thread(pen.scribble, value, b"a")
        acknowledged = time.monotonic()
        return await asyncio.wait_for(arrived.get(), 60) - acknowledged

    async with listening.to(note, Shelf().positions) as listener:
        await until(lambda: listener.source._cursors)
        medians: list[float] = []
        while not medians or (min(medians) >= 0.05 and len(medians) < 3):
            begin = 1 + 15 * len(medians)
            medians.append(median([await wait_for(version) for version in range(begin, begin + 15)]))
    assert min(medians) < 0.05


def test_a_store_that_is_unavailable_is_no_data_error():
    assert not issubclass(StoreUnavailable, DATA_ERRORS)
