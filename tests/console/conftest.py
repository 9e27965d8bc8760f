"""The console over real stores that a shop's log was posted to, and over that log; once for all its tests."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import redis
from fastapi import FastAPI

from api.security import Keys, Role, Verifier
from ops import tokens
from ops.console.app import create_app
from ops.console.archive import Archive
from ops.console.sources import Sources
from ops.local_stack import Addresses
from projections.cassandra_store import CassandraReader, CassandraSettings, CassandraStore
from projections.redis_store import RedisReader, RedisSettings, RedisStore
from projections.registry import CASSANDRA_VIEWS, REDIS_VIEWS
from tests.console.serving import Console, served
from tests.console.trading import LAMP, batches, published, traded, whole_log
from tests.replayed import TOPICS, WrittenLog

TABLES_WITHIN_S = 60.0
NOWHERE = "127.0.0.1:9"
"""Nobody listens there."""


@dataclass(frozen=True)
class Place:
    """Where the console reads, and who may come in."""

    redis: RedisSettings
    cassandra: CassandraSettings
    log: WrittenLog
    run: Path
    found: Path
    jwks: Path

    def app(self, **instead: str) -> FastAPI:
        """`redis` and `cassandra` may be other addresses."""
        at_redis = replace(self.redis, address=instead.get("redis", self.redis.address))
        hosts = (instead["cassandra"],) if "cassandra" in instead else self.cassandra.hosts
        at_cassandra = replace(self.cassandra, hosts=hosts)

        @asynccontextmanager
        async def opened() -> AsyncIterator[Sources]:
            readers = RedisReader(at_redis), CassandraReader(at_cassandra)
            sources = Sources(*readers, Archive(lambda: self.log, dict), TOPICS, self.run, self.found)
            yield sources
            await sources.close()

        return create_app(opened, Verifier(Keys(self.jwks)))

    def token(self, role: Role, ttl_s: int = 3_600) -> str:
        return tokens.issue(self.jwks, role, "otto", ttl_s=ttl_s)


@pytest.fixture(scope="session")
def place(stack: Addresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Of its own in both stores; it is forgotten at the end."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    home = tmp_path_factory.mktemp("console")
    made = Place(
        RedisSettings(stack.redis, name),
        CassandraSettings((stack.cassandra,), name, timeout_s=TABLES_WITHIN_S),
        published(whole_log(traded()), LAMP, "Lantern of tin, small & red"),
        home / "run",
        home / "state" / "auditor" / "found.jsonl",
        home / "keys" / "jwks.json",
    )
    tokens.ensure_keys(made.jwks)
    asyncio.run(_post(made))
    yield made
    _forget(made)


async def _post(place: Place) -> None:
    """What the projections' role does, all at once."""
    stores: list[tuple[RedisStore | CassandraStore, tuple[str, ...]]] = [
        (RedisStore(place.redis, REDIS_VIEWS), ("catalog", "cart", "inventory")),
        (CassandraStore(place.cassandra, CASSANDRA_VIEWS), ("order", "inventory")),
    ]
    for store, aggregates in stores:
        topics = [TOPICS.events(aggregate) for aggregate in aggregates]
        if isinstance(store, RedisStore):
            topics += [TOPICS.decisions(aggregate) for aggregate in ("cart", "order", "inventory")]
        for batch in batches(place.log, topics):
            assert await store.apply(batch) == []
        await store.close()


def _forget(place: Place) -> None:
    host, _, port = place.redis.address.rpartition(":")
    with redis.Redis(host=host, port=int(port)) as client:
        for key in client.scan_iter(f"{place.redis.prefix}:*", count=1_000):
            client.delete(key)
    cluster = place.cassandra.cluster()
    try:
        cluster.connect().execute(f"DROP KEYSPACE IF EXISTS {place.cassandra.keyspace}", timeout=60)
    finally:
        cluster.shutdown()


@pytest.fixture(scope="session")
def address(place: Place) -> Iterator[str]:
    with served(place.app()) as found:
        yield found


@pytest.fixture
def visit(place: Place, address: str) -> Callable[[Role], Console]:
    return lambda role: Console(address, place.token(role))


@pytest.fixture
def auditor(visit: Callable[[Role], Console]) -> Console:
    return visit("auditor")
