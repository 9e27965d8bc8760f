"""Hears what became of commands: reads all decisions from now on, and picks out those that this process asked for."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.avro import schema_in
from schemas.codec import Codec, UndecodableError, UnknownFingerprintError
from schemas.decisions import Decided, Decisions
from schemas.topics import Topics

ASKED = ("catalog", "inventory", "cart", "order", "payment")
"""The aggregates whose commands come in through the API."""

BATCH_MAX = 500
UNREAD_MAX = 100
"""Records of ours whose schema has not been heard of; the oldest is forgotten first."""
POLL_S = 0.25
ASK_KAFKA_S = 5.0
TRY_AGAIN_S = 0.5
QUIET_S = 1.0

log = structlog.get_logger(__name__)


class WrongPartitionsError(Exception):
    """A topic has not as many partitions as this process was told: it would send commands to wrong writers."""


class DecisionsReader:
    """One thread and one consumer that is in no group. `ready` is set once every position is resolved: an answer
    to a command that is sent later cannot be missed. `hand_over` is called in the thread, once per batch.

    It follows the topic `schemas` too, from its beginning: another release may answer in a newer shape.
    """

    def __init__(
        self,
        kafka: str,
        topics: Topics,
        reply_to: str,
        codec: Codec,
        hand_over: Callable[[list[Decided]], None],
    ) -> None:
        self._kafka = kafka
        self._topics = topics
        self._reply_to = reply_to
        self._mark = reply_to.encode()
        self._codec = codec
        self._hand_over = hand_over
        self._unread: deque[Message] = deque(maxlen=UNREAD_MAX)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="decisions-reader", daemon=True)
        self.ready = threading.Event()
        self.broken: BaseException | None = None
        """Why the thread ended, if it was not asked to."""

    def start(self) -> None:
        self._thread.start()

    def stop(self, wait_s: float = 2.0) -> None:
        self._ending.set()
        self._thread.join(wait_s)

    def _run(self) -> None:
        consumer = Consumer(_settings(self._kafka), logger=KafkaLog())
        try:
            self._resolve(consumer)
            while not self._ending.is_set():
                self._turn(consumer)
        except Exception as error:
            log.exception("decisions_reader_ended")
            self.broken = error
        finally:
            self.ready.clear()
            consumer.close()

    def _resolve(self, consumer: Consumer) -> None:
        """Repeated while Kafka does not answer; WrongPartitionsError ends it."""
        while not self._ending.is_set():
            try:
                ends = [self._end_of(consumer, tp) for tp in self._partitions(consumer)]
                consumer.assign([TopicPartition(self._topics.schemas, 0, OFFSET_BEGINNING), *ends])
            except KafkaException as error:
                log.warning("decisions_not_resolved", error=str(error))
                self._ending.wait(TRY_AGAIN_S)
            else:
                self.ready.set()
                return

    def _partitions(self, consumer: Consumer) -> Sequence[tuple[str, int]]:
        found = consumer.list_topics(timeout=ASK_KAFKA_S).topics
        for topic in map(self._topics.decisions, ASKED):
            partitions = len(found[topic].partitions) if topic in found else 0
            if partitions == 0:
                raise KafkaException(
                    KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART, f"{topic} is not there yet")
                )
            if partitions != self._topics.partitions:
                raise WrongPartitionsError(
                    f"{topic} has {partitions} partitions, not {self._topics.partitions}"
                )
        return [(self._topics.decisions(a), n) for a in ASKED for n in range(self._topics.partitions)]

    def _end_of(self, consumer: Consumer, partition: tuple[str, int]) -> TopicPartition:
        """Under read_committed the end is before the first pending transaction, whose answers may be ours."""
        _, end = consumer.get_watermark_offsets(TopicPartition(*partition), timeout=ASK_KAFKA_S)
        return TopicPartition(*partition, end)

    def _turn(self, consumer: Consumer) -> None:
        """`consume(n, timeout)` would wait out its whole timeout, so wait for the first and drain the rest."""
        first = consumer.poll(POLL_S)
        if first is None:
            return
        messages = [first, *consumer.consume(BATCH_MAX, 0)]
        if self._learn(messages):
            # A schema is published before anything is written with it; yet between two topics there is no order.
            messages = [*self._unread, *messages]
            self._unread.clear()
        ours = [one for message in messages for one in self._ours(message)]
        if ours:
            self._hand_over(ours)

    def _learn(self, messages: Sequence[Message]) -> bool:
        """Whether there are schemas among them."""
        told = [one.value() for one in messages if one.topic() == self._topics.schemas and not one.error()]
        for schema in filter(None, map(schema_in, told)):
            self._codec.learn(schema)
        return bool(told)

    def _ours(self, message: Message) -> Sequence[Decided]:
        value = message.value()
        if message.error() or value is None or self._mark not in value:
            # Most records are answers to sagas and to other processes; finding that out costs one search.
            return ()
        try:
            decisions: Decisions = self._codec.decode(value).body
        except UnknownFingerprintError as unknown:
            log.warning("decisions_of_an_unknown_schema", fingerprint=unknown.fingerprint.hex())
            self._unread.append(message)
            return ()
        except UndecodableError:
            log.exception("decisions_undecodable", topic=message.topic(), offset=message.offset())
            return ()
        return [one for one in decisions.decided if one.reply_to == self._reply_to]


def _settings(kafka: str) -> dict[str, Any]:
    return {
        "bootstrap.servers": kafka,
        "group.id": "daybook-api-is-in-no-group",  # librdkafka wants one; nothing is ever committed
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "isolation.level": "read_committed",
        "auto.offset.reset": "latest",  # what a gap swallows, the view `command` still answers
        "allow.auto.create.topics": False,
        "queued.max.messages.kbytes": 16_384,
        "reconnect.backoff.max.ms": 500,
        "log.connection.close": False,
    }


class KafkaLog:
    """librdkafka's lines in our log: one a second at most, with how many were left out since the last."""

    def __init__(self) -> None:
        self._silent_until = 0.0
        self._left_out = 0

    def log(self, level: int, line: str, *arguments: object) -> None:
        now = time.monotonic()
        if now < self._silent_until:
            self._left_out += 1
            return
        log.log(level, "kafka", line=line % arguments if arguments else line, left_out=self._left_out)
        self._silent_until, self._left_out = now + QUIET_S, 0
