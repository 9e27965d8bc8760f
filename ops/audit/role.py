"""The role `auditor`: follows the log, compares the read models, says how it is, until it is told to stop."""

import asyncio
import logging
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import structlog
from confluent_kafka import KafkaException

from ops.audit.auditor import Auditor, Ledgers
from ops.audit.comparison import SAMPLE_EVERY_S, SWEEP_EVERY_S, Comparison, PositionedStore
from ops.audit.desk import Place
from ops.audit.follower import Follower, LogCutError
from ops.audit.kept import LISTED
from ops.audit.log_reader import AGGREGATES, KINDS
from ops.audit.mirror import Mirror
from ops.audit.wire import AvscReader, LearningReader
from projections.registry import CASSANDRA_VIEWS, REDIS_VIEWS, cassandra_store, redis_store
from projections.view import StoreUnavailable, View
from schemas import telemetry
from schemas.codec import Codec
from schemas.topics import Topics
from streams.role_status import RoleStatus
from streams.schema_registry import LearningDecoder, SchemaRegistry
from streams.settings import StreamSettings, from_environment
from streams.topic_admin import identity_of

WAIT_S = 1.0
DEFAULT_STATE = Path(".daybook/state/auditor")
EXIT_LOST = 75

Viewed = tuple[PositionedStore, Sequence[View[Any]]]
"""A store, and the views in it."""

log = structlog.get_logger(__name__)


def main() -> None:
    """Audit until SIGTERM or Ctrl-C. Exits 75 when Kafka, or a piece of the log, is lost: to be started again."""
    telemetry.configure("auditor")
    logging.getLogger("cassandra").setLevel(logging.ERROR)  # it tells of every step of its own
    try:
        asyncio.run(_audit(from_environment()))
    except (KafkaException, LogCutError) as error:
        log.error("log_out_of_reach", reason=str(error))  # noqa: TRY400  # expected: no traceback
        sys.exit(EXIT_LOST)


def places_of(topics: Topics) -> list[Place]:
    """Every partition of events and decisions."""
    return [
        (f"{topics.prefix}.{kind}.{aggregate}", number)
        for kind in KINDS
        for aggregate in AGGREGATES
        for number in range(topics.partitions)
    ]


def opened(state: Path, follower: Follower, identity: str, reader: AvscReader) -> Ledgers:
    """The ledgers of this log, where they were left, or new ones. Raises KafkaException."""
    beginnings = follower.beginnings()
    while True:
        ledgers = Ledgers(state / "ledgers", identity, state / LISTED, reader)
        if ledgers.begin_at(beginnings):
            return ledgers
        log.warning("ledgers_begun_anew", reason="decisions were deleted before they were read")
        ledgers.close()
        shutil.rmtree(state / "ledgers")


async def _audit(settings: StreamSettings) -> None:
    role = _Role(settings, [(redis_store(), REDIS_VIEWS), (cassandra_store(), CASSANDRA_VIEWS)])
    ourselves = asyncio.current_task()
    assert ourselves is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ourselves.cancel)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(role.follow())
            for comparison in role.comparisons:
                tasks.create_task(role.compare(comparison))
    except asyncio.CancelledError:
        pass  # we were asked to stop
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    finally:
        await role.close()


class _Role:
    """The auditor, and a comparison of each view, in one loop."""

    def __init__(self, settings: StreamSettings, stores: Sequence[Viewed]) -> None:
        registry, topics = SchemaRegistry(settings.kafka, settings.topics), settings.topics
        places = places_of(topics)
        self._stores = [store for store, _ in stores]
        self._status = RoleStatus("auditor", settings.run)
        self._follower = Follower(settings.kafka, places)
        reader = LearningReader(lambda: registry.schemas().values())
        identity = identity_of(settings.kafka, {topic for topic, _ in places})
        self._ledgers = opened(settings.state or DEFAULT_STATE, self._follower, identity, reader)
        views = [(store, view) for store, views in stores for view in views]
        mirrors = [Mirror(view, store, self._ledgers.books) for store, view in views]
        adopt = LearningDecoder(Codec(), registry.schemas).adopt
        self._auditor = Auditor(self._ledgers, self._follower, adopt, mirrors, places)
        self.comparisons = [
            Comparison(mirror, store, topics, self._auditor, self._ledgers.books, self._ledgers.breaches)
            for mirror, (store, _) in zip(mirrors, views, strict=True)
        ]
        self._absent: dict[str, str] = {}
        self._follower.start(self._auditor.behind)

    async def follow(self) -> None:
        while True:
            await self._auditor.turn(WAIT_S)
            if not self._ledgers.breaches.is_listed:  # a comparison found something, while the log rests
                self._ledgers.commit()
            self._say()

    async def compare(self, comparison: Comparison) -> None:
        """Sample and sweep, for ever; a store that is away is waited for."""
        sweeps, samples = self._sweeping(comparison), self._sampling(comparison)
        await asyncio.gather(sweeps, samples)

    async def close(self) -> None:
        self._follower.close()
        self._ledgers.close()
        for store in self._stores:
            await store.close()

    async def _sampling(self, comparison: Comparison) -> None:
        draw = random.Random()  # noqa: S311  # which rows are looked at first is no secret
        while True:
            await asyncio.sleep(SAMPLE_EVERY_S)
            await self._patiently(comparison, lambda: comparison.sample(draw))

    async def _sweeping(self, comparison: Comparison) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            await self._patiently(comparison, lambda: comparison.sweep(lambda: asyncio.sleep(SWEEP_EVERY_S)))

    async def _patiently(self, comparison: Comparison, work: Callable[[], Awaitable[None]]) -> None:
        await self._auditor.abreast.wait()
        name = comparison.mirror.view.name
        try:
            await work()
        except StoreUnavailable as away:
            self._absent[name] = str(away)
        except KafkaException as error:
            log.warning("cut_not_taken", reason=str(error))  # the log's reader finds out whether it is gone
        else:
            self._absent.pop(name, None)

    def _say(self) -> None:
        breaches, drifts = self._ledgers.breaches.laws_broken, self._ledgers.breaches.drifts()
        is_well = not (breaches or drifts or self._absent)
        detail = told(breaches, Counter(drift.view for drift in drifts), self._absent)
        events = self._ledgers.counted("events")
        self._status.write(
            "ok" if is_well else "degraded", f"{detail}; {events:,} events", lag_events=self._auditor.lag
        )


def told(breaches: dict[str, int], drifts: dict[str, int], absent: Iterable[str]) -> str:
    """What was found, in one line."""
    said = []
    if breaches:
        laws = ", ".join(f"{count:,} of law {law}" for law, count in sorted(breaches.items()))
        said.append(f"breaches: {laws}")
    if drifts:
        said.append(
            "rows that drifted: " + ", ".join(f"{n:,} of {view}" for view, n in sorted(drifts.items()))
        )
    if said:
        said.append("./daybook audit breaches")
    else:
        said.append("laws hold, views agree")
    return "; ".join([*said, *(f"{name} cannot be read" for name in sorted(absent))])


if __name__ == "__main__":
    main()
