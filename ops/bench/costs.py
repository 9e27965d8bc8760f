"""What a round cost: the CPU time of the processes that took part."""

import os
from collections.abc import Mapping
from contextlib import suppress

import psutil


class Costs:
    """CPU time of processes from now on; a process is counted with its children."""

    def __init__(self, watched: Mapping[str, psutil.Process]) -> None:
        self._watched = watched
        self._before = {name: cpu_s(process) for name, process in watched.items()}

    def per_event(self, events: int) -> dict[str, float]:
        """Microseconds of CPU per event, by process."""
        return {
            name: max(0.0, cpu_s(process) - self._before[name]) / max(1, events) * 1e6
            for name, process in self._watched.items()
        }


def cpu_s(process: psutil.Process) -> float:
    """Of the process, and of those children that run now; our own children are somebody else's figure."""
    family = [process] if process.pid == os.getpid() else [process, *process.children(recursive=True)]
    total = 0.0
    for member in family:
        with suppress(psutil.NoSuchProcess):  # it ended between the look and the question
            times = member.cpu_times()
            total += times.user + times.system
    return total


def listener_at(address: str) -> psutil.Process | None:
    """The process that listens at host:port, if it is one of this machine that we may look at."""
    port = int(address.rpartition(":")[2])
    try:
        sockets = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return None
    listening = (s for s in sockets if s.status == psutil.CONN_LISTEN and s.pid)
    pids = {s.pid or 0 for s in listening if s.laddr and s.laddr.port == port}
    return psutil.Process(min(pids)) if pids else None
