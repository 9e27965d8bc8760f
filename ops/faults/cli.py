"""`./daybook faults`: faults on real processes while callers trade, and checkers that read the log afterwards."""

import fcntl
import json
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ops import settings
from ops.cli import in_a_folder
from ops.demo.progress import Teller
from ops.faults.matrix import ROWS
from ops.faults.rotation import rotating
from ops.faults.runner import Played, is_well, play_all, summary
from ops.faults.scene import Row, Stage
from ops.faults.verdict import CLOCK
from ops.interruption import be_interrupted_once
from ops.running import RunsAlready


def faults(
    names: Annotated[list[str] | None, typer.Argument(help="Rows, such as F5; all if none is named.")] = None,
    *,
    seed: Annotated[int | None, typer.Option(help="Decides what callers do and whom chance hits.")] = None,
    rounds: Annotated[int, typer.Option(min=0, help="Rotate single faults for so many minutes instead.")] = 0,
    patience: Annotated[
        float,
        typer.Option(min=1, help="Multiply every bound, on a machine that is busy; the report says so."),
    ] = 1.0,
    report: Annotated[
        Path | None, typer.Option(callback=in_a_folder, help="Where the report goes as JSON.")
    ] = None,
) -> None:
    """Kill, freeze, cut off and lie to real processes while callers trade; then hold the log against what they heard.

    Exit 1 if a row is red, or was not shown where this machine has no excuse; 2 if the matrix is being played here
    already.
    """
    rows = [rotating(rounds)] if rounds else [_row(name) for name in names or ROWS]
    be_interrupted_once()
    CLOCK.patience = patience
    teller = Teller()
    seed = secrets.randbelow(1 << 32) if seed is None else seed
    teller.say(f"seed {seed}")
    around = settings.from_environment()
    try:
        with alone(around.home / "faults"), closing(Stage(around, teller)) as stage:
            played = play_all(rows, stage, seed, teller.say)
    except RunsAlready as refused:
        teller.say(f"daybook: {refused}")
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        teller.say("daybook: interrupted; everything that was started is stopped")
        raise typer.Exit(130) from None
    for line in summary(played):
        teller.say(line)
    if report:
        report.write_text(json.dumps(as_json(seed, patience, played), indent=1) + "\n", "utf-8")
    raise typer.Exit(0 if is_well(played, rows) else 1)


def _row(name: str) -> Row:
    if name.upper() not in ROWS:
        raise typer.BadParameter(f"there is no row {name}; there are {', '.join(ROWS)}")
    return ROWS[name.upper()]


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """One matrix at a time; the lock ends with its holder, however it ends. Raises RunsAlready."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "matrix.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunsAlready("another run of the fault matrix is under way") from None
        yield


def as_json(seed: int, patience: float, played: list[Played]) -> dict[str, Any]:
    return {"seed": seed, "patience": patience, "rows": {one.name: one.as_json() for one in played}}
