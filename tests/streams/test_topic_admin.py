"""Topics: made with what keeps their records, refused by name where they would lose them, never changed."""

import re
import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, yet not marked as exported
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from ops.local_stack import Addresses
from schemas.topics import Topics
from streams.topic_admin import WrongTopicsError, delete_topics, ensure_topics
from tests.sandbox_process import until


@pytest.fixture
def topics(stack: Addresses) -> Iterator[Topics]:
    topics = Topics(f"test-{uuid.uuid4().hex[:12]}", 2)
    yield topics
    delete_topics(stack.kafka, topics.prefix)


@pytest.fixture
def admin(stack: Addresses) -> AdminClient:
    return AdminClient({"bootstrap.servers": stack.kafka})


def test_what_is_missing_is_made_with_the_wanted_settings(
    stack: Addresses, topics: Topics, admin: AdminClient
):
    ensure_topics(stack.kafka, topics)

    made = admin.list_topics(timeout=60).topics
    for spec in topics.wanted():
        assert len(made[spec.name].partitions) == spec.partitions
        assert spec.settings.items() <= settings_of(admin, spec.name).items()
    assert settings_of(admin, topics.commands("cart"))["message.timestamp.type"] == "LogAppendTime"
    assert settings_of(admin, topics.events("cart"))["retention.ms"] == "-1"


def test_twice_is_as_good_as_once(stack: Addresses, topics: Topics):
    ensure_topics(stack.kafka, topics)
    ensure_topics(stack.kafka, topics)


def test_one_that_is_missing_is_made_beside_those_that_are_there(
    stack: Addresses, topics: Topics, admin: AdminClient
):
    make(admin, topics.state("order"), 2, {"cleanup.policy": "compact"})
    ensure_topics(stack.kafka, topics)


def test_every_wrong_topic_is_named_and_nothing_is_made_or_changed(
    stack: Addresses, topics: Topics, admin: AdminClient
):
    make(admin, topics.events("cart"), 2, {"retention.ms": "604800000"})
    make(admin, topics.state("order"), 3, {})
    make(admin, topics.commands("order"), 2, {"retention.ms": "-1"})

    with pytest.raises(WrongTopicsError) as refused:
        ensure_topics(stack.kafka, topics)

    commands = topics.commands("order")
    assert set(refused.value.complaints) == {
        f"{topics.events('cart')}: has retention.ms=604800000, must have retention.ms=-1",
        f"{topics.state('order')}: has 3 partitions, must have 2",
        f"{topics.state('order')}: has cleanup.policy=delete, must have cleanup.policy=compact",
        f"{commands}: has message.timestamp.type=CreateTime, must have message.timestamp.type=LogAppendTime",
    }
    assert all(complaint in str(refused.value) for complaint in refused.value.complaints)
    present = admin.list_topics(timeout=60).topics
    assert len([name for name in present if name.startswith(topics.prefix)]) == 3
    assert settings_of(admin, topics.events("cart"))["retention.ms"] == "604800000"


@pytest.mark.parametrize(
    ("kind", "setting", "value", "must"),
    [
        ("events", "cleanup.policy", "compact", "cleanup.policy=delete"),
        ("events", "retention.bytes", "1000000", "retention.bytes=-1"),
        ("events", "unclean.leader.election.enable", "true", "unclean.leader.election.enable=false"),
        ("events", "message.timestamp.type", "LogAppendTime", "message.timestamp.type=CreateTime"),
        ("events", "max.message.bytes", "500000", "max.message.bytes of at least 1048588"),
        ("decisions", "retention.ms", "3600000", "retention.ms of at least 172800000"),
        ("commands", "retention.ms", "86400000", "retention.ms of at least 604800000"),
        ("state", "cleanup.policy", "compact,delete", "cleanup.policy=compact"),
    ],
)
def test_a_setting_that_loses_or_refuses_records_is_refused(
    kind: str, setting: str, value: str, must: str, stack: Addresses, topics: Topics, admin: AdminClient
):
    name = f"{topics.prefix}.{kind}.cart"
    wanted = next(spec for spec in topics.wanted() if spec.name == name)
    make(admin, name, 2, {**wanted.settings, setting: value})

    with pytest.raises(WrongTopicsError, match=re.escape(f"{name}: has {setting}={value}, must have {must}")):
        ensure_topics(stack.kafka, topics)


def test_what_keeps_records_longer_than_asked_will_do(stack: Addresses, topics: Topics, admin: AdminClient):
    longer = {"message.timestamp.type": "LogAppendTime", "retention.ms": str(30 * 24 * 3_600_000)}
    make(admin, topics.decisions("cart"), 2, longer)
    make(admin, topics.commands("cart"), 2, longer | {"max.message.bytes": "2000000"})
    ensure_topics(stack.kafka, topics)


def test_too_few_replicas_are_refused(stack: Addresses, topics: Topics):
    ensure_topics(stack.kafka, topics)
    with pytest.raises(WrongTopicsError) as refused:
        ensure_topics(stack.kafka, topics, replication=3)
    cart = topics.events("cart")
    assert f"{cart}: has 1 replicas, must have at least 3" in refused.value.complaints
    assert (
        f"{cart}: has min.insync.replicas=1, must have min.insync.replicas of at least 2"
        in refused.value.complaints
    )


def test_only_topics_under_the_prefix_are_deleted(stack: Addresses, topics: Topics, admin: AdminClient):
    neighbour = Topics(f"{topics.prefix}-too", 2)
    make(admin, topics.events("cart"), 1, {})
    make(admin, neighbour.events("cart"), 1, {})

    delete_topics(stack.kafka, topics.prefix)
    delete_topics(stack.kafka, topics.prefix)

    present = admin.list_topics(timeout=60).topics
    assert topics.events("cart") not in present
    assert neighbour.events("cart") in present
    delete_topics(stack.kafka, neighbour.prefix)
    with pytest.raises(ValueError, match="every topic"):
        delete_topics(stack.kafka, "")


def test_a_kafka_that_does_not_answer_is_an_error_in_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("streams.topic_admin.ANSWER_LIMIT_S", 0.5)
    with pytest.raises(KafkaException):
        ensure_topics("127.0.0.1:1", Topics())


def make(admin: AdminClient, name: str, partitions: int, settings: dict[str, str]) -> None:
    """Returns when the broker tells others of it, which is a little after it has made it."""
    admin.create_topics([NewTopic(name, partitions, 1, config=settings)])[name].result(60)
    until(lambda: name in admin.list_topics(timeout=60).topics, 60)


def settings_of(admin: AdminClient, name: str) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, name)
    found = admin.describe_configs([resource])[resource].result(60)
    return {key: entry.value for key, entry in found.items()}
