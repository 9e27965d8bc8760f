"""The role as a supervisor sees it: over real servers it becomes ready, says how it is, keeps no token, and ends."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ops.local_stack import Addresses, free_ports
from ops.settings import REPOSITORY
from schemas.meta import derived_id
from schemas.topics import Topics
from streams.topic_admin import delete_topics, ensure_topics
from tests.console.conftest import Place
from tests.console.serving import Console
from tests.console.trading import LAMP, ORDER

WITHIN_S = 120.0


@dataclass(frozen=True)
class Process:
    popen: subprocess.Popen[bytes]
    console: Console
    home: Path
    log: Path

    def said(self) -> dict[str, str]:
        word = self.home / "run" / "console.json"
        return dict(json.loads(word.read_text())) if word.exists() else {}

    def answers(self) -> bool:
        assert self.popen.poll() is None, self.log.read_text()
        try:
            return Console(self.console.address).get("/console").status == 303
        except (OSError, http.client.HTTPException):
            return False


@pytest.fixture
def process(stack: Addresses, place: Place, tmp_path: Path) -> Iterator[Process]:
    """Over the stores that the other tests read, and a log of its own that is empty."""
    address = f"127.0.0.1:{free_ports(1)[0]}"
    ensure_topics(stack.kafka, Topics(place.redis.prefix, 2))
    environment = {
        "DAYBOOK_HOME": str(tmp_path),
        "DAYBOOK_CONSOLE": address,
        "DAYBOOK_KAFKA": stack.kafka,
        "DAYBOOK_CASSANDRA": stack.cassandra,
        "DAYBOOK_REDIS": stack.redis,
        "DAYBOOK_TOPIC_PREFIX": place.redis.prefix,
        "DAYBOOK_KEYSPACE": place.cassandra.keyspace,
    }
    (tmp_path / "keys").symlink_to(place.jwks.parent)
    log = tmp_path / "console.log"
    with log.open("wb") as output:
        popen = subprocess.Popen(
            [sys.executable, "-m", "ops", "run", "console"],
            cwd=REPOSITORY,
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
        )
    yield Process(popen, Console(address, place.token("auditor")), tmp_path, log)
    popen.kill()
    popen.wait()
    delete_topics(stack.kafka, place.redis.prefix)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_it_serves_says_how_it_is_and_ends_when_told(process: Process):
    until(process.answers)
    assert process.console.get(f"/console/skus/{LAMP}").status == 200

    order = process.console.get(f"/console/orders/{ORDER}")
    assert order.status == 200
    assert f"The view knows this order, but the log has no order {ORDER}" in order.text
    command = process.console.get(f"/console/commands/{derived_id('none')}?log=1")
    assert (command.status, "Neither the views nor the log know of it" in command.text) == (404, True)

    until(lambda: process.said().get("health") == "ok")
    process.popen.send_signal(signal.SIGTERM)
    assert process.popen.wait(WITHIN_S) == 0
    assert process.console.token not in process.log.read_text()
