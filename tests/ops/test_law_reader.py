"""The reader of the laws on a real Kafka: it sees what is committed and nothing else, up to the end of the log."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from ops.audit.follower import Follower
from ops.audit.log_reader import AGGREGATES, KINDS, LogNotReadError
from ops.demo.laws import check_laws
from ops.local_stack import Addresses
from tests.sandbox_process import until
from tests.written_log import Log, Written

LAWS = ("1", "2", "3", "4", "5", "6", "7", "8")


@pytest.fixture
def prefix(stack: Addresses) -> Iterator[str]:
    """The prefix of empty topics, which are deleted after the test."""
    prefix = f"laws-{uuid4()}"
    admin = AdminClient({"bootstrap.servers": stack.kafka})
    topics = [f"{prefix}.{kind}.{aggregate}" for kind in KINDS for aggregate in AGGREGATES]
    for created in admin.create_topics([NewTopic(topic, 2, 1) for topic in topics]).values():
        created.result(60)
    until(lambda: set(topics) <= admin.list_topics(timeout=10).topics.keys(), 60)
    yield prefix
    for deleted in admin.delete_topics(topics).values():
        deleted.result(60)


@contextmanager
def transaction(kafka: str) -> Iterator[Producer]:
    """Committed at its end; a test that wants it aborted does so itself."""
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": str(uuid4())})
    producer.init_transactions(60)
    producer.begin_transaction()
    yield producer
    producer.commit_transaction(60)


def write(producer: Producer, prefix: str, records: list[Written]) -> None:
    for record in records:
        topic = prefix + record.topic.removeprefix("t")
        producer.produce(topic, record.value, partition=record.partition)


def two_transactions() -> Log:
    log = Log()
    for name in ("CartCreated", "CartCleared"):
        log.transact(("cart/1", name, {"cart_id": "1"}))
    return log


def test_an_empty_log_breaks_no_law(stack: Addresses, prefix: str):
    assert check_laws(stack.kafka, prefix, []) == dict.fromkeys(LAWS, "holds") | {"7": "not checked"}


def test_what_was_committed_is_read_to_its_end(stack: Addresses, prefix: str):
    log = two_transactions()
    for records in (log.records[:2], log.records[2:]):
        with transaction(stack.kafka) as producer:
            write(producer, prefix, records)
    verdicts = check_laws(stack.kafka, prefix, [], acknowledged=["cart/1@2"], find_view_errors=list)
    assert verdicts == dict.fromkeys(LAWS, "holds")


def test_what_was_aborted_is_not_read(stack: Addresses, prefix: str):
    log = two_transactions()
    with transaction(stack.kafka) as producer:
        write(producer, prefix, log.records)
        producer.abort_transaction(30)
        producer.begin_transaction()
    verdicts = check_laws(stack.kafka, prefix, [], acknowledged=["cart/1@1"])
    assert verdicts["6"] == "cart/1@1 was acknowledged and is not in the log"
    assert verdicts["8"] == "holds"


def test_a_follower_reaches_the_end_also_where_only_markers_come(stack: Addresses, prefix: str):
    places = [(f"{prefix}.{kind}.{name}", n) for kind in KINDS for name in AGGREGATES for n in range(2)]
    follower, reached = Follower(stack.kafka, places), dict.fromkeys(places, 0)
    follower.start(reached)
    log, found = two_transactions(), 0
    for aborted in (True, False, True):
        with transaction(stack.kafka) as producer:
            write(producer, prefix, log.records)
            if aborted:
                producer.abort_transaction(30)
                producer.begin_transaction()
        deadline = time.monotonic() + 60
        while reached != follower.ends() and time.monotonic() < deadline:
            piece = follower.read(0.5)
            found += len(piece.records)
            reached.update(piece.reached)
        assert reached == follower.ends()
    assert found == len(log.records)
    follower.close()


def test_a_missing_transaction_is_found(stack: Addresses, prefix: str):
    with transaction(stack.kafka) as producer:
        write(producer, prefix, two_transactions().records[2:])
    assert check_laws(stack.kafka, prefix, [])["8"] == "cart/1@2 follows @0"


def test_a_log_whose_beginning_was_deleted_proves_nothing(stack: Addresses, prefix: str):
    log = two_transactions()
    with transaction(stack.kafka) as producer:
        write(producer, prefix, log.records)
    places = [TopicPartition(f"{prefix}.{kind}.cart", 0, 1) for kind in KINDS]
    admin = AdminClient({"bootstrap.servers": stack.kafka})
    for deleted in admin.delete_records(places).values():
        deleted.result(60)
    verdicts = check_laws(stack.kafka, prefix, [])
    assert verdicts["6"].startswith("not checked: the first decisions were deleted")
    assert verdicts["8"].startswith("the first events are gone")


def test_what_differs_between_the_views_and_the_log_is_named(stack: Addresses, prefix: str):
    errors = [f"stock/{n}/main differs" for n in range(7)]
    verdict = check_laws(stack.kafka, prefix, [], find_view_errors=lambda: errors)["7"]
    assert verdict == "; ".join(errors[:5]) + " (and 2 more)"


def test_a_log_that_is_not_there_is_not_taken_for_an_empty_one(stack: Addresses):
    with pytest.raises(LogNotReadError):
        check_laws(stack.kafka, f"nobody-{uuid4()}", [])
