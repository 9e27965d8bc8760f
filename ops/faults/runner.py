"""The runner: plays rows one after the other, and says of each whether it is green, red or not shown, and why."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from ops.faults.checkers import SENTENCES
from ops.faults.scene import Row, Scene, Stage
from ops.faults.verdict import NotShown
from ops.running import RunsAlready

Result: TypeAlias = Literal["green", "red", "not shown"]
SEED_STEP = 1_000_003


@dataclass(frozen=True)
class Played:
    """What became of one row; `green_s` from the heal (or the fault) until all was well, if that was measured."""

    name: str
    sentence: str
    result: Result
    why: str
    injected: tuple[str, ...]
    checkers: tuple[str, ...]
    late: tuple[str, ...]
    green_s: float | None
    took_s: float
    figures: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "name"}

    def lines(self) -> Iterable[str]:
        green = "" if self.green_s is None else f", green after {self.green_s:.1f} s"
        yield f"{self.name:<4}{self.result:<10}{self.sentence} ({self.took_s:.0f} s{green})"
        if self.why:
            yield f"    why: {self.why}"
        for late in self.late:
            yield f"    late, which a busy machine excuses: {late}"
        if self.checkers:
            yield f"    looked: {' '.join(self.checkers)}"


def play(row: Row, stage: Stage, seed: int) -> Played:
    """Whatever goes wrong makes the row red; after a red one nobody trusts the Daybook it was played on."""
    scene, began = Scene(stage, seed), time.monotonic()
    result: Result
    try:
        row.play(scene)
        result, why = "green", ""
    except NotShown as missing:
        result, why = "not shown", str(missing)
    except RunsAlready:
        raise  # somebody else plays here
    except Exception as error:  # noqa: BLE001  # a row that breaks has not been shown to be green
        logs = stage.set_logs_aside(row.name)
        result, why = "red", f"{type(error).__name__}: {error}; what everybody said is kept in {logs}"
        stage.close()
    return Played(
        row.name,
        row.sentence,
        result,
        why,
        tuple(scene.injected),
        tuple(sorted(scene.checkers, key=lambda name: int(name[1:]))),
        tuple(scene.late),
        scene.green_s,
        round(time.monotonic() - began, 1),
        scene.figures,
    )


def is_well(played: Iterable[Played], rows: Iterable[Row]) -> bool:
    """Green all; not shown only where the matrix allows it."""
    excused = {row.name for row in rows if row.optional}
    return all(one.result == "green" or (one.result == "not shown" and one.name in excused) for one in played)


def summary(played: Sequence[Played]) -> Iterator[str]:
    """How many rows ended how, and what each checker that looked is there for."""
    counts = Counter(one.result for one in played)
    yield ", ".join(f"{count} {result}" for result, count in counts.items())
    looked = {name for one in played for name in one.checkers}
    yield from (f"{name:<4}{sentence}" for name, sentence in SENTENCES.items() if name in looked)


def play_all(rows: Iterable[Row], stage: Stage, seed: int, say: Callable[[str], None]) -> list[Played]:
    found = []
    for number, row in enumerate(rows):
        say(f"{row.name}: {row.sentence}")
        found.append(play(row, stage, seed + number * SEED_STEP))
        for line in found[-1].lines():
            say(line)
    return found
