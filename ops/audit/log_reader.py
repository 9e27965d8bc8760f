"""Reads the whole log as an outsider would: a plain read_committed consumer, every partition to its end."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.kafka_clients import ANSWER_MAX_S, patiently

KINDS = ("events", "decisions")
AGGREGATES = ("catalog", "cart", "order", "inventory", "payment")

Place: TypeAlias = tuple[str, int]
"""A topic and a partition of it."""

_SILENCE_MAX_S = 30.0
_MESSAGES_MAX = 2_000


class LogNotReadError(Exception):
    """The log could not be read to its end."""


@dataclass(frozen=True, slots=True)
class Extent:
    """The offsets that are there: from `low` up to, not including, `high`."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Value:
    topic: str
    partition: int
    value: bytes
    offset: int
    key: bytes = b""


class LogReader:
    """Everything that was committed when it was opened; memory is bounded by librdkafka's queue of 16 MB."""

    def __init__(self, consumer: Consumer, extents: Mapping[Place, Extent]) -> None:
        self._consumer = consumer
        self.extents = extents

    def truncated(self, kind: str) -> list[str]:
        """The partitions of events or decisions whose beginning has been deleted."""
        return [
            f"{topic}[{partition}]"
            for (topic, partition), extent in self.extents.items()
            if extent.low > 0 and topic.rsplit(".", 2)[1] == kind
        ]

    def values(self) -> Iterator[Value]:
        """Every value, each partition in order. Raises LogNotReadError where 30 s bring nothing.

        A partition is done at the message that says so: a transaction's last offset is a marker and never arrives.
        """
        unread = {place: extent for place, extent in self.extents.items() if extent.high > extent.low}
        self._consumer.assign([TopicPartition(*place, extent.low) for place, extent in unread.items()])
        while unread:
            for message in next_messages(self._consumer):
                ends = is_end(message)
                topic, partition, offset = _position_of(message)
                if offset >= self.extents[topic, partition].high:
                    unread.pop((topic, partition), None)
                elif not ends:
                    yield Value(topic, partition, _value_of(message), offset, _key_of(message))


@contextmanager
def open_log(
    bootstrap: str,
    prefix: str,
    kinds: Collection[str] = KINDS,
    aggregates: Collection[str] = AGGREGATES,
    partition: int | None = None,
) -> Iterator[LogReader]:
    """The log of the topics under this prefix, or only one partition of each; an aggregate that is empty names a kind
    with one topic for all.

    Raises LogNotReadError where one of them is missing.
    """
    consumer = Consumer(reader_settings(bootstrap))
    topics = [".".join(filter(None, (prefix, kind, name))) for kind in kinds for name in aggregates]
    try:
        places = [place for topic in topics for place in _places(consumer, topic)]
        places = [place for place in places if partition in (None, place[1])]
        yield LogReader(consumer, {place: _extent(consumer, place) for place in places})
    except KafkaException as error:
        raise LogNotReadError(str(error)) from error
    finally:
        consumer.close()


def _places(consumer: Consumer, topic: str) -> list[Place]:
    metadata = patiently(lambda: consumer.list_topics(topic, ANSWER_MAX_S)).topics[topic]
    if metadata.error is not None:
        raise LogNotReadError(f"{topic}: {metadata.error}")
    return [(topic, partition) for partition in sorted(metadata.partitions)]


def _extent(consumer: Consumer, place: Place) -> Extent:
    # Of a read_committed consumer the high one is the last stable offset: no open transaction is in it.
    return Extent(*patiently(lambda: consumer.get_watermark_offsets(TopicPartition(*place), ANSWER_MAX_S)))


def _position_of(message: Message) -> tuple[str, int, int]:
    return cast("tuple[str, int, int]", (message.topic(), message.partition(), message.offset()))


def _value_of(message: Message) -> bytes:
    return message.value() or b""


def _key_of(message: Message) -> bytes:
    return message.key() or b""


def next_messages(consumer: Consumer, most: int = _MESSAGES_MAX) -> list[Message]:
    """What is there; one message at least. Raises LogNotReadError where 30 s bring nothing."""
    first = consumer.poll(_SILENCE_MAX_S)
    if first is None:
        raise LogNotReadError(f"Kafka was silent for {_SILENCE_MAX_S:.0f} s")
    return [first, *consumer.consume(most, 0)]


def is_end(message: Message) -> bool:
    """Whether this only says that a partition ends here. Raises LogNotReadError for any other error."""
    error = message.error()
    if error is None:
        return False
    if error.code() == KafkaError._PARTITION_EOF:
        return True
    raise LogNotReadError(f"{message.topic()}[{message.partition()}]: {error}")


def reader_settings(bootstrap: str) -> dict[str, Any]:
    """A reader outside any group that sees only what was committed, never jumps, and is told where partitions end."""
    return {
        "bootstrap.servers": bootstrap,
        "group.id": "daybook-audit",  # librdkafka insists on one; nothing is subscribed or committed
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
        "check.crcs": True,
        "queued.max.messages.kbytes": 16_384,
        "fetch.wait.max.ms": 100,
        "fetch.min.bytes": 1,
    }
