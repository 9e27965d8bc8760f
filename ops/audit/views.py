"""Law 7: what every read model holds, compared row by row with a fold of the log of its own."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from projections.cassandra_store import CassandraSettings, CassandraStore, CassandraView
from projections.compare import Difference, FoldOfLog, against_log
from projections.rebuild import KafkaLog
from projections.redis_store import RedisSettings, RedisStore, RedisView
from projections.registry import CASSANDRA_VIEWS, REDIS_VIEWS
from projections.view import Partition
from schemas.codec import Codec
from schemas.topics import Topics
from streams.schema_registry import LearningDecoder, SchemaRegistry

CAUGHT_UP_WITHIN_S = 60.0
LOOK_AGAIN_S = 0.2
NAMED = 5

Store: TypeAlias = RedisStore | CassandraStore
Progress: TypeAlias = Callable[[str], None]


@dataclass(frozen=True)
class ReadSide:
    """Where the log and the two stores are."""

    kafka: str
    topics: Topics
    redis: RedisSettings
    cassandra: CassandraSettings


def find_view_errors(side: ReadSide, progress: Progress) -> list[str]:
    """What differs, a line per difference, the first few of each view named; the log should be at rest.

    Raises StoreUnavailable, KafkaException.
    """
    return asyncio.run(_find_errors(side, progress))


async def _find_errors(side: ReadSide, progress: Progress) -> list[str]:
    # What a newer release beside us has written is read by the schemas that it published.
    decoder = LearningDecoder(Codec(), SchemaRegistry(side.kafka, side.topics).schemas)
    log = KafkaLog(side.kafka, decoder.decode)
    try:
        errors = []
        for view in (*REDIS_VIEWS, *CASSANDRA_VIEWS):
            progress(f"comparing {view.name} with the log")
            async with _store_of(view, side) as store:
                errors += await _errors_of(view, store, side.topics, log)
        return errors
    finally:
        log.close()


@asynccontextmanager
async def _store_of(view: RedisView[Any] | CassandraView[Any], side: ReadSide) -> AsyncIterator[Store]:
    store: Store = (
        RedisStore(side.redis, (view,))
        if isinstance(view, RedisView)
        else CassandraStore(side.cassandra, (view,))
    )
    try:
        yield store
    finally:
        await store.close()


async def _errors_of(view: Any, store: Store, topics: Topics, log: KafkaLog) -> list[str]:
    fold, last = FoldOfLog(store, view), {}
    ends = await asyncio.to_thread(log.ends, view.topics(topics))
    for partition, end in ends.items():
        last[partition] = await asyncio.to_thread(_fold, fold, log, partition, end)
    if behind := await _behind(store, last):
        return [f"{view.name} has not caught up with {', '.join(behind)}"]
    found = await against_log(fold, await store.live(view), time.time_ns() // 1_000)
    return list(_named(view.name, sorted(found)))


def _fold(fold: FoldOfLog, log: KafkaLog, partition: Partition, end: int) -> int:
    """The offset behind the last record: markers follow it, which a store need not have seen."""
    last = 0
    for batch in log.batches(partition, 0, end):
        fold.add(batch.records)
        last = batch.records[-1].offset + 1 if batch.records else last
    return last


async def _behind(store: Store, wanted: dict[Partition, int]) -> list[str]:
    """The partitions that the store has not applied to their ends, although it was given time."""
    deadline = time.monotonic() + CAUGHT_UP_WITHIN_S
    while True:
        at = await store.positions(wanted)
        behind = [f"{topic}[{number}]" for (topic, number), end in wanted.items() if at[topic, number] < end]
        if not behind or time.monotonic() > deadline:
            return behind
        await asyncio.sleep(LOOK_AGAIN_S)


def _named(view: str, found: list[Difference]) -> Iterable[str]:
    for one in found[:NAMED]:
        yield f"{view}: {one.name} {one.kind}"
    if len(found) > NAMED:
        yield f"{view}: {len(found) - NAMED:,} more rows differ"
