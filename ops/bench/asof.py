"""`asof`: what the stock of an item was at a time and as then known, answered from folios and by a fold of its history."""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import orjson
import psutil

from ops.bench.contest import BenchFailed, Figure, Measure, Pair, in_turn
from ops.bench.costs import Costs, listener_at
from ops.clearing import drop_keyspace
from ops.settings import Settings
from projections import history, ledger
from projections.as_of import Cutoff, Standing, of_movement, standing
from projections.cassandra_store import CassandraReader, CassandraSettings, CassandraStore
from projections.view import Batch, Recorded
from schemas.codec import Decoded
from schemas.inventory import StockReceived
from schemas.meta import DAY, HOUR, MINUTE, NO_HASH, EventMeta, Micros

SKU = "85123A"
MOVEMENTS = 10_000
QUESTIONS = 100
LATE = 0.02
"""So many of the movements are entered up to three months late; the others within the hour."""
FIRST = Micros(1_291_161_600_000_000)
EVERY = 13 * MINUTE
"""Ten thousand movements are three months of trade."""
AT_ONCE = 500
TOPIC = "bench.events.inventory"

Ask = Callable[[CassandraReader, Cutoff], Awaitable[Standing]]


class AsOf:
    """Both sides are asked the same questions of a round, and must give the same answers."""

    name = "asof"
    measures: Sequence[Measure] = (
        Measure("asof", "ms p99", "read from Cassandra", "read from Cassandra", 50, None, "figure", "less"),
    )

    def __init__(self, settings: Settings) -> None:
        if not settings.cassandra:
            raise BenchFailed("asof needs a Cassandra: DAYBOOK_CASSANDRA")
        self._settings = CassandraSettings((settings.cassandra,), "daybook_bench_asof", timeout_s=30)
        self._loop = asyncio.Runner()
        self._reader = CassandraReader(self._settings)
        self._different = 0

    def close(self) -> None:
        self._loop.run(self._reader.close())
        self._loop.close()
        drop_keyspace(self._settings)

    def warm_up(self) -> None:
        drop_keyspace(self._settings)
        self._loop.run(self._post())
        for ask in (from_folios, from_history):
            self._loop.run(self._timed(ask, [Cutoff(), *_questions(3)]))

    def round(self) -> Mapping[str, Pair]:
        questions = list(_questions(QUESTIONS))
        sides = [
            lambda ask=ask: self._loop.run(self._timed(ask, questions)) for ask in (from_folios, from_history)
        ]
        (ours, answers), (peers, other_answers) = in_turn(sides)
        self._different += sum(a != b for a, b in zip(answers, other_answers, strict=True))
        return {self.name: Pair(ours, peers)}

    def proof(self) -> Mapping[str, int]:
        return {"answers_that_differ": self._different}

    async def _timed(self, ask: Ask, questions: Sequence[Cutoff]) -> tuple[Figure, list[Standing]]:
        took, answers = list[float](), list[Standing]()
        costs = Costs({"client": psutil.Process()} | self._server())
        for question in questions:
            began = time.perf_counter()
            answers.append(await ask(self._reader, question))
            took.append((time.perf_counter() - began) * 1e3)
        p99 = sorted(took)[math.ceil(0.99 * len(took)) - 1]
        return Figure(p99, costs.per_event(len(questions))), answers

    def _server(self) -> dict[str, psutil.Process]:
        found = listener_at(self._settings.hosts[0])
        return {"cassandra": found} if found else {}

    async def _post(self) -> None:
        """The movements, as the projection posts them."""
        store = CassandraStore(self._settings, [ledger.VIEW])
        records = [Recorded(TOPIC, 0, n, b"", event) for n, event in enumerate(movements())]
        try:
            for start in range(0, len(records), AT_ONCE):
                some = records[start : start + AT_ONCE]
                if poisons := await store.apply(Batch(TOPIC, 0, start, start + len(some), some)):
                    raise BenchFailed(f"a movement was not posted: {poisons[0].reason}")
        finally:
            await store.close()


async def from_folios(reader: CassandraReader, cutoff: Cutoff) -> Standing:
    found = await standing(reader, SKU, cutoff)
    if found is None:
        raise BenchFailed("the ledger is empty")
    return found


async def from_history(reader: CassandraReader, cutoff: Cutoff) -> Standing:
    """What one does without folios: reads all that ever happened to the item, and adds up what counts."""
    found, cursor = Standing(), ""
    while page := await history.of_item(reader, SKU, cursor, 1_000):
        for text in page.movements:
            one = orjson.loads(text)
            if cutoff.counts(one["version"], one["occurred_at"], one["recorded_at"]):
                found = found.plus(of_movement(one))
        cursor = page.next
        if not cursor:
            break
    return found


def movements() -> Iterator[Decoded[EventMeta]]:
    """Receipts of one item, for three months; some of them entered late."""
    chance = random.Random(1)  # noqa: S311  # the same movements each time
    sellable = 0
    meta = _first()
    for version in range(1, MOVEMENTS + 1):
        units = chance.randint(1, 12)
        sellable += units
        recorded_at = FIRST + version * EVERY
        late = chance.randint(0, 90 * DAY) if chance.random() < LATE else chance.randint(0, HOUR)
        body = StockReceived(SKU, "main", sellable, 0, 0, 0, units, f"delivery note {version}")
        yield Decoded(
            replace(
                meta,
                event_id=f"{version:036}",
                version=version,
                occurred_at=Micros(recorded_at - late),
                recorded_at=Micros(recorded_at),
            ),
            body,
        )


def _first() -> EventMeta:
    some_id = f"{0:036}"
    return EventMeta(
        event_id=some_id,
        stream=f"stock/{SKU}/main",
        version=1,
        occurred_at=FIRST,
        recorded_at=FIRST,
        command_id=some_id,
        correlation_id=some_id,
        causation_id=some_id,
        actor_kind="merchant",
        actor_id="anna",
        batch_id=some_id,
        batch_index=0,
        batch_size=1,
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        previous=NO_HASH,
    )


def _questions(count: int) -> Iterator[Cutoff]:
    """By when it happened, by when it was known, and by both; random times within the three months."""
    last = MOVEMENTS * EVERY
    for n in range(count):
        as_of, known_at = (FIRST + random.randint(HOUR, last) for _ in range(2))  # noqa: S311  # questions of a bench, not secrets
        yield [Cutoff(as_of=as_of), Cutoff(known_at=known_at), Cutoff(as_of, known_at)][n % 3]
