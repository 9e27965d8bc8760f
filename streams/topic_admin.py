"""Topics are made once, with settings that keep what is written, and never changed behind anybody's back."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, yet not marked as exported
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
    TopicMetadata,
)

from schemas.topics import DAY_MS, Topics, TopicSpec

ANSWER_LIMIT_S = 30.0
"""Kafka's time for one request; after it a KafkaException says `_TIMED_OUT`."""

IDENTITY_LIMIT_S = 10.0

VISIBLE_LIMIT_S = 60.0
"""A topic just made is known to its broker so long afterwards at most."""

BATCH_BYTES_MIN = 1_048_588
"""Kafka's own default of `max.message.bytes`: librdkafka fills a batch up to 1,000,000 bytes."""

_FOR_EVER = -1
_NOT_YET = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001  # its public name
    KafkaError._NOENT,  # noqa: SLF001  # "no leaders found"
    KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001  # its public name
)
_RETENTION_FLOORS_MS = {"commands": 7 * DAY_MS, "decisions": 2 * DAY_MS}
"""The least that a topic which exists may keep: the dedupe window is 24 h, and a writer may be down for a while."""

Configs = Mapping[str, str]
Found = Mapping[str, TopicMetadata]


class WrongTopicsError(Exception):
    """Topics exist that would lose or hide records; the message names each, what it has and must have."""

    def __init__(self, complaints: Iterable[str]) -> None:
        self.complaints = tuple(complaints)
        listed = "\n".join(f"  {complaint}" for complaint in self.complaints)
        super().__init__(
            f"These topics are not as Daybook needs them, and it does not change them by itself:\n{listed}\n"
            "Correct their settings (a partition count is fixed: take another topic prefix), then start again."
        )


def ensure_topics(bootstrap: str, topics: Topics, replication: int = 1) -> None:
    """Make what is missing, verify what is there.

    Raises WrongTopicsError (nothing is made then) and KafkaException where Kafka does not answer in time.
    """
    admin = AdminClient(_config(bootstrap))
    wanted = {spec.name: _with_common(spec, replication) for spec in topics.wanted()}
    found = _existing(admin, wanted)
    _verify(admin, wanted, found, replication)
    missing = wanted.keys() - found.keys()
    if missing:
        _create(admin, [wanted[name] for name in sorted(missing)], replication)
        # Somebody else may have made some of them meanwhile, and otherwise than we would.
        _verify(admin, wanted, _await_all(admin, wanted), replication)


def delete_topics(bootstrap: str, prefix: str) -> None:
    """Remove every topic under the prefix, for ever; returns when they are gone."""
    if not prefix:
        raise ValueError("an empty prefix would delete every topic")
    admin = AdminClient(_config(bootstrap))
    names = _under(admin, prefix)
    if names:
        for future in admin.delete_topics(names, operation_timeout=ANSWER_LIMIT_S).values():
            _settle(future.result, unless=KafkaError.UNKNOWN_TOPIC_OR_PART)
        _wait_until(lambda: not _under(admin, prefix), f"topics under {prefix} are still there")


def _config(bootstrap: str) -> dict[str, Any]:
    return {"bootstrap.servers": bootstrap, "reconnect.backoff.max.ms": 500}


def _with_common(spec: TopicSpec, replication: int) -> TopicSpec:
    common = {
        "max.message.bytes": str(BATCH_BYTES_MIN),
        "min.insync.replicas": "2" if replication >= 3 else "1",
    }
    settings = {"message.timestamp.type": "CreateTime", **spec.settings, **common}
    return TopicSpec(spec.name, spec.partitions, settings)


def _existing(admin: AdminClient, wanted: Iterable[str]) -> Found:
    present = admin.list_topics(timeout=ANSWER_LIMIT_S).topics
    return {name: present[name] for name in wanted if name in present}


def _create(admin: AdminClient, specs: list[TopicSpec], replication: int) -> None:
    new = [NewTopic(s.name, s.partitions, replication, config=dict(s.settings)) for s in specs]
    for future in admin.create_topics(new, operation_timeout=ANSWER_LIMIT_S).values():
        _settle(future.result, unless=KafkaError.TOPIC_ALREADY_EXISTS)


def _await_all(admin: AdminClient, wanted: Mapping[str, TopicSpec]) -> Found:
    places = [TopicPartition(spec.name, p) for spec in wanted.values() for p in range(spec.partitions)]
    _wait_until(lambda: _are_served(admin, places), "topics just made are not served yet")
    return _existing(admin, wanted)


def _are_served(admin: AdminClient, places: Iterable[TopicPartition]) -> bool:
    """Every partition answers. To be in the metadata is less: its leader may not know yet that it leads."""
    # librdkafka keeps the answer "no leaders found"; only new metadata makes it forget.
    admin.list_topics(timeout=ANSWER_LIMIT_S)
    asked = {place: OffsetSpec.latest() for place in places}  # type: ignore[no-untyped-call]
    try:
        for future in admin.list_offsets(asked, request_timeout=ANSWER_LIMIT_S).values():
            future.result(ANSWER_LIMIT_S + 1)
    except KafkaException as error:
        if error.args[0].code() not in _NOT_YET:
            raise
        return False
    return True


def _verify(admin: AdminClient, wanted: Mapping[str, TopicSpec], found: Found, replication: int) -> None:
    if complaints := [
        f"{name}: {complaint}"
        for name, has in _configs(admin, sorted(found)).items()
        for complaint in _complaints(wanted[name], found[name], has, replication)
    ]:
        raise WrongTopicsError(complaints)


def _complaints(spec: TopicSpec, topic: TopicMetadata, has: Configs, replication: int) -> Iterator[str]:
    if len(topic.partitions) != spec.partitions:
        yield f"has {len(topic.partitions)} partitions, must have {spec.partitions}"
    replicas = min((len(p.replicas) for p in topic.partitions.values()), default=0)
    if replicas < replication:
        yield f"has {replicas} replicas, must have at least {replication}"
    for name, wanted in spec.settings.items():
        if must := _rule(spec, name, wanted, has[name]):
            yield f"has {name}={has[name]}, must have {must}"


def _rule(spec: TopicSpec, name: str, wanted: str, has: str) -> str:
    """What the setting must be, in words; empty where what it is will do."""
    if name == "retention.ms":
        floor = _retention_floor(spec, wanted)
        return "" if int(has) == _FOR_EVER or 0 <= floor <= int(has) else _at_least(name, floor)
    if name in ("max.message.bytes", "min.insync.replicas"):
        return "" if int(has) >= int(wanted) else _at_least(name, int(wanted))
    return "" if has == wanted else f"{name}={wanted}"


def _retention_floor(spec: TopicSpec, wanted: str) -> int:
    kind = spec.name.rsplit(".", 2)[-2]  # {prefix}.{kind}.{aggregate}
    return _RETENTION_FLOORS_MS.get(kind, int(wanted))


def _at_least(name: str, floor: int) -> str:
    return f"{name}=-1" if floor == _FOR_EVER else f"{name} of at least {floor}"


def _configs(admin: AdminClient, names: list[str]) -> dict[str, Configs]:
    if not names:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    answers = admin.describe_configs(resources, request_timeout=ANSWER_LIMIT_S)
    return {
        resource.name: {key: entry.value for key, entry in future.result(ANSWER_LIMIT_S + 1).items()}
        for resource, future in answers.items()
    }


def _under(admin: AdminClient, prefix: str) -> list[str]:
    return [
        name for name in admin.list_topics(timeout=ANSWER_LIMIT_S).topics if name.startswith(f"{prefix}.")
    ]


def _settle(result: Callable[[float], Any], *, unless: int) -> None:
    """Await the answer; `unless` is the error that means it is so already."""
    try:
        result(ANSWER_LIMIT_S + 1)
    except KafkaException as error:
        if error.args[0].code() != unless:
            raise


def _wait_until(holds: Callable[[], bool], complaint: str) -> None:
    deadline = time.monotonic() + VISIBLE_LIMIT_S
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(complaint)
        time.sleep(0.05)


def identity_of(kafka: str, topics: Iterable[str]) -> str:
    """Other than before when one of the topics was made anew, or the cluster is another. Raises KafkaException."""
    names = sorted(topics)
    admin = AdminClient({"bootstrap.servers": kafka})
    described = admin.describe_topics(TopicCollection(names), request_timeout=IDENTITY_LIMIT_S)
    ids = [str(described[name].result(IDENTITY_LIMIT_S).topic_id) for name in names]
    return "/".join([str(admin.list_topics(timeout=IDENTITY_LIMIT_S).cluster_id), *ids])
