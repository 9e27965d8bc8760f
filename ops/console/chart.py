"""A chart of a stock item's balances: where lines and ticks lie, in the units of an SVG."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from schemas.instants import written
from schemas.meta import DAY

QUANTITIES = ("sellable", "reserved", "allocated", "shipped")
WIDTH, HEIGHT = 720, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 34
TICKS = 4
DATES = 3


@dataclass(frozen=True)
class Line:
    """One balance over the movements: the points of a polyline that goes in steps."""

    name: str
    points: str
    last: int


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Chart:
    """`told` says in words what is to be seen."""

    lines: Sequence[Line]
    rows: Sequence[Tick]
    columns: Sequence[Tick]
    told: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    bottom: int = HEIGHT - BOTTOM


@dataclass(frozen=True)
class Moved:
    """A movement: when it happened (micros), its version, and the balances before and after it."""

    at: int
    version: int
    before: dict[str, int]
    after: dict[str, int]


def chart_of(moves: Sequence[Moved]) -> Chart | None:
    """Of movements, the oldest first; each has as much room as any other. None where there is nothing to show."""
    if not moves:
        return None
    balances = {name: [moves[0].before[name], *(move.after[name] for move in moves)] for name in QUANTITIES}
    low = min(0, *(min(values) for values in balances.values()))
    top = max(1, *(max(values) for values in balances.values()))
    scale = _Scale(len(moves), low, low + _step(top - low) * TICKS)
    lines = [Line(name, scale.stairs(values), values[-1]) for name, values in balances.items()]
    rows = [Tick(scale.y(value), f"{value:,}") for value in range(low, scale.top + 1, _step(top - low))]
    return Chart(lines, rows, _dates(moves, scale), _told(moves, balances))


@dataclass(frozen=True)
class _Scale:
    moves: int
    low: int
    top: int

    def x(self, number: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * number / self.moves, 1)

    def y(self, value: int) -> float:
        share = (value - self.low) / (self.top - self.low)
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share, 1)

    def stairs(self, values: Sequence[int]) -> str:
        """A balance stays as it is until the middle of the next movement's place."""
        points = [(self.x(0), self.y(values[0]))]
        for number, (before, after) in enumerate(pairwise(values)):
            points += [(self.x(number + 0.5), self.y(before)), (self.x(number + 0.5), self.y(after))]
        points.append((self.x(self.moves), self.y(values[-1])))
        return " ".join(f"{x},{y}" for x, y in points)


def _step(span: int) -> int:
    """A round number of which `TICKS` reach over the span: 1, 2 or 5 times a power of ten."""
    power = 1
    while True:
        for digit in (1, 2, 5):
            if digit * power * TICKS >= span:
                return digit * power
        power *= 10


def _dates(moves: Sequence[Moved], scale: _Scale) -> list[Tick]:
    last = len(moves) - 1
    numbers = sorted({round(last * part / (DATES - 1)) for part in range(DATES)})
    is_long = moves[last].at - moves[0].at > DATES * DAY
    return [Tick(scale.x(number + 0.5), _date(moves[number].at, is_long=is_long)) for number in numbers]


def _date(at: int, *, is_long: bool) -> str:
    """A day; where that would not tell the ends apart, a time of the day."""
    return written(at)[:10] if is_long else written(at)[5:16].replace("T", " ")


def _told(moves: Sequence[Moved], balances: dict[str, list[int]]) -> str:
    went = ", ".join(f"{name} from {values[0]:,} to {values[-1]:,}" for name, values in balances.items())
    return f"From version {moves[0].version:,} to {moves[-1].version:,}: {went}."
