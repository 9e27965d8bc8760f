"""A history that breaks a law, made shorter while it still does: faults are left out, then callers' errands."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from ops.simulate.runs import Plan, Run

RUNS_MAX = 60

T = TypeVar("T")


def laws_of(run: Run) -> set[str]:
    return {broken.partition(":")[0] for broken in run.broken}


def shortest(run: Run, carry_out: Callable[[Plan], Run], runs_max: int = RUNS_MAX) -> Run:
    """The shortest found within so many runs that breaks one of the same laws."""
    wanted, left = laws_of(run), runs_max
    best = run

    def still_breaks(plan: Plan) -> bool:
        nonlocal best, left
        if left <= 0:
            return False
        left -= 1
        tried = carry_out(plan)
        if not laws_of(tried) & wanted:
            return False
        best = tried
        return True

    _without_chunks(run.plan.faults, lambda faults: still_breaks(replace(best.plan, faults=tuple(faults))))
    _without_chunks(
        run.plan.errands, lambda errands: still_breaks(replace(best.plan, errands=tuple(errands)))
    )
    return best


def _without_chunks(items: Sequence[T], still_breaks: Callable[[Sequence[T]], bool]) -> None:
    """Leave out halves, then quarters, down to single items; whatever is not needed stays out."""
    size = max(1, len(items) // 2)
    while items:
        start = 0
        while start < len(items):
            shorter = [*items[:start], *items[start + size :]]
            if still_breaks(shorter):
                items = shorter
            else:
                start += size
        if size == 1:
            return
        size //= 2
