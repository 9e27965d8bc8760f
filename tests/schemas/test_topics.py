"""Which partition an aggregate lives in: what Kafka's own clients say, key for key."""

import uuid

import pytest
from confluent_kafka import KafkaError, Message, Producer
from hypothesis import given
from hypothesis import strategies as st

from ops.local_stack import Addresses
from schemas.language import AGGREGATES
from schemas.topics import Topics, murmur2, partition_of
from streams.kafka_clients import producer_config
from streams.topic_admin import delete_topics, ensure_topics

PARTITIONS = 12
KEYS = [
    f"{code}{suffix}"
    for code in range(85_000, 85_040)
    for suffix in ("", "A", "É", " 漢字", "-0b1c6ff6-4d1d-5d0e")
]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        ("abc", 479470107),
    ],
)
def test_the_hash_is_the_one_of_kafkas_java_client(key: str, expected: int):
    """The figures of `UtilsTest.testMurmur2` in Apache Kafka."""
    assert murmur2(key.encode()) == expected & 0xFFFFFFFF


def test_librdkafka_puts_every_key_where_we_say(stack: Addresses):
    topics = Topics(f"test-{uuid.uuid4().hex[:12]}", PARTITIONS)
    ensure_topics(stack.kafka, topics)
    try:
        found = _placed_by_librdkafka(stack.kafka, topics.events("inventory"))
    finally:
        delete_topics(stack.kafka, topics.prefix)

    assert len(KEYS) == 200
    assert found == {key: topics.partition_of(key) for key in KEYS}
    assert len(set(found.values())) == PARTITIONS


@given(st.text(max_size=100), st.integers(1, 64))
def test_a_key_lives_in_one_of_the_partitions(key: str, partitions: int):
    assert 0 <= partition_of(key, partitions) < partitions


def test_every_topic_is_wanted_once_and_under_the_prefix():
    topics = Topics("shop")
    names = [spec.name for spec in topics.wanted()]

    assert len(names) == len(set(names)) == 4 * len(AGGREGATES) + 3
    assert all(name.startswith("shop.") for name in names)
    for of_kind in (topics.commands, topics.events, topics.state, topics.decisions):
        assert {of_kind(aggregate) for aggregate in AGGREGATES} <= set(names)
    assert {topics.schemas, topics.dead_letters, topics.checkpoints} <= set(names)


def _placed_by_librdkafka(kafka: str, topic: str) -> dict[str, int]:
    placed: dict[str, int] = {}

    def note(error: KafkaError | None, message: Message) -> None:
        assert error is None
        placed[(message.key() or b"").decode()] = message.partition() or 0

    producer = Producer(producer_config(kafka))
    for key in KEYS:
        producer.produce(topic, b"", key.encode(), on_delivery=note)
    assert producer.flush(30) == 0
    return placed
