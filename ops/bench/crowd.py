"""Callers side by side, as a peer meets them: each a thread with a connection of its own."""

import threading
import time
from collections.abc import Callable, Sequence

import psutil

from ops.bench.contest import BenchFailed, Figure
from ops.bench.costs import Costs


def side_by_side(
    acts: Sequence[Callable[[], bool]], seconds: float, server: psutil.Process, how: str
) -> Figure:
    """How often per second an act succeeds when all are repeated for `seconds`, at once.

    Raises BenchFailed when one raised, or when none ever succeeded.
    """
    counts = [0] * len(acts)
    failures: list[Exception] = []
    costs = Costs({"postgres": server, "client": psutil.Process()})
    began = time.monotonic()

    def repeat(number: int) -> None:
        try:
            while time.monotonic() - began < seconds and not failures:
                counts[number] += acts[number]()
        except Exception as error:  # noqa: BLE001  # whatever it is, the round is void
            failures.append(error)

    threads = [threading.Thread(target=repeat, args=(n,), name=f"caller-{n}") for n in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    if failures:
        raise BenchFailed(f"the peer failed with {how}: {failures[0]}") from failures[0]
    if not sum(counts):
        raise BenchFailed(f"the peer did nothing with {how}")
    return Figure(sum(counts) / took, costs.per_event(sum(counts)), how)
