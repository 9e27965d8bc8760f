"""`projections`: stock events from Kafka into a view in Redis, by Daybook's projection agent and by a stock Faust agent."""

import asyncio
import os
import secrets
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

import psutil
import uvloop
from confluent_kafka import Producer

from ops import processes
from ops.bench.contest import BenchFailed, Figure, Measure, Pair, in_turn
from ops.bench.costs import Costs, listener_at
from ops.bench.stock_history import StockHistory
from ops.clearing import clear
from ops.local_stack import last_words
from ops.roles import LIFELINE
from ops.settings import REPOSITORY, Settings
from projections import stock
from projections.redis_store import RedisReader, RedisSettings
from schemas.inventory import stock_stream
from schemas.topics import Topics
from schemas.values import MAIN
from streams.kafka_clients import producer_config
from streams.topic_admin import ensure_topics

EVENTS = 10_000
"""Of a round."""
SKUS = 3_000
WITHIN_S = 240.0
LOOK_EVERY_S = 0.005
GRACE_S = 15.0
KEEPS = "Redis as `up` configures it; the view's position lies beside it, a batch that was cut off is applied again"
PEER_KEEPS = "the same Redis; offsets in Kafka every few seconds, what came since is applied again"


class Side:
    """One process with topics, a consumer group and a Redis prefix of its own."""

    def __init__(self, name: str, settings: Settings, lifeline: int) -> None:
        prefix = f"bench-{secrets.token_hex(4)}-{name}"
        self.topics = Topics(prefix, 2)
        self.redis = RedisSettings(settings.redis, prefix)
        self._home = replace(settings, topic_prefix=prefix, partitions=2, home=settings.home / prefix)
        ensure_topics(settings.kafka, self.topics)
        self._producer = Producer(producer_config(settings.kafka))
        self._log = self._home.logs / f"{name}.log"
        self._process = processes.start(
            name,
            [sys.executable, "-m", "ops.bench.projectors", name],
            self._log,
            cwd=REPOSITORY,
            env=dict(os.environ) | self._home.environment(name) | {LIFELINE: str(lifeline)},
            pass_fds=[lifeline],
        )

    def processes(self) -> dict[str, psutil.Process]:
        """Whose CPU time the figure names."""
        servers = {"kafka": listener_at(self._home.kafka), "redis": listener_at(self._home.redis)}
        found = {name: server for name, server in servers.items() if server}
        return {"projection": psutil.Process(self._process.pid), **found}

    def write(self, events: Sequence[tuple[str, bytes]]) -> None:
        """Raises BenchFailed."""
        topic = self.topics.events("inventory")
        for sku, value in events:
            self._producer.produce(topic, value, sku.encode(), self.topics.partition_of(sku))
        if self._producer.flush(WITHIN_S):
            raise BenchFailed(f"Kafka did not take the events within {WITHIN_S:.0f} s")

    async def await_all(self, reader: RedisReader, wanted: Mapping[str, int]) -> None:
        """Returns when each stream's document has its version; those that were written last are asked for first.

        Raises BenchFailed.
        """
        deadline = time.monotonic() + WITHIN_S
        streams = [*wanted]
        for some in (streams[-self.topics.partitions :], streams):
            while [one and one.version for one in await reader.documents(stock.VIEW, some)] != [
                wanted[stream] for stream in some
            ]:
                if time.monotonic() > deadline or not processes.alive(self._process):
                    raise BenchFailed(f"{self._process.name} does not get on; {last_words(self._log)}")
                await asyncio.sleep(LOOK_EVERY_S)

    def close(self) -> None:
        processes.stop([self._process], GRACE_S)
        clear(replace(self._home, cassandra=""))
        shutil.rmtree(self._home.home, ignore_errors=True)


class Projections:
    """Both get the same bytes, each on a topic of its own; a round is over when every document is in Redis."""

    name = "projections"
    measures: Sequence[Measure] = (Measure("projections", "events/s", KEEPS, PEER_KEEPS, 5, None),)

    def __init__(self, settings: Settings, events: int = EVENTS) -> None:
        if not settings.redis:
            raise BenchFailed("projections needs a Redis beside Kafka: DAYBOOK_REDIS")
        self._count = events
        self._history = iter(StockHistory(1 << 40, SKUS, by_zipf=True))
        self._versions: dict[str, int] = {}
        self._lifeline, self._ours = os.pipe()
        self._loop = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._daybook, self._peer = (
            Side(name, settings, self._lifeline) for name in ("daybook", "stock-faust")
        )

    def close(self) -> None:
        self._loop.close()
        for side in (self._daybook, self._peer):
            side.close()
        os.close(self._ours)
        os.close(self._lifeline)

    def warm_up(self) -> None:
        self.round()

    def round(self) -> Mapping[str, Pair]:
        events = [*islice(self._history, self._count)]
        wanted = self._wanted(events)
        ours, peers = in_turn(
            [partial(self._timed, side, events, wanted) for side in (self._daybook, self._peer)]
        )
        return {self.name: Pair(ours, peers)}

    def proof(self) -> Mapping[str, int]:
        """Documents of one side that are others on the other."""
        ours, peers = (
            self._loop.run(self._documents(side, [*self._versions])) for side in (self._daybook, self._peer)
        )
        return {"documents_that_differ": sum(a != b for a, b in zip(ours, peers, strict=True))}

    def _wanted(self, events: Sequence[tuple[str, bytes]]) -> dict[str, int]:
        """The last version of each stream, in the order in which they were written last."""
        wanted: dict[str, int] = {}
        for sku, _ in events:
            stream = stock_stream(sku, MAIN)
            self._versions[stream] = self._versions.get(stream, 0) + 1
            wanted.pop(stream, None)
            wanted[stream] = self._versions[stream]
        return wanted

    def _timed(self, side: Side, events: Sequence[tuple[str, bytes]], wanted: Mapping[str, int]) -> Figure:
        return self._loop.run(self._time(side, events, wanted))

    async def _time(
        self, side: Side, events: Sequence[tuple[str, bytes]], wanted: Mapping[str, int]
    ) -> Figure:
        reader = RedisReader(side.redis)
        costs = Costs(side.processes())
        began = time.perf_counter()
        side.write(events)
        await side.await_all(reader, wanted)
        took = time.perf_counter() - began
        await reader.close()
        return Figure(len(events) / took, costs.per_event(len(events)))

    async def _documents(self, side: Side, streams: Sequence[str]) -> list[bytes | None]:
        reader = RedisReader(side.redis)
        found = [one.body if one else None for one in await reader.documents(stock.VIEW, streams)]
        await reader.close()
        return found
