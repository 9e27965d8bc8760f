"""Taking away what one Daybook wrote on servers that others use too: its topics, its keyspace, its keys."""

from redis import Redis

from ops.settings import Settings
from projections.cassandra_store import CassandraSettings
from streams.topic_admin import delete_topics

TIMEOUT_S = 20.0
DROPPED_WITHIN_S = 60.0
KEYS_AT_ONCE = 1_000


def clear(settings: Settings) -> None:
    """Everything under this topic prefix and keyspace, on the servers that the settings name.

    Raises KafkaException, RedisError, or the errors of Cassandra's driver.
    """
    if settings.kafka:
        delete_topics(settings.kafka, settings.topic_prefix)
    clear_views(settings)


def clear_views(settings: Settings) -> None:
    """As `clear`, of Cassandra and Redis alone."""
    if settings.cassandra:
        drop_keyspace(_patient(settings))
    if settings.redis:
        _delete_keys(settings)


def _patient(settings: Settings) -> CassandraSettings:
    hosts = tuple(settings.cassandra.split(","))
    return CassandraSettings(hosts, settings.keyspace, timeout_s=DROPPED_WITHIN_S)


def drop_keyspace(settings: CassandraSettings) -> None:
    cluster = settings.cluster()
    try:
        cluster.connect().execute(f"DROP KEYSPACE IF EXISTS {settings.keyspace}", timeout=DROPPED_WITHIN_S)
    finally:
        cluster.shutdown()


def _delete_keys(settings: Settings) -> None:
    host, _, port = settings.redis.rpartition(":")
    with Redis(host, int(port), socket_timeout=TIMEOUT_S) as redis:
        for key in redis.scan_iter(f"{settings.topic_prefix}:*", KEYS_AT_ONCE):
            redis.unlink(key)
