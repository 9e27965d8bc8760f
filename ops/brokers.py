"""Three Kafka brokers on this machine, each a controller too: topics have three copies, two of which must be in step."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ops import processes
from ops.local_stack import (
    HOST,
    JARS,
    START_WITHIN_S,
    STOP_WITHIN_S,
    Home,
    await_answer,
    broker_command,
    free_ports,
    kafka_answers,
    new_cluster_id,
)
from ops.maven import Progress
from ops.processes import Started

COPIES = 3
OF_A_CLUSTER = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
}
"""What is otherwise than for one broker."""


@dataclass(frozen=True)
class Brokers:
    """A running cluster. Its first broker may be killed: the other two go on."""

    homes: tuple[Home, ...]
    started: tuple[Started, ...]

    @property
    def addresses(self) -> str:
        """As Kafka's clients take them: host:port, with commas between."""
        return ",".join(home.address for home in self.homes)

    def kill_first(self) -> None:
        os.kill(self.started[0].pid, signal.SIGKILL)


@contextmanager
def three_brokers(root: Path, progress: Progress) -> Iterator[Brokers]:
    """A new, empty cluster below `root`, stopped at the end, as is first what a run that was killed left there.

    Raises StackFailed.
    """
    record = root / "processes.json"
    processes.stop(processes.read_record(record), STOP_WITHIN_S)
    shutil.rmtree(root, ignore_errors=True)
    homes = _homes(root)
    started: list[Started] = []
    try:
        for home, argv in zip(homes, _commands(homes, progress), strict=True):
            progress(f"starting {home.name} of {COPIES}")
            started.append(processes.start(home.name, argv, home.output, cwd=home.root))
            processes.write_record(record, started)
        deadline = time.monotonic() + START_WITHIN_S
        for home, broker in zip(homes, started, strict=True):  # each answers for itself
            await_answer(home, broker, kafka_answers, deadline, threading.Event())
        yield Brokers(homes, tuple(started))
    finally:
        processes.stop(started, STOP_WITHIN_S)


def _homes(root: Path) -> tuple[Home, ...]:
    ports = iter(free_ports(2 * COPIES))
    return tuple(
        Home(f"kafka-{node}", root / f"kafka-{node}", {"PORT": next(ports), "CONTROLLER_PORT": next(ports)})
        for node in range(1, COPIES + 1)
    )


def _commands(homes: tuple[Home, ...], progress: Progress) -> Iterator[list[str]]:
    cluster_id = new_cluster_id()
    voters = [f"{node}@{HOST}:{home.ports['CONTROLLER_PORT']}" for node, home in enumerate(homes, 1)]
    for node, home in enumerate(homes, 1):
        home.data.mkdir(parents=True)
        otherwise = OF_A_CLUSTER | {"node.id": str(node), "controller.quorum.voters": ",".join(voters)}
        yield broker_command(home, JARS, progress, cluster_id, otherwise)
