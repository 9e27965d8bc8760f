"""Taking away what one Daybook wrote on servers that others use too: its topics, its keyspace, its keys."""

from confluent_kafka.admin import AdminClient
from redis import Redis

from ops.settings import Settings
from projections.cassandra_store import CassandraSettings

TIMEOUT_S = 20.0
KEYS_AT_ONCE = 1_000


def clear(settings: Settings) -> None:
    """Everything under this topic prefix and keyspace, on the servers that the settings name.

    Raises KafkaException, RedisError, or the errors of Cassandra's driver.
    """
    if settings.kafka:
        _delete_topics(settings)
    if settings.cassandra:
        _drop_keyspace(settings)
    if settings.redis:
        _delete_keys(settings)


def _delete_topics(settings: Settings) -> None:
    admin = AdminClient({"bootstrap.servers": settings.kafka})
    found = admin.list_topics(timeout=TIMEOUT_S).topics
    ours = [topic for topic in found if topic.startswith(f"{settings.topic_prefix}.")]
    for deleted in (admin.delete_topics(ours) if ours else {}).values():
        deleted.result(TIMEOUT_S)


def _drop_keyspace(settings: Settings) -> None:
    cluster = CassandraSettings(tuple(settings.cassandra.split(","))).cluster()
    try:
        cluster.connect().execute(f"DROP KEYSPACE IF EXISTS {settings.keyspace}", timeout=TIMEOUT_S)
    finally:
        cluster.shutdown()


def _delete_keys(settings: Settings) -> None:
    host, _, port = settings.redis.rpartition(":")
    with Redis(host, int(port), socket_timeout=TIMEOUT_S) as redis:
        for key in redis.scan_iter(f"{settings.topic_prefix}:*", KEYS_AT_ONCE):
            redis.unlink(key)
