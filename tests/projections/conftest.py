"""Prefixes and keyspaces of their own for each test of the views, on the shared servers."""

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
import redis

from ops.local_stack import Addresses
from projections.cassandra_store import CassandraReader, CassandraSettings, CassandraStore
from projections.redis_store import RedisReader, RedisSettings, RedisStore
from projections.registry import CASSANDRA_VIEWS, REDIS_VIEWS


@pytest.fixture(autouse=True)
def _first_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that tests can name keys and tables of the first generation, which is otherwise drawn."""
    for module in ("redis_store", "cassandra_store"):
        monkeypatch.setattr(f"projections.{module}.first_generation", lambda: 1)


@pytest.fixture
def redis_settings(stack: Addresses) -> Iterator[RedisSettings]:
    settings = RedisSettings(stack.redis, f"test-{uuid.uuid4().hex[:12]}")
    yield settings
    forget(settings)


def forget(settings: RedisSettings) -> None:
    host, _, port = settings.address.rpartition(":")
    with redis.Redis(host=host, port=int(port)) as client:
        for name in client.scan_iter(f"{settings.prefix}:*", count=1_000):
            client.delete(name)


@pytest.fixture
async def redis_store(redis_settings: RedisSettings) -> AsyncIterator[RedisStore]:
    store = RedisStore(redis_settings, REDIS_VIEWS)
    yield store
    await store.close()


@pytest.fixture
async def redis_reader(redis_settings: RedisSettings) -> AsyncIterator[RedisReader]:
    reader = RedisReader(redis_settings)
    yield reader
    await reader.close()


@pytest.fixture(scope="module")
def cassandra_settings(stack: Addresses) -> Iterator[CassandraSettings]:
    """One keyspace for a module, since tables take a second each; the tests in it name things of their own."""
    settings = CassandraSettings((stack.cassandra,), f"test_{uuid.uuid4().hex[:12]}", timeout_s=20)
    yield settings
    cluster = settings.cluster()
    try:
        cluster.connect().execute(f"DROP KEYSPACE IF EXISTS {settings.keyspace}", timeout=60)
    finally:
        cluster.shutdown()


@pytest.fixture
async def cassandra_store(cassandra_settings: CassandraSettings) -> AsyncIterator[CassandraStore]:
    store = CassandraStore(cassandra_settings, CASSANDRA_VIEWS)
    yield store
    await store.close()


@pytest.fixture
async def cassandra_reader(cassandra_settings: CassandraSettings) -> AsyncIterator[CassandraReader]:
    reader = CassandraReader(cassandra_settings)
    yield reader
    await reader.close()
