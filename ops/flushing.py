"""Whether Kafka flushes what it acknowledges: set topic by topic, while the broker runs."""

from collections.abc import Iterable

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, yet not marked as exported
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

ANSWER_S = 10.0


def set_flush(kafka: str, topics: Iterable[str], *, on: bool) -> None:
    """Each record of these topics is on disk before it is acknowledged, or the broker's default holds again.

    A transaction is safe only with Kafka's own topics among them. Raises KafkaException.
    """
    how = AlterConfigOpType.SET if on else AlterConfigOpType.DELETE
    flush = ConfigEntry("flush.messages", "1", incremental_operation=how)
    wanted = [ConfigResource(ResourceType.TOPIC, name, incremental_configs=[flush]) for name in topics]
    admin = AdminClient({"bootstrap.servers": kafka})
    for altered in admin.incremental_alter_configs(wanted, request_timeout=ANSWER_S).values():
        altered.result(ANSWER_S + 1)
