"""A short selection of the simulation: seeds that hold, bugs that are caught, bytes that repeat."""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest
from typer.testing import CliRunner

from ops.cli import app
from ops.settings import REPOSITORY
from ops.simulate.callers import Errand
from ops.simulate.checkers import _excused_until
from ops.simulate.cli import Findings
from ops.simulate.faults import KINDS, Fault
from ops.simulate.planted import BUGS, planted
from ops.simulate.runs import Plan, carry_out, plan_of
from ops.simulate.search import Judged
from ops.simulate.shrink import laws_of, shortest
from schemas.meta import SECOND

pytestmark = [
    pytest.mark.usefixtures("quiet"),
    # What a killed process leaves half-done is thrown away, as the kernel would; Python complains of it.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

SEEDS = 12
CAUGHT = {
    "no dedupe window": {"law 6", "C2", "law 1", "law 2", "law 5", "law 8"},
    "hash chain not linked": {"law 8"},
    "oversell": {"law 2"},
    "batch index per partition": {"law 6"},
}
"""Bugs that the very first seeds see, and laws that they may break."""

KIND_THAT_SHOWS = {
    "flight without end": "provider silent",
    "last stable offset recovery": "worker frozen in a transaction, its partitions moved",
    "no wait for pending offsets": "worker frozen in a transaction, its partitions moved",
}
"""Bugs that only one kind of fault brings to light."""


@pytest.mark.parametrize("seed", range(1, SEEDS + 1))
def test_a_seed_breaks_no_law_and_is_long_enough(seed: int):
    run = carry_out(plan_of(seed))
    assert run.broken == []
    assert run.commands >= 200
    assert run.seconds >= 300
    assert run.happened


def test_any_hundred_seeds_hold_every_kind_of_fault():
    for first in (0, 17, 4_242):
        kinds = Counter(fault.kind for n in range(100) for fault in plan_of(first + n).faults)
        assert set(kinds) == set(KINDS)


ONE_DIGEST = """
from ops.simulate.runs import carry_out, plan_of
from ops.simulate.search import quieten
quieten()
print(carry_out(plan_of(3)).digest)
"""


def test_the_same_seed_gives_the_same_bytes_whatever_the_order_of_hashes():
    digests = {
        subprocess.run(
            [sys.executable, "-c", ONE_DIGEST],
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(digests) == 1


@pytest.mark.parametrize("name", sorted(CAUGHT))
def test_a_planted_bug_is_caught(name: str):
    broken: set[str] = set()
    for seed in range(1, 11):
        with planted(name):
            broken = laws_of(carry_out(plan_of(seed)))
        if broken:
            break
    assert broken & CAUGHT[name]


@pytest.mark.parametrize("name", sorted(KIND_THAT_SHOWS))
def test_a_bug_that_takes_a_certain_fault_is_caught_where_that_is(name: str):
    kind, broken = KIND_THAT_SHOWS[name], False
    for seed in [n for n in range(1, 60) if any(fault.kind == kind for fault in plan_of(n).faults)]:
        with planted(name):
            broken = bool(carry_out(plan_of(seed)).broken)
        if broken:
            break
    assert broken


def test_a_bug_is_dug_out_again():
    with planted("batch index per partition"):
        assert carry_out(plan_of(2)).broken
    assert carry_out(plan_of(2)).broken == []


def test_there_are_at_least_25_bugs_to_plant():
    assert len(BUGS) >= 25


def test_a_broken_law_is_told_with_a_shorter_history():
    with planted("batch index per partition"):
        run = carry_out(plan_of(1))
        found = shortest(run, carry_out, runs_max=6)
    assert laws_of(found) & laws_of(run)
    assert len(found.plan.faults) + len(found.plan.errands) < len(run.plan.faults) + len(run.plan.errands)


def test_lateness_is_excused_by_an_unbroken_row_of_disturbances_only():
    disturbed = [(90 * SECOND, 110 * SECOND), (111 * SECOND, 130 * SECOND), (200 * SECOND, 300 * SECOND)]
    assert _excused_until(100 * SECOND, disturbed) == 130 * SECOND
    assert _excused_until(150 * SECOND, disturbed) == 150 * SECOND


def test_an_interrupted_run_goes_on_with_the_first_seed_that_was_not_judged():
    findings, run = Findings(first=7), carry_out(plan_of(3))
    for seed in (8, 7, 10):
        findings.add(Judged(seed, run, None, 0.0))
    assert (findings.judged, findings.next) == (3, 9)


# What the simulation found.


def killed(at_s: float, step: int, slot: int) -> Fault:
    return Fault("worker killed at a step", int(at_s * SECOND), SECOND, slot, step)


def test_a_partition_whose_first_transaction_was_aborted_is_served_by_the_next_worker():
    offsets_sent = 4
    faults = tuple(killed(at, offsets_sent, slot) for at in (3, 20) for slot in (0, 1))
    plan = Plan(33, (Errand(5 * SECOND, "check out", 7), Errand(30 * SECOND, "check out", 8)), faults)
    assert carry_out(plan).broken == []
    with planted("watermark taken for history"):
        assert carry_out(plan).broken


def test_a_strangers_record_that_came_first_stops_no_partition():
    poison = [Fault("poison", 4 * SECOND, 0, which, 1) for which in range(5)]
    plan = Plan(
        95, (Errand(9 * SECOND, "check out", 7),), (*poison, Fault("everything killed", 5 * SECOND, 0, 0, 0))
    )
    assert carry_out(plan).broken == []


def test_the_command_line_reports(tmp_path):
    from ops.cli import add_verb

    add_verb("simulate", "simulate")
    report = tmp_path / "report.json"
    result = CliRunner().invoke(app, ["simulate", "--seeds", "2", "--report", str(report)])
    assert result.exit_code == 0, result.output
    told = json.loads(report.read_text())
    assert (told["seeds"], told["violations"], told["planted"]) == (2, [], {})
