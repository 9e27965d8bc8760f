"""The benches, each held once and tiny: their reports have their shape, and what was timed is what was done.

No test here says how fast anything is: that is what `./daybook bench` is for, on a machine that does nothing else.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from ops import settings
from ops.bench import cli as bench_cli
from ops.bench.cli import as_report, is_missed, table
from ops.bench.commands import Commands
from ops.bench.contest import BenchFailed, Contest, Figure, Measure, Pair, Verdict, hold
from ops.bench.freshness import Freshness
from ops.bench.hot_sku import HotSku
from ops.bench.latency import Latency
from ops.bench.ledger import Ledger
from ops.bench.postgres import Postgres
from ops.bench.projections import Projections
from ops.bench.rebuild import RebuildContest
from ops.bench.stage import Stage
from ops.bench.trade_log import TradeLog
from ops.bench.winter import judge
from ops.local_stack import Addresses
from schemas.cart import ChangeItemQuantity
from schemas.inventory import AdjustStock
from schemas.values import MAIN

FIGURES = {
    "daybook",
    "peer",
    "ratio",
    "unit",
    "floor",
    "aim",
    "met",
    "durability",
    "cpu_us_per_event",
    "rounds",
}
RATE = Measure("rate", "per s", "flushed", "flushed", floor=5, aim=10)


@pytest.fixture
def stage(stack: Addresses, tmp_path: Path) -> Iterator[Stage]:
    with closing(Stage(stack.kafka, at(stack, tmp_path), print)) as stage:
        yield stage


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with closing(Postgres(tmp_path_factory.mktemp("postgres"))) as postgres:
        yield postgres


def test_hot_sku_sells_all_that_is_there_and_nothing_twice(stage: Stage, postgres: Postgres):
    report = held(HotSku(stage, postgres, commands=300, peer_s=0.2))

    assert report["proof"] == {"oversold": 0, "not_granted": 0, "oversold_by_peer": 0}
    assert "fsync=on" in report["durability"]["peer"]
    assert "fsync=off" in report["also"]["hot-sku, neither flushes"]["durability"]["peer"]


def test_commands_are_all_accepted_on_both_sides(stage: Stage, postgres: Postgres):
    with ExitStack() as ends:
        report = held(
            ends.enter_context(closing(Commands(stage, postgres, aggregates=20, commands=50, peer_s=0.2)))
        )

    assert set(report["cpu_us_per_event"]["daybook"]) >= {"worker", "client", "all"}
    assert set(report["cpu_us_per_event"]["peer"]) == {"postgres", "client", "all"}


def test_latency_is_told_for_one_ten_and_a_hundred_callers(stage: Stage):
    with ExitStack() as ends:
        report = held(ends.enter_context(closing(Latency(stage, share=0.05))))

    assert set(report["also"]) == {"10 callers", "100 callers"}
    assert report["also"]["100 callers"]["promise_of"] == "figure"


def test_freshness_is_told_beside_a_bare_transaction(stage: Stage):
    with ExitStack() as ends:
        report = held(ends.enter_context(closing(Freshness(stage, count=5))))

    assert report["proof"] == {"stale_documents": 0}
    assert set(report["cpu_us_per_event"]["daybook"]) >= {"worker", "projections", "client"}


def test_a_stock_faust_agent_and_ours_write_the_same_view(stack: Addresses, tmp_path: Path):
    with ExitStack() as ends:
        report = held(ends.enter_context(closing(Projections(at(stack, tmp_path), events=300))))

    assert report["proof"] == {"documents_that_differ": 0}
    assert set(report["cpu_us_per_event"]["peer"]) >= {"projection", "redis", "kafka"}


def test_the_ledger_and_one_insert_a_movement_leave_the_same_rows(stack: Addresses, tmp_path: Path):
    with ExitStack() as ends:
        report = held(ends.enter_context(closing(Ledger(at(stack, tmp_path), movements=300))))

    assert report["proof"] == {"rows_that_differ": 0}


def test_a_rebuilt_view_is_what_a_dict_folded_from_the_same_log_says(stack: Addresses, tmp_path: Path):
    ready = replace(settings.from_environment(), home=tmp_path).at(stack)
    with closing(RebuildContest(ready, TradeLog(stack.kafka, 3, print))) as contest:
        report = held(contest)

    assert report["proof"] == {"documents_that_differ": 0}


def test_a_round_whose_commands_were_not_accepted_is_no_figure(stage: Stage):
    adjusted = stage.ready(AdjustStock("A", MAIN, -1, "shrinkage", "", None), "merchant", NEW_ID)

    with pytest.raises(BenchFailed, match="was rejected"):
        stage.decide("inventory", [adjusted]).expect("accepted")


def test_a_worker_that_is_silent_is_told_with_its_last_words(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ops.bench.stage.SILENT_S", 1.0)
    lost = replace(stage.ready(ChangeItemQuantity(NEW_ID, "A", 1), "c", NEW_ID), value=b"nobody reads this")

    with pytest.raises(BenchFailed, match="no decision for 1 s"):
        stage.decide("cart", [lost])


def test_the_median_of_the_ratios_is_judged_not_the_ratio_of_the_medians():
    verdict = Verdict(RATE, [pair(10, 1), pair(40, 10), pair(90, 10)])

    assert (verdict.daybook, verdict.peer, verdict.ratio) == (40, 10, 9)
    assert verdict.met == "floor"


@pytest.mark.parametrize(("daybook", "met"), [(10, "aim"), (9.9, "floor"), (5, "floor"), (4.9, "missed")])
def test_a_rate_is_held_against_floor_and_aim(daybook: float, met: str):
    assert Verdict(RATE, [pair(daybook, 1)]).met == met


@pytest.mark.parametrize(("ms", "met"), [(10, "aim"), (10.1, "floor"), (20, "floor"), (20.1, "missed")])
def test_a_duration_is_better_when_it_is_less(ms: float, met: str):
    promise = Measure("100 callers", "ms", "", "", 20, 10, "figure", "less")
    assert Verdict(promise, [Pair(Figure(ms))]).met == met


def test_a_missed_floor_or_a_unit_sold_twice_is_a_failure():
    fast, slow = (as_report({"rate": Verdict(RATE, [pair(n, 1)])}, {}) for n in (10, 1))

    assert not is_missed(fast)
    assert is_missed(slow)
    assert is_missed(fast | {"proof": {"oversold": 1}})
    assert is_missed(fast | {"also": {"another": slow}})


def test_the_winter_is_judged_by_its_time_and_by_its_workers_memory():
    demo = {
        "elapsed_s": 300.0,
        "rss_mb_max": {"commands": 120.0, "api": 301.0, "kafka": 900.0},
        "rss_mb_thirds": {"commands": [100, 105, 109], "api": [200, 210, 221], "kafka": [500, 700, 900]},
    }
    met = {name: verdict.met for name, verdict in judge(demo).items()}

    assert list(met.values()) == ["floor", "missed", "missed"]


def test_a_bench_that_nobody_knows_is_answered_with_those_there_are():
    app = typer.Typer()
    app.command()(bench_cli.bench)
    told = CliRunner().invoke(app, ["speed"])

    assert told.exit_code == 2
    assert ", ".join(bench_cli.NAMES) in told.output


def held(contest: Contest) -> Mapping[str, Any]:
    """The report of one round, as it would be written into a file, after a look at what every report has."""
    found = as_report(hold(contest, 1, print), contest.proof())
    report: dict[str, Any] = json.loads(json.dumps(found))
    for figure in (report, *report.get("also", {}).values()):
        assert figure.keys() >= FIGURES
        assert figure["daybook"] > 0
        assert len(figure["rounds"]) == 1
    assert report["ratio"] == pytest.approx(report["daybook"] / report["peer"], rel=0.01)
    assert any(contest.name in line for line in table({contest.name: report}))
    return report


def at(stack: Addresses, home: Path) -> settings.Settings:
    return replace(settings.from_environment(), home=home).at(stack)


def pair(daybook: float, peer: float) -> Pair:
    return Pair(Figure(daybook), Figure(peer))


NEW_ID = "0b1c6ff6-4d1d-4d0e-8f6a-0a1b2c3d4e5f"
