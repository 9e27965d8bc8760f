"""`./daybook simulate`: the laws under faults, seed by seed, on virtual time; and the bugs that it must catch."""

import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from ops.simulate.faults import KINDS
from ops.simulate.planted import BUGS
from ops.simulate.runs import Run
from ops.simulate.search import Hunted, Judged, hunt_all, judge_all, quieten

SEEDS = 100
HUNT_SEEDS = 1_000
TOLD_EVERY_S = 2.0
SHOWN = 12


@dataclass
class Findings:
    """What was found so far; interrupted, that is the result."""

    began: float = field(default_factory=time.monotonic)
    judged: list[Judged] = field(default_factory=list)
    hunted: list[Hunted] = field(default_factory=list)
    interrupted: bool = False

    @property
    def violations(self) -> list[Judged]:
        return sorted((one for one in self.judged if one.run.broken), key=lambda one: one.seed)

    @property
    def uncaught(self) -> list[Hunted]:
        return [one for one in self.hunted if one.seed is None]

    @property
    def faults(self) -> Counter[str]:
        return Counter(fault.kind for one in self.judged for fault in one.run.plan.faults)

    @property
    def seconds(self) -> float:
        return sum(one.run.seconds for one in self.judged)

    @property
    def cpu_s(self) -> float:
        return sum(one.cpu_s for one in self.judged)


def simulate(
    seeds: Annotated[int, typer.Option(min=1, help="So many seeds, one after another.")] = SEEDS,
    seed: Annotated[int, typer.Option(min=0, help="The first of them.")] = 1,
    report: Annotated[Path | None, typer.Option(help="Where the report goes as JSON.")] = None,
    *,
    hunt: Annotated[
        bool, typer.Option("--planted", help="Plant each known bug, and look for a seed that catches it.")
    ] = False,
) -> None:
    """Run the production code over an in-memory Kafka and a virtual clock, with faults by seed, and ask the laws.

    The same seed gives the same bytes. Exit 1 if a law is broken, or a planted bug is not caught.
    """
    findings = Findings()
    quieten()
    try:
        if hunt:
            _hunt(findings, seed)
        else:
            _judge(findings, seed, seeds)
    except KeyboardInterrupt:
        findings.interrupted = True
    typer.echo(_told(findings, hunted=hunt))
    if report:
        report.write_text(json.dumps(_as_json(findings), indent=1), "utf-8")
    is_well = not findings.violations and not findings.uncaught
    raise typer.Exit(130 if findings.interrupted and is_well else 0 if is_well else 1)


def _judge(findings: Findings, first: int, seeds: int) -> None:
    progress = _Progress(
        lambda: f"{len(findings.judged):,} of {seeds:,} seeds, {len(findings.violations)} violations"
    )
    for judged in judge_all(range(first, first + seeds), progress.tick):
        findings.judged.append(judged)
        if judged.shortest is not None:
            progress.clear()
            typer.echo(_violation(judged, judged.shortest))


def _hunt(findings: Findings, first: int) -> None:
    progress = _Progress(lambda: f"{len(findings.hunted)} of {len(BUGS)} bugs looked for")
    for hunted in hunt_all(first, HUNT_SEEDS, progress.tick):
        findings.hunted.append(hunted)
        progress.clear()
        typer.echo(f"{hunted.name}: {_seed_of(hunted)}", err=True)


class _Progress:
    """A line on a terminal that is written over, every two seconds; elsewhere nothing."""

    def __init__(self, say: Any) -> None:
        self._say = say
        self._began = self._told_at = time.monotonic()

    def tick(self) -> None:
        now = time.monotonic()
        if sys.stderr.isatty() and now - self._told_at >= TOLD_EVERY_S / 2:
            self._told_at = now
            sys.stderr.write(f"\r\x1b[K{now - self._began:6.0f} s  {self._say()}")
            sys.stderr.flush()

    def clear(self) -> None:
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")


def _violation(judged: Judged, shortest: Run) -> str:
    errands = [f"{errand.at / 1e6:8.3f} s  a caller: {errand.kind}" for errand in shortest.plan.errands]
    history = sorted([*shortest.happened, *errands])
    left_out = [f"  … and {len(history) - SHOWN} more"] if len(history) > SHOWN else []
    return "\n".join(
        [
            f"seed {judged.seed} breaks:",
            *(f"  {broken}" for broken in judged.run.broken[:SHOWN]),
            "the shortest history found:",
            *(f"  {line}" for line in history[:SHOWN]),
            *left_out,
            "  breaks:",
            *(f"  {broken}" for broken in shortest.broken[:SHOWN]),
        ]
    )


def _told(findings: Findings, *, hunted: bool) -> str:
    return _table(findings) if hunted else _summary(findings)


def _summary(findings: Findings) -> str:
    judged = findings.judged
    if not judged:
        return "no seed was finished"
    faults = findings.faults
    lines = [f"  {faults[kind]:7,}  {kind}" for kind in sorted(KINDS)]
    violations = findings.violations
    commands, events = sum(one.run.commands for one in judged), sum(one.run.events for one in judged)
    elapsed_s, pace = time.monotonic() - findings.began, findings.seconds / max(findings.cpu_s, 1e-9)
    return "\n".join(
        [
            "faults:",
            *lines,
            f"{len(judged):,} seeds, {commands:,} commands, {events:,} events",
            f"{findings.seconds:,.0f} simulated seconds in {elapsed_s:,.0f} s, {pace:,.0f} per second of one core",
            f"{len(violations)} violations" + "".join(f"\n  seed {one.seed}" for one in violations),
        ]
    )


def _table(findings: Findings) -> str:
    by_name = {one.name: one for one in findings.hunted}
    rows = [
        (name, _seed_of(by_name.get(name)), by_name[name].broken[:90] if name in by_name else "")
        for name in BUGS
    ]
    return "\n".join(
        [f"{'bug':32} {'seed':>6}  broken", *(f"{name:32} {seed:>6}  {what}" for name, seed, what in rows)]
    )


def _seed_of(hunted: Hunted | None) -> str:
    if hunted is None:
        return "-"
    return "none" if hunted.seed is None else str(hunted.seed)


def _as_json(findings: Findings) -> dict[str, Any]:
    return {
        "seeds": len(findings.judged),
        "violations": [
            {
                "seed": one.seed,
                "broken": list(one.run.broken),
                "history": list(one.shortest.happened) if one.shortest else [],
                "errands": [errand.kind for errand in one.shortest.plan.errands] if one.shortest else [],
            }
            for one in findings.violations
        ],
        "planted": {one.name: one.seed for one in findings.hunted},
        "faults": dict(sorted(findings.faults.items())),
        "simulated_seconds": round(findings.seconds),
        "cpu_seconds": round(findings.cpu_s, 1),
        "interrupted": findings.interrupted,
    }
