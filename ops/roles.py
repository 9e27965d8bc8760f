"""The roles of Daybook: each a process with one job, that dies with its supervisor."""

import ctypes
import gc
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType

LIFELINE = "DAYBOOK_LIFELINE"
PR_SET_PDEATHSIG = 1
HEAP: Mapping[int, int] = MappingProxyType({-8: 2, -3: 1 << 16, -1: 1 << 17})
"""What glibc's mallopt is told: M_ARENA_MAX, M_MMAP_THRESHOLD and M_TRIM_THRESHOLD, in bytes. With 1 and 8 MB a worker
takes a twelfth less CPU where it does nothing else, and grows by 12 % over the winter instead of by 9."""
COLLECT_AFTER = (50_000, 20, 20)
"""Objects made and not dropped until the young are looked at, and so on for the older: CPython has 700, 10, 10."""

# In the order in which `up` starts them. Each main takes no argument: a role reads DAYBOOK_* and nothing else.
ROLES: Mapping[str, str] = MappingProxyType(
    {
        "sandbox": "ops.payment_sandbox.server:main",
        "commands": "streams.command_worker:main",
        "projections": "streams.projection_agents:main",
        "ledger": "streams.projection_agents:ledger",
        "sagas": "streams.saga_agents:main",
        "payments": "streams.payment_agent:main",
        "api": "api.main:main",
    }
)
LOOKERS_ON: Mapping[str, str] = MappingProxyType(
    {
        "auditor": "ops.audit.role:main",
        "sealer": "ops.evidence.sealer:main",
        "console": "ops.console.server:main",
    }
)
"""They change nothing in the trade. `up` starts them; the demo and the faults, which judge the log themselves, do without."""


class RoleMissing(Exception):
    """The role's code is not there."""


def run(role: str) -> None:
    """Runs the role here, until SIGTERM or Ctrl-C."""
    die_with_supervisor()
    keep_heap_small()
    leave_out_rich()
    main = main_of({**ROLES, **LOOKERS_ON}[role])
    collect_rarely()
    main()


def keep_heap_small() -> None:
    """glibc gives threads heaps of their own, up to eight a core, and holds back ever larger pieces: few heaps, and what
    is large is a mapping of its own that goes back when it is freed.
    """
    with suppress(OSError, AttributeError):  # another C library has no such option
        for option, value in HEAP.items():
            ctypes.CDLL(None).mallopt(option, value)


def leave_out_rich() -> None:
    """structlog imports it wherever it is installed, for colours: a tenth of a second of a start, and 4 MB of each role."""
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # "not to be found", as Python's import says it


def collect_rarely() -> None:
    """A batch makes tens of thousands of objects and hardly a cycle; looking for cycles took a sixth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


def main_of(target: str) -> Callable[[], None]:
    """The function that `module:function` names; RoleMissing when there is none."""
    name, _, function = target.partition(":")
    try:
        main: Callable[[], None] = getattr(importlib.import_module(name), function)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise  # something that the role itself needs
        raise RoleMissing(f"{name} does not exist") from error
    except AttributeError as error:
        raise RoleMissing(f"{name} has no {function}") from error
    return main


def die_with_supervisor() -> None:
    """Ties this process's life to its supervisor's, if it has one.

    The supervisor holds the other end of a pipe, which the kernel closes however the supervisor ends; Linux's own
    signal comes on top, since it also ends a process that is frozen. What is cut off in the middle is recovered as
    after any crash.
    """
    if not (lifeline := os.environ.pop(LIFELINE, "")):
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_await_end_of, args=[int(lifeline)], name="lifeline", daemon=True).start()


def _await_end_of(lifeline: int) -> None:
    os.read(lifeline, 1)  # nothing is ever written: this returns when the other end is closed
    os._exit(1)


if __name__ == "__main__":
    run(sys.argv[1])
