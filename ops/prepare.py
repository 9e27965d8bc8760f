"""What must be there before anybody starts: keys, topics, schemas, tables. Doing it twice does nothing twice."""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace

from confluent_kafka import KafkaException

from ops.evidence.keys import ensure_key, origin_name
from ops.local_stack import StackFailed
from ops.settings import Settings
from ops.tokens import ensure_keys, ensure_personal_key, ensure_webhook_secret
from projections.cassandra_store import CassandraSettings, CassandraStore
from projections.registry import CASSANDRA_VIEWS
from projections.view import StoreUnavailable
from schemas.codec import Codec
from schemas.topics import Topics
from streams.schema_registry import SchemaRegistry
from streams.topic_admin import WrongTopicsError, ensure_topics


def prepare(settings: Settings, environ: Mapping[str, str] = os.environ) -> None:
    """Raises StackFailed with the whole reason: wrong topics, or a server that does not answer."""
    ensure_keys(settings.jwks)
    ensure_webhook_secret(settings.webhook_secrets)
    ensure_personal_key(settings.personal_key)
    ensure_key(settings.keys, "sealer", origin_name(environ))
    replicas = int(environ.get("DAYBOOK_REPLICAS") or 1)
    try:
        asyncio.run(_prepare_servers(settings, replicas))
    except (WrongTopicsError, TimeoutError) as error:
        raise StackFailed(str(error)) from error
    except KafkaException as error:
        raise StackFailed(f"Kafka at {settings.kafka}: {error}") from error
    except StoreUnavailable as error:
        raise StackFailed(f"Cassandra at {settings.cassandra}: {error}") from error


async def _prepare_servers(settings: Settings, replicas: int) -> None:
    """Both at once: Cassandra takes a second for each table, most of it waiting."""
    topics = asyncio.to_thread(_ensure_log, settings, replicas)
    done = await asyncio.gather(topics, _ensure_tables(settings), return_exceptions=True)
    for failure in done:
        if isinstance(failure, BaseException):
            raise failure


def _ensure_log(settings: Settings, replicas: int) -> None:
    topics = Topics(settings.topic_prefix, settings.partitions)
    ensure_topics(settings.kafka, topics, replicas)
    SchemaRegistry(settings.kafka, topics).publish(Codec())


async def _ensure_tables(settings: Settings) -> None:
    """The keyspace, and the tables of the generation of each view that is live."""
    found = CassandraSettings.from_environment()
    hosts = tuple(settings.cassandra.split(","))
    store = CassandraStore(replace(found, hosts=hosts, keyspace=settings.keyspace), CASSANDRA_VIEWS)
    try:
        for view in CASSANDRA_VIEWS:
            await store.prepare(view, await store.live(view))
    finally:
        await store.close()
