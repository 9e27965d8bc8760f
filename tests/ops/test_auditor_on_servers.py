"""The auditor as it runs: real servers, rows broken on purpose, named, healed and gone."""

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from ops import processes
from ops.bench.auditor import fill, write
from ops.settings import REPOSITORY, Settings
from projections import order, stock
from projections.cassandra_store import CassandraSettings, CassandraStore
from projections.rebuild import KafkaLog
from projections.redis_store import RedisSettings, RedisStore
from projections.registry import CASSANDRA_VIEWS, REDIS_VIEWS
from schemas.codec import Codec
from schemas.topics import Topics
from tests.ops.conftest import Verb
from tests.sandbox_process import until

WITHIN_S = 120.0


class Running:
    """The role as a process of its own."""

    def __init__(self, ours: Settings) -> None:
        self.ours = ours
        argv = [sys.executable, "-m", "ops", "run", "auditor"]
        env = {**os.environ, **ours.environment("auditor")}
        self._process = processes.start("auditor", argv, ours.logs / "auditor.log", cwd=REPOSITORY, env=env)

    @property
    def said(self) -> str:
        file = self.ours.run / "auditor.json"
        return str(json.loads(file.read_text())["detail"]) if file.exists() else ""

    def says(self, what: str) -> None:
        until(lambda: what in self.said, WITHIN_S)

    def kill(self) -> None:
        processes.stop([self._process], 10)


@pytest.fixture
def auditor(ours: Settings, topics: Topics) -> Iterator[Running]:
    """Over a shop's log, and views that are what it says."""
    write(ours.kafka, topics, 1)
    ours.logs.mkdir(parents=True, exist_ok=True)
    running = Running(ours)
    yield running
    running.kill()


async def fill_views(ours: Settings, topics: Topics) -> None:
    log = KafkaLog(ours.kafka, Codec().decode)
    stores: list[Any] = [
        RedisStore(RedisSettings(ours.redis, ours.topic_prefix), REDIS_VIEWS),
        CassandraStore(CassandraSettings((ours.cassandra,), ours.keyspace, timeout_s=20), CASSANDRA_VIEWS),
    ]
    try:
        for store in stores:
            await fill(store, log, topics)
            await store.close()
    finally:
        log.close()


def break_redis(ours: Settings) -> str:
    """A level with another number and a version that no event will ever reach; returns whose."""
    host, _, port = ours.redis.rpartition(":")
    with redis.Redis(host=host, port=int(port)) as client:
        found = client.scan_iter(f"{ours.topic_prefix}:{stock.VIEW.title}:*:{{*")
        name = min(one for one in found if b":index:" not in one)
        _, _, level = client.get(name).partition(b"\n")
        client.set(name, b"999\n" + level.replace(b'"sellable":', b'"sellable":7'))
    return str(name.decode().rpartition("{")[2].rstrip("}"))


def break_cassandra(ours: Settings) -> str:
    """An order that somebody declared to be paid, with the clock's time as timestamp; returns whose."""
    cluster = CassandraSettings((ours.cassandra,), ours.keyspace, timeout_s=20).cluster()
    try:
        session = cluster.connect(ours.keyspace)
        (live,) = session.execute("SELECT live FROM live_generations WHERE title = %s", (order.VIEW.title,))
        table = f"orders_{order.VIEW.tables(live['live'])}"
        (row, *_) = session.execute(f"SELECT order_id FROM {table}")
        session.execute(f"UPDATE {table} SET amount = 1 WHERE order_id = %s", (row["order_id"],))
        return str(row["order_id"])
    finally:
        cluster.shutdown()


async def test_broken_rows_are_named_with_their_request_healed_and_gone(
    ours: Settings, topics: Topics, auditor: Running, daybook: Verb
):
    await fill_views(ours, topics)
    auditor.says("laws hold, views agree")
    sku, order = break_redis(ours), break_cassandra(ours)
    auditor.says("1 of order, 1 of stock")

    told = daybook("audit", "breaches")
    assert told.returncode == 1
    assert f"{{{sku}}} differs" in told.stdout
    assert "correlation_id" in told.stdout

    healed = daybook("heal", "stock", sku)
    assert healed.returncode == 0, healed.stderr
    assert "-999" in healed.stdout
    assert '-  "sellable": 7' in healed.stdout
    rebuilt = daybook("heal", "order", order)
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert f"order/{order}@" in rebuilt.stdout

    auditor.says("laws hold, views agree")
    assert daybook("audit", "breaches").returncode == 0
