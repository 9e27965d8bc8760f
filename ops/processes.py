"""Processes we started, known by pid *and* birth: a pid alone may belong to someone else by now."""

import json
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

# The kernel counts a process's birth in ticks of 10 ms since boot; psutil adds the boot time, which may be rounded.
SAME_BIRTH_S = 1.0
POLL_S = 0.02

# Our own children, until their pid is someone else's: only we can reap them.
_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class Started:
    """A process that we started: its name, its pid and its birth, in seconds since 1970."""

    name: str
    pid: int
    born: float


def start(
    name: str,
    argv: Sequence[str],
    log: Path,
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Started:
    """Starts a process that outlives us and our terminal; what it prints is appended to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=cwd,
            env=env,
            pass_fds=pass_fds,
            start_new_session=True,
        )
    _children[process.pid] = process
    return identify(name, process.pid)


def exit_code(started: Started) -> int | None:
    """How our own child ended (negative: by that signal); None while it runs."""
    child = _children.get(started.pid)
    return child.poll() if child else None


def identify(name: str, pid: int) -> Started:
    return Started(name, pid, psutil.Process(pid).create_time())


def alive(started: Started) -> bool:
    """Whether that very process still runs. A zombie does not, unless it is one whose other threads still end."""
    if child := _children.get(started.pid):
        return child.poll() is None
    if not (process := _same(started)):
        return False
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1
    return False


def _same(started: Started) -> psutil.Process | None:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(started.pid)
        if abs(process.create_time() - started.born) < SAME_BIRTH_S:
            return process
    return None


def stop(processes: Iterable[Started], grace_s: float) -> list[Started]:
    """Asks all at once to end (TERM), waits at most `grace_s`, kills the rest; returns those that had to be killed."""
    wanted = list(processes)
    for started in wanted:
        if process := _same(started):
            _quietly(process.terminate)
    rest = wait_until_gone(wanted, grace_s)
    for started in rest:
        if process := _same(started):
            _quietly(process.kill)
    wait_until_gone(rest, grace_s)
    return rest


def wait_until_gone(processes: Iterable[Started], within_s: float) -> list[Started]:
    """Those that still run after `within_s` seconds."""
    deadline = time.monotonic() + within_s
    rest = [started for started in processes if alive(started)]
    while rest and time.monotonic() < deadline:
        time.sleep(POLL_S)
        rest = [started for started in rest if alive(started)]
    return rest


def _quietly(signal_it: Callable[[], object]) -> None:
    with suppress(psutil.NoSuchProcess):  # gone between the look and the signal
        signal_it()


def read_record(file: Path) -> list[Started]:
    """The processes recorded in `file`, running or not; none when there is no file."""
    try:
        return [Started(**entry) for entry in json.loads(file.read_text("utf-8"))]
    except FileNotFoundError:
        return []


def write_record(file: Path, processes: Iterable[Started]) -> None:
    """Replaces the record in one step, so that a reader never meets half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps([asdict(started) for started in processes]), "utf-8")
    draft.replace(file)
