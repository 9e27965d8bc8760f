"""`bench rebuild`: a view made anew from the log, compared and switched to, beside a dict folded from the same log."""

import asyncio
import io
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson
import psutil
from fastavro import schemaless_reader

from ops.bench.contest import BenchFailed, Figure, Measure, Pair, in_turn
from ops.bench.costs import Costs, listener_at
from ops.bench.reading import messages, schemas_by_prefix
from ops.bench.trade_log import TradeLog
from ops.rebuild import collecting_rarely
from ops.settings import Settings
from projections import stock
from projections.building import RebuildFailed
from projections.generations import GRACE_S
from projections.rebuild import KafkaLog, Rebuilding
from projections.redis_store import Keys, RedisSettings, RedisStore
from projections.view import StoreUnavailable
from schemas.codec import Codec

EVENTS_OF_AN_ORDER = 81
"""Of stock: each of its 27 lines is reserved, allocated and shipped."""

VIEW = stock.VIEW
BALANCES = ("sellable", "reserved", "allocated", "shipped")


@dataclass
class RebuildContest:
    """The view `stock` in Redis, from 81,000 events. Each rebuild is whole: dropping what was kept, building, comparing
    with the live generation row by row, switching.
    """

    settings: Settings
    log: TradeLog
    _documents: dict[str, dict[str, Any]] = field(default_factory=dict)

    name = "rebuild"
    measures: Sequence[Measure] = (
        Measure(
            "rebuild",
            "events/s",
            "in Redis, compared, live",
            "raw consume, fastavro to dicts, folded into a dict of this process",
            0.5,
            1,
        ),
    )

    def __post_init__(self) -> None:
        self._redis = RedisSettings(self.settings.redis, self.log.topics.prefix, timeout_s=60)
        self._codec = Codec()
        self._schemas = schemas_by_prefix()
        found = {"kafka": listener_at(self.log.kafka), "redis": listener_at(self.settings.redis)}
        self._servers = {name: process for name, process in found.items() if process is not None}

    def close(self) -> None:
        asyncio.run(self._forget())
        self.log.close()

    def warm_up(self) -> None:
        self.log.write()
        self.round()

    def round(self) -> Mapping[str, Pair]:
        """Both sides look for cycles as rarely as the verb does."""
        with collecting_rarely():
            daybook, peer = in_turn([self._rebuild, self._fold])
        return {self.name: Pair(daybook, peer)}

    def proof(self) -> Mapping[str, int]:
        """Documents of the live generation that are not what the peer folded."""
        shown = asyncio.run(self._shown())
        ours = {stream: [shown[stream][name] for name in ("version", *BALANCES)] for stream in shown}
        theirs = {stream: list(document.values()) for stream, document in self._documents.items()}
        differ = [stream for stream in ours.keys() | theirs.keys() if ours.get(stream) != theirs.get(stream)]
        return {"documents_that_differ": len(differ)}

    def _rebuild(self) -> Figure:
        time.sleep(GRACE_S)  # a rebuild waits for readers of the one just before: that is nobody's rate
        log = KafkaLog(self.log.kafka, self._codec.decode)
        topics = tuple(VIEW.topics(self.log.topics))
        work = Rebuilding(VIEW, topics, partial(RedisStore, self._redis, (VIEW,)), log)
        costs, began = Costs({"client": psutil.Process()} | self._servers), time.monotonic()
        try:
            done = asyncio.run(work.rebuild())
        except (StoreUnavailable, RebuildFailed) as error:
            raise BenchFailed(f"the view was not rebuilt: {error}") from error
        finally:
            log.close()
        if not done.is_live:
            raise BenchFailed(f"the view was not switched to: {done.verdict}")
        return self._figure(done.records, time.monotonic() - began, costs)

    def _fold(self) -> Figure:
        costs, began = Costs({"client": psutil.Process()} | self._servers), time.monotonic()
        documents, events = dict[str, dict[str, Any]](), 0
        for datum in self._read():
            meta, before = datum["meta"], documents.get(datum["meta"]["stream"])
            if before is None or before["version"] < meta["version"]:
                documents[meta["stream"]] = {
                    "version": meta["version"],
                    "sellable": datum["sellable"],
                    "reserved": datum["reserved"],
                    "allocated": datum["allocated"],
                    "shipped": datum["shipped"],
                }
            events += 1
        self._documents = documents
        return self._figure(events, time.monotonic() - began, costs)

    def _read(self) -> Iterator[dict[str, Any]]:
        for message in messages(self.log.kafka, VIEW.topics(self.log.topics), self.log.topics.partitions):
            value = message.value() or b""
            stream = io.BytesIO(value)
            stream.seek(10)
            yield schemaless_reader(stream, self._schemas[value[:10]][1], None)  # type: ignore[misc]  # a record is a dict

    def _figure(self, events: int, took_s: float, costs: Costs) -> Figure:
        if events != self.log.orders * EVENTS_OF_AN_ORDER:
            raise BenchFailed(f"{events:,} events were read")
        return Figure(events / took_s, costs.per_event(events))

    async def _shown(self) -> dict[str, dict[str, Any]]:
        store = RedisStore(self._redis, (VIEW,))
        try:
            rows = store.rows(VIEW, await store.live(VIEW))
            return {
                f"stock/{name[1:-1]}": orjson.loads(content.partition(b"\n")[2])
                async for name, content in rows
                if name.startswith("{")
            }
        finally:
            await store.close()

    async def _forget(self) -> None:
        store, redis = RedisStore(self._redis, (VIEW,)), self._redis.connect()
        keys = Keys(self._redis.prefix, VIEW, 0)
        try:
            known = await store.succession(VIEW)
            for generation in (await store.live(VIEW), known.previous, known.building):
                await store.drop(VIEW, generation)
            await redis.ask([("DEL", keys.live, keys.built, keys.positions, keys.succession)])
        finally:
            await store.close()
            await redis.close()
