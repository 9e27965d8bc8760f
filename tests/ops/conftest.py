"""A Daybook of its own for each test of the verbs, on the shared servers."""

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import redis

from ops.local_stack import Addresses
from ops.settings import REPOSITORY, Settings, from_environment
from schemas.topics import Topics
from streams.topic_admin import delete_topics, ensure_topics

WITHIN_S = 180.0

Verb = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def ours(stack: Addresses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Its topics are there; the environment names it, and nothing else."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    environ = {f"DAYBOOK_{key.upper()}": value for key, value in asdict(stack).items()}
    own = {"DAYBOOK_HOME": str(tmp_path), "DAYBOOK_TOPIC_PREFIX": name, "DAYBOOK_KEYSPACE": name}
    found = from_environment(environ | own)
    for key, value in found.environment("tests").items():
        monkeypatch.setenv(key, value)
    ensure_topics(found.kafka, Topics(name, found.partitions))
    yield found
    delete_topics(found.kafka, name)
    _forget(found)


@pytest.fixture
def topics(ours: Settings) -> Topics:
    return Topics(ours.topic_prefix, ours.partitions)


@pytest.fixture
def daybook(ours: Settings) -> Verb:  # the verb finds it in the environment
    """Runs a verb as a newcomer does, and returns what it printed and how it ended."""

    def run(*argv: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "ops", *argv],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )

    return run


def _forget(ours: Settings) -> None:
    host, _, port = ours.redis.rpartition(":")
    with redis.Redis(host=host, port=int(port)) as client:
        for key in client.scan_iter(f"{ours.topic_prefix}:*", count=1_000):
            client.delete(key)
