"""The journal on the real Kafka, of which the simulator has only a model."""

import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from random import Random

import pytest
from confluent_kafka import Producer

from commands.journal import Partition, ReassignedError
from ops.local_stack import Addresses
from schemas.topics import Topics
from streams.kafka_journal import KafkaJournal, Slot
from streams.topic_admin import delete_topics, ensure_topics

SENT = 3_000
"""Into each partition: more than is received at once, so that much is fetched ahead of each change."""
BOTH = (Partition("cart", 0), Partition("cart", 1))


@pytest.fixture
def slot(stack: Addresses) -> Iterator[Slot]:
    topics = Topics(f"test-{uuid.uuid4().hex[:12]}", 2)
    ensure_topics(stack.kafka, topics)
    yield Slot(stack.kafka, topics)
    delete_topics(stack.kafka, topics.prefix)


def test_serving_other_partitions_skips_and_repeats_nothing_of_those_that_were_served(slot: Slot):
    send(slot)
    chance = Random(1)
    positions = dict.fromkeys(BOTH, 0)
    with closing(KafkaJournal(slot)) as journal:
        await_assignment(journal)
        while any(position < SENT for position in positions.values()):
            served = chance.choice((BOTH, BOTH[:1], BOTH[1:]))
            journal.serve({partition: positions[partition] for partition in served})
            taken = defaultdict(list)
            for received in [one for _ in range(3) for one in journal.receive(400, 0.1)]:
                taken[received.partition].append(received.offset)
            for partition, offsets in taken.items():
                start = positions[partition]
                assert offsets == list(range(start, start + len(offsets)))
                # The rest is dropped, as what waits for its turn is when another partition is ready.
                positions[partition] += chance.randint(len(offsets) // 2, len(offsets))


def send(slot: Slot) -> None:
    producer = Producer({"bootstrap.servers": slot.bootstrap})
    for partition in BOTH:
        for _ in range(SENT):
            producer.produce(slot.topics.commands("cart"), b"a command", b"key", partition.number)
    assert producer.flush(30) == 0


def await_assignment(journal: KafkaJournal) -> None:
    while True:
        try:
            journal.receive(1, 0.1)
        except ReassignedError as reassigned:
            if set(BOTH) <= set(reassigned.partitions):
                return
