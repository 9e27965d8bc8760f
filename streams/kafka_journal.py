"""The journal on Kafka: one static group member and one transactional producer, fenced and never in doubt for long.

Why each step stands where it stands is told in docs/adr/0002; every one of them was seen to break without it.
"""

import logging
import statistics
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import structlog
from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)

from commands.journal import (
    Ends,
    JournalLostError,
    LogDamagedError,
    Output,
    OutputKind,
    Partition,
    Piece,
    Place,
    ReassignedError,
    Received,
    Stored,
)
from schemas.language import AGGREGATES
from schemas.position import POSITION_PATH
from schemas.topics import Topics
from streams.failpoints import failpoint
from streams.machine import MACHINE, Machine

log = structlog.get_logger(__name__)

SESSION_TIMEOUT_MS = 6_000
TRANSACTION_TIMEOUT_MS = 5_000
CALL_TIMEOUT_S = 10.0
WATCHDOG_GRACE_S = 2.0
FENCE_TIMEOUT_S = 30.0
READ_CHUNK = 2_000
POLL_EVERY = 1_000
RECEIVE_BYTES_MAX = 1_000_000
RECEIVE_CHUNK = 100
SLOW_FACTOR = 10
SLOW_FLOOR_S = 1.0
"""A call is not suspicious below this, whatever the median: schedulers and collectors take their turn too."""

SUSPICIOUS = ("FAIL", "REQTMOUT")
"""A dropped connection, or a request given up and silently sent again: the first one may land in the next transaction."""

EXIT_WATCHDOG = 70

T = TypeVar("T")


@dataclass(frozen=True)
class Slot:
    """A numbered worker process: it keeps its transactional id and its place in the group over restarts."""

    bootstrap: str
    topics: Topics
    number: int = 0

    @property
    def name(self) -> str:
        return f"{self.topics.prefix}.commands-{self.number}"


class KafkaJournal:
    """Implements `commands.journal.Journal`. All calls come from one thread."""

    def __init__(self, slot: Slot, machine: Machine = MACHINE) -> None:
        self._slot = slot
        self._machine = machine
        self._topics = slot.topics
        self._watchdog = _Watchdog(machine)
        self._failures = _FailureLog()
        self._durations: deque[float] = deque(maxlen=101)
        self._suspicious = False
        self._assigned: list[Partition] | None = None
        self._serving: dict[Partition, int] = {}
        self._identities: dict[str, str] = {}
        self._membership: Any = None
        self._admin = machine.admin({"bootstrap.servers": slot.bootstrap})
        self._reader = machine.consumer(_reader_settings(slot, "read_committed"))
        # Asked for now, or the first read of each topic would wait a second for librdkafka to ask by itself.
        self._patiently(lambda: self._reader.list_topics(timeout=5.0))
        self._watermarks = machine.consumer(_reader_settings(slot, "read_uncommitted"))
        self._producer = self._new_producer()
        self._consumer = machine.consumer(_consumer_settings(slot))
        self._consumer.subscribe(
            [self._topics.commands(aggregate) for aggregate in AGGREGATES],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_revoke,
        )

    # Receiving.

    def receive(self, limit: int, wait_s: float) -> Sequence[Received]:
        failpoint("worker.merged")
        self._renew_if_suspicious()
        first = self._consumer.poll(wait_s)
        messages = [first] if first is not None else []
        size = 0
        while messages and len(messages) < limit and size < RECEIVE_BYTES_MAX:
            # `consume` with a timeout would wait all of it out; without one it takes what is there.
            more = self._consumer.consume(min(RECEIVE_CHUNK, limit - len(messages)), 0)
            if not more:
                break
            messages += more
            size += sum(len(m.value() or b"") for m in more)
        self._producer.poll(0)
        # Errors first: the one that says that this member was fenced comes once, often with the partitions' loss.
        received = [self._received(m) for m in messages if not self._is_error(m)]
        if self._assigned is not None:
            assigned, self._assigned = self._assigned, None
            raise ReassignedError(assigned)
        if received:
            failpoint("worker.received")
        return [one for one in received if one.partition in self._serving]

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # Without an assignment of ours librdkafka would begin by itself, from wherever it likes.
        consumer.assign([])
        self._reassigned([self._partition(p) for p in partitions])

    def _on_revoke(self, consumer: Consumer, _: list[TopicPartition]) -> None:
        consumer.unassign()
        self._reassigned([])

    def _reassigned(self, partitions: list[Partition]) -> None:
        log.info("partitions_assigned", partitions=[str(p) for p in partitions])
        self._serving = {}
        self._assigned = sorted(partitions)

    def _is_error(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            return False
        if error.fatal() or error.code() in (KafkaError._FATAL, KafkaError._AUTO_OFFSET_RESET):
            # A fenced static member hears it here and nowhere else; ignored, a zombie would live on.
            raise JournalLostError(str(error))
        log.warning("consumer_error", error=str(error))
        return True

    def _received(self, message: Message) -> Received:
        partition = self._partition_named(message.topic() or "", message.partition() or 0)
        return Received(partition, _offset(message), _bytes(message.key()), _bytes(message.value()))

    # Taking over.

    def fence(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        if not partitions:
            return {}
        asked = [TopicPartition(self._topics.commands(p.aggregate), p.number) for p in partitions]
        positions = {}
        for answer in self._committed(asked):
            partition = self._partition(answer)
            offset = answer.offset
            if offset == OFFSET_INVALID:
                self._check_untouched(partition)
                offset = 0
            positions[partition] = offset
        return positions

    def _committed(self, asked: list[TopicPartition]) -> list[TopicPartition]:
        """Answers only when no transaction is pending on these offsets: that wait is the fence between slots."""
        deadline = self._machine.monotonic() + FENCE_TIMEOUT_S
        while True:
            try:
                answers: list[TopicPartition] = self._consumer.committed(asked, timeout=2.0)
            except KafkaException as error:
                if not _is_passing(error) or self._machine.monotonic() > deadline:
                    raise JournalLostError(f"committed offsets: {error}") from error
                continue
            failed = next((a.error for a in answers if a.error), None)
            if failed is None:
                return answers
            if self._machine.monotonic() > deadline:
                raise JournalLostError(f"committed offsets: {failed}")

    def _check_untouched(self, partition: Partition) -> None:
        """No committed offset means a new partition, unless a writer stood there: then offsets were lost.

        Watermarks say nothing: a first transaction that was aborted moves them, and so does a stranger's record.
        Whatever else was lost with the offsets, the writer finds when it compares its state with the log.
        """
        if any(stored.key == POSITION_PATH.encode() for stored in self._state_of(partition)):
            (again,) = self._committed(self._where([partition]))
            if again.offset != OFFSET_INVALID:
                raise JournalLostError(f"{partition} was written while it was looked at")
            raise LogDamagedError(
                f"{partition}: the group has no offset, yet {self._topic('state', partition)} has a writer's "
                "position; commands would be decided twice"
            )

    def _state_of(self, partition: Partition) -> Iterator[Stored]:
        place: Place = ("state", partition)
        end = self.ends(*place)
        self.read_from({place: 0})
        reached, deadline = 0, self._machine.monotonic() + FENCE_TIMEOUT_S
        while reached < end:
            piece = self.read_on(0.5)
            yield from (stored for _, stored in piece.records)
            if piece.reached.get(place, 0) > reached:
                reached, deadline = piece.reached[place], self._machine.monotonic() + FENCE_TIMEOUT_S
            if self._machine.monotonic() > deadline:
                raise JournalLostError(f"the state of {partition} could not be read")

    def ends(self, kind: OutputKind, partition: Partition) -> int:
        where = TopicPartition(self._topic(kind, partition), partition.number)
        return self._patiently(lambda: self._watermarks.get_watermark_offsets(where, timeout=5.0)[1])

    def start_of(self, kind: OutputKind, partition: Partition, since_ms: int) -> int:
        where = TopicPartition(self._topic(kind, partition), partition.number, since_ms)
        (found,) = self._patiently(lambda: self._watermarks.offsets_for_times([where], timeout=5.0))
        return int(found.offset) if found.offset >= 0 else self.ends(kind, partition)

    def identity(self, partition: Partition) -> str:
        if not self._identities:
            self._identities = self._identify()
        return self._identities[partition.aggregate]

    def _identify(self) -> dict[str, str]:
        """The ids of the cluster and of the topics behind every aggregate, asked for once."""
        kinds = ("events", "state", "decisions")
        names = {a: [f"{self._topics.prefix}.{kind}.{a}" for kind in kinds] for a in AGGREGATES}
        described = self._admin.describe_topics(TopicCollection([n for some in names.values() for n in some]))
        cluster = str(self._admin.list_topics(timeout=5.0).cluster_id)
        return {
            aggregate: "/".join([cluster, *(str(described[n].result(timeout=5.0).topic_id) for n in some)])
            for aggregate, some in names.items()
        }

    def read_from(self, starts: Mapping[Place, int]) -> None:
        self._reader.assign(
            [TopicPartition(self._topic(kind, p), p.number, start) for (kind, p), start in starts.items()]
        )

    def read_on(self, wait_s: float) -> Piece:
        first = self._reader.poll(wait_s)
        messages = [first, *self._reader.consume(READ_CHUNK, 0)] if first is not None else []
        records: list[tuple[Place, Stored]] = []
        reached: dict[Place, int] = {}
        for message in messages:
            error = message.error()
            if error is None:
                place, offset = self._place(message), _offset(message)
                records.append((place, Stored(offset, _bytes(message.key()), _bytes(message.value()))))
                reached[place] = offset + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                # It also fires at the last stable offset, before a predecessor's pending transaction.
                reached[self._place(message)] = _offset(message)
            else:
                raise JournalLostError(f"reading {message.topic()}: {error}")
        return Piece(records, reached)

    def serve(self, positions: Mapping[Partition, int]) -> None:
        self._serving = dict(positions)
        # Asking for it costs milliseconds. It changes with a rebalance only, and a stale one is refused: safe.
        self._membership = self._consumer.consumer_group_metadata()
        self._consumer.assign(
            [TopicPartition(t.topic, t.partition, positions[p]) for p, t in self._wheres(positions)]
        )

    # Writing.

    def write(
        self, batch_id: str, outputs: Sequence[Output], positions: Mapping[Partition, int]
    ) -> Ends | None:
        failpoint("worker.decided")
        self._renew_if_suspicious()
        ends: dict[Place, int] = {}
        try:
            self._transact(batch_id, outputs, positions, ends)
        except (KafkaException, BufferError) as error:
            if not self._stands(error, batch_id, positions):
                return None
            for place in {(output.kind, output.partition) for output in outputs} - ends.keys():
                ends[place] = self.ends(*place)
        failpoint("worker.committed")
        return ends

    def _transact(
        self,
        batch_id: str,
        outputs: Sequence[Output],
        positions: Mapping[Partition, int],
        ends: dict[Place, int],
    ) -> None:
        # The batch's name is committed with its offsets: one that consumed nothing (a deadline's) leaves a trace too.
        offsets = [
            TopicPartition(t.topic, t.partition, positions[p], metadata=batch_id)
            for p, t in self._wheres(positions)
        ]
        self._producer.begin_transaction()
        failpoint("worker.begun")
        self._produce(outputs, ends)
        failpoint("worker.produced")
        self._timed(
            lambda: self._producer.send_offsets_to_transaction(offsets, self._membership, CALL_TIMEOUT_S)
        )
        failpoint("worker.offsets_sent")
        self._timed(lambda: self._producer.commit_transaction(CALL_TIMEOUT_S))
        self._producer.poll(0)

    def _produce(self, outputs: Sequence[Output], ends: dict[Place, int]) -> None:
        last = {(one.kind, one.partition): n for n, one in enumerate(outputs)}
        for n, one in enumerate(outputs):
            place = (one.kind, one.partition)
            # Offsets in one partition are in order, so the last record's says where all of them end.
            self._enqueue(one, _note_end(ends, place) if last[place] == n else None)
            if n % POLL_EVERY == POLL_EVERY - 1:
                self._producer.poll(0)  # what was delivered makes room only when it is told

    def _enqueue(self, one: Output, told: Callable[[KafkaError | None, Message], None] | None) -> None:
        """Waits for room in the queue, which is bounded; raises BufferError when there is none for 10 s."""
        deadline = None
        topic = self._topic(one.kind, one.partition)
        while True:
            try:
                self._producer.produce(
                    topic,
                    one.value,
                    one.key,
                    one.partition.number,
                    headers=list(one.headers),
                    on_delivery=told,
                )
            except BufferError:
                deadline = deadline or self._machine.monotonic() + CALL_TIMEOUT_S
                if self._machine.monotonic() > deadline:
                    raise
                self._producer.poll(0.05)
            else:
                return

    def _stands(self, error: Exception, batch_id: str, positions: Mapping[Partition, int]) -> bool:
        """A call failed; only the committed offsets can tell whether the transaction stands."""
        log.warning("transaction_in_doubt", error=str(error))
        if _is_fenced(error):
            raise JournalLostError(str(error)) from error
        self._renew()
        found = {answer.metadata == batch_id for answer in self._committed(self._where(positions))}
        if len(found) != 1:
            raise JournalLostError(
                f"the offsets of {batch_id} are committed for some partitions only"
            ) from error
        return found.pop()

    # The producer, and the doubts about it.

    def _new_producer(self) -> Producer:
        producer: Producer = self._machine.producer(
            _producer_settings(self._slot), logger=self._failures.logger
        )
        self._timed(lambda: producer.init_transactions(CALL_TIMEOUT_S), remember=False)
        return producer

    def _renew_if_suspicious(self) -> None:
        """librdkafka speaks EndTxn v1: a delayed end of one transaction can land in the next. Only a dropped
        connection's log line tells in time, and lines come only when the producer is polled.
        """
        if self._suspicious or self._failures.seen():
            self._renew()

    def _renew(self) -> None:
        log.warning(
            "producer_renewed", reason=self._failures.take() or "a transactional call was slow or failed"
        )
        self._suspicious = False
        self._producer = self._retrying(self._new_producer)
        self._failures.take()

    def _retrying(self, call: Callable[[], T]) -> T:
        deadline = self._machine.monotonic() + FENCE_TIMEOUT_S
        while True:
            try:
                return call()
            except KafkaException as error:
                if _is_fenced(error) or self._machine.monotonic() > deadline:
                    raise JournalLostError(f"init_transactions: {error}") from error

    def _patiently(self, call: Callable[[], T]) -> T:
        deadline = self._machine.monotonic() + FENCE_TIMEOUT_S
        while True:
            try:
                return call()
            except KafkaException as error:
                if not _is_passing(error) or self._machine.monotonic() > deadline:
                    raise JournalLostError(str(error)) from error

    def _timed(self, call: Callable[[], Any], *, remember: bool = True) -> None:
        began = self._machine.monotonic()
        with self._watchdog.watching(CALL_TIMEOUT_S + WATCHDOG_GRACE_S):
            call()
        took = self._machine.monotonic() - began
        if not remember:
            return
        median = statistics.median_low(self._durations) if self._durations else 0.0
        self._durations.append(took)
        if took > max(SLOW_FLOOR_S, SLOW_FACTOR * median):
            self._suspicious = True

    # Names.

    def _topic(self, kind: str, partition: Partition) -> str:
        if kind == "dead-letters":
            return self._topics.dead_letters
        return f"{self._topics.prefix}.{kind}.{partition.aggregate}"

    def _partition(self, where: TopicPartition) -> Partition:
        return self._partition_named(where.topic, where.partition)

    def _partition_named(self, topic: str, number: int) -> Partition:
        return Partition(topic.rpartition(".")[2], number)

    def _place(self, message: Message) -> Place:
        kind, _, aggregate = (message.topic() or "").removeprefix(f"{self._topics.prefix}.").partition(".")
        return cast("OutputKind", kind), Partition(aggregate, message.partition() or 0)

    def _where(self, partitions: Iterable[Partition]) -> list[TopicPartition]:
        return [t for _, t in self._wheres(partitions)]

    def _wheres(self, partitions: Iterable[Partition]) -> list[tuple[Partition, TopicPartition]]:
        return [(p, TopicPartition(self._topics.commands(p.aggregate), p.number)) for p in partitions]

    def close(self) -> None:
        """Leave as a process that was killed would, but at once: static members keep their partitions for one
        session timeout.
        """
        self._consumer.close()
        self._reader.close()
        self._watermarks.close()


class _FailureLog:
    """Collects librdkafka's lines about requests that may still be on their way: there is no other sign in time."""

    def __init__(self) -> None:
        # One of its own, for no name: a second producer in this process must not take its lines.
        self.logger = logging.Logger("daybook.librdkafka", logging.DEBUG)  # noqa: LOG001  # as the line above says
        self._lines: list[str] = []
        handler = logging.Handler()
        handler.emit = self._take_line  # type: ignore[method-assign]
        self.logger.handlers = [handler]

    def _take_line(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        suspicious = any(word in line for word in SUSPICIOUS)
        if suspicious:
            self._lines.append(line)
        if suspicious or record.levelno >= logging.WARNING:
            log.info("librdkafka", line=line)

    def seen(self) -> bool:
        return bool(self._lines)

    def take(self) -> str:
        lines, self._lines = self._lines, []
        return lines[0] if lines else ""


class _Watchdog:
    """Ends the process when a transactional call outlives its own timeout: librdkafka has been seen to ignore it."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._until: float | None = None
        machine.thread(target=self._watch, daemon=True, name="watchdog").start()

    @contextmanager
    def watching(self, limit_s: float) -> Iterator[None]:
        self._until = self._machine.monotonic() + limit_s
        try:
            yield
        finally:
            self._until = None

    def _watch(self) -> None:
        while True:
            self._machine.sleep(1.0)
            until = self._until
            if until is not None and self._machine.monotonic() > until:
                log.error("transactional_call_hangs")
                self._machine.exit(EXIT_WATCHDOG)


def _note_end(ends: dict[Place, int], place: Place) -> Callable[[KafkaError | None, Message], None]:
    def note(error: KafkaError | None, message: Message) -> None:
        if error is None:
            ends[place] = _offset(message) + 1

    return note


def _is_fenced(error: Exception) -> bool:
    if not isinstance(error, KafkaException):
        return False
    cause: KafkaError = error.args[0]
    return cause.fatal() or cause.code() in (
        KafkaError._FENCED,
        KafkaError._FATAL,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.PRODUCER_FENCED,
        KafkaError.FENCED_INSTANCE_ID,
    )


def _is_passing(error: KafkaException) -> bool:
    cause: KafkaError = error.args[0]
    return cause.retriable() or cause.code() in (
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError._WAIT_COORD,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    )


def _offset(message: Message) -> int:
    offset = message.offset()
    assert offset is not None, "a record that was read or delivered has an offset"
    return int(offset)


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def _reader_settings(slot: Slot, isolation: str) -> dict[str, Any]:
    return {
        "bootstrap.servers": slot.bootstrap,
        "group.id": f"{slot.name}.reader",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "isolation.level": isolation,
        "enable.partition.eof": True,
        "queued.max.messages.kbytes": 16_384,
        # The end of a partition is told by a fetch that found nothing; nobody should wait for one.
        "fetch.wait.max.ms": 5,
    }


def _consumer_settings(slot: Slot) -> dict[str, Any]:
    return {
        "bootstrap.servers": slot.bootstrap,
        "group.id": f"{slot.topics.prefix}.commands",
        "group.instance.id": slot.name,
        "partition.assignment.strategy": "range",
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "session.timeout.ms": SESSION_TIMEOUT_MS,
        "heartbeat.interval.ms": 1_500,
        "queued.max.messages.kbytes": 16_384,
        "fetch.wait.max.ms": 500,
        "reconnect.backoff.max.ms": 500,
    }


def _producer_settings(slot: Slot) -> dict[str, Any]:
    return {
        "bootstrap.servers": slot.bootstrap,
        "transactional.id": slot.name,
        "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
        "retry.backoff.ms": 2,
        "linger.ms": 0,
        "metadata.recovery.strategy": "none",
        "reconnect.backoff.max.ms": 500,
        "queue.buffering.max.kbytes": 65_536,
        "partitioner": "murmur2_random",
        "socket.nagle.disable": True,
    }
