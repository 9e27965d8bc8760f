"""Reading one partition from an offset to its end, as it is at this moment."""

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.kafka_clients import reader_config

READ_TIMEOUT_S = 30.0


@contextmanager
def reader_of(kafka: str, topic: str, partition: int = 0, offset: int = 0) -> Iterator[Consumer]:
    """A consumer that stands at `offset` of one partition, outside any group."""
    consumer = Consumer(reader_config(kafka))
    try:
        consumer.assign([TopicPartition(topic, partition, offset)])
        yield consumer
    finally:
        consumer.close()


def read_to_end(kafka: str, topic: str, partition: int = 0, offset: int = 0) -> Iterator[Message]:
    """The records from `offset` to the end of the partition; raises KafkaException when Kafka does not answer.

    Meant for topics that only grow from 0 (compacted ones included) and are written outside transactions.
    """
    with reader_of(kafka, topic, partition, offset) as consumer:
        _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=READ_TIMEOUT_S)
        while True:
            message = consumer.poll(READ_TIMEOUT_S)
            if message is None:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001  # its public name
            error = message.error()
            if error is None:
                yield message
            # The end may be announced before the watermark is reached: another fetch was under way.
            elif error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001  # its public name
                raise KafkaException(error)
            elif (message.offset() or 0) >= end:
                return
