"""`./daybook bench`: how fast is it, beside what one would use instead?"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from ops import settings
from ops.bench.contest import ROUNDS, BenchFailed, Contest, Verdict, hold
from ops.cli import in_a_folder
from ops.local_stack import LocalStack, StackFailed
from ops.settings import Settings

NAMES = (
    "hot-sku",
    "commands",
    "latency",
    "asof",
    "takeover",
    "winter",
    "replay",
    "export",
    "rebuild",
    "auditor",
    "verify",
    "projections",
    "ledger",
    "freshness",
)
LONG = ("takeover", "winter", "auditor", "verify")
TAKEOVERS = 20
"""A 95th percentile of fewer is none."""

PEERS = ("pgserver", "psycopg", "eventsourcing")

Report = dict[str, dict[str, Any]]


def say(message: str) -> None:
    typer.echo(message, err=True)


def bench(
    name: Annotated[
        str,
        typer.Argument(help=f"{' | '.join(NAMES)}; all but {', '.join(LONG)} if none is named."),
    ] = "",
    *,
    report: Annotated[
        Path | None, typer.Option(callback=in_a_folder, help="Write the figures as JSON into this file.")
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=1, help="Rounds of each side; fewer than 7 prove little.")
    ] = ROUNDS,
) -> None:
    """Measure Daybook and a peer in the same rounds; exit 1 when a floor is missed, 2 when it could not be run.

    The servers that the environment names are used, else a local stack of its own below .daybook/bench.
    """
    if name and name not in NAMES:
        say(f"daybook: no bench is called {name}; there are {', '.join(NAMES)}")
        raise typer.Exit(2)
    try:
        found = run([name] if name else [n for n in NAMES if n not in LONG], rounds)
    except (BenchFailed, StackFailed) as failed:
        say(f"daybook: {failed}")
        raise typer.Exit(2) from failed
    if report:
        report.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    for line in table(found):
        typer.echo(line)
    if any(is_missed(bench_) for bench_ in found.values()):
        raise typer.Exit(1)


def run(names: list[str], rounds: int) -> Report:
    """The reports of the named benches. Raises BenchFailed and StackFailed."""
    home = settings.from_environment().home / "bench"
    home.mkdir(parents=True, exist_ok=True)
    found: Report = {}
    if "winter" in names:
        from ops.bench.winter import winter

        found["winter"] = as_report(winter(home / "winter.json"), {})
    if "verify" in names:  # it needs no servers
        found["verify"] = held("verify", settings.from_environment(), rounds)
    measured = [name for name in names if name not in ("winter", "auditor", "verify")]
    if measured or "auditor" in names:
        with kafka_for(replace(settings.from_environment(), home=home)) as ready:
            if "auditor" in names:
                from ops.bench.auditor import auditor

                found["auditor"] = as_report(auditor(ready, say), {})
            for name in measured:
                found[name] = held(name, ready, max(rounds, TAKEOVERS) if name == "takeover" else rounds)
    return found


@contextmanager
def kafka_for(wanted: Settings) -> Iterator[Settings]:
    """The settings with the address of a Kafka: the environment's, else our own stack's, which ends afterwards."""
    if wanted.kafka:
        yield wanted
        return
    stack = LocalStack(wanted.stack, {"cassandra": wanted.cassandra, "redis": wanted.redis}, brief=False)
    try:
        yield wanted.at(stack.addresses() or stack.start(say))
    finally:
        stack.stop()


def held(name: str, ready: Settings, rounds: int) -> dict[str, Any]:
    """One contest from its preparation to its proof."""
    load_before = os.getloadavg()[0]
    with ExitStack() as ends:
        contest = prepared(name, ready, ends)
        verdicts = hold(contest, rounds, say)
        say(f"{name}: reading the log")
        proof = dict(contest.proof())
    found = as_report(verdicts, proof)
    found["load_average"] = {"before": round(load_before, 1), "after": round(os.getloadavg()[0], 1)}
    return found | {"cores": os.cpu_count()}


def prepared(name: str, ready: Settings, ends: ExitStack) -> Contest:
    """Wiring: who meets whom. What is opened here ends with `ends`."""
    if name == "verify":
        from ops.bench.evidence import Verify

        return ends.enter_context(closing(Verify()))
    if name in ("replay", "export", "rebuild"):
        return reading(name, ready, ends)
    if name in ("asof", "ledger", "projections"):
        return posting(name, ready, ends)
    from ops.bench.stage import Stage

    stage = ends.enter_context(closing(Stage(ready.kafka, ready, say)))
    if name == "latency":
        from ops.bench.latency import Latency

        return ends.enter_context(closing(Latency(stage)))
    if name == "freshness":
        from ops.bench.freshness import Freshness

        return ends.enter_context(closing(Freshness(stage)))
    if name == "takeover":
        from ops.bench.takeover import Takeover

        return Takeover(stage)
    if missing := [peer for peer in PEERS if find_spec(peer) is None]:
        raise BenchFailed(f"{name} needs its peers, which are not installed here: {', '.join(missing)}")
    from ops.bench.postgres import Postgres

    postgres = ends.enter_context(closing(Postgres(ready.home / "postgres")))
    if name == "hot-sku":
        from ops.bench.hot_sku import HotSku

        return HotSku(stage, postgres)
    from ops.bench.commands import Commands

    return ends.enter_context(closing(Commands(stage, postgres)))


def reading(name: str, ready: Settings, ends: ExitStack) -> Contest:
    """Those that only read need no worker, but a log."""
    from ops.bench.reading import ORDERS, ExportContest, ReplayContest
    from ops.bench.trade_log import TradeLog

    if name == "rebuild" and not ready.redis:
        raise BenchFailed("rebuild needs a Redis: DAYBOOK_REDIS")
    log = TradeLog(ready.kafka, ORDERS, say)
    if name == "rebuild":
        from ops.bench.rebuild import RebuildContest

        return ends.enter_context(closing(RebuildContest(ready, log)))
    contest = ReplayContest(log) if name == "replay" else ExportContest(log, ready.home)
    return ends.enter_context(closing(contest))


def posting(name: str, ready: Settings, ends: ExitStack) -> Contest:
    """Those that only write and read views need no worker either."""
    if name == "asof":
        from ops.bench.asof import AsOf

        return ends.enter_context(closing(AsOf(ready)))
    if name == "ledger":
        from ops.bench.ledger import Ledger

        return ends.enter_context(closing(Ledger(ready)))
    from ops.bench.projections import Projections

    return ends.enter_context(closing(Projections(ready)))


def as_report(verdicts: Mapping[str, Verdict], proof: Mapping[str, int]) -> dict[str, Any]:
    """The first measure is the bench's own; the others stand under `also`."""
    (_, first), *others = verdicts.items()
    found = first.as_json()
    if others:
        found["also"] = {name: verdict.as_json() for name, verdict in others}
    return found | {"proof": dict(proof)}


def is_missed(found: Mapping[str, Any]) -> bool:
    """Whether a floor is missed, or the log shows what must not be."""
    figures = [found, *found.get("also", {}).values()]
    return any(figure["met"] == "missed" for figure in figures) or any(found["proof"].values())


def table(found: Report) -> Iterator[str]:
    """Both figures, the ratio, and what of the promise was met; then what each figure's durability is."""
    yield f"{'':<42}{'Daybook':>12}{'peer':>12}{'ratio':>8}{'floor':>8}{'aim':>7}  met"
    for name, bench_ in found.items():
        for what, figure in {name: bench_, **bench_.get("also", {})}.items():
            yield _row(f"{what} ({figure['unit']})", figure)
        yield from _notes(bench_)


def _row(what: str, figure: Mapping[str, Any]) -> str:
    goals = "".join(f"{_number(figure[goal]):>{width}}" for goal, width in (("floor", 8), ("aim", 7)))
    values = f"{_number(figure['daybook']):>12}{_number(figure['peer']):>12}{_number(figure['ratio']):>8}"
    return f"{what:<42}{values}{goals}  {figure['met']}"


def _notes(bench_: Mapping[str, Any]) -> Iterator[str]:
    for side, cpu_us in bench_["cpu_us_per_event"].items():
        if cpu_us:
            told = ", ".join(f"{name} {us:,.0f}" for name, us in cpu_us.items())
            yield f"    CPU per event, {side} (µs): {told}"
    for side, keeps in bench_["durability"].items():
        if keeps:
            yield f"    durability, {side}: {keeps}"
    if bench_["proof"]:
        yield "    in the log: " + ", ".join(
            f"{n} {what.replace('_', ' ')}" for what, n in bench_["proof"].items()
        )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
