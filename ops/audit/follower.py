"""Follows the whole log as an outsider would: what is committed, as it comes, from where one stood."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # public

from ops.audit.desk import Place
from ops.audit.log_reader import reader_settings
from streams.kafka_clients import ANSWER_MAX_S, patiently

MESSAGES_MAX = 2_000

Ends: TypeAlias = Mapping[Place, int]


class LogCutError(Exception):
    """The log does not hold the place where we must go on: it was cut, or a topic was made anew."""


@dataclass(frozen=True, slots=True)
class Read:
    """A committed record."""

    place: Place
    offset: int
    key: bytes | None
    value: bytes


@dataclass(frozen=True, slots=True)
class Piece:
    """What came at once, each partition in order; `reached` is how far partitions were looked at, markers included."""

    records: Sequence[Read]
    reached: Ends


class Follower:
    """Reads these partitions as they grow; memory is bounded by librdkafka's queue of 16 MB."""

    def __init__(self, kafka: str, places: Iterable[Place]) -> None:
        self._places = tuple(places)
        self._admin = AdminClient({"bootstrap.servers": kafka})
        self._consumer = Consumer(_settings(kafka))

    def start(self, positions: Ends) -> None:
        """Read from these offsets on."""
        self._consumer.assign([TopicPartition(*place, offset) for place, offset in positions.items()])

    def read(self, wait_s: float) -> Piece:
        """What has come, up to 2,000 records; nothing after `wait_s`. Raises LogCutError, KafkaException."""
        first = self._consumer.poll(wait_s)
        messages = [] if first is None else [first, *self._consumer.consume(MESSAGES_MAX - 1, 0)]
        records: list[Read] = []
        reached: dict[Place, int] = {}
        for message in messages:
            place, offset = (message.topic() or "", message.partition() or 0), message.offset() or 0
            if _is_end(message):
                reached[place] = offset
            elif message.error() is None:
                records.append(Read(place, offset, message.key(), message.value() or b""))
                reached[place] = offset + 1
        return Piece(records, reached)

    def ends(self, places: Iterable[Place] | None = None) -> dict[Place, int]:
        """Where these partitions (all, if none is named) end now, uncommitted records included. Raises KafkaException."""
        return self._offsets(places or self._places, OffsetSpec.latest())  # type: ignore[no-untyped-call]  # the library's types are not whole

    def beginnings(self) -> dict[Place, int]:
        """The first offset that each partition still holds. Raises KafkaException."""
        return self._offsets(self._places, OffsetSpec.earliest())  # type: ignore[no-untyped-call]  # as above

    def close(self) -> None:
        self._consumer.close()

    def _offsets(self, places: Iterable[Place], spec: Any) -> dict[Place, int]:
        asked = {TopicPartition(*place): spec for place in places}
        return patiently(lambda: self._offsets_now(asked))

    def _offsets_now(self, asked: dict[TopicPartition, Any]) -> dict[Place, int]:
        answers = self._admin.list_offsets(
            asked, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=ANSWER_MAX_S
        )
        return {
            (one.topic, one.partition): answer.result(ANSWER_MAX_S).offset for one, answer in answers.items()
        }


def _is_end(message: Message) -> bool:
    """Whether this only says that a partition ends here; an error that passes is neither end nor record."""
    error = message.error()
    if error is None or error.code() == KafkaError._PARTITION_EOF:
        return error is not None
    if error.code() == KafkaError._AUTO_OFFSET_RESET:
        raise LogCutError(f"{message.topic()}[{message.partition()}]: {error}")
    if error.fatal():
        raise KafkaException(error)
    return False


def _settings(kafka: str) -> dict[str, Any]:
    return reader_settings(kafka) | {
        "group.id": "daybook-auditor",
        "fetch.wait.max.ms": 1_000,
        "reconnect.backoff.max.ms": 500,
    }
