"""`auditor`: how long it takes to fold a long log from its first event, and to compare every row of every view with it."""

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from confluent_kafka import Producer

from ops.audit.auditor import Auditor, Ledgers
from ops.audit.comparison import Comparison, PositionedStore
from ops.audit.follower import Follower
from ops.audit.mirror import Mirror
from ops.audit.role import places_of
from ops.audit.wire import AvscReader
from ops.bench.contest import BenchFailed, Figure, Measure, Pair, Verdict
from ops.bench.copies import copies, template
from ops.clearing import clear_views
from ops.roles import collect_rarely
from ops.settings import Settings
from projections.cassandra_store import CassandraSettings, CassandraStore
from projections.rebuild import KafkaLog
from projections.redis_store import RedisSettings, RedisStore
from projections.registry import CASSANDRA_VIEWS, REDIS_VIEWS
from projections.view import ViewStore
from schemas.codec import Codec
from schemas.topics import Topics
from streams.kafka_clients import producer_config
from streams.topic_admin import delete_topics, ensure_topics, identity_of

EVENTS = int(os.environ.get("DAYBOOK_BENCH_EVENTS") or 1_000_000)
"""Fewer show the pace as well, on a machine that has less time."""

KEEPS = "one process, its CPU time on one core; Kafka, Redis and Cassandra beside it"
SECONDS = Measure(
    f"auditor: {EVENTS:,} events folded and compared",
    "s of CPU",
    KEEPS,
    "",
    60 * EVENTS / 1e6,
    None,
    "figure",
    "less",
)
FOLDED = Measure("auditor: folded", "events/s of CPU", KEEPS)
COMPARED = Measure("auditor: compared", "rows/s of CPU", KEEPS)
FLUSH_EVERY = 20_000

Say = Callable[[str], None]


@dataclass(frozen=True)
class Measured:
    events: int
    rows: int
    fold_s: float
    compare_s: float
    found: int


def auditor(ready: Settings, say: Say) -> dict[str, Verdict]:
    """A simulated shop's log, copied until it is long enough; the views filled by the stores' own way of writing.

    Raises BenchFailed if anything is found to be wrong.
    """
    prefix = f"bench_{os.getpid()}"
    topics = Topics(prefix, 2)
    if not (ready.redis and ready.cassandra):
        raise BenchFailed("auditor needs Redis and Cassandra beside Kafka: name all three, or none")
    ensure_topics(ready.kafka, topics)
    folder = ready.home / prefix
    try:
        say(f"auditor: writing {EVENTS:,} events")
        write(ready.kafka, topics, EVENTS)
        measured = asyncio.run(_measure(ready, topics, folder, say))
    finally:
        delete_topics(ready.kafka, prefix)
        shutil.rmtree(folder, ignore_errors=True)
    if measured.found:
        raise BenchFailed(
            f"the auditor found {measured.found} things wrong in a log and views that are right"
        )
    return _verdicts(measured)


def write(kafka: str, topics: Topics, events: int) -> int:
    """Copies of a shop, up to the end of the one that makes it so many events or more; returns how many."""
    said = template()
    of_one = sum(one.topic.split(".")[1] == "events" for one in said)
    number = -(-events // of_one)
    producer = Producer(producer_config(kafka))
    for count, one in enumerate(islice(copies(said, topics), number * len(said)), start=1):
        producer.produce(one.topic, one.value, one.key, one.partition)
        if count % FLUSH_EVERY == 0:
            producer.flush(60)
    if producer.flush(60):
        raise BenchFailed("Kafka did not take the log")
    return number * of_one


async def fill(store: ViewStore, log: KafkaLog, topics: Topics) -> None:
    """Have a store apply the whole log."""
    for partition, end in log.ends(store.topics(topics)).items():
        position = (await store.positions([partition]))[partition]
        for batch in log.batches(partition, position, end) if position < end else ():
            await store.apply(batch)


async def _measure(ready: Settings, topics: Topics, folder: Path, say: Say) -> Measured:
    redis = RedisStore(RedisSettings(ready.redis, topics.prefix), REDIS_VIEWS)
    cassandra_settings = CassandraSettings((ready.cassandra,), topics.prefix, timeout_s=60)
    cassandra = CassandraStore(cassandra_settings, CASSANDRA_VIEWS)
    log = KafkaLog(ready.kafka, Codec().decode)
    try:
        for store in (redis, cassandra):
            say(f"auditor: filling {store.name}")
            await fill(store, log, topics)
        return await _fold_and_compare(ready.kafka, topics, folder, redis, cassandra, say)
    finally:
        log.close()
        await redis.close()
        await cassandra.close()
        await asyncio.to_thread(
            clear_views, replace(ready, topic_prefix=topics.prefix, keyspace=topics.prefix)
        )


async def _fold_and_compare(
    kafka: str, topics: Topics, folder: Path, redis: RedisStore, cassandra: CassandraStore, say: Say
) -> Measured:
    places = places_of(topics)
    identity = identity_of(kafka, {topic for topic, _ in places})
    ledgers = Ledgers(folder / "ledgers", identity, folder / "found.jsonl", AvscReader())
    stores: list[tuple[Mirror, PositionedStore]] = [
        *((Mirror(view, redis, ledgers.books), redis) for view in REDIS_VIEWS),
        *((Mirror(view, cassandra, ledgers.books), cassandra) for view in CASSANDRA_VIEWS),
    ]
    follower = Follower(kafka, places)
    auditor_ = Auditor(ledgers, follower, Codec().adopt, [mirror for mirror, _ in stores], places)
    follower.start(auditor_.behind)
    collect_rarely()
    say("auditor: folding")
    began = time.process_time()
    while not auditor_.abreast.is_set():
        await auditor_.turn(1.0)
    folded = time.process_time()
    say(f"auditor: comparing, after {folded - began:.0f} s")
    rows = 0
    for mirror, store in stores:
        comparison = Comparison(mirror, store, topics, auditor_, ledgers.books, ledgers.breaches)
        await comparison.sweep(_at_once)
        rows += comparison.compared
    compared = time.process_time()
    found = sum(ledgers.breaches.laws_broken.values()) + len(ledgers.breaches.drifts())
    events = ledgers.counted("events")
    follower.close()
    ledgers.close()
    return Measured(events, rows, folded - began, compared - folded, found)


async def _at_once() -> None:
    """No pause: an idle auditor sweeps slowly, this one is measured."""


def _verdicts(measured: Measured) -> dict[str, Verdict]:
    values: Mapping[Measure, float] = {
        SECONDS: measured.fold_s + measured.compare_s,
        FOLDED: measured.events / measured.fold_s,
        COMPARED: measured.rows / measured.compare_s,
    }
    return {measure.name: Verdict(measure, [Pair(Figure(value))]) for measure, value in values.items()}
