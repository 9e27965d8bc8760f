"""Reading one partition from an offset to its end, as it is at this moment."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.kafka_clients import ASK_AGAIN_S, reader_config

READ_TIMEOUT_S = 30.0
FOLLOW_WAIT_MS, END_WAIT_MS = 500, 10
"""How long a fetch waits for something to come: whoever reads to the end is told of it by one that found nothing."""

SETTLE_S = 10.0
_SETTLING = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001  # its public name
    KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001  # its public name
)


@contextmanager
def reader_of(
    kafka: str, topic: str, partition: int = 0, offset: int = 0, fetch_wait_ms: int = FOLLOW_WAIT_MS
) -> Iterator[Consumer]:
    """A consumer that stands at `offset` of one partition, outside any group."""
    consumer = Consumer(reader_config(kafka) | {"fetch.wait.max.ms": fetch_wait_ms})
    try:
        consumer.assign([TopicPartition(topic, partition, offset)])
        yield consumer
    finally:
        consumer.close()


def read_to_end(kafka: str, topic: str, partition: int = 0, offset: int = 0) -> Iterator[Message]:
    """The records from `offset` to the end of the partition; raises KafkaException when Kafka does not answer.

    Meant for topics that only grow from 0 (compacted ones included) and are written outside transactions.
    """
    with reader_of(kafka, topic, partition, offset, END_WAIT_MS) as consumer:
        end = _end_of(consumer, TopicPartition(topic, partition))
        while True:
            message = consumer.poll(READ_TIMEOUT_S)
            if message is None:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))  # its public name
            error = message.error()
            if error is None:
                yield message
            # The end may be announced before the watermark is reached: another fetch was under way.
            elif error.code() != KafkaError._PARTITION_EOF:  # its public name
                raise KafkaException(error)
            elif (message.offset() or 0) >= end:
                return


def _end_of(consumer: Consumer, partition: TopicPartition) -> int:
    """The high watermark; a partition whose leader is just changing (or that was just made) is asked again."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        try:
            _, end = consumer.get_watermark_offsets(partition, timeout=READ_TIMEOUT_S)
            return int(end)
        except KafkaException as error:
            if error.args[0].code() not in _SETTLING or time.monotonic() > deadline:
                raise
            time.sleep(ASK_AGAIN_S)
