"""Topics of their own for each test of the moving parts, on the shared Kafka."""

import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # public, not marked as such

from ops.local_stack import Addresses
from schemas.topics import Topics
from tests.sandbox_process import until
from tests.streams.listening import Listening, Pen


@pytest.fixture
def topics(stack: Addresses) -> Iterator[Topics]:
    topics = Topics(f"test-{uuid.uuid4().hex[:12]}", 2)
    admin = AdminClient({"bootstrap.servers": stack.kafka})
    wanted = {topics.dead_letters: 1, topics.schemas: 1}
    wanted |= {topics.events(name): 2 for name in ("cart", "payment")} | {topics.commands("payment"): 2}
    for made in admin.create_topics([NewTopic(name, n, 1) for name, n in wanted.items()]).values():
        made.result()
    until(lambda: wanted.keys() <= admin.list_topics(timeout=60).topics.keys(), 60)
    yield topics
    for gone in admin.delete_topics(list(wanted)).values():
        gone.result()


@pytest.fixture
def pen(stack: Addresses, topics: Topics) -> Pen:
    return Pen(stack.kafka, topics)


@pytest.fixture
def listening(stack: Addresses, topics: Topics) -> Listening:
    return Listening(stack.kafka, topics)
