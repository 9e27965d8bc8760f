"""Runs a command worker as its own process; a name as argument takes one of its protections away."""

import sys
import time
from typing import Any

from confluent_kafka import TopicPartition

from commands.window import Window
from schemas.meta import HOUR, Micros
from streams import command_worker, kafka_journal
from streams.failpoints import failpoint
from streams.kafka_journal import KafkaJournal

JUMPS = (-HOUR, 0, HOUR, -HOUR)
JUMPS_EVERY_S = 8.0


def without_renewal() -> None:
    """A delayed end of a transaction is not looked for."""
    KafkaJournal._renew_if_suspicious = lambda self: None  # type: ignore[method-assign]


def without_window() -> None:
    """Nobody remembers what was decided."""
    Window.find = lambda *_: {}  # type: ignore[method-assign]


def without_fencing() -> None:
    """No transaction is told who may write: each process has a transactional id of its own, offsets go by themselves."""
    settings = kafka_journal._producer_settings
    kafka_journal._producer_settings = lambda slot: (
        settings(slot) | {"transactional.id": f"{id(slot)}-{sys.argv}"}
    )

    def transact(self: KafkaJournal, batch_id: str, outputs: Any, positions: Any, ends: Any) -> None:
        self._producer.begin_transaction()
        self._produce(outputs, ends)
        failpoint("worker.offsets_sent")
        self._producer.commit_transaction(10)
        self._producer.poll(0)
        offsets = [TopicPartition(t.topic, t.partition, positions[p]) for p, t in self._wheres(positions)]
        self._consumer.commit(offsets=offsets, asynchronous=False)

    KafkaJournal._transact = transact  # type: ignore[method-assign]


def watermark_first() -> None:
    """The high watermarks are captured before the fence, as seems natural."""
    fence, ends = KafkaJournal.fence, KafkaJournal.ends
    early: dict[Any, int] = {}

    def fence_late(self: KafkaJournal, partitions: Any) -> Any:
        early.update({(k, p): ends(self, k, p) for k in ("state", "decisions", "events") for p in partitions})
        sys.stderr.write("watermarks_captured\n")
        return fence(self, partitions)

    KafkaJournal.fence = fence_late  # type: ignore[method-assign]
    KafkaJournal.ends = lambda self, kind, partition: early[kind, partition]  # type: ignore[method-assign]


def lingering() -> None:
    """A zombie as dangerous as can be: it holds records back until the commit, and nobody aborts for it."""
    patient()
    settings = kafka_journal._producer_settings
    kafka_journal._producer_settings = lambda slot: settings(slot) | {"linger.ms": 4_000}


def patient() -> None:
    """The broker gives no transaction up: its limit and a request's are both 5 s, and either may end first.

    When the broker's does, the worker hears that it is fenced and exits, and a delayed request finds nobody.
    """
    settings = kafka_journal._producer_settings
    limits = {"transaction.timeout.ms": 60_000, "socket.timeout.ms": 5_000}
    kafka_journal._producer_settings = lambda slot: settings(slot) | limits


def jumping_clock() -> None:
    """An hour slow from its first look on, then right, then an hour fast, then slow for good."""
    looks: list[float] = []

    def wrong() -> Micros:
        looks[:] = looks or [time.monotonic()]
        phase = min(int((time.monotonic() - looks[0]) / JUMPS_EVERY_S), len(JUMPS) - 1)
        return Micros(time.time_ns() // 1_000 + JUMPS[phase])

    command_worker.wall_clock = wrong


if __name__ == "__main__":
    for name in sys.argv[1:]:
        globals()[name]()
    command_worker.main()
