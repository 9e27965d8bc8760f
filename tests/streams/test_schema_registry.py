"""The schema registry: everything this code writes is published once, and anybody's garbage stops nobody."""

import pytest
from confluent_kafka import Producer

from schemas.codec import MARKER, Codec, UndecodableError
from streams.schema_registry import LearningDecoder, SchemaRegistry
from tests.streams.listening import event


def test_all_schemas_are_published_once(stack, topics):
    registry, codec = SchemaRegistry(stack.kafka, topics), Codec()
    assert registry.publish(codec) == len(list(codec.schemas()))
    assert registry.publish(codec) == 0
    published = registry.schemas()
    assert {print_.hex() for print_, _ in codec.schemas()} == published.keys()
    assert published[event("a", 1)[0][2:10].hex()]["name"] == "CartExpired"


def test_garbage_in_the_topic_is_passed_over(stack, topics):
    producer = Producer({"bootstrap.servers": stack.kafka})
    for value in (b"\xff", b"[]", b'"string"', b'{"type": "nonsense"}', None):
        producer.produce(topics.schemas, value, b"key")
    assert producer.flush(60) == 0
    assert SchemaRegistry(stack.kafka, topics).schemas() == {}


def test_a_fingerprint_that_nobody_published_is_asked_for_once_in_a_while_only():
    asked = []

    def schemas():
        asked.append(1)
        return {}

    decoder = LearningDecoder(Codec(), schemas)
    for _ in range(100):
        with pytest.raises(UndecodableError):
            decoder.decode(MARKER + b"12345678")
    assert len(asked) == 1
