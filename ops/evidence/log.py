"""The two things that evidence needs of Kafka: a partition's records as they were committed, and the checkpoints."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from ops.audit.log_reader import LogNotReadError, is_end, next_messages, reader_settings
from ops.evidence.checkpoint import NotANote, Note, Submission
from streams.kafka_clients import patiently

SILENCE_MAX_S = 30.0
DELIVERY_MAX_S = 30.0
MESSAGES_MAX = 1_000


class Record(NamedTuple):
    """One committed record of a partition."""

    offset: int
    key: bytes
    value: bytes


class Published(NamedTuple):
    """A record of the topic of checkpoints: the sealer's with a proof, a witness's with its cosignature."""

    offset: int
    note: Note
    submission: Submission | None


def consumer_config(kafka: str) -> dict[str, Any]:
    """A reader of evidence; offsets are its own."""
    return reader_settings(kafka) | {
        "group.id": "daybook-evidence",
        "enable.auto.offset.store": False,
        "fetch.wait.max.ms": 500,
        "reconnect.backoff.max.ms": 500,
    }


def producer_of(kafka: str) -> Producer:
    return Producer(
        {
            "bootstrap.servers": kafka,
            "enable.idempotence": True,
            "acks": "all",
            "delivery.timeout.ms": int(DELIVERY_MAX_S * 1_000),
            "queue.buffering.max.kbytes": 4_096,
            "metadata.recovery.strategy": "none",  # the default loses sight of the broker after a dropped connection
            "reconnect.backoff.max.ms": 500,
        }
    )


def publish(producer: Producer, topic: str, origin: str, text: str) -> None:
    """Returns when Kafka has it. Raises LogNotReadError; it may be there all the same, and twice does no harm."""
    failures: list[KafkaError] = []

    def note(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(error)

    producer.produce(topic, text.encode(), origin.encode(), 0, on_delivery=note)
    if producer.flush(DELIVERY_MAX_S + 1) or failures:
        raise LogNotReadError(f"{topic}: {failures[0] if failures else 'no answer'}")


@contextmanager
def open_consumer(kafka: str) -> Iterator[Consumer]:
    """Raises LogNotReadError for whatever Kafka complains of."""
    consumer = Consumer(consumer_config(kafka))
    try:
        yield consumer
    except KafkaException as error:
        raise LogNotReadError(str(error)) from error
    finally:
        consumer.close()


def partitions_of(consumer: Consumer, topic: str) -> list[int]:
    """Raises LogNotReadError where there is no such topic."""
    found = consumer.list_topics(topic, SILENCE_MAX_S).topics[topic]
    if found.error is not None:
        raise LogNotReadError(f"{topic}: {found.error}")
    return sorted(found.partitions)


def records_of(consumer: Consumer, topic: str, partition: int, start: int = 0) -> Iterator[Record]:
    """Everything that is committed by now from `start` on, in order. Raises LogNotReadError, KafkaException."""
    end = _end_of(consumer, TopicPartition(topic, partition))
    if start >= end:
        return
    consumer.assign([TopicPartition(topic, partition, start)])
    while True:
        for message in next_messages(consumer, MESSAGES_MAX - 1):
            offset = message.offset() or 0
            if is_end(message):
                if offset >= end:
                    return
            elif offset >= end:
                return
            else:
                yield Record(offset, message.key() or b"", message.value() or b"")


def checkpoints_in(consumer: Consumer, topic: str, start: int = 0) -> Iterator[Published]:
    """What was published so far; anybody's garbage is passed over, and no signature has been verified yet."""
    for record in records_of(consumer, topic, 0, start):
        with suppress(NotANote, UnicodeDecodeError):
            text = record.value.decode()
            submission = Submission.parse(text) if text.startswith("old ") else None
            yield Published(record.offset, submission.note if submission else Note.parse(text), submission)


def _end_of(consumer: Consumer, place: TopicPartition) -> int:
    """Where the last finished transaction ends; a partition that was just made is asked again for a while."""
    return int(patiently(lambda: consumer.get_watermark_offsets(place, SILENCE_MAX_S), SILENCE_MAX_S)[1])
