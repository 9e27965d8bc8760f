"""The two lanes of the suite: what fails in either is told, and an interrupt ends both."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ops.lanes import AFTERWARDS, ASIDE, IN_VIEW, run_lanes
from ops.settings import REPOSITORY

WITHIN_S = 60.0
PROJECT = "[pytest]\nmarkers =\n  servers: asks for servers\n  afterwards: later\n"
WAITS = """
import os, pathlib, pytest, signal
@pytest.fixture
def lasting(request):
    here = pathlib.Path(__file__).parent
    (here / f"{request.node.name}.pid.part").write_text(str(os.getpid()))
    (here / f"{request.node.name}.pid.part").rename(here / f"{request.node.name}.pid")
    yield
    (here / f"{request.node.name}.over").touch()
@pytest.mark.servers
def test_in_view(lasting):
    signal.pause()
def test_aside(lasting):
    signal.pause()
"""


def project(root: Path, tests: str) -> Path:
    (root / "pytest.ini").write_text(PROJECT)
    (root / "test_it.py").write_text(tests)
    return root


def test_what_fails_in_the_lane_aside_is_told_while_the_other_is_well(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tests = """
import os, pytest
@pytest.mark.servers
def test_a(): assert os.environ["DAYBOOK_TEST_STACK"] == "test"
def test_b(): assert 'ill' == 'well'
@pytest.mark.servers
@pytest.mark.afterwards
def test_c(): assert os.environ["DAYBOOK_TEST_STACK"] == "test-afterwards"
"""
    assert run_lanes(project(tmp_path, tests)) == {IN_VIEW: 0, ASIDE: 1, AFTERWARDS: 0}
    assert "assert 'ill' == 'well'" in capfd.readouterr().out


def test_an_interrupt_ends_both_lanes_and_lets_them_clean_up(tmp_path: Path) -> None:
    project(tmp_path, WAITS)
    calling = f"from pathlib import Path; from ops.lanes import run_lanes; run_lanes(Path({str(tmp_path)!r}))"
    with subprocess.Popen([sys.executable, "-c", calling], cwd=REPOSITORY, stderr=subprocess.DEVNULL) as run:
        lanes = [
            psutil.Process(int(appears(tmp_path / f"{name}.pid"))) for name in ("test_in_view", "test_aside")
        ]
        run.send_signal(signal.SIGINT)
        assert run.wait(WITHIN_S) != 0
    assert psutil.wait_procs(lanes, WITHIN_S)[1] == []
    assert {path.stem for path in tmp_path.glob("*.over")} == {"test_in_view", "test_aside"}


def appears(file: Path) -> str:
    deadline = time.monotonic() + WITHIN_S
    while not file.exists():
        assert time.monotonic() < deadline, f"no {file.name} within {WITHIN_S} s"
        time.sleep(0.02)
    return file.read_text()
