"""A contest: Daybook and a peer take turns, round by round, and the medians are held against what was promised."""

import math
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal, Protocol

Progress = Callable[[str], None]

ROUNDS = 7


class BenchFailed(Exception):
    """A contest could not be held, or one side did not do what it was timed for; the message says what."""


@dataclass(frozen=True)
class Figure:
    """What one side did in one round: `value` in the measure's unit, and where the CPU went.

    `cpu_us` is CPU time per event (a command decided, a row reserved) in microseconds, by process; a process that
    serves others at the same time is counted whole.
    """

    value: float
    cpu_us: Mapping[str, float] = field(default_factory=dict)
    how: str = ""


@dataclass(frozen=True)
class Pair:
    """Both sides of one round; `peer` is None where the promise is about Daybook alone."""

    daybook: Figure
    peer: Figure | None = None

    @property
    def ratio(self) -> float | None:
        return self.daybook.value / self.peer.value if self.peer and self.peer.value else None


@dataclass(frozen=True)
class Measure:
    """What is measured, and what was promised of it: of the ratio, or of Daybook's own figure.

    A floor must be met, an aim is tried for; without a floor the measure is only told.
    """

    name: str
    unit: str
    daybook: str
    peer: str = ""
    floor: float | None = None
    aim: float | None = None
    of: Literal["ratio", "figure"] = "ratio"
    better: Literal["more", "less"] = "more"
    quantile: float = 0.5

    def over_rounds(self, values: Sequence[float]) -> float:
        """The median, or the round than which so large a share were no higher."""
        if self.quantile == 0.5:
            return median(values)
        return sorted(values)[math.ceil(self.quantile * len(values)) - 1]

    def reaches(self, value: float | None, goal: float | None) -> bool:
        if value is None or goal is None:
            return False
        return value >= goal if self.better == "more" else value <= goal


class Contest(Protocol):
    """One bench. `measures` name what each round brings; the first is the one that the bench is known by."""

    name: str
    measures: Sequence[Measure]

    def warm_up(self) -> None:
        """Everything a round needs, and one small round that is not counted."""
        ...

    def round(self) -> Mapping[str, Pair]:
        """One round of each side, by the names of the measures. Raises BenchFailed."""
        ...

    def proof(self) -> Mapping[str, int]:
        """What the log says after all rounds; every number must be 0. Raises BenchFailed."""
        ...


@dataclass(frozen=True)
class Verdict:
    """A measure over all rounds: medians, the median of the ratios, and what of the promise is met."""

    measure: Measure
    pairs: Sequence[Pair]

    @property
    def daybook(self) -> float:
        return self.measure.over_rounds([pair.daybook.value for pair in self.pairs])

    @property
    def peer(self) -> float | None:
        values = [pair.peer.value for pair in self.pairs if pair.peer]
        return self.measure.over_rounds(values) if values else None

    @property
    def ratio(self) -> float | None:
        ratios = [pair.ratio for pair in self.pairs if pair.ratio is not None]
        return median(ratios) if ratios else None

    @property
    def met(self) -> str:
        """`aim`, `floor`, `missed`, or empty where nothing was promised."""
        judged = self.ratio if self.measure.of == "ratio" else self.daybook
        if self.measure.floor is None:
            return ""
        if self.measure.reaches(judged, self.measure.aim):
            return "aim"
        return "floor" if self.measure.reaches(judged, self.measure.floor) else "missed"

    def as_json(self) -> dict[str, Any]:
        """The measure as the report has it; figures of single rounds beside the medians."""
        promise = self.measure
        return {
            "daybook": _rounded(self.daybook),
            "peer": _rounded(self.peer),
            "ratio": _rounded(self.ratio),
            "unit": promise.unit,
            "promise_of": promise.of,
            "floor": promise.floor,
            "aim": promise.aim,
            "met": self.met,
            "cpu_us_per_event": {
                "daybook": _cpu([pair.daybook for pair in self.pairs]),
                "peer": _cpu([pair.peer for pair in self.pairs if pair.peer]),
            },
            "durability": {"daybook": promise.daybook, "peer": promise.peer},
            "rounds": [_round(pair) for pair in self.pairs],
        }


def hold(contest: Contest, rounds: int, progress: Progress) -> dict[str, Verdict]:
    """All rounds of a contest; a line of progress for each."""
    load_before = os.getloadavg()[0]
    progress(f"{contest.name}: warming up (load average {load_before:.1f} on {os.cpu_count()} cores)")
    contest.warm_up()
    pairs: dict[str, list[Pair]] = {measure.name: [] for measure in contest.measures}
    for number in range(1, rounds + 1):
        for name, pair in contest.round().items():
            pairs[name].append(pair)
        progress(f"{contest.name}: round {number} of {rounds}: {_told(contest.measures, pairs)}")
    return {measure.name: Verdict(measure, pairs[measure.name]) for measure in contest.measures}


def in_turn(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Calls them in random order, so that none always comes first after the other side; results as they were named."""
    order = random.sample(range(len(calls)), len(calls))
    results = {n: calls[n]() for n in order}
    return [results[n] for n in range(len(calls))]


def _told(measures: Sequence[Measure], pairs: Mapping[str, Sequence[Pair]]) -> str:
    """The last round of each measure, in a few words."""
    told = []
    for measure in measures:
        pair = pairs[measure.name][-1]
        against = f" against {pair.peer.value:,.4g}" if pair.peer else ""
        told.append(f"{pair.daybook.value:,.4g}{against} {measure.unit}")
    return "; ".join(told)


def _cpu(figures: Sequence[Figure]) -> dict[str, float]:
    """The median CPU per event of each process, and of all together."""
    names = {name for figure in figures for name in figure.cpu_us}
    by_name = {name: median(f.cpu_us.get(name, 0.0) for f in figures) for name in sorted(names)}
    if by_name:
        by_name["all"] = median(sum(f.cpu_us.values()) for f in figures)
    return {name: round(value, 1) for name, value in by_name.items()}


def _round(pair: Pair) -> dict[str, Any]:
    return {
        "daybook": _rounded(pair.daybook.value),
        "peer": _rounded(pair.peer.value) if pair.peer else None,
        "ratio": _rounded(pair.ratio),
        "how": " against ".join(f.how for f in (pair.daybook, pair.peer) if f and f.how),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
