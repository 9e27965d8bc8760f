"""One performance of the demo: the client trades, the processes are watched, the books are checked, the report is made."""

import http.client
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ops import processes, settings
from ops.audit.tally import Tally
from ops.audit.views import ReadSide, find_view_errors
from ops.demo.client import Told
from ops.demo.laws import check_laws
from ops.demo.plan import TradePlan
from ops.demo.progress import Teller
from ops.demo.report import Measures, Report, build_report
from ops.demo.watch import Watch
from ops.local_stack import last_words
from ops.processes import Started
from ops.roles import LIFELINE
from ops.running import stack_of
from ops.settings import Settings
from ops.supervisor import read_report
from projections.cassandra_store import CassandraSettings
from projections.redis_store import RedisSettings
from schemas.topics import Topics

LOOK_EVERY_S = 1.0
TURN_S = 0.1
GRACE_S = 3.0
LEDGER_PAGE = 1_000
PROVIDER_TIMEOUT_S = 10.0
STEPS = {
    "publishing": "publishing {of:,} products: {done:,}",
    "receiving": "receiving the opening stock of {of:,} products: {done:,}",
    "trading": "trading {of:,} orders and stock corrections: {done:,}",
    "settling": "waiting until all {of:,} orders are settled: {done:,}",
}


def nothing_happens() -> None:
    """What a demo does at half-time, unless it is told otherwise."""


class ClientFailed(Exception):
    """The client ended before it had traded everything; the message is what it said last."""


@dataclass(frozen=True, slots=True)
class Days:
    """Which of the retailer's days are traded, from which file, and how much of each product is short."""

    data: Path
    first: date
    last: date
    scarcity: float


def perform(
    ready: Settings,
    days: Days,
    plan: TradePlan,
    teller: Teller,
    at_half: Callable[[], None] = nothing_happens,
) -> Report:
    """Trades and judges; returns what there is to say. `at_half` is called once, when half is traded.

    Raises ClientFailed, LogNotReadError, StoreUnavailable.
    """
    watch = Watch()
    told = _trade(ready, days, watch, teller, at_half)
    laws, tally = _judge(ready, told, teller)
    measures = Measures(
        elapsed_s=tally.elapsed_s,
        commands=tally.commands,
        transactions=tally.transactions,
        command_ms=told.command_ms,
        freshness_ms=told.freshness_ms,
        rss_mb_max=watch.rss_mb_max,
        rss_mb_thirds=watch.rss_mb_thirds,
        cpu_s=watch.cpu_s,
    )
    return build_report(plan, told.outcomes, measures, laws)


# ── trading ───────────────────────────────────────────────────────────────────────────────────────────────


def _trade(ready: Settings, days: Days, watch: Watch, teller: Teller, at_half: Callable[[], None]) -> Told:
    """What the client was told, once it has ended by itself; it dies with us."""
    left_behind = ready.run / "client.told.json"
    out = ready.logs / "client.log"
    lifeline, ours = os.pipe()
    client = processes.start(
        "client",
        _client(ready, days, left_behind),
        out,
        cwd=settings.REPOSITORY,
        env={**os.environ, LIFELINE: str(lifeline)},
        pass_fds=[lifeline],
    )
    os.close(lifeline)
    try:
        _follow(client, ready, Steps(out, at_half), watch, teller)
    finally:
        processes.stop([client], GRACE_S)
        os.close(ours)
    if processes.exit_code(client) != 0:
        raise ClientFailed(f"the client did not get through; it said last:\n{last_words(out)}")
    return Told.from_json(left_behind.read_bytes())


def _client(ready: Settings, days: Days, left_behind: Path) -> list[str]:
    options = {
        "--api": ready.api,
        "--jwks": ready.jwks,
        "--data": days.data,
        "--from": days.first,
        "--to": days.last,
        "--scarcity": days.scarcity,
        "--told": left_behind,
    }
    words = [str(word) for option in options.items() for word in option]
    return [sys.executable, "-m", "ops.demo.client", *words]


def _follow(client: Started, ready: Settings, steps: "Steps", watch: Watch, teller: Teller) -> None:
    """Until it ends: tells how far it is, and looks at every process once a second while it trades."""
    looked_at = 0.0
    while processes.alive(client):
        for step in steps.news():
            teller.update(STEPS[step["step"]].format(**step))
        now = time.monotonic()
        if steps.current == "trading" and now - looked_at >= LOOK_EVERY_S:
            looked_at = now
            watch.look([*everybody(ready), client])
        time.sleep(TURN_S)


def everybody(ready: Settings) -> Iterator[Started]:
    """The servers and the roles, as they run now."""
    yield from stack_of(ready).running()
    report = read_report(ready.run)
    for role in report.roles if report else ():
        if role.pid and role.born:
            yield Started(role.name, role.pid, role.born)


@dataclass(slots=True)
class Steps:
    """What the client says of itself in its log, one JSON object a line; anything else there is for people."""

    log: Path
    at_half: Callable[[], None]
    current: str = ""
    _half: bool = False
    _read: int = 0
    _rest: bytes = field(default=b"")

    def news(self) -> Iterator[dict[str, Any]]:
        with self.log.open("rb") as log:
            log.seek(self._read)
            added = log.read()
        self._read += len(added)
        *lines, self._rest = (self._rest + added).split(b"\n")
        for line in lines:
            if line.startswith(b'{"step"'):
                step = json.loads(line)
                self.current = step["step"]
                self._tell_half(step)
                yield step

    def _tell_half(self, step: Mapping[str, Any]) -> None:
        if not self._half and step["step"] == "trading" and step["done"] * 2 >= step["of"]:
            self._half = True
            self.at_half()


# ── judging ───────────────────────────────────────────────────────────────────────────────────────────────


def _judge(ready: Settings, told: Told, teller: Teller) -> tuple[dict[str, str], Tally]:
    """The verdicts on the laws, from the start of the log, and what else the log says of the run."""
    tally = Tally()

    def watch(now: Tally) -> None:
        nonlocal tally
        tally = now
        teller.update(f"checking the laws from the first event on: {now.records:,} records")

    verdicts = check_laws(
        ready.kafka,
        ready.topic_prefix,
        list(provider_ledger(ready.provider)),
        told.acknowledged,
        lambda: find_view_errors(read_side(ready), teller.update),
        watch=watch,
    )
    return verdicts, tally


def read_side(ready: Settings) -> ReadSide:
    return ReadSide(
        ready.kafka,
        Topics(ready.topic_prefix, ready.partitions),
        RedisSettings(ready.redis, ready.topic_prefix),
        CassandraSettings(tuple(ready.cassandra.split(",")), ready.keyspace),
    )


def provider_ledger(provider: str) -> Iterable[dict[str, Any]]:
    """Every row of the payment provider's own ledger, in order; `provider` is its URL."""
    address = urlsplit(provider)
    connection = http.client.HTTPConnection(address.netloc, timeout=PROVIDER_TIMEOUT_S)
    cursor: int | None = 0
    try:
        while cursor is not None:
            connection.request("GET", f"/v1/ledger?cursor={cursor}&limit={LEDGER_PAGE}")
            page = json.loads(connection.getresponse().read())
            yield from page["rows"]
            cursor = page["next_cursor"]
    finally:
        connection.close()
