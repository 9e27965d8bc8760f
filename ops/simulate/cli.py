"""`./daybook simulate`: the laws under faults, seed by seed, on virtual time; and the bugs that it must catch."""

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from ops.cli import in_a_folder
from ops.simulate.faults import KINDS
from ops.simulate.planted import BUGS
from ops.simulate.runs import Run
from ops.simulate.search import Hunted, Judged, hunt_all, judge_all, quieten

SEEDS = 100
HUNT_SEEDS = 1_000
TOLD_EVERY_S = 1.0
SAVED_EVERY_S = 30.0
SHOWN = 12


@dataclass
class Findings:
    """What was found so far, from seed `first` on; interrupted, that is the result. Of seeds that hold, sums are kept."""

    first: int
    began: float = field(default_factory=time.monotonic)
    judged: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    commands: int = 0
    events: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    violations: list[Judged] = field(default_factory=list)
    hunted: list[Hunted] = field(default_factory=list)
    interrupted: bool = False
    _ahead: set[int] = field(default_factory=set)

    def add(self, one: Judged) -> None:
        self.judged += 1
        self.seconds += one.run.seconds
        self.cpu_s += one.cpu_s
        self.commands += one.run.commands
        self.events += one.run.events
        self.faults.update(fault.kind for fault in one.run.plan.faults)
        self._ahead.add(one.seed)
        if one.run.broken:
            self.violations = sorted([*self.violations, one], key=lambda violation: violation.seed)

    @property
    def next(self) -> int:
        """The first seed that was not judged: where to go on."""
        while self.first in self._ahead:
            self._ahead.remove(self.first)
            self.first += 1
        return self.first

    @property
    def uncaught(self) -> list[Hunted]:
        return [one for one in self.hunted if one.seed is None]


def simulate(
    seeds: Annotated[int, typer.Option(min=1, help="So many seeds, one after another.")] = SEEDS,
    seed: Annotated[int, typer.Option(min=0, help="The first of them.")] = 1,
    report: Annotated[
        Path | None,
        typer.Option(callback=in_a_folder, help="Where the report goes as JSON, now and then too."),
    ] = None,
    cores: Annotated[int | None, typer.Option(min=1, help="So many processes; all cores by default.")] = None,
    *,
    hunt: Annotated[
        bool, typer.Option("--planted", help="Plant each known bug, and look for a seed that catches it.")
    ] = False,
) -> None:
    """Run the production code over an in-memory Kafka and a virtual clock, with faults by seed, and ask the laws.

    The same seed gives the same bytes. Exit 1 if a law is broken, or a planted bug is not caught. Interrupted, by
    SIGTERM too, it tells what it has; `next` in the report is the seed to go on with.
    """
    findings = Findings(seed)
    quieten()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    progress = _Progress(findings, len(BUGS) if hunt else seeds, report)
    try:
        if hunt:
            _hunt(findings, seed, progress, cores or os.cpu_count() or 1)
        else:
            _judge(findings, range(seed, seed + seeds), progress, cores or os.cpu_count() or 1)
    except KeyboardInterrupt:
        findings.interrupted = True
    finally:
        signal.signal(signal.SIGTERM, before)
    progress.clear()
    typer.echo(_table(findings) if hunt else _summary(findings))
    progress.save()
    is_well = not findings.violations and not findings.uncaught
    raise typer.Exit(130 if findings.interrupted and is_well else 0 if is_well else 1)


def _judge(findings: Findings, seeds: Sequence[int], progress: "_Progress", cores: int) -> None:
    for judged in judge_all(seeds, progress.tick, cores):
        findings.add(judged)
        if judged.shortest is not None:
            progress.clear()
            typer.echo(_violation(judged, judged.shortest))


def _hunt(findings: Findings, first: int, progress: "_Progress", cores: int) -> None:
    for hunted in hunt_all(first, HUNT_SEEDS, progress.tick, cores):
        findings.hunted.append(hunted)
        progress.clear()
        typer.echo(f"{hunted.name}: {_seed_of(hunted)}", err=True)


@dataclass
class _Progress:
    """A line on a terminal that is written over; the report, saved every half a minute."""

    findings: Findings
    wanted: int
    report: Path | None
    _told_at: float = 0.0
    _saved_at: float = field(default_factory=time.monotonic)

    def tick(self) -> None:
        now = time.monotonic()
        if sys.stderr.isatty() and now - self._told_at >= TOLD_EVERY_S:
            self._told_at = now
            sys.stderr.write(f"\r\x1b[K{now - self.findings.began:6.0f} s  {self._said()}")
            sys.stderr.flush()
        if now - self._saved_at >= SAVED_EVERY_S:
            self._saved_at = now
            self.save()

    def _said(self) -> str:
        done = len(self.findings.hunted) or self.findings.judged
        return f"{done:,} of {self.wanted:,}, {len(self.findings.violations)} violations"

    def save(self) -> None:
        if self.report is not None:
            self.report.write_text(json.dumps(_as_json(self.findings), indent=1), "utf-8")

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


def _summary(findings: Findings) -> str:
    if not findings.judged:
        return "no seed was finished"
    faults = findings.faults
    lines = [f"  {faults[kind]:7,}  {kind}" for kind in sorted(KINDS)]
    violations = findings.violations
    elapsed_s, pace = time.monotonic() - findings.began, findings.seconds / max(findings.cpu_s, 1e-9)
    return "\n".join(
        [
            "faults:",
            *lines,
            f"{findings.judged:,} seeds, {findings.commands:,} commands, {findings.events:,} events",
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
        "seeds": findings.judged,
        "next": findings.next,
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
