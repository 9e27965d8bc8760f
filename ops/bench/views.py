"""What a bench leaves in Redis and Cassandra, taken away again."""

from ops.settings import Settings
from projections.cassandra_store import CassandraSettings
from projections.redis_store import RedisSettings, RedisStore
from projections.registry import REDIS_VIEWS


async def forget_views(settings: Settings) -> None:
    """Everything below a bench's own prefix in Redis and its own keyspace in Cassandra."""
    redis = RedisStore(RedisSettings(settings.redis, settings.topic_prefix), REDIS_VIEWS)
    try:
        for view in REDIS_VIEWS:
            await redis.drop(view, await redis.live(view))
    finally:
        await redis.close()
    if settings.cassandra:
        drop_keyspace(CassandraSettings((settings.cassandra,), settings.keyspace, timeout_s=60))


def drop_keyspace(settings: CassandraSettings) -> None:
    cluster = settings.cluster()
    try:
        cluster.connect().execute(f"DROP KEYSPACE IF EXISTS {settings.keyspace}", timeout=60)
    finally:
        cluster.shutdown()
