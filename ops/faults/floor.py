"""Roles as processes beside a shop's workers, the stores that they write to, and how far they have got."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import Consumer, TopicPartition

from ops.audit.views import ReadSide, find_view_errors
from ops.clearing import clear
from ops.faults.shop import ROOT, Shop, new_id
from ops.faults.verdict import CLOCK, demand, until
from ops.local_stack import Addresses
from ops.settings import from_environment
from projections import history, stock
from projections.cassandra_store import CassandraReader, CassandraSettings, CassandraStore
from projections.compare import digests_of
from projections.redis_store import RedisReader, RedisSettings, RedisStore
from projections.registry import CASSANDRA_VIEWS, POSTERS, REDIS_VIEWS
from projections.view import Partition, StoreUnavailable
from schemas.inventory import ReceiptLine, ReceiveStock
from schemas.language import AGGREGATES
from schemas.values import MAIN
from streams.saga_agents import LISTENED_TO


class Role:
    """One role in a process of its own."""

    def __init__(self, name: str, folder: Path, environment: dict[str, str], code: Path) -> None:
        self._status = folder / "run" / f"{name}.json"
        self._log = folder / f"{name}.log"
        with self._log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ops.roles", name],
                env=os.environ | environment | {"DAYBOOK_RUN": str(self._status.parent)},
                stdout=output,
                stderr=output,
                cwd=code,
            )

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    @property
    def health(self) -> str:
        """As its status says; empty before there is one."""
        with suppress(FileNotFoundError):
            return str(json.loads(self._status.read_text())["health"])
        return ""

    @property
    def rss_mb(self) -> float:
        return float(psutil.Process(self.process.pid).memory_info().rss) / 1e6

    @property
    def cpu_s(self) -> float:
        """What it has used so far."""
        found = psutil.Process(self.process.pid).cpu_times()
        return float(found.user + found.system)

    def log(self) -> str:
        return self._log.read_text()

    def terminate(self, within_s: float = 20) -> None:
        """SIGTERM; RowIsRed where it does not end well in time."""
        self.process.terminate()
        code = self.process.wait(within_s * CLOCK.patience)
        demand(code == 0, f"told to end, it ended with {code}")

    def end(self) -> None:
        if self.lives:
            self.process.kill()
        self.process.wait(20)


@dataclass(frozen=True)
class Projecting:
    """The roles that post the views."""

    roles: Sequence[Role]

    @property
    def lives(self) -> bool:
        return all(role.lives for role in self.roles)

    @property
    def healths(self) -> set[str]:
        return {role.health for role in self.roles}

    @property
    def rss_mb(self) -> float:
        """Of the heaviest."""
        return max(role.rss_mb for role in self.roles)

    @property
    def cpu_s(self) -> float:
        return sum(role.cpu_s for role in self.roles)

    def signal(self, number: signal.Signals) -> None:
        for role in self.roles:
            os.kill(role.process.pid, number)


class Floor:
    """A shop with its read side: roles are started here, and what they wrote goes with it."""

    def __init__(self, shop: Shop, servers: Addresses, folder: Path) -> None:
        self.shop = shop
        self.servers = servers
        self.folder = folder
        self.roles: list[Role] = []
        self.side = ReadSide(
            shop.kafka,
            shop.topics,
            RedisSettings(servers.redis, shop.topics.prefix),
            CassandraSettings((servers.cassandra,), shop.topics.prefix.replace("-", "_"), timeout_s=20),
        )

    def at(self, servers: Addresses) -> "Floor":
        """The same shop with stores elsewhere; roles that are started here end with the others."""
        floor = Floor(self.shop, servers, self.folder)
        floor.roles = self.roles
        return floor

    def start(self, name: str, code: Path = ROOT, **addresses: str) -> Role:
        """`addresses` are environment variables: where it shall find a server instead; `code` is another release's."""
        environment = {
            "PYTHONPATH": str(code),
            "DAYBOOK_KAFKA": self.servers.kafka,
            "DAYBOOK_CASSANDRA": self.servers.cassandra,
            "DAYBOOK_REDIS": self.servers.redis,
            "DAYBOOK_TOPIC_PREFIX": self.shop.topics.prefix,
            "DAYBOOK_KEYSPACE": self.side.cassandra.keyspace,
            "DAYBOOK_STATE": str(self.folder / "roles"),
            "DAYBOOK_SLOT": str(len(self.roles)),
        }
        folder = self.folder / f"role-{len(self.roles)}"
        folder.mkdir()
        role = Role(name, folder, environment | addresses, code)
        self.roles.append(role)
        return role

    def start_projections(self, **addresses: str) -> Projecting:
        return Projecting([self.start(name, ROOT, **addresses) for name in POSTERS])

    def clear(self) -> None:
        """Ends the roles and takes away what they wrote into the stores; topics are the shop's."""
        self.end_roles()
        clear(
            replace(
                from_environment({}),
                kafka="",
                cassandra=self.servers.cassandra,
                redis=self.servers.redis,
                topic_prefix=self.shop.topics.prefix,
                keyspace=self.side.cassandra.keyspace,
            )
        )

    def end_roles(self) -> None:
        for role in self.roles:
            role.end()

    # Trade.

    def deliver(self, skus: list[str], quantity: int = 1) -> None:
        """So many units of each SKU come in; answered. They live in one partition."""
        lines = tuple(ReceiptLine(sku, quantity) for sku in skus)
        decided = self.shop.answer(self.shop.send(ReceiveStock(MAIN, "delivery", lines), new_id()))
        demand(decided.outcome == "accepted", f"a delivery was {decided.outcome}")

    def deliver_all(self, skus: list[str], at_once: int = 200) -> None:
        """One unit of each, wherever it lives; all answered."""
        by_partition: dict[int, list[str]] = {}
        for sku in skus:
            by_partition.setdefault(self.shop.topics.partition_of(sku), []).append(sku)
        sent = [
            self.shop.send(
                ReceiveStock(MAIN, "delivery", tuple(ReceiptLine(sku, 1) for sku in some[at : at + at_once])),
                new_id(),
            )
            for some in by_partition.values()
            for at in range(0, len(some), at_once)
        ]
        self.shop.accepted(sent, 60)

    def skus(self, what: str, count: int) -> list[str]:
        """So many of one partition."""
        names = (f"{what} {number}" for number in range(count * self.shop.topics.partitions * 2))
        return [name for name in names if self.shop.topics.partition_of(name) == 0][:count]

    # What is seen of it.

    def view_errors(self) -> list[str]:
        """Where the views differ from the log, once they have caught up with it."""
        return find_view_errors(self.side, lambda _: None)

    def sellable(self, sku: str) -> int:
        """As the view in Redis says it; 0 where it does not know the SKU."""
        return asyncio.run(_sellable(self.side.redis, sku))

    def await_sellable(self, sku: str, units: int, deadline_s: float = 25) -> None:
        until(lambda: self.sellable(sku) == units, deadline_s)

    def cassandra_positions(self) -> dict[Partition, int]:
        return asyncio.run(_positions(self.side))

    def committed(self, group: str, topics: Iterable[str]) -> dict[Partition, int]:
        """Where the group would go on by Kafka's own account; below 0 where nothing was committed."""
        name = f"{self.shop.topics.prefix}.{group}"
        consumer = Consumer({"bootstrap.servers": self.shop.kafka, "group.id": name})
        numbers = range(self.shop.topics.partitions)
        places = [TopicPartition(topic, number) for topic in topics for number in numbers]
        try:
            return {(one.topic, one.partition): one.offset for one in consumer.committed(places, timeout=10)}
        finally:
            consumer.close()

    def has_read(self, groups: Iterable[str], topics: Iterable[str], ends: Mapping[Partition, int]) -> bool:
        """Whether each group has committed all that stood before these ends."""
        reached = [self.committed(group, topics) for group in groups]
        return all(found[place] >= end for found in reached for place, end in ends.items())

    def ends(self, topics: Iterable[str]) -> dict[Partition, int]:
        """The offset behind the last committed record of each partition that holds one."""
        messages = self.shop.records(*topics)
        return {(message.topic(), message.partition()): message.offset() + 1 for message in messages}

    def await_quiet(self, deadline_s: float = 25) -> None:
        """Until the sagas have heard all that was said, and the workers have decided all that was asked."""
        until(self._is_quiet, deadline_s)

    def _is_quiet(self) -> bool:
        topics = self.shop.topics
        heard = [name(a) for a in LISTENED_TO for name in (topics.events, topics.decisions)]
        asked = [topics.commands(aggregate) for aggregate in AGGREGATES]
        ends = self.ends([*heard, *asked])
        reached = self.committed("sagas", heard) | self.committed("commands", asked)
        return all(reached[place] >= end for place, end in ends.items()) and self.ends(asked + heard) == ends

    def rows(self) -> dict[str, dict[str, bytes]]:
        """The digests of all rows, by view."""
        return asyncio.run(_rows(self.side))

    def history(self, sku: str) -> list[dict[str, Any]]:
        """The newest movements of a SKU, as the ledger shows them."""
        return asyncio.run(_history(self.side, sku))


async def _sellable(settings: RedisSettings, sku: str) -> int:
    reader = RedisReader(settings)
    try:
        served = await stock.by_sku(reader, sku)
        return int(served.document()["sellable"]) if served else 0
    except StoreUnavailable:
        return -1
    finally:
        await reader.close()


async def _positions(side: ReadSide) -> dict[Partition, int]:
    store = CassandraStore(side.cassandra, CASSANDRA_VIEWS)
    topics = store.topics(side.topics)
    try:
        return await store.positions([(name, n) for name in topics for n in range(side.topics.partitions)])
    finally:
        await store.close()


async def _rows(side: ReadSide) -> dict[str, dict[str, bytes]]:
    in_redis = RedisStore(side.redis, REDIS_VIEWS)
    in_cassandra = CassandraStore(side.cassandra, CASSANDRA_VIEWS)
    try:
        return {
            view.name: await digests_of(in_redis, view, await in_redis.live(view)) for view in REDIS_VIEWS
        } | {
            view.name: await digests_of(in_cassandra, view, await in_cassandra.live(view))
            for view in CASSANDRA_VIEWS
        }
    finally:
        await in_redis.close()
        await in_cassandra.close()


async def _history(side: ReadSide, sku: str) -> list[dict[str, Any]]:
    reader = CassandraReader(side.cassandra)
    try:
        page = await history.of_item(reader, sku, limit=500)
        return list(page.served().document()["movements"]) if page else []
    finally:
        await reader.close()


def caught_up(floor: Floor) -> None:
    """Every view is the fold of the log."""
    errors = floor.view_errors()
    demand(not errors, "; ".join(errors))
