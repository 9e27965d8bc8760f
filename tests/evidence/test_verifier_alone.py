"""The verifier stands alone: it knows no Kafka, no writer, and no other code of ours."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from ops.bench.contest import hold
from ops.bench.evidence import Verify
from ops.settings import REPOSITORY

EVIDENCE = REPOSITORY / "ops" / "evidence"
VERIFIER = ("verify", "bundle", "checkpoint", "merkle", "values", "datum_reader", "laws")
FOREIGN = {"confluent_kafka", "schemas", "commands", "projections", "streams", "api"}


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_the_verifier_imports_nothing_of_ours_but_itself():
    ours = {f"ops.evidence.{name}" for name in VERIFIER}
    for name in VERIFIER:
        found = set(imported(EVIDENCE / f"{name}.py"))
        assert {one for one in found if one.startswith("ops")} <= ours, name
        assert not {one.partition(".")[0] for one in found} & FOREIGN, name


def test_it_runs_without_kafka_and_without_our_schemas():
    source = f"import sys, ops.evidence.verify; print(sorted({FOREIGN!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_bench_verifies_every_record_and_is_not_blind():
    contest = Verify(records=300)
    try:
        verdicts = hold(contest, 1, lambda _: None)
        assert contest.proof() == {"tampered_bundles_that_passed": 0}
    finally:
        contest.close()
    assert {name: bool(verdict.daybook and verdict.peer) for name, verdict in verdicts.items()} == {
        "verify": True,
        "verify, one core": True,
    }
