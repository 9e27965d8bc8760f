"""`ledger`: movements of stock written down in Cassandra, in the ledger's batches and as one INSERT for each of them."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import groupby, islice
from typing import Any

import psutil
from cassandra.concurrent import execute_concurrent_with_args

from ops.bench.contest import BenchFailed, Figure, Measure, Pair, in_turn
from ops.bench.costs import Costs, listener_at
from ops.bench.stock_history import StockHistory
from ops.clearing import drop_keyspace
from ops.settings import Settings
from projections import ledger
from projections.cassandra_store import CassandraSettings, CassandraStore
from projections.view import Batch, Recorded, event_in
from schemas.codec import Codec
from schemas.topics import partition_of
from streams.event_source import MESSAGES_MAX

MOVEMENTS = 10_000
"""Of a round."""
SKUS = 3_000
PARTITIONS = 2
TOPIC = "bench.events.inventory"
OURS, PEERS = 1, 2
"""Generations of the same tables."""
CONCURRENCY = 100
KEEPS = "written at LOCAL_QUORUM; Cassandra's commit log, flushed as Cassandra does it"

Write = Callable[[Sequence[Recorded]], None]


class Ledger:
    """Both sides begin with the same decoded events and make the same rows of them. The ledger also writes down where
    each item has got to, its folios and its position; the peer writes the rows, and nothing else.
    """

    name = "ledger"
    measures: Sequence[Measure] = (
        Measure("ledger", "movements/s", KEEPS, f"{KEEPS}; execute_concurrent_with_args", 3, None),
    )

    def __init__(self, settings: Settings, movements: int = MOVEMENTS) -> None:
        if not settings.cassandra:
            raise BenchFailed("ledger needs a Cassandra: DAYBOOK_CASSANDRA")
        self._settings = CassandraSettings((settings.cassandra,), "daybook_bench_ledger", timeout_s=30)
        self._movements = movements
        self._events = self._recorded()
        self._loop = asyncio.Runner()
        self._store = CassandraStore(self._settings, [ledger.VIEW], OURS)
        self._cluster = self._settings.cluster()
        self._session = self._cluster.connect()
        self._reached = dict.fromkeys(range(PARTITIONS), 0)
        self._heads: dict[str, ledger.Head] = {}

    def close(self) -> None:
        self._loop.run(self._store.close())
        self._loop.close()
        self._cluster.shutdown()
        drop_keyspace(self._settings)

    def warm_up(self) -> None:
        drop_keyspace(self._settings)
        for generation in (OURS, PEERS):
            self._loop.run(self._store.prepare(ledger.VIEW, generation))
        cql = ledger.MOVEMENT.cql.format(g=ledger.VIEW.tables(PEERS))
        self._session.set_keyspace(self._settings.keyspace)
        self._insert = self._session.prepare(cql)
        self.round()

    def round(self) -> Mapping[str, Pair]:
        events = [*islice(self._events, self._movements)]
        ours, peers = in_turn(
            [lambda: self._timed(self._post, events), lambda: self._timed(self._insert_each, events)]
        )
        return {self.name: Pair(ours, peers)}

    def proof(self) -> Mapping[str, int]:
        """Rows that one side has read back from Cassandra and the other has not."""
        ours, peers = (self._loop.run(self._written(generation)) for generation in (OURS, PEERS))
        if not ours:
            raise BenchFailed("no row was written")
        return {"rows_that_differ": len(ours ^ peers)}

    def _timed(self, write: Write, events: Sequence[Recorded]) -> Figure:
        server = listener_at(self._settings.hosts[0])
        costs = Costs({"client": psutil.Process()} | ({"cassandra": server} if server else {}))
        began = time.perf_counter()
        write(events)
        took = time.perf_counter() - began
        return Figure(len(events) / took, costs.per_event(len(events)))

    # Daybook: as the projection is handed a log that it has to catch up with.

    def _post(self, events: Sequence[Recorded]) -> None:
        self._loop.run(self._post_all(events))

    async def _post_all(self, events: Sequence[Recorded]) -> None:
        by_partition = sorted(events, key=lambda one: one.partition)
        parts = [[*some] for _, some in groupby(by_partition, key=lambda one: one.partition)]
        await asyncio.gather(*(self._post_in_batches(part) for part in parts))

    async def _post_in_batches(self, records: Sequence[Recorded]) -> None:
        for start in range(0, len(records), MESSAGES_MAX):
            some = records[start : start + MESSAGES_MAX]
            number, end = some[0].partition, some[-1].offset + 1
            batch = Batch(TOPIC, number, self._reached[number], end, some)
            if poisons := await self._store.apply(batch):
                raise BenchFailed(f"a movement was not posted: {poisons[0].reason}")
            self._reached[number] = end

    # The peer.

    def _insert_each(self, events: Sequence[Recorded]) -> None:
        rows = (self._row(one) for one in events)
        execute_concurrent_with_args(self._session, self._insert, rows, concurrency=CONCURRENCY)

    def _row(self, record: Recorded) -> tuple[Any, ...]:
        (fact,) = event_in(record.message)
        before = self._heads.get(fact.stream)
        row = ledger.movement(before, fact)
        self._heads[fact.stream] = ledger.evolve(before, record.message)
        return (*row.values, row.version)

    # What both have.

    def _recorded(self) -> Iterator[Recorded]:
        """Stock events without end, SKUs by Zipf's law, each in its partition at its next offset."""
        codec, ends = Codec(), dict.fromkeys(range(PARTITIONS), 0)
        for sku, value in StockHistory(1 << 40, SKUS, by_zipf=True):
            number = partition_of(sku, PARTITIONS)
            yield Recorded(TOPIC, number, ends[number], sku.encode(), codec.decode(value))
            ends[number] += 1

    async def _written(self, generation: int) -> set[bytes]:
        """The movements' rows, by their digests."""
        table = f"{ledger.MOVEMENT.table}."
        rows = self._store.rows(ledger.VIEW, generation)
        return {
            sha256(name.encode() + content).digest() async for name, content in rows if name.startswith(table)
        }
