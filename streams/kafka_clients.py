"""How agents talk to Kafka: the settings of their consumers and producers, each queue bounded."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

from confluent_kafka import KafkaException

CONSUMER_QUEUE_KB = 16_384
PRODUCER_QUEUE_KB = 65_536
SESSION_TIMEOUT_MS = 6_000
DELIVERY_TIMEOUT_MS = 30_000
ANSWER_MAX_S = 10.0
ASK_AGAIN_S = 0.1

T = TypeVar("T")


def reader_config(kafka: str) -> dict[str, Any]:
    """A consumer that assigns itself partitions at offsets it knows, and sees what is committed only."""
    return {
        "bootstrap.servers": kafka,
        # librdkafka insists on a group; without subscription and commit it is never joined.
        "group.id": "unused",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # Every position is explicit; a reset would skip or repeat history without a word.
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
        "queued.max.messages.kbytes": CONSUMER_QUEUE_KB,
        "fetch.wait.max.ms": 500,
        "fetch.min.bytes": 1,
        "fetch.max.bytes": 8 * 1024 * 1024,
        "reconnect.backoff.max.ms": 500,
        "socket.keepalive.enable": True,
    }


def group_config(kafka: str, group: str, slot: str = "") -> dict[str, Any]:
    """A consumer of a group. With a `slot` it is a static member: killed and restarted, it is back at once.

    Range, so that the same partition of all topics goes to one member.
    """
    member = {"group.instance.id": f"{group}.{slot}"} if slot else {}
    return (
        reader_config(kafka)
        | {
            "group.id": group,
            "partition.assignment.strategy": "range",
            "session.timeout.ms": SESSION_TIMEOUT_MS,
            "heartbeat.interval.ms": 1_500,
        }
        | member
    )


def producer_config(kafka: str) -> dict[str, Any]:
    """An idempotent producer outside transactions: acknowledged by all replicas, in order, within 30 s."""
    return {
        "bootstrap.servers": kafka,
        "enable.idempotence": True,
        "acks": "all",
        "linger.ms": 1,
        "partitioner": "murmur2_random",
        "delivery.timeout.ms": DELIVERY_TIMEOUT_MS,
        "queue.buffering.max.kbytes": PRODUCER_QUEUE_KB,
        # The default (rebootstrap) loses sight of the broker after a dropped connection.
        "metadata.recovery.strategy": "none",
        "reconnect.backoff.max.ms": 500,
        "retry.backoff.ms": 50,
    }


def patiently(ask: Callable[[], T], within_s: float = ANSWER_MAX_S) -> T:
    """A partition has no leader for a moment after its broker came back, or it was created: ask again for a while."""
    gives_up_at = time.monotonic() + within_s
    while True:
        try:
            return ask()
        except KafkaException:
            if time.monotonic() > gives_up_at:
                raise
            time.sleep(ASK_AGAIN_S)
