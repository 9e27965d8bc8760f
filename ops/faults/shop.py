"""A shop with one aggregate's worth of trade: commands straight into Kafka, workers as processes, answers read back."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from ops.audit.breaches import HOLDS
from ops.audit.wire import AvscReader
from ops.demo.laws import check_laws
from ops.faults.verdict import CLOCK, RowIsRed
from ops.settings import REPOSITORY
from schemas.codec import Codec, UndecodableError
from schemas.decisions import Decided, Decisions
from schemas.inventory import AdjustStock, ReceiptLine, ReceiveStock, ReserveStock
from schemas.language import AGGREGATES
from schemas.meta import MINUTE, SECOND, Micros, derived_id
from schemas.topics import Topics
from schemas.values import MAIN, Line, Position
from streams.topic_admin import delete_topics, ensure_topics

WORKER = Path(__file__).parent / "worker.py"
ROOT = REPOSITORY
SKU = "85123A"
CODEC = Codec()
CHECKED = ("C1", "C2", "C4", "C5", "C6", "C7", "C8", "C9")
"""The checkers that `laws` are."""


class Shop:
    """One prefix on the real Kafka; every process that it starts ends with it."""

    def __init__(self, kafka: str, folder: Path) -> None:
        self.kafka = kafka
        self.folder = folder
        self.topics = Topics(f"fault-{uuid.uuid4().hex[:8]}", 2)
        ensure_topics(kafka, self.topics)
        self.workers: list[subprocess.Popen[bytes]] = []
        self.logs: dict[int, Path] = {}
        self._producer = Producer({"bootstrap.servers": kafka, "linger.ms": 0})
        self._decisions = Consumer(
            {"bootstrap.servers": kafka, "group.id": self.topics.prefix, "enable.auto.commit": False}
        )
        topics = [self.topics.decisions(aggregate) for aggregate in AGGREGATES]
        numbers = range(self.topics.partitions)
        self._decisions.assign([TopicPartition(topic, number, 0) for topic in topics for number in numbers])
        self.answers: dict[str, list[Decided]] = {}

    def close(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGCONT)
                worker.kill()
            worker.wait(20)
        self._decisions.close()
        delete_topics(self.kafka, self.topics.prefix)

    # Workers.

    def start(
        self, *without: str, slot: int = 0, failpoints: str = "", kafka: str = "", state: str = ""
    ) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "DAYBOOK_KAFKA": kafka or self.kafka,
            "DAYBOOK_TOPIC_PREFIX": self.topics.prefix,
            "DAYBOOK_STATE": str(self.folder / (state or f"state-{slot}")),
            "DAYBOOK_SLOT": str(slot),
            "DAYBOOK_FAILPOINTS": failpoints,
            "DAYBOOK_RUN": "",
        }
        log = self.folder / f"worker-{len(self.workers)}.log"
        with log.open("wb") as output:
            worker = subprocess.Popen(
                [sys.executable, str(WORKER), *without],
                env=environment,
                stdout=output,
                stderr=output,
                cwd=ROOT,
            )
        self.workers.append(worker)
        self.logs[worker.pid] = log
        return worker

    def log_of(self, worker: subprocess.Popen[bytes]) -> str:
        return self.logs[worker.pid].read_text()

    # Commands.

    def send(self, body: Any, command_id: str, aggregate: str = "inventory", **meta: Any) -> str:
        key = body.stream.split("/")[1]
        value = CODEC.encode(body, command_meta(body, command_id, **meta))
        self._producer.produce(
            self.topics.commands(aggregate), value, key.encode(), self.topics.partition_of(key)
        )
        self._producer.flush(10)
        return command_id

    def receive_stock(self, quantity: int, sku: str = SKU, **meta: Any) -> str:
        return self.send(ReceiveStock(MAIN, "delivery 1", (ReceiptLine(sku, quantity),)), new_id(), **meta)

    def reserve(
        self, order: str, quantity: int = 1, sku: str = SKU, expires_at: int | None = None, **meta: Any
    ) -> str:
        limit = Micros(expires_at or now() + 10 * MINUTE)
        body = ReserveStock(order, MAIN, (Line(1, sku, quantity),), 1, limit)
        return self.send(body, derived_id(order, "reserve"), **meta)

    def adjust(self, delta: int, sku: str = SKU, **meta: Any) -> str:
        return self.send(AdjustStock(sku, MAIN, delta, "found", "", None), new_id(), **meta)

    # Answers.

    def answer(self, command_id: str, timeout_s: float = 20) -> Decided:
        self.until(lambda: command_id in self.answers, f"an answer to {command_id}", timeout_s)
        return self.answers[command_id][0]

    def accepted(self, commands: list[str], timeout_s: float = 20) -> None:
        """Until all are answered; RowIsRed where one was not accepted."""
        for command in commands:
            decided = self.answer(command, timeout_s)
            if decided.outcome != "accepted":
                raise RowIsRed(f"{decided.type} was {decided.outcome}: {decided.rejection}")

    def until(self, holds: Callable[[], bool], what: str, timeout_s: float = 20) -> None:
        """Reads answers until something holds; the deadline is generous, for machines are shared."""
        deadline = time.monotonic() + timeout_s * CLOCK.patience
        while not holds():
            if time.monotonic() > deadline:
                raise RowIsRed(f"{what} did not come within {timeout_s:g} s")
            message = self._decisions.poll(0.05)
            if message is not None and message.error() is None:
                for decided in decided_in(message.value()):
                    self.answers.setdefault(decided.command_id, []).append(decided)

    def is_silent(self, commands: list[str], for_s: float = 8) -> bool:
        """Whether some of the commands are still not answered after so long, by the clock on the wall."""
        wall_s = for_s / CLOCK.patience
        try:
            self.until(lambda: all(command in self.answers for command in commands), "all answers", wall_s)
        except RowIsRed:
            return True
        return False

    def laws(self, reader: AvscReader | None = None, acknowledged: Iterable[str] = ()) -> dict[str, str]:
        """What broke, by law, read from the start of the log by a reader that shares no code with the worker."""
        told = [str(one) for answers in self.answers.values() for one in _own_positions(answers[0])]
        verdicts = check_laws(self.kafka, self.topics.prefix, None, [*told, *acknowledged], reader=reader)
        return {law: said for law, said in verdicts.items() if said not in (HOLDS, "not checked")}

    def records(self, *topics: str, isolation: str = "read_committed") -> Iterator[Any]:
        """All that stands there now."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.kafka,
                "group.id": "reader",
                "isolation.level": isolation,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 20,
            }
        )
        places = [TopicPartition(topic, p, 0) for topic in topics for p in range(self.topics.partitions)]
        consumer.assign(places)
        ended = 0
        while ended < len(places):
            message = consumer.poll(10)
            if message is None:
                raise RowIsRed(f"{topics} were silent")
            if message.error():
                ended += 1
            else:
                yield message
        consumer.close()

    def written(self, topic: str) -> int:
        """How many offsets a topic has used, committed or not, markers included."""
        consumer = Consumer(
            {"bootstrap.servers": self.kafka, "group.id": "reader", "isolation.level": "read_uncommitted"}
        )
        places = [TopicPartition(topic, p) for p in range(self.topics.partitions)]
        ends = [consumer.get_watermark_offsets(place, 10)[1] for place in places]
        consumer.close()
        return sum(ends)

    def granted(self, sku: str = SKU) -> int:
        """The units of a SKU that reservations in the log have taken."""
        events = (CODEC.decode(m.value()) for m in self.records(self.topics.events("inventory")))
        return sum(
            e.body.quantity for e in events if type(e.body).__name__ == "StockReserved" and e.body.sku == sku
        )


def _own_positions(decided: Decided) -> Iterator[Position]:
    """Without those of another aggregate (a checkout's order), which a saga has yet to begin."""
    own, _, _ = decided.stream.partition("/")
    return (one for one in decided.positions if one.stream.startswith(f"{own}/"))


def decided_in(value: bytes | None) -> tuple[Decided, ...]:
    """The decisions in a record; none in what somebody else wrote there."""
    with suppress(UndecodableError):
        body = CODEC.decode(value or b"").body
        return body.decided if isinstance(body, Decisions) else ()
    return ()


def command_meta(body: Any, command_id: str, **changes: Any) -> dict[str, Any]:
    at = now()
    return {
        "command_id": command_id,
        "stream": body.stream,
        "traceparent": "",
        "issued_at": at,
        "not_after": at + 300 * SECOND,
        "occurred_at": None,
        "expected_version": None,
        "reply_to": "api/test",
        "correlation_id": command_id,
        "causation_id": command_id,
        "actor_kind": "merchant",
        "actor_id": "merchant",
        "fingerprint": "",
    } | changes


def new_id() -> str:
    return str(uuid.uuid4())


def now() -> int:
    return time.time_ns() // 1_000


def exit_code(worker: subprocess.Popen[bytes], timeout_s: float = 30) -> int:
    return worker.wait(timeout_s * CLOCK.patience)
