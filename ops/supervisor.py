"""Keeps the roles and the stack's servers running: restarts them with back-off, says how they are, ends the roles.

One thread, since Linux ends a role when the *thread* that started it ends.
"""

import fcntl
import json
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ops import processes, settings
from ops.local_stack import SERVERS, AlreadyRunning, LocalStack, StackFailed
from ops.processes import Started
from ops.roles import LIFELINE, LOOKERS_ON, ROLES

STEP_S = 1.0
LOOK_EVERY_S = 0.5
"""At servers: the kernel tells only a parent of its child's end, and theirs was `up`."""
GRACE_S = 15.0
MINUTE_S = 60.0
RESTARTS_IN_A_MINUTE = 5
FAILING_RETRY_S = 10.0
FIRST_BACK_OFF_S = 0.25
LOG_BYTES_MAX = 20_000_000


class Restarts:
    """When a role that ended is started again, and whether it is failing; times are seconds of a monotonic clock.

    The first restart comes at once, since a killed worker's successor should be back before anyone notices; then
    0.25, 0.5, 1 and 2 s. After five within a minute the role is failing and is tried every ten seconds, until it
    has lived for a minute.
    """

    def __init__(self) -> None:
        self.count = 0
        self.failing = False
        self._recent: list[float] = []

    def after_end(self, now: float, lived_s: float) -> float:
        """How many seconds to wait before the next start."""
        self.survived(lived_s)
        self._recent = [at for at in self._recent if now - at < MINUTE_S]
        self.failing = self.failing or len(self._recent) >= RESTARTS_IN_A_MINUTE
        self._recent.append(now)
        self.count += 1
        if self.failing:
            return FAILING_RETRY_S
        return FIRST_BACK_OFF_S * 2 ** (len(self._recent) - 2) if len(self._recent) > 1 else 0.0

    def survived(self, lived_s: float) -> None:
        """A role that lived for a minute is well again."""
        if lived_s >= MINUTE_S:
            self.failing = False
            self._recent.clear()


@dataclass(frozen=True)
class RoleState:
    """What the supervisor says of one role: state is running, waiting (for its next start) or failing."""

    name: str
    state: str
    pid: int | None
    born: float | None
    restarts: int
    last_exit: int | None


class SupervisedRole:
    """One role: its process while it runs, and when it is next started while it does not."""

    def __init__(self, name: str, argv: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.process: Started | None = None
        self._argv = argv
        self._env = env
        self._log = log
        self._restarts = Restarts()
        self._started_at = 0.0
        self._due = 0.0
        self._last_exit: int | None = None

    def step(self, now: float, lifeline: int) -> None:
        """Notices an end, starts when it is due."""
        if self.process is None:
            if now >= self._due:
                self._start(now, lifeline)
        elif processes.alive(self.process):
            self._restarts.survived(now - self._started_at)
        else:
            self._last_exit = processes.exit_code(self.process)
            self._due = now + self._restarts.after_end(now, now - self._started_at)
            self.process = None
            print(
                f"{self.name} ended with {self._last_exit}; next start in {self._due - now:.2f} s", flush=True
            )

    def seconds_until_due(self, now: float) -> float:
        return STEP_S if self.process else max(0.0, self._due - now)

    def state(self) -> RoleState:
        word = "failing" if self._restarts.failing else "running" if self.process else "waiting"
        pid, born = (self.process.pid, self.process.born) if self.process else (None, None)
        return RoleState(self.name, word, pid, born, self._restarts.count, self._last_exit)

    def bound_log(self) -> None:
        """Keeps the log and one older piece; the role goes on writing, since it appends."""
        if self._log.exists() and self._log.stat().st_size > LOG_BYTES_MAX:
            shutil.copyfile(self._log, self._log.with_suffix(".log.1"))
            os.truncate(self._log, 0)

    def _start(self, now: float, lifeline: int) -> None:
        env = {**self._env, LIFELINE: str(lifeline)}
        self.process = processes.start(
            self.name, self._argv, self._log, cwd=settings.REPOSITORY, env=env, pass_fds=[lifeline]
        )
        self._started_at = now


class SupervisedServer:
    """One server of the local stack: `up` started it, `down` stops it, and when it ends by itself it is started again."""

    def __init__(self, name: str, stack: LocalStack) -> None:
        self._name = name
        self._stack = stack
        self._restarts = Restarts()
        self._started_at = 0.0
        self._due: float | None = None

    def step(self, now: float) -> None:
        """Notices an end, starts when it is due."""
        if self._name not in self._stack.ended():
            self._due = None
            self._restarts.survived(now - self._started_at)
        elif self._due is None:
            self._due = now + self._restarts.after_end(now, now - self._started_at)
            print(f"{self._name} ended; next start in {self._due - now:.2f} s", flush=True)
        if self._due is not None and now >= self._due:
            self._start(now)

    def seconds_until_due(self, now: float) -> float:
        return LOOK_EVERY_S if self._due is None else max(0.0, self._due - now)

    def _start(self, now: float) -> None:
        self._started_at, self._due = now, None
        try:
            self._stack.start_again(self._name, _tell)
        except AlreadyRunning:
            pass  # somebody starts or stops the stack: what he leaves is looked at in the next step
        except StackFailed as failed:
            print(f"{self._name} could not be started: {failed}", flush=True)


def _tell(message: str) -> None:
    print(message, flush=True)


class Supervisor:
    """Runs the roles until it is told to stop; says how they are in `record`, in one step at every change.

    The servers outlive it: it only starts those again that end while it runs.
    """

    def __init__(
        self, roles: Sequence[SupervisedRole], record: Path, servers: Sequence[SupervisedServer] = ()
    ) -> None:
        self._roles = roles
        self._servers = servers
        self._record = record
        self._said: list[RoleState] = []
        self._stopping = False

    def run(self) -> None:
        """Returns after SIGTERM or SIGINT, when every role has ended."""
        lifeline, ours = os.pipe()
        wakeup = self._wake_on_signals()
        try:
            while not self._stopping:
                self._step(lifeline)
                self._sleep(wakeup)
        finally:
            killed = processes.stop([role.process for role in self._roles if role.process], GRACE_S)
            print(
                f"stopped; killed after {GRACE_S:.0f} s: {[started.name for started in killed]}", flush=True
            )
            self._record.unlink(missing_ok=True)
            os.close(ours)

    def _step(self, lifeline: int) -> None:
        for server in self._servers:
            server.step(time.monotonic())
        for role in self._roles:
            role.step(time.monotonic(), lifeline)
            role.bound_log()
        self._publish()

    def _sleep(self, wakeup: int) -> None:
        """Until the next start is due, or a signal, such as a child's end, wakes us."""
        now = time.monotonic()
        dues = [role.seconds_until_due(now) for role in self._roles]
        due = min([STEP_S, *dues, *(server.seconds_until_due(now) for server in self._servers)])
        if select.select([wakeup], [], [], due)[0]:
            os.read(wakeup, 512)

    def _publish(self) -> None:
        states = [role.state() for role in self._roles]
        if states != self._said:
            ourselves = asdict(processes.identify("supervisor", os.getpid()))
            draft = self._record.with_suffix(".draft")
            draft.write_text(json.dumps({**ourselves, "roles": [asdict(state) for state in states]}), "utf-8")
            draft.replace(self._record)
            self._said = states

    def _wake_on_signals(self) -> int:
        """A descriptor that becomes readable with every signal, so that sleeping costs nothing and misses nothing."""
        wakeup, write_end = os.pipe()
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for told in (signal.SIGTERM, signal.SIGINT):
            signal.signal(told, self._stop)
        return wakeup

    def _stop(self, *_: object) -> None:
        self._stopping = True


@dataclass(frozen=True)
class Report:
    """What a supervisor last said: who it is, and how its roles are."""

    supervisor: Started
    roles: list[RoleState]


def read_report(run: Path) -> Report | None:
    """The report of the supervisor below `run`, living or not; None where none is."""
    try:
        said = json.loads(record_of(run).read_text("utf-8"))
    except FileNotFoundError:
        return None
    roles = [RoleState(**state) for state in said.pop("roles")]
    return Report(Started(**said), roles)


def record_of(run: Path) -> Path:
    return run / "supervisor.json"


def main() -> None:
    """Supervises the roles of the Daybook that was kept below our home, and those lookers-on that the command line names;
    exits 2 when someone else does already.
    """
    ours = settings.kept(settings.from_environment().home)
    if ours is None:
        sys.exit("nothing was brought up here; ./daybook up does")
    lock = (ours.run / "supervisor.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held until we end, however we end
    except BlockingIOError:
        sys.exit(2)
    roles = [
        SupervisedRole(
            name,
            [sys.executable, "-m", "ops", "run", name],
            {**os.environ, **ours.environment(name)},
            ours.logs / f"{name}.log",
        )
        for name in (*ROLES, *(looker_on for looker_on in LOOKERS_ON if looker_on in sys.argv))
    ]
    stack = LocalStack(ours.stack, brief=False)
    servers = [SupervisedServer(name, stack) for name in SERVERS]
    Supervisor(roles, record_of(ours.run), servers).run()


if __name__ == "__main__":
    main()
