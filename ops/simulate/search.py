"""Many seeds, over several cores: each run is judged by itself, so their order does not matter."""

import gc
import logging
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TypeVar

import structlog

from ops.simulate.planted import BUGS, planted
from ops.simulate.runs import Plan, Run, carry_out, plan_of
from ops.simulate.shrink import shortest

TICK_S = 1.0
FIRST_STRETCH = 8
AHEAD = 2
"""So many tasks wait for each core: an interruption need not wait for more."""

T = TypeVar("T")


@dataclass(frozen=True)
class Judged:
    """A seed that was run: what broke, and the shortest history that breaks it, if anything did."""

    seed: int
    run: Run
    shortest: Run | None
    cpu_s: float


@dataclass(frozen=True)
class Hunted:
    """A planted bug: the seed that caught it and what it broke; None where none of so many did."""

    name: str
    seed: int | None
    broken: str


def judge(seed: int) -> Judged:
    began = time.process_time()
    run = run_of(plan_of(seed))
    cpu_s = time.process_time() - began
    return Judged(seed, run, shortest(run, run_of) if run.broken else None, cpu_s)


def run_of(plan: Plan) -> Run:
    """The rubbish of a run is cleared away behind it, not on the way."""
    gc.disable()
    try:
        return carry_out(plan)
    finally:
        gc.enable()
        gc.collect()


def hunt(name: str, first: int, seeds: int) -> Hunted:
    for seed in range(first, first + seeds):
        with planted(name):
            run = run_of(plan_of(seed))
        if run.broken:
            return Hunted(name, seed, run.broken[0])
    return Hunted(name, None, "")


def judge_all(seeds: Iterable[int], tick: Callable[[], None], cores: int) -> Iterator[Judged]:
    yield from _spread(((judge, (seed,)) for seed in seeds), tick, cores)


def hunt_all(first: int, seeds: int, tick: Callable[[], None], cores: int) -> Iterator[Hunted]:
    """A few seeds for all of them, then more for those that are left: the shy ones keep nobody waiting."""
    left, tried, step = list(BUGS), 0, FIRST_STRETCH
    while left and tried < seeds:
        stretch = min(step, seeds - tried)
        missed: list[str] = []
        for hunted in _spread(((hunt, (name, first + tried, stretch)) for name in left), tick, cores):
            if hunted.seed is None and tried + stretch < seeds:
                missed.append(hunted.name)
            else:
                yield hunted
        left, tried, step = [name for name in BUGS if name in missed], tried + stretch, step * 2


def _spread(
    tasks: Iterable[tuple[Callable[..., T], tuple[object, ...]]], tick: Callable[[], None], cores: int
) -> Iterator[T]:
    """Results as they come; `tick` is called at least every second. Closed, it ends what is under way."""
    queue = iter(tasks)
    pool = ProcessPoolExecutor(cores, get_context("spawn"), initializer=work)
    under_way: set[Future[T]] = set()
    try:
        while True:
            for call, arguments in _taken(queue, cores * AHEAD - len(under_way)):
                under_way.add(pool.submit(call, *arguments))
            if not under_way:
                return
            done, under_way = wait(under_way, TICK_S, FIRST_COMPLETED)
            tick()
            yield from (future.result() for future in done)
    finally:
        workers = list((pool._processes or {}).values())  # noqa: SLF001  # nobody else can end a run half-way
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.terminate()


def _taken(queue: Iterator[T], count: int) -> Iterator[T]:
    for _ in range(count):
        try:
            yield next(queue)
        except StopIteration:
            return


def work() -> None:
    """Ctrl-C is for the process that started this one, which ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    quieten()


def quieten() -> None:
    """What processes say when they are killed a thousand times is nobody's news."""
    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda _: None
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    gc.freeze()
