"""A customer is forgotten: what they said of themselves is nowhere to be read, before that by nobody else, then by nobody.

Everything is searched that any process wrote: Kafka's and Cassandra's files, Redis, exports, logs, the keys' store. That
the search would find it is shown by a word that stands in the same orders, in a field that is nobody's secret.
"""

import asyncio
import os
import random
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import redis
from cassandra.cluster import Cluster

from ops import erase, replay
from ops.evidence import cli as evidence
from ops.evidence.keys import private_key
from ops.evidence.sealer import Sealer
from ops.local_stack import Addresses, LocalStack
from ops.settings import REPOSITORY, Settings
from projections import order
from schemas.topics import Topics
from tests.conftest import TEST_STACK
from tests.end_to_end.shop import Shop

WITHIN_S = 120.0
LETTERS = "ghijklmnopqrstuvwxyz"
"""None that an id is made of: a compressor finds nothing to replace in such a word."""


def word() -> str:
    return "".join(random.choices(LETTERS, k=24))  # it keeps no secret


class Search:
    """All that was written, and by whom."""

    def __init__(self, daybook: Settings, stack: Addresses, exports: Path) -> None:
        self._daybook = daybook
        self._redis = stack.redis
        self._exports = exports
        self._began = time.time()

    def holders(self, word: str) -> set[str]:
        """Who holds this word, as it is, in base64 or in hex."""
        wanted = list(_shapes(word.encode()))
        return {who for who, text in self._texts() if any(one in text for one in wanted)}

    def _texts(self) -> Iterator[tuple[str, bytes]]:
        for root in (TEST_STACK, self._daybook.home, self._exports):
            for file in root.rglob("*"):
                if file.is_file() and self._may_hold(file):
                    yield _holder(file), file.read_bytes()
        for file in self._exports.rglob("*.parquet"):
            yield "parquet, unpacked", repr(pq.read_table(file).to_pylist()).encode()
        yield from (("redis, by key", text) for text in self._in_redis())

    def _may_hold(self, file: Path) -> bool:
        """Kafka's indexes hold offsets alone, and are large; what is written through a mapping keeps its old time."""
        is_new = file.stat().st_mtime >= self._began - 1 or "commitlog" in file.parts
        return is_new and file.suffix not in (".index", ".timeindex")

    def _in_redis(self) -> Iterator[bytes]:
        host, _, port = self._redis.rpartition(":")
        with redis.Redis(host=host, port=int(port)) as client:
            read: dict[bytes, Callable[[bytes], Any]] = {
                b"string": client.get,
                b"hash": client.hgetall,
                b"set": client.smembers,
                b"zset": lambda key: client.zrange(key, 0, -1),
            }
            for key in client.scan_iter(f"{self._daybook.topic_prefix}:*", 1_000):
                yield key + repr(read[client.type(key)](key)).encode()


def _shapes(text: bytes) -> Iterator[bytes]:
    yield text
    yield text.hex().encode()
    for shift in range(3):  # base64 of the middle, wherever the word stands
        yield b64encode(b"x" * shift + text)[4:28]


def _holder(file: Path) -> str:
    if "cassandra" in file.parts:
        return "cassandra's tables" if file.suffix == ".db" else "cassandra"
    return "kafka's segments" if "kafka" in file.parts and file.suffix == ".log" else file.suffix or file.name


EVERYBODY = {"kafka's segments", "cassandra's tables", "redis, by key", "parquet, unpacked", ".jsonl"}
"""Who must hold the word that is no secret, before their silence on the others means anything."""


async def test_who_is_forgotten_was_never_to_be_read_and_never_is_again(
    shop: Shop, daybook: Settings, stack: Addresses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if LocalStack(TEST_STACK, {}).addresses() != stack:
        pytest.skip("the servers' disks are elsewhere")
    for name, value in daybook.environment("tests").items():
        monkeypatch.setenv(name, value)
    secret = word()
    said = {"name": f"Anna {secret}", "email": f"{secret}@example.test", "address": f"1 Street\n{secret}"}
    sku, anna, ben = shop.sku(word()), shop.customer("anna"), shop.customer("ben")
    control = sku.split()[0]
    search = Search(daybook, stack, tmp_path)
    await shop.sells(sku, price=300, units=5)
    hers = await shop.checks_out(anna, {sku: 2}, contact=said)
    his = await shop.checks_out(ben, {sku: 1}, contact=said | {"name": "Ben Example"})
    for order_id in (hers, his):
        await shop.secured(order_id)
    assert await contact_as_read(shop, hers) == (said, False)
    assert (await shop.read(f"/orders/{hers}", shop.token_of(anna)))["contact"] == said

    bundle = tmp_path / "evidence.zip"
    await asyncio.to_thread(seal, daybook)
    await asyncio.to_thread(evidence.export, sku=sku, output=bundle)
    await asyncio.to_thread(export, tmp_path / "before")
    await flushed(daybook, control)
    assert search.holders(control) >= EVERYBODY
    assert search.holders(secret) == set()

    told = await asyncio.to_thread(daybook_verb, daybook, "erase", anna, "--by", "otto")
    assert told.returncode == 0, told.stderr
    assert "orders: 1, of which 1 forgot a contact just now" in told.stdout
    assert await contact_as_read(shop, hers) == (None, True)
    assert (await contact_as_read(shop, his))[0] == said | {"name": "Ben Example"}
    again = await erase.erased(anna, "otto", daybook)
    assert (again.now, again.before is not None, again.cleared, again.left) == (None, True, 0, [])
    assert not (await erase.erased(shop.customer("nobody"), "otto", daybook)).is_known

    rebuilt = await asyncio.to_thread(daybook_verb, daybook, "rebuild", "order")
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert await contact_as_read(shop, hers) == (None, True)
    await asyncio.to_thread(export, tmp_path / "after")
    await asyncio.to_thread(evidence.verify, bundle=bundle, key=str(daybook.keys / "sealer.pub"))
    assert (tmp_path / "after" / "all.jsonl").read_text().count('"OrderContactErased"') == 1
    assert search.holders(control) >= EVERYBODY
    assert search.holders(secret) == set()

    back = await shop.checks_out(anna, {sku: 1}, contact=said)
    assert await contact_as_read(shop, back) == (said, False)
    assert await contact_as_read(shop, hers) == (None, True)


async def contact_as_read(shop: Shop, order_id: str) -> tuple[Any, bool]:
    """By the merchant."""
    seen = await shop.read(f"/orders/{order_id}")
    return seen["contact"], seen["erased"]


def daybook_verb(daybook: Settings, *argv: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "ops", *argv],
        cwd=REPOSITORY,
        env={**os.environ, "DAYBOOK_HOME": str(daybook.home)},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )


def seal(daybook: Settings) -> None:
    """A sealer's life, until all that there is is sealed."""
    topics = Topics(daybook.topic_prefix, daybook.partitions)
    sealer = Sealer(daybook.kafka, topics, daybook.state("sealer"), private_key(daybook.keys, "sealer"))
    deadline = time.monotonic() + WITHIN_S
    while not sealer.detail.partition(" ")[0].strip("0,") or sealer.unsealed:
        assert time.monotonic() < deadline, (sealer.detail, sealer.trouble)
        sealer.turn()
    sealer.turn()
    sealer.close()


def export(directory: Path) -> None:
    """The whole log of orders and carts, in both forms, commands too."""
    directory.mkdir()
    names = [f"{kind}.{name}" for kind in ("events", "commands") for name in ("cart", "order")]
    told = partial(replay.replay, topic=names)
    told(format_="jsonl", output=directory / "all.jsonl")
    told(format_="parquet", output=directory / "parquet")


async def flushed(daybook: Settings, control: str) -> None:
    """Returns when Cassandra's tables are on the disk, as far as the orders are concerned."""
    host, _, port = daybook.cassandra.rpartition(":")
    cluster = Cluster([host], port=int(port))
    tables = TEST_STACK / "cassandra" / "data" / "data" / daybook.keyspace
    try:
        session = cluster.connect(daybook.keyspace)
        live = session.execute(
            "SELECT live FROM live_generations WHERE title = %s", (order.VIEW.title,)
        ).one()
        table = f"orders_{order.VIEW.tables(live.live)}"
        session.execute(f"ALTER TABLE {table} WITH memtable_flush_period_in_ms = 500", timeout=60)
        deadline = time.monotonic() + WITHIN_S
        while not any(control.encode() in file.read_bytes() for file in tables.glob(f"{table}-*/*-Data.db")):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.3)
    finally:
        await asyncio.to_thread(cluster.shutdown)
