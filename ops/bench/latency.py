"""`latency`: from a command to its answer, as the API waits for it, beside a bare transaction of one event."""

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median, quantiles

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # public, not marked as such

from ops.bench.asking import WITHIN_S, Asking
from ops.bench.contest import BenchFailed, Figure, Measure, Pair, in_turn
from ops.bench.costs import Costs
from ops.bench.stage import KAFKA_KEEPS, Stage

CALLERS = {1: 200, 10: 1_000, 100: 4_000}
"""Callers at once, and how many commands they send together in a round."""
WARM_ROUNDS = 3
"""Until the broker's code is compiled: both sides are half as fast before."""
EVENT_BYTES = 600
"""About what a StockReserved weighs."""


class Latency:
    """Milliseconds, p50 of each round."""

    name = "latency"
    measures: Sequence[Measure] = (
        Measure("1 caller", "ms p50", KAFKA_KEEPS, KAFKA_KEEPS, 3, 2, better="less"),
        Measure("10 callers", "ms p50", KAFKA_KEEPS),
        Measure("100 callers", "ms p50", KAFKA_KEEPS, "", 20, 10, "figure", "less"),
    )

    def __init__(self, stage: Stage, share: float = 1.0) -> None:
        self._stage = stage
        self._counts = {callers: max(callers, int(count * share)) for callers, count in CALLERS.items()}
        self._asking = Asking(stage)
        self._bare = BareTransactions(stage)

    def warm_up(self) -> None:
        self._asking.begin()
        for _ in range(WARM_ROUNDS):
            self.round()

    def round(self) -> Mapping[str, Pair]:
        alone, ten, hundred, bare = in_turn(
            [partial(self._ask, callers, count) for callers, count in self._counts.items()]
            + [partial(self._bare.figure, self._counts[1])]
        )
        return {"1 caller": Pair(alone, bare), "10 callers": Pair(ten), "100 callers": Pair(hundred)}

    def proof(self) -> Mapping[str, int]:
        """Every answer was checked to be a grant."""
        return {}

    def close(self) -> None:
        self._asking.close()
        self._bare.close()

    def _ask(self, callers: int, count: int) -> Figure:
        costs = Costs(self._stage.processes())
        took_ms = self._asking.run(self._ask_all(callers, count))
        return Figure(median(took_ms), costs.per_event(count), f"p99 {p99(took_ms):.1f} ms")

    async def _ask_all(self, callers: int, count: int) -> list[float]:
        took_ms = await asyncio.gather(*(self._ask_often(count // callers) for _ in range(callers)))
        return [one for of_a_caller in took_ms for one in of_a_caller]

    async def _ask_often(self, count: int) -> list[float]:
        return [await self._ask_one() for _ in range(count)]

    async def _ask_one(self) -> float:
        """Milliseconds from building the command to its answer."""
        began = time.perf_counter()
        await self._asking.reserve(self._asking.next_sku())
        return (time.perf_counter() - began) * 1_000


class BareTransactions:
    """The least that could be done: one event in a transaction of its own, read committed by who waits for it."""

    def __init__(self, stage: Stage) -> None:
        self._topic = f"{stage.topics.prefix}.bare"
        self._broker = {name: p for name, p in stage.processes().items() if name != "worker"}
        admin = AdminClient({"bootstrap.servers": stage.kafka})
        admin.create_topics([NewTopic(self._topic, 1, 1)])[self._topic].result(WITHIN_S)
        self._producer = Producer(_producer_settings(stage.kafka, f"{self._topic}-0"))
        self._producer.init_transactions(WITHIN_S)
        self._consumer = Consumer(_consumer_settings(stage.kafka))
        self._consumer.assign([TopicPartition(self._topic, 0, 0)])

    def figure(self, count: int) -> Figure:
        costs = Costs(self._broker)
        took_ms = [self._once() for _ in range(count)]
        return Figure(median(took_ms), costs.per_event(count), f"p99 {p99(took_ms):.1f} ms")

    def _once(self) -> float:
        value = os.urandom(EVENT_BYTES)
        began = time.perf_counter()
        self._producer.begin_transaction()
        self._producer.produce(self._topic, value, partition=0)
        self._producer.commit_transaction(WITHIN_S)
        message = self._consumer.poll(WITHIN_S)
        took_s = time.perf_counter() - began
        if message is None or message.error() or message.value() != value:
            raise BenchFailed("a bare transaction's event did not come back")
        return took_s * 1_000

    def close(self) -> None:
        self._consumer.close()


def p99(took_ms: list[float]) -> float:
    return quantiles(took_ms, n=100)[98] if len(took_ms) > 1 else took_ms[0]


def _producer_settings(kafka: str, transactional_id: str) -> dict[str, str | int | bool]:
    """As the worker's: with librdkafka's own back-off a transaction would take ten times as long."""
    return {
        "bootstrap.servers": kafka,
        "transactional.id": transactional_id,
        "retry.backoff.ms": 2,
        "linger.ms": 0,
        "socket.nagle.disable": True,
    }


def _consumer_settings(kafka: str) -> dict[str, str | int | bool]:
    return {
        "bootstrap.servers": kafka,
        "group.id": "daybook-bench-is-in-no-group",
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
    }
