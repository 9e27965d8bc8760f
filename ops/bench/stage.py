"""The stage: topics of their own on a real Kafka, and one command worker, started as the supervisor would start it."""

import json
import os
import random
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from ops import processes
from ops.bench.contest import BenchFailed, Figure, Progress
from ops.bench.costs import Costs, listener_at
from ops.clearing import clear_views
from ops.flushing import set_flush
from ops.local_stack import last_words
from ops.roles import LIFELINE
from ops.settings import REPOSITORY, Settings
from projections.redis_store import RedisSettings
from projections.registry import POSTERS
from schemas.codec import Codec
from schemas.decisions import Decided
from schemas.language import Message as Body
from schemas.meta import HOUR, CommandMeta, Micros
from schemas.topics import Topics
from streams.topic_admin import delete_topics, ensure_topics

SILENT_S = 60.0
"""The worker has this long for its next decision."""
SAY_EVERY_S = 2.0
POLL_S = 0.25
GRACE_S = 15.0
FLUSH_S = 5.0
KAFKA_KEEPS = "kill -9 loses nothing, a power cut what was not flushed (one broker, acks=all, no flush)"
KAFKA_FLUSHES = (
    "a power cut loses nothing (one broker, acks=all, flush.messages=1 on every topic, Kafka's own too)"
)
OWN_TOPICS = ("__transaction_state", "__consumer_offsets")


@dataclass(frozen=True, slots=True)
class Ready:
    """A command as bytes, ready to be sent."""

    key: bytes
    partition: int
    value: bytes


class Stage:
    """All of it ends with `close`: the workers, the topics, their state."""

    def __init__(self, kafka: str, settings: Settings, progress: Progress) -> None:
        prefix = f"bench-{secrets.token_hex(4)}"
        self.topics = Topics(prefix, 2)
        self.codec = Codec()
        self.kafka = kafka
        self._settings = replace(
            settings,
            kafka=kafka,
            topic_prefix=prefix,
            keyspace=prefix.replace("-", "_"),
            partitions=2,
            home=settings.home / prefix,
        )
        self._progress = progress
        self._broker = listener_at(kafka)
        self._flushes = False
        progress(f"making topics {prefix}.* on {kafka}")
        ensure_topics(kafka, self.topics)
        self._lifeline, self._ours = os.pipe()
        self._workers: dict[int, processes.Started] = {}
        self._projections: dict[str, processes.Started] = {}
        self.start_worker()
        self._producer = Producer(_producer_settings(kafka))

    def close(self) -> None:
        self._producer.flush(FLUSH_S)
        self.set_flush(on=False)
        processes.stop([*self._workers.values(), *self._projections.values()], GRACE_S)
        if self._projections:
            clear_views(self._settings)
        os.close(self._ours)
        os.close(self._lifeline)
        delete_topics(self.kafka, self.topics.prefix)
        shutil.rmtree(self._settings.home, ignore_errors=True)

    def start_worker(self, slot: int = 0) -> None:
        """One more worker process; a slot that ran before finds its own disk again."""
        self._workers[slot] = self._start("commands", slot)

    def start_projections(self) -> RedisSettings:
        """The processes that post all views; where those in Redis can be read. Raises BenchFailed."""
        if not (self._settings.redis and self._settings.cassandra):
            raise BenchFailed("views need Redis and Cassandra beside Kafka: name all three, or none")
        self._projections = {name: self._start(name, 0) for name in POSTERS}
        return RedisSettings(self._settings.redis, self._settings.topic_prefix)

    def _start(self, role: str, slot: int) -> processes.Started:
        settings = self._settings
        own = {
            "DAYBOOK_SLOT": str(slot),
            "DAYBOOK_RUN": str(self._run_of(slot)),
            LIFELINE: str(self._lifeline),
        }
        return processes.start(
            role,
            [sys.executable, "-m", "ops", "run", role],
            settings.logs / f"{role}.log",
            cwd=REPOSITORY,
            env=dict(os.environ) | settings.environment(role) | own,
            pass_fds=[self._lifeline],
        )

    def set_flush(self, *, on: bool) -> None:
        """Whether Kafka flushes each record that a transaction of ours writes, its own topics' too, before it answers."""
        if on == self._flushes:
            return
        self._flushes = on
        set_flush(self.kafka, [*(spec.name for spec in self.topics.wanted()), *OWN_TOPICS], on=on)

    def serves(self, slot: int) -> bool:
        """Whether the worker says that it has partitions."""
        try:
            said = json.loads((self._run_of(slot) / "commands.json").read_text("utf-8"))
        except FileNotFoundError:
            return False
        return bool(said["pid"] == self._workers[slot].pid and said["health"] == "ok")

    def _run_of(self, slot: int) -> Path:
        return self._settings.run / f"slot-{slot}"

    def kill_worker(self, slot: int = 0) -> None:
        """SIGKILL, and returns when it is gone."""
        worker = self._workers.pop(slot)
        os.kill(worker.pid, signal.SIGKILL)
        processes.wait_until_gone([worker], GRACE_S)

    def freeze_worker(self, slot: int = 0) -> None:
        """SIGSTOP: it holds its connections and its open transaction, and says nothing."""
        os.kill(self._workers[slot].pid, signal.SIGSTOP)

    def forget_disk(self, slot: int) -> None:
        """What a worker that does not run kept on this machine's disk."""
        shutil.rmtree(self._settings.state("commands") / f"slot-{slot}", ignore_errors=True)

    # Commands.

    def ready(self, body: Body, actor: str, command_id: str) -> Ready:
        key = body.stream.split("/")[1]
        value = self.codec.encode(body, vars(command_meta(body.stream, actor, command_id)))
        return Ready(key.encode(), self.topics.partition_of(key), value)

    def decide(
        self,
        aggregate: str,
        commands: Sequence[Ready],
        what: str = "",
        midway: Callable[[], None] = lambda: None,
    ) -> "Round":
        """Send all, and read until the last is decided; `seconds` from the first sent to the last read.

        `midway` is called once, when the first decision was read.
        """
        decisions = _Decisions(self.kafka, self.topics.decisions(aggregate), self.topics.partitions)
        costs = Costs(self.processes())
        began = said = time.monotonic()
        self._send(self.topics.commands(aggregate), commands)
        heard = began
        while decisions.count(self.codec) < len(commands):
            now = time.monotonic()
            if decisions.hear():
                if heard == began:
                    midway()
                heard = now
            elif now - heard > SILENT_S:
                raise BenchFailed(
                    f"no decision for {SILENT_S:.0f} s; the worker said last:\n{self.worker_log()}"
                )
            if now - said > SAY_EVERY_S and what:
                said = now
                self._progress(f"{what}: {decisions.counted:,} of {len(commands):,}")
        took = time.monotonic() - began
        cpu_us = costs.per_event(len(commands))
        decisions.close()
        return Round(took, cpu_us, decisions.decided(self.codec))

    def _send(self, topic: str, commands: Iterable[Ready]) -> None:
        for one in commands:
            while True:
                try:
                    self._producer.produce(topic, one.value, one.key, one.partition)
                    break
                except BufferError:
                    self._producer.poll(POLL_S)
            self._producer.poll(0)

    def events(self, aggregate: str) -> Iterable[Any]:
        """Every event of an aggregate in the log, from its start."""
        topic = self.topics.events(aggregate)
        for value in read_all(self.kafka, topic, self.topics.partitions):
            yield self.codec.decode(value).body

    def processes(self) -> dict[str, psutil.Process]:
        """Whose CPU time a figure of Daybook's names."""
        found = {"client": psutil.Process()}
        if 0 in self._workers:
            found["worker"] = psutil.Process(self._workers[0].pid)
        found |= {name: psutil.Process(one.pid) for name, one in self._projections.items()}
        return found | ({"kafka": self._broker} if self._broker else {})

    def worker_log(self) -> str:
        return last_words(self._settings.logs / "commands.log")

    def projections_log(self) -> str:
        return last_words(self._settings.logs / "projections.log")


@dataclass(frozen=True)
class Round:
    """What became of a round's commands: `cpu_us` per command by process."""

    seconds: float
    cpu_us: Mapping[str, float]
    decided: Sequence[Decided]

    def rate_of(self, outcome: str) -> Figure:
        """Commands with this outcome per second."""
        count = sum(one.outcome == outcome for one in self.decided)
        return Figure(count / self.seconds, self.cpu_us)

    def expect(self, *outcomes: str) -> None:
        """Raises BenchFailed for an outcome that nobody wanted to time."""
        for one in self.decided:
            if one.outcome not in outcomes:
                why = one.rejection.detail if one.rejection else one.refused
                raise BenchFailed(f"{one.type} {one.command_id} was {one.outcome}: {why}")


class _Decisions:
    """Reads the decisions that are written from now on, and counts the commands decided without decoding them."""

    def __init__(self, kafka: str, topic: str, partitions: int) -> None:
        self._consumer = Consumer(_consumer_settings(kafka))
        self._consumer.assign([self._end(TopicPartition(topic, n)) for n in range(partitions)])
        self._values: list[bytes] = []
        self._looked_at = 0
        self.counted = 0

    def _end(self, place: TopicPartition) -> TopicPartition:
        place.offset = self._consumer.get_watermark_offsets(place, timeout=10.0)[1]
        return place

    def hear(self) -> bool:
        first = self._consumer.poll(POLL_S)
        messages = [first, *self._consumer.consume(500, 0)] if first is not None else []
        self._values += [_value(message) for message in messages]
        return bool(messages)

    def count(self, codec: Codec) -> int:
        for value in self._values[self._looked_at :]:
            self.counted += len(codec.peek(value, "ids")[1]) // 16
        self._looked_at = len(self._values)
        return self.counted

    def decided(self, codec: Codec) -> list[Decided]:
        return [one for value in self._values for one in codec.decode(value).body.decided]

    def close(self) -> None:
        self._consumer.close()


def read_all(kafka: str, topic: str, partitions: int) -> Iterable[bytes]:
    """The committed records of a topic, from its start to its present end."""
    consumer = Consumer(_consumer_settings(kafka) | {"enable.partition.eof": True})
    try:
        consumer.assign([TopicPartition(topic, n, 0) for n in range(partitions)])
        ended = 0
        while ended < partitions:
            for message in consumer.consume(2_000, POLL_S):
                error = message.error()
                if error is not None and error.code() == KafkaError._PARTITION_EOF:
                    ended += 1
                else:
                    yield _value(message)
    finally:
        consumer.close()


def _value(message: Message) -> bytes:
    if message.error() is not None:
        raise BenchFailed(f"{message.topic()}: {message.error()}")
    return message.value() or b""


def command_meta(stream: str, actor: str, command_id: str, reply_to: str | None = None) -> CommandMeta:
    """As the API writes it for a customer or the merchant."""
    at = Micros(time.time_ns() // 1_000)
    kind = "merchant" if actor == "merchant" else "customer"
    trace = f"00-{random.getrandbits(128):032x}-{random.getrandbits(64):016x}-01"
    return CommandMeta(
        command_id,
        stream,
        trace,
        at,
        Micros(at + HOUR),
        None,
        None,
        reply_to,
        command_id,
        command_id,
        kind,
        actor,
        secrets.token_hex(16),
    )


def _producer_settings(kafka: str) -> dict[str, Any]:
    return {
        "bootstrap.servers": kafka,
        "enable.idempotence": True,
        "linger.ms": 1,
        "queue.buffering.max.kbytes": 65_536,
        "partitioner": "murmur2_random",
    }


def _consumer_settings(kafka: str) -> dict[str, Any]:
    return {
        "bootstrap.servers": kafka,
        "group.id": "daybook-bench-is-in-no-group",  # librdkafka wants one; nothing is ever committed
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "isolation.level": "read_committed",
        "auto.offset.reset": "error",
        "queued.max.messages.kbytes": 16_384,
    }
