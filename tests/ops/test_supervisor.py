"""The supervisor: roles come back when they end, and end when it does, however that happens."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from ops import processes, running, settings, supervisor
from ops.local_stack import AlreadyRunning, LocalStack
from ops.processes import Started
from ops.roles import RoleMissing, main_of
from ops.running import RunsAlready, bring_up, take_down
from ops.settings import REPOSITORY, Settings
from ops.status import Row, role_health, survey, table
from ops.supervisor import Restarts, RoleState, read_report, record_of

WITHIN_S = 60.0

SUPERVISE = """
import json, os, sys
from pathlib import Path
from ops.supervisor import SupervisedRole, Supervisor, record_of
run = Path(sys.argv[1])
roles = [
    SupervisedRole(name, [sys.executable, "-c", code], dict(os.environ), run / f"{name}.log")
    for name, code in json.loads(sys.argv[2]).items()
]
Supervisor(roles, record_of(run)).run()
"""
WORKS = "import signal; from ops.roles import die_with_supervisor; die_with_supervisor(); signal.pause()"
FAREWELL = """
import signal, sys
from ops.roles import die_with_supervisor
die_with_supervisor()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("farewell")))
print("ready", flush=True)
signal.pause()
"""
BREAKS = "raise SystemExit(7)"


T = TypeVar("T")


def eventually(look: Callable[[], T | None], within_s: float = WITHIN_S) -> T:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {within_s} s")


@dataclass
class Supervision:
    """A real supervisor over small roles, in a process of its own."""

    run: Path
    process: subprocess.Popen[bytes]

    def role(self, name: str) -> RoleState | None:
        report = read_report(self.run)
        return next((role for role in report.roles if role.name == name), None) if report else None

    def running(self, name: str) -> Started:
        """The role's process, once it is up."""
        role = eventually(lambda: role if (role := self.role(name)) and role.pid else None)
        assert role.pid is not None
        assert role.born is not None
        return Started(name, role.pid, role.born)

    def log_of(self, name: str) -> str:
        log = self.run / f"{name}.log"
        return log.read_text("utf-8") if log.exists() else ""


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., Supervision]]:
    begun: list[subprocess.Popen[bytes]] = []

    def begin(**roles: str) -> Supervision:
        argv = [sys.executable, "-c", SUPERVISE, str(tmp_path), json.dumps(roles)]
        begun.append(subprocess.Popen(argv, cwd=REPOSITORY, stdout=subprocess.DEVNULL))
        return Supervision(tmp_path, begun[-1])

    yield begin
    for process in begun:
        process.kill()
        process.wait(WITHIN_S)


def test_a_role_that_is_killed_comes_back_at_once(supervise: Callable[..., Supervision]) -> None:
    supervised = supervise(works=WORKS)
    first = supervised.running("works")
    os.kill(first.pid, signal.SIGKILL)
    killed_at = time.monotonic()
    back = eventually(
        lambda: role if (role := supervised.role("works")) and role.restarts == 1 and role.pid else None
    )
    assert time.monotonic() - killed_at < 5.0  # one that is failing is tried after ten
    assert back.pid != first.pid
    assert back.state == "running"
    assert back.last_exit == -signal.SIGKILL


def test_a_role_that_always_breaks_is_failing_while_the_others_run_on(
    supervise: Callable[..., Supervision],
) -> None:
    supervised = supervise(breaks=BREAKS, works=WORKS)
    works = supervised.running("works")
    breaks = eventually(
        lambda: role if (role := supervised.role("breaks")) and role.state == "failing" else None
    )
    assert breaks.restarts == 6
    assert breaks.last_exit == 7
    assert supervised.running("works") == works


def test_roles_die_with_a_supervisor_that_is_killed_even_a_frozen_one(
    supervise: Callable[..., Supervision],
) -> None:
    supervised = supervise(works=FAREWELL, frozen=FAREWELL)
    roles = [supervised.running("works"), supervised.running("frozen")]
    eventually(lambda: "ready" in supervised.log_of("works") and "ready" in supervised.log_of("frozen"))
    os.kill(roles[1].pid, signal.SIGSTOP)
    supervised.process.kill()
    assert processes.wait_until_gone(roles, WITHIN_S) == []


def test_the_pipe_alone_ends_a_role_where_the_kernel_sends_no_signal(tmp_path: Path) -> None:
    lifeline, ours = os.pipe()
    code = "import sys; sys.platform = 'other'\n" + FAREWELL
    env = {**os.environ, "DAYBOOK_LIFELINE": str(lifeline)}
    role = processes.start(
        "role", [sys.executable, "-c", code], tmp_path / "log", cwd=REPOSITORY, env=env, pass_fds=[lifeline]
    )
    eventually(lambda: "ready" in (tmp_path / "log").read_text())
    os.close(ours)
    os.close(lifeline)
    assert processes.wait_until_gone([role], WITHIN_S) == []
    assert processes.exit_code(role) == 1


def test_a_supervisor_that_is_told_to_stop_lets_its_roles_finish(
    supervise: Callable[..., Supervision],
) -> None:
    supervised = supervise(works=FAREWELL)
    works = supervised.running("works")
    eventually(lambda: "ready" in supervised.log_of("works"))
    supervised.process.terminate()
    assert supervised.process.wait(WITHIN_S) == 0
    assert not processes.alive(works)
    assert "farewell" in supervised.log_of("works")
    assert read_report(supervised.run) is None


def test_restarts_come_at_once_then_with_back_off_then_every_ten_seconds() -> None:
    restarts = Restarts()
    assert [restarts.after_end(now=float(n), lived_s=0.1) for n in range(5)] == [0.0, 0.25, 0.5, 1.0, 2.0]
    assert not restarts.failing
    assert [restarts.after_end(now=5.0 + n, lived_s=0.1) for n in range(3)] == [10.0, 10.0, 10.0]
    assert restarts.failing


def test_ends_that_lie_far_apart_do_not_make_a_role_failing() -> None:
    restarts = Restarts()
    assert {restarts.after_end(now=n * 61.0, lived_s=59.0) for n in range(20)} == {0.0}
    assert not restarts.failing


def test_a_failing_role_is_well_again_after_a_minute_of_life() -> None:
    restarts = Restarts()
    for n in range(6):
        restarts.after_end(now=float(n), lived_s=0.1)
    assert restarts.after_end(now=70.0, lived_s=59.0) == 10.0
    assert restarts.after_end(now=140.0, lived_s=60.0) == 0.0
    assert not restarts.failing


def test_a_log_is_bounded_while_its_writer_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LOG_BYTES_MAX", 10)
    log = tmp_path / "role.log"
    role = supervisor.SupervisedRole("role", [], {}, log)
    with log.open("ab", buffering=0) as writer:
        writer.write(b"longer than ten bytes\n")
        role.bound_log()
        writer.write(b"after\n")
    assert log.read_text() == "after\n"
    assert (tmp_path / "role.log.1").read_text() == "longer than ten bytes\n"


def here(tmp_path: Path, **changed: str) -> Settings:
    return settings.from_environment({"DAYBOOK_HOME": str(tmp_path), **changed})


def test_bringing_up_twice_is_refused(supervise: Callable[..., Supervision], tmp_path: Path) -> None:
    supervised = supervise(works=WORKS)
    works = supervised.running("works")
    ours = here(tmp_path)
    ours.run.mkdir()
    record_of(tmp_path).rename(record_of(ours.run))
    with pytest.raises(RunsAlready, match="status"):
        bring_up(ours, print)
    assert processes.alive(works)


def test_a_second_supervisor_of_one_home_gives_way(tmp_path: Path) -> None:
    ours = here(tmp_path)
    settings.keep(ours)
    with LocalStack(ours.run)._alone():  # the lock is the same kind of lock
        (ours.run / "lock").rename(ours.run / "supervisor.lock")
        second = subprocess.run(
            [sys.executable, "-m", "ops.supervisor"],
            cwd=REPOSITORY,
            env={**os.environ, **ours.environment("supervisor")},
            check=False,
            timeout=WITHIN_S,
        )
    assert second.returncode == 2


def test_taking_down_ends_supervisor_and_roles_and_no_stranger(
    supervise: Callable[..., Supervision], tmp_path: Path
) -> None:
    supervised = supervise(works=WORKS)
    works = supervised.running("works")
    stranger = subprocess.Popen([sys.executable, "-c", WORKS], cwd=REPOSITORY)
    try:
        ours = here(tmp_path)
        ours.run.mkdir()
        report = json.loads(record_of(tmp_path).read_text())
        report["roles"].append({**report["roles"][0], "name": "reborn", "pid": stranger.pid, "born": 1.0})
        record_of(ours.run).write_text(json.dumps(report))
        take_down(ours, print)
        assert supervised.process.wait(WITHIN_S) == 0
        assert not processes.alive(works)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait(WITHIN_S)


def test_a_stack_that_is_half_up_is_not_started_over(tmp_path: Path) -> None:
    ours = here(tmp_path)
    me = processes.identify("redis", os.getpid())
    ours.stack.mkdir()
    processes.write_record(ours.stack / "processes.json", [me])
    with pytest.raises(AlreadyRunning, match="redis"):
        bring_up(ours, print)


ROLE = RoleState("commands", "running", 4711, 1.0, restarts=0, last_exit=None)
NOW = 1_000_000.0


def says(ours: Settings, **fields: object) -> None:
    ours.run.mkdir(exist_ok=True)
    (ours.run / "commands.json").write_text(json.dumps({"pid": 4711, "at": NOW * 1e6, **fields}))


def test_a_role_is_ready_when_its_own_process_says_so(tmp_path: Path) -> None:
    ours = here(tmp_path)
    assert role_health(ours, ROLE, NOW) == "starting"
    says(ours, pid=4710, health="ok")
    assert role_health(ours, ROLE, NOW) == "starting"
    says(ours, health="ok")
    assert role_health(ours, ROLE, NOW) == "ready"
    says(ours, health="degraded")
    assert role_health(ours, ROLE, NOW) == "degraded"


def test_a_role_that_stopped_reporting_is_silent(tmp_path: Path) -> None:
    ours = here(tmp_path)
    says(ours, health="ok")
    assert role_health(ours, ROLE, NOW + 31) == "silent"


def test_a_role_that_listens_is_ready_when_it_accepts(tmp_path: Path) -> None:
    ours = here(tmp_path, DAYBOOK_API="127.0.0.1:1")
    assert role_health(ours, RoleState("api", "running", 1, 1.0, 0, None), NOW) == "starting"


def test_what_the_roles_cost_is_not_counted_twice(
    supervise: Callable[..., Supervision], tmp_path: Path
) -> None:
    supervised = supervise(hungry="kept = bytearray(100_000_000); " + WORKS)
    ours = here(tmp_path)
    ours.run.mkdir()
    hungry = supervised.running("hungry")
    eventually(lambda: psutil.Process(hungry.pid).memory_info().rss > 100e6)
    record_of(tmp_path).rename(record_of(ours.run))
    cost = {row.name: row.rss_mb for row in survey(ours, LocalStack(ours.stack))}
    assert (cost["hungry"] or 0) > 100
    assert 0 < (cost["supervisor"] or 0) < 100


def test_a_failing_word_of_a_role_itself_does_not_end_the_wait_for_it(tmp_path: Path) -> None:
    ours = here(tmp_path)
    ours.run.mkdir()
    me = asdict(processes.identify("supervisor", os.getpid()))
    record_of(ours.run).write_text(json.dumps({**me, "roles": [asdict(ROLE)]}))
    says(ours, health="failing", at=time.time() * 1e6)
    assert running._not_ready(ours) == ["commands"]
    says(ours, health="ok", at=time.time() * 1e6)
    assert running._not_ready(ours) == []


def test_the_table_shows_only_columns_that_say_something() -> None:
    shown = table([Row("kafka", "ready", 12, "127.0.0.1:9092", rss_mb=500.0), Row("api", "starting")])
    assert shown.splitlines() == [
        "name   health    pid  address         rss_mb",
        "kafka  ready     12   127.0.0.1:9092  500.0",
        "api    starting",
    ]


def test_a_role_whose_code_is_missing_says_so_and_one_whose_imports_break_says_that() -> None:
    with pytest.raises(RoleMissing, match="does not exist"):
        main_of("ops.nothing_here:main")
    with pytest.raises(RoleMissing, match="has no nothing"):
        main_of("ops.roles:nothing")


def test_what_was_brought_up_is_found_by_those_who_come_later(tmp_path: Path) -> None:
    ours = here(tmp_path, DAYBOOK_KAFKA="127.0.0.1:9092")
    assert settings.kept(tmp_path) is None
    settings.keep(ours)
    assert settings.kept(tmp_path) == ours
    settings.forget(tmp_path)
    assert settings.kept(tmp_path) is None


def test_help_is_quick_and_imports_no_room(tmp_path: Path) -> None:
    code = "import sys; import ops.cli; print([m for m in sys.modules if m.split('.')[0] in {'api', 'streams', 'jwt'}])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], cwd=REPOSITORY, check=True, capture_output=True, text=True
        ).stdout
        == "[]\n"
    )
