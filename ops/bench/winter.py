"""`winter`: the demo trades a whole winter once, and its own report says how long that took and what it weighed."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ops.bench.contest import BenchFailed, Figure, Measure, Pair, Verdict
from ops.bench.stage import KAFKA_KEEPS
from ops.settings import REPOSITORY

FIRST, LAST = "2010-12-01", "2011-02-28"
SECONDS = Measure("winter", "s", KAFKA_KEEPS, "", 360, 240, "figure", "less")
WORKER_MB = Measure("largest worker", "MB", "", "", 300, None, "figure", "less")
GROWTH = Measure("growth of a worker, last third to first", "ratio", "", "", 1.10, None, "figure", "less")
WORKERS = ("commands", "projections", "ledger", "sagas", "payments", "api")


def winter(report: Path) -> dict[str, Verdict]:
    """The stack's start and the check of the laws are not in the seconds. Raises BenchFailed when the demo failed."""
    argv = [sys.executable, "-m", "ops", "demo", "--from", FIRST, "--to", LAST, "--report", str(report)]
    ended = subprocess.run(argv, cwd=REPOSITORY, check=False)
    if ended.returncode:
        raise BenchFailed(f"the winter's demo ended with {ended.returncode}")
    return judge(json.loads(report.read_text("utf-8")))


def judge(report: Mapping[str, Any]) -> dict[str, Verdict]:
    """What a demo's report says of its time and of the memory of its workers."""
    largest = max(report["rss_mb_max"].get(role, 0.0) for role in WORKERS)
    thirds = [report["rss_mb_thirds"][role] for role in WORKERS if role in report["rss_mb_thirds"]]
    growth = max((last / first for first, _, last in thirds if first), default=0.0)
    found = {SECONDS: report["elapsed_s"], WORKER_MB: largest, GROWTH: growth}
    return {measure.name: Verdict(measure, [Pair(Figure(float(value)))]) for measure, value in found.items()}
