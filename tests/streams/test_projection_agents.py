"""The projection agents in Faust, in a process of their own: they start, apply, and end as they are told to."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.streams.listening import until

ROLE = """
import sys
from pathlib import Path
sys.path.insert(0, ".")
from streams.faust_app import Feed, Kit, Role, run
from streams.settings import from_environment

kit = Kit.of(from_environment())
shown = Path(sys.argv[1])

async def show(batch):
    with shown.open("a") as file:
        file.writelines(f"{r.message.meta.stream}@{r.message.meta.version}\\n" for r in batch.records)
    return []

run(Role("shown", kit, (Feed(kit.source("shown", [kit.settings.topics.events("cart")]), show),)))
"""


@pytest.fixture
def role(stack, topics, tmp_path) -> Iterator["RoleProcess"]:
    process = RoleProcess(
        tmp_path,
        {
            "DAYBOOK_KAFKA": stack.kafka,
            "DAYBOOK_REDIS": stack.redis,
            "DAYBOOK_CASSANDRA": stack.cassandra,
            "DAYBOOK_TOPIC_PREFIX": topics.prefix,
            "DAYBOOK_RUN": str(tmp_path / "run"),
            "DAYBOOK_STATE": str(tmp_path / "state"),
            "DAYBOOK_SLOT": "1",
        },
    )
    yield process
    process.end(signal.SIGKILL)


class RoleProcess:
    """One role whose agent writes what it was given into a file."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, **environment: str) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", ROLE, str(self._folder / "shown")],
                env=os.environ | self._environment | environment,
                stdout=log,
                stderr=log,
            )

    def shown(self) -> list[str]:
        file = self._folder / "shown"
        return file.read_text().split() if file.exists() else []

    def end(self, how: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(how)
        return self._process.wait(60)

    def wait(self) -> int:
        assert self._process is not None
        return self._process.wait(60)

    def status(self) -> dict[str, object]:
        file = self._folder / "run" / "shown.json"
        return dict(json.loads(file.read_text())) if file.exists() else {}


async def test_an_agent_in_faust_gets_what_is_committed_and_says_how_it_is(role, pen):
    role.start()
    pen.write(("a", 1), ("a", 2))
    await until(lambda: role.shown() == ["cart/a@1", "cart/a@2"])
    await until(lambda: role.status().get("health") == "ok")
    assert {"pid", "at", "lag_events", "lag_s"} <= role.status().keys()


async def test_sigterm_ends_it_with_0_and_nothing_is_delivered_twice_afterwards(role, pen):
    role.start()
    pen.write(("a", 1))
    await until(lambda: role.shown() == ["cart/a@1"])
    assert role.end(signal.SIGTERM) == 0
    pen.write(("a", 2))
    role.start()
    await until(lambda: "cart/a@2" in role.shown())
    assert role.shown() == ["cart/a@1", "cart/a@2"]


async def test_killed_before_its_acknowledgement_it_is_given_the_batch_again(role, pen):
    role.start(DAYBOOK_FAILPOINTS="agent_before_ack=kill")
    pen.write(("a", 1))
    assert role.wait() == -signal.SIGKILL
    role.start()
    await until(lambda: role.shown() == ["cart/a@1", "cart/a@1"])


async def test_an_agent_that_raises_in_faust_skips_nothing(role, pen):
    role.start(DAYBOOK_FAILPOINTS="agent_before_apply=raise@2")
    pen.write(("a", 1))
    await until(lambda: role.shown() == ["cart/a@1"])
    pen.write(("a", 2))
    await until(lambda: role.shown() == ["cart/a@1", "cart/a@2"])
