"""How every process of one Daybook is: what the supervisor says, what each role says of itself, what the kernel says.

A role says how it is in `$DAYBOOK_RUN/{role}.json` (streams/role_status.py writes it).
"""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import psutil

from ops.local_stack import SERVERS, LocalStack, accepts
from ops.processes import Started, alive
from ops.settings import Settings, from_environment
from ops.supervisor import Report, RoleState, read_report

CPU_SAMPLE_S = 0.3
MICROS_PER_S = 1e6
SILENT_AFTER_S = 30.0
SERVING = frozenset({"ready", "degraded"})


@dataclass(frozen=True)
class Row:
    """One process. `cpu_percent` is of one core, over a short sample; `None` is what nobody knows."""

    name: str
    health: str
    pid: int | None = None
    address: str = ""
    rss_mb: float | None = None
    cpu_percent: float | None = None
    cpu_s: float | None = None
    restarts: int | None = None
    lag_events: int | None = None
    lag_s: float | None = None
    transactions_per_s: float | None = None
    partitions_per_transaction: float | None = None
    detail: str = ""


# What a process costs, by pid, under the names that a row has for it.
Costs = Mapping[int | None, Mapping[str, Any]]

NUMBERS_OF_A_ROLE = ("lag_events", "lag_s", "transactions_per_s", "partitions_per_transaction")


def survey(settings: Settings, stack: LocalStack) -> list[Row]:
    """Every process: servers, supervisor, roles. Takes `CPU_SAMPLE_S`."""
    report = read_report(settings.run)
    servers = {started.name: started for started in stack.running()}
    roles = report.roles if report and alive(report.supervisor) else []
    pids = [started.pid for started in servers.values()] + [role.pid for role in roles if role.pid]
    trees = {pid: _tree(pid) for pid in pids}
    if report and alive(report.supervisor):
        trees[report.supervisor.pid] = [
            psutil.Process(report.supervisor.pid)
        ]  # its children have rows of their own
    costs = _costs(trees)
    return [
        *_server_rows(settings, servers, costs),
        _supervisor_row(report, costs),
        *(_role_row(settings, role, costs) for role in roles),
    ]


def _server_rows(settings: Settings, servers: Mapping[str, Started], costs: Costs) -> Iterator[Row]:
    for name, server in SERVERS.items():
        address: str = getattr(settings, name)
        healthy = bool(address) and server.answers(address)
        started = servers.get(name)
        health = "ready" if healthy else "not answering" if started else "stopped"
        pid = started.pid if started else None
        detail = "elsewhere" if healthy and not started else ""
        yield Row(name, health, pid, address, detail=detail, **costs.get(pid, {}))


def _supervisor_row(report: Report | None, costs: Costs) -> Row:
    if report is None:
        return Row("supervisor", "stopped")
    if not alive(report.supervisor):
        return Row("supervisor", "died", detail="./daybook up starts it again")
    return Row("supervisor", "ready", report.supervisor.pid, **costs.get(report.supervisor.pid, {}))


def _role_row(settings: Settings, role: RoleState, costs: Costs) -> Row:
    said = role_report(settings.run, role)
    numbers = {name: said.get(name) for name in NUMBERS_OF_A_ROLE}
    detail = str(said.get("detail", "")) or (
        f"last exit {role.last_exit}" if role.last_exit is not None else ""
    )
    return Row(
        role.name,
        role_health(settings, role, time.time()),
        role.pid,
        role_address(settings, role.name),
        restarts=role.restarts,
        detail=detail,
        **numbers,
        **costs.get(role.pid, {}),
    )


def role_address(settings: Settings, role: str) -> str:
    """Where a role listens, as host:port, if it does."""
    provider = settings.provider.removeprefix("http://").rstrip("/")
    return {"api": settings.api, "sandbox": provider, "console": settings.console}.get(role, "")


def role_health(settings: Settings, role: RoleState, now: float) -> str:
    """ready, starting, silent (its report is old), what it says of itself, or what the supervisor says of it."""
    if role.state != "running":
        return role.state
    said = role_report(settings.run, role)
    address = role_address(settings, role.name)
    if not (accepts(address) if address else said):
        return "starting"
    return health_of(said, now) if said else "ready"


def health_of(said: Mapping[str, Any], now: float) -> str:
    """ready, silent, or what the role says of itself."""
    if now - said["at"] / MICROS_PER_S > SILENT_AFTER_S:
        return "silent"
    word = str(said.get("health", "ok"))
    return "ready" if word == "ok" else word


def role_report(run: Path, role: RoleState) -> dict[str, Any]:
    """What the role's present process wrote of itself; nothing when it has not, or its predecessor has."""
    said = said_by(run, role.name)
    return said if said.get("pid") == role.pid else {}


def said_by(run: Path, role: str) -> dict[str, Any]:
    """What a process of the role last wrote of itself; nothing when none has."""
    with suppress(FileNotFoundError, ValueError):
        said = json.loads((run / f"{role}.json").read_text("utf-8"))
        if isinstance(said, dict):
            return said
    return {}


def _costs(trees: Mapping[int, list[psutil.Process]]) -> Costs:
    """Memory and CPU of each process tree, by the pid of its root; the share of a core over a short sample."""
    before = {pid: _cpu_s(tree) for pid, tree in trees.items()}
    time.sleep(CPU_SAMPLE_S)
    return {
        pid: {
            "rss_mb": round(sum(_rss(process) for process in tree) / 1e6, 1),
            "cpu_s": round(now := _cpu_s(tree), 2),
            "cpu_percent": round(100 * (now - before[pid]) / CPU_SAMPLE_S, 1),
        }
        for pid, tree in trees.items()
    }


def _tree(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def _cpu_s(tree: Iterable[psutil.Process]) -> float:
    total = 0.0
    for process in tree:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def _rss(process: psutil.Process) -> int:
    with suppress(psutil.NoSuchProcess):
        return int(process.memory_info().rss)
    return 0


def table(rows: Iterable[Row]) -> str:
    """The rows as text, columns that nobody filled left out."""
    lines = [{field.name: _cell(getattr(row, field.name)) for field in fields(Row)} for row in rows]
    shown = [name for name in lines[0] if any(line[name] for line in lines)]
    widths = {name: max(len(name), *(len(line[name]) for line in lines)) for name in shown}
    heading = {name: name for name in shown}
    return "\n".join(
        "  ".join(line[name].ljust(widths[name]) for name in shown).rstrip() for line in [heading, *lines]
    )


def _cell(value: object) -> str:
    return "" if value is None else str(value)


def serves(settings: Settings, role: str) -> bool:
    """Whether the role that runs beside us, in a container of its own, is well; nobody supervises it there."""
    with suppress(FileNotFoundError, json.JSONDecodeError):
        pid = json.loads((settings.run / f"{role}.json").read_text("utf-8"))["pid"]
        return psutil.pid_exists(pid) and _health_of(settings, role, pid) in SERVING
    return _health_of(settings, role, None) in SERVING


def _health_of(settings: Settings, role: str, pid: int | None) -> str:
    return role_health(settings, RoleState(role, "running", pid, None, 0, None), time.time())


if __name__ == "__main__":
    sys.exit(0 if serves(from_environment(), sys.argv[1]) else 1)
