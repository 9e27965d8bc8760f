"""The whole suite in two lanes side by side: tests on real servers, in view; beside them those that need none, then the
other tests on servers, which have servers of their own. What runs aside is told at its end.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from ops.settings import REPOSITORY

IN_VIEW, ASIDE, AFTERWARDS = "servers and not afterwards", "not servers", "servers and afterwards"
"""The marks of a lane's tests; tests/conftest.py marks each test that asks for the servers."""

END_WITHIN_S = 60.0
"""So long may a lane take to end what it started, once it is interrupted."""

Lane = subprocess.Popen[bytes]


def run_lanes(root: Path = REPOSITORY) -> dict[str, int]:
    """The exit code of each lane's pytest; an interrupt ends all, and none outlives this call."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in a script's background it would be ignored
    lanes: dict[str, Lane] = {}
    try:
        lanes[IN_VIEW] = _start(IN_VIEW, root, None)
        for mark in (ASIDE, AFTERWARDS):
            with tempfile.TemporaryFile() as told:
                lanes[mark] = _start(mark, root, told)
                lanes[mark].wait()
                _show(told)
        return {name: lane.wait() for name, lane in lanes.items()}
    finally:
        _end(lanes)


def _start(mark: str, root: Path, output: IO[bytes] | None) -> Lane:
    """In a process group of its own, so that Ctrl-C reaches it once: a second would cut its teardown short."""
    argv = [sys.executable, "-m", "pytest", "-m", f"({mark}) and not deep"]
    servers = {"DAYBOOK_TEST_STACK": "test-afterwards" if mark == AFTERWARDS else "test"}
    return subprocess.Popen(
        argv, cwd=root, stdout=output, stderr=output, process_group=0, env={**os.environ, **servers}
    )


def _show(told: IO[bytes]) -> None:
    told.seek(0)
    print(f"\n{told.read().decode(errors='replace')}", flush=True)


def _end(lanes: Mapping[str, Lane]) -> None:
    """Interrupts those that run, waits for them, and kills those that do not listen."""
    try:
        for lane in lanes.values():
            lane.send_signal(signal.SIGINT)
        for lane in lanes.values():
            lane.wait(END_WITHIN_S)
    finally:
        for lane in lanes.values():
            lane.kill()
