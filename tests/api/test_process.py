"""The process as a supervisor sees it: it becomes ready, says how it is, and ends cleanly when told to."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from ops.local_stack import Addresses
from schemas.topics import Topics
from streams.topic_admin import delete_topics, ensure_topics

REPOSITORY = Path(__file__).parent.parent.parent


@dataclass
class Process:
    popen: subprocess.Popen[bytes]
    url: str
    run: Path

    def status_of(self, path: str) -> int:
        try:
            with urllib.request.urlopen(self.url + path, timeout=60) as answered:
                return int(answered.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def parts(self) -> dict[str, bool]:
        with urllib.request.urlopen(self.url + "/health", timeout=60) as answered:
            parts: dict[str, bool] = json.load(answered)["parts"]
            return parts


def until(holds: Callable[[], bool], limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@pytest.fixture
def prefix(stack: Addresses) -> Iterator[str]:
    prefix = f"api-process-{uuid4().hex[:8]}"
    yield prefix
    delete_topics(stack.kafka, prefix)


@pytest.fixture
def process(stack: Addresses, prefix: str, tmp_path: Path) -> Iterator[Process]:
    address = f"127.0.0.1:{free_port()}"
    environment = {
        "DAYBOOK_KAFKA": stack.kafka,
        "DAYBOOK_REDIS": stack.redis,
        "DAYBOOK_CASSANDRA": stack.cassandra,
        "DAYBOOK_TOPIC_PREFIX": prefix,
        "DAYBOOK_API": address,
        "DAYBOOK_HOME": str(tmp_path),
        "DAYBOOK_RUN": str(tmp_path / "run"),
    }
    popen = subprocess.Popen(
        [sys.executable, "-m", "api.main"],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stderr=subprocess.DEVNULL,
    )
    yield Process(popen, f"http://{address}", tmp_path / "run")
    popen.kill()
    popen.wait()


def test_it_is_alive_before_its_topics_are_there_and_ready_after(
    stack: Addresses, prefix: str, process: Process
):
    until(lambda: process.status_of("/health/live") == 200)
    assert process.status_of("/health/ready") == 503
    ensure_topics(stack.kafka, Topics(prefix))
    until(lambda: process.status_of("/health/ready") == 200)
    until(lambda: process.parts()["redis"])
    until((process.run / "api.json").exists)

    said = json.loads((process.run / "api.json").read_text())
    assert (said["role"], said["pid"], said["address"]) == ("api", process.popen.pid, process.url)
    process.popen.send_signal(signal.SIGTERM)
    assert process.popen.wait(60) == 0


def test_it_ends_by_itself_where_topics_have_other_partitions(
    stack: Addresses, prefix: str, process: Process
):
    ensure_topics(stack.kafka, Topics(prefix, 3))

    assert process.popen.wait(60) == 1
