"""One run: a seed's plan is carried out, everything heals, and when all is quiet the laws are asked."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from ops.simulate.callers import Callers, Errand, plan_errands
from ops.simulate.checkers import verdicts
from ops.simulate.clockwork import START, Process
from ops.simulate.faults import FAULTS_UNTIL, Fault, plan_faults
from ops.simulate.network import RECOVERY
from ops.simulate.site import Site
from ops.simulate.wire import DECODER
from schemas.meta import SECOND

QUIET = 620 * SECOND
"""Nothing was written for so long: longer than any pause, of which a capture that fails takes ten minutes."""
HEALED_LEAST = 620 * SECOND
"""A reservation's ten minutes."""
HEALED_MOST = 3_600 * SECOND
LOOK_EVERY = 10 * SECOND


@dataclass(frozen=True)
class Plan:
    """All that a seed decides before the run; what is left of it when a history is shortened."""

    seed: int
    errands: tuple[Errand, ...]
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class Run:
    """What became of a plan. `digest` is over every byte of every log; times are in simulated seconds."""

    plan: Plan
    broken: Sequence[str]
    digest: str
    seconds: float
    commands: int
    events: int
    happened: Sequence[str]


def plan_of(seed: int) -> Plan:
    random = Random(f"plan {seed}")
    return Plan(seed, plan_errands(random), plan_faults(seed, random))


def carry_out(plan: Plan) -> Run:
    """The same plan gives the same bytes."""
    DECODER.forget()
    site = Site(Random(f"run {plan.seed}"))
    outside = Process(site.clock, "callers")
    callers = Callers(outside, site.network, site.topics, site.random)
    site.start()
    callers.send_out(plan.errands)
    happened: list[str] = []
    for fault in plan.faults:
        site.clock.at(START + fault.at, None, fault.inject, site, happened)
    site.clock.run_until(START + FAULTS_UNTIL)
    site.heal()
    converged = _settle(site)
    broken = [] if converged else ["liveness: it did not come to rest within an hour"]
    broken += verdicts(site, callers, _lateness(plan))
    run = Run(plan, broken, _digest(site), (site.clock.now - START) / SECOND, *_counts(site), happened)
    site.close()
    outside.kill()  # a strand that waits for ever holds the whole run in memory
    return run


def _lateness(plan: Plan) -> int:
    """By so much a deadline may be late: nobody served its partition, or a clock was wrong."""
    return sum(fault.lasts + RECOVERY for fault in plan.faults if fault.delays_writers)


def _settle(site: Site) -> bool:
    healed_at = site.clock.now
    while site.clock.now < healed_at + HEALED_MOST:
        site.clock.run_until(site.clock.now + LOOK_EVERY)
        quiet = site.clock.now - site.broker.changed_at
        if quiet > QUIET and site.clock.now > healed_at + HEALED_LEAST:
            return True
    return False


def _counts(site: Site) -> tuple[int, int]:
    count = {"commands": 0, "events": 0}
    for (topic, _), log in site.broker.logs.items():
        kind = topic.split(".")[1]
        if kind in count:
            count[kind] += sum(1 for entry in log.entries if entry.is_committed)
    return count["commands"], count["events"]


def _digest(site: Site) -> str:
    digest = hashlib.sha256()
    for (topic, number), log in sorted(site.broker.logs.items()):
        for entry in log.entries:
            digest.update(repr((topic, number, entry.key, entry.value, entry.at, entry.is_marker)).encode())
    return digest.hexdigest()
