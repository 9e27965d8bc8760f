"""Bringing one Daybook up and taking it down: the stack, what it needs prepared, the supervisor and its roles."""

import os
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from ops import processes, settings
from ops.local_stack import HOST, LocalStack, StackFailed, free_ports, is_free, last_words
from ops.maven import Progress
from ops.processes import Started
from ops.settings import Settings
from ops.status import SERVING, role_health
from ops.supervisor import GRACE_S, read_report, record_of

READY_WITHIN_S = 90.0
SAY_EVERY_S = 2.0


class RunsAlready(Exception):
    """A supervisor runs here already."""


def bring_up(
    wanted: Settings, progress: Progress, *, brief: bool = False, lookers_on: Iterable[str] = ()
) -> Settings:
    """Starts the stack and the supervisor, and returns with all addresses when every role is ready; `brief` if for
    minutes only. `lookers_on` are roles beside those that trade.

    Raises RunsAlready, or StackFailed after having ended what it had started.
    """
    if running_supervisor(wanted):
        raise RunsAlready("Daybook runs here already; ./daybook status shows it")
    stack = stack_of(wanted, brief=brief)
    found = stack.addresses()  # left over from a supervisor that was killed
    addresses = found or stack.start(progress)
    ready = _with_free_ports(wanted.at(addresses))
    try:
        prepare(ready, progress)
        settings.keep(ready)
        _start_supervisor(ready, lookers_on)
        _await_roles(ready, progress)
    except BaseException:  # also Ctrl-C: nothing half started stays behind
        _stop_supervisor(ready)
        settings.forget(ready.home)
        if not found:
            stack.stop()
        raise
    return ready


def take_down(wanted: Settings, progress: Progress) -> None:
    """Ends the supervisor, its roles and our servers; whatever else runs here stays."""
    if running_supervisor(wanted):
        progress("stopping the roles")
    _stop_supervisor(wanted)
    stack = stack_of(wanted)
    if running := stack.running():
        progress(f"stopping {', '.join(started.name for started in running)}")
    for started in stack.stop():
        progress(f"{started.name} had to be killed")
    settings.forget(wanted.home)


def stack_of(wanted: Settings, *, brief: bool = False) -> LocalStack:
    """The stack below this home; servers that the environment names are only used."""
    elsewhere = {"kafka": wanted.kafka, "cassandra": wanted.cassandra, "redis": wanted.redis}
    return LocalStack(wanted.stack, elsewhere, brief=brief)


def running_supervisor(wanted: Settings) -> Started | None:
    report = read_report(wanted.run)
    return report.supervisor if report and processes.alive(report.supervisor) else None


def prepare(ready: Settings, progress: Progress) -> None:
    """Keys, topics and tables, before anyone needs them."""
    from ops import prepare as preparation

    progress("preparing topics and tables")
    preparation.prepare(ready)


def _with_free_ports(wanted: Settings) -> Settings:
    """The default addresses where nobody listens yet, else others; addresses from the environment are obeyed."""
    api = _free_address(wanted.api) if wanted.api == settings.API else wanted.api
    console = _free_address(wanted.console) if wanted.console == settings.CONSOLE else wanted.console
    provider = wanted.provider
    if provider == settings.PROVIDER:
        provider = f"http://{_free_address(urlsplit(provider).netloc)}"
    return replace(wanted, api=api, console=console, provider=provider)


def _free_address(address: str) -> str:
    port = int(address.rpartition(":")[2])
    return address if is_free(port) else f"{HOST}:{free_ports(1)[0]}"


def _start_supervisor(ready: Settings, lookers_on: Iterable[str]) -> None:
    """Returns when it has said how its roles are."""
    record_of(ready.run).unlink(missing_ok=True)
    log = ready.logs / "supervisor.log"
    started = processes.start(
        "supervisor",
        [sys.executable, "-m", "ops.supervisor", *lookers_on],
        log,
        cwd=settings.REPOSITORY,
        env={**os.environ, **ready.environment("supervisor")},
    )
    try:
        _await_report(ready, started, log)
    except BaseException:  # before its first report nobody else could find it
        processes.stop([started], GRACE_S)
        raise


def _await_report(ready: Settings, supervisor: Started, log: Path) -> None:
    while not read_report(ready.run):
        if not processes.alive(supervisor):
            raise StackFailed(f"the supervisor ended while starting:\n{last_words(log)}")
        time.sleep(processes.POLL_S)


def _stop_supervisor(wanted: Settings) -> None:
    """Ends it and waits for its roles; ends those itself that outlived a supervisor that was killed."""
    if report := read_report(wanted.run):
        roles = [Started(role.name, role.pid, role.born) for role in report.roles if role.pid and role.born]
        processes.stop([report.supervisor], GRACE_S + 5)
        processes.stop(roles, GRACE_S)
        record_of(wanted.run).unlink(missing_ok=True)


def _await_roles(ready: Settings, progress: Progress) -> None:
    began = said = time.monotonic()
    while waiting := _not_ready(ready):
        now = time.monotonic()
        if now - began > READY_WITHIN_S:
            raise StackFailed(
                f"not ready after {READY_WITHIN_S:.0f} s: {', '.join(waiting)}; see {ready.logs}"
            )
        if now - said > SAY_EVERY_S:
            said = now
            progress(f"waiting for {', '.join(waiting)} ({now - began:.0f} s)")
        time.sleep(0.1)


def _not_ready(ready: Settings) -> list[str]:
    """The roles that are still starting; StackFailed when one is failing."""
    report = read_report(ready.run)
    if report is None:
        raise StackFailed(f"the supervisor ended; see {ready.logs / 'supervisor.log'}")
    for role in report.roles:
        if (
            role.state == "failing"
        ):  # as its supervisor sees it; of itself a role may say so while a server is away
            log = ready.logs / f"{role.name}.log"
            raise StackFailed(f"{role.name} fails again and again; it said last:\n{last_words(log)}")
    return [role.name for role in report.roles if role_health(ready, role, time.time()) not in SERVING]
