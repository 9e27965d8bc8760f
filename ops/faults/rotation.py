"""The rotation: for so many minutes callers trade without a pause, and each minute has one fault, or none."""

import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ops.faults.callers import OWN_WRITE, Habits
from ops.faults.history import Attempt, Outage, Share, shares
from ops.faults.scene import GREEN_WITHIN_S, Row, Scene
from ops.faults.verdict import demand, until
from projections.registry import POSTERS

MINUTE_S = 60.0
FROZEN_S = 12.0
"""Longer than any session: of a worker, of an agent's consumer, of the broker with its controller."""
POSTED, SETTLES_S = 500, 5.0
"""So few events behind is what trade makes at any moment; each document is read once more in so many seconds."""
READS_ANSWERED = 0.999
COMMANDS, READS = 100_000, 50_000
"""Asked of one run of twenty minutes."""
BUSY = Habits(callers=16, readers=5, rest_s=0.02)

IN_REDIS = ("GET /products/{sku}", "GET /inventory/{sku}", "GET /carts/{cart_id}")
IN_CASSANDRA = ("GET /orders/{order_id}",)
AFTER_A_RECEIPT = tuple(f"GET {route}{OWN_WRITE}" for route in ("/inventory/{sku}", "/carts/{cart_id}"))
ALL = ("*",)


@dataclass(frozen=True)
class Fault:
    """What is done to whom, and the reads that cannot be answered meanwhile; a `frozen_s` of 0 kills.

    What `forgets` comes back with what it last wrote to disk, and is posted the rest again.
    """

    name: str
    whom: str = ""
    breaks: tuple[str, ...] = ()
    frozen_s: float = 0.0
    forgets: bool = False


FAULTS = (
    Fault("nothing"),
    Fault("the command worker is killed", "commands"),
    Fault("the projections are killed", "projections", AFTER_A_RECEIPT),
    Fault("the ledger is killed", "ledger"),
    Fault("the sagas are killed", "sagas"),
    Fault("the payment agent is killed", "payments"),
    Fault("the provider is killed", "sandbox"),
    Fault("Redis is killed", "redis", (*IN_REDIS, *AFTER_A_RECEIPT), forgets=True),
    Fault("Cassandra is killed", "cassandra", IN_CASSANDRA),
    Fault("Kafka is killed", "kafka", AFTER_A_RECEIPT),
    Fault("Kafka is frozen", "kafka", AFTER_A_RECEIPT, FROZEN_S),
    Fault("the command worker is frozen", "commands", (), FROZEN_S),
    Fault("the projections are frozen", "projections", AFTER_A_RECEIPT, FROZEN_S),
    Fault("the API is killed", "api", ALL),
)


def rotating(rounds: int) -> Row:
    """As a row: green if nothing was lost, and enough was answered."""
    return Row(
        "ROTATION",
        f"{rounds} minutes, one fault in each: nothing lost, and served",
        lambda s: rotate(s, rounds),
    )


def rotate(scene: Scene, rounds: int) -> None:
    faults = _turns(scene, rounds)
    with scene.trading(BUSY) as history:
        scene.trade_on()
        began = len(history.attempts)
        outages = [one_minute(scene, fault) for fault in faults]
    scene.judge()
    attempts = history.attempts[began:]
    found = shares(attempts, outages)
    reads, writes = _sum(found, is_read=True), _sum(found, is_read=False)
    scene.figures["missed"] = _missed(attempts, outages, faults)
    _tell(scene, found, reads)
    demand(
        reads.share >= READS_ANSWERED, f"{reads.share:.3%} of {reads.requests:,} reads were answered in 1 s"
    )
    demand(
        writes.good == writes.requests, f"{writes.requests - writes.good} writes failed otherwise than by 503"
    )


def _tell(scene: Scene, found: Mapping[str, Share], reads: Share) -> None:
    """What was reached, beside what is asked of twenty minutes on a machine that does nothing else."""
    say, decided = scene.stage.teller.say, scene.figures["decided"]
    assert isinstance(decided, dict), "as `judge` leaves it"
    accepted = decided["accepted"]
    for route, one in found.items():
        say(f"    {route}: {one.requests:,}, {one.share:.3%} as it should be")
    say(f"    reads that did not need what was broken: {reads.requests:,} ({READS:,} are asked for)")
    say(
        f"    commands accepted: {accepted:,} ({COMMANDS:,} are asked for); "
        "0 lost (C1), 0 twice (C2), 0 torn (C4), 0 oversold (C6, C7), 0 charged twice (C10)"
    )
    scene.figures["routes"] = {route: (one.requests, round(one.share, 5)) for route, one in found.items()}
    scene.figures |= {"accepted": accepted, "reads": (reads.requests, round(reads.share, 5))}


def _missed(attempts: Iterable[Attempt], minutes: Sequence[Outage], faults: Sequence[Fault]) -> list[str]:
    """Of each minute that had any: how many requests were not answered as they should, and when since its fault."""
    begins = [minute.from_s for minute in minutes]
    since: defaultdict[int, list[float]] = defaultdict(list)
    for attempt in attempts:
        if not attempt.is_good and not any(minute.covers(attempt) for minute in minutes):
            number = max(0, bisect_right(begins, attempt.at_s) - 1)
            since[number].append(attempt.at_s - begins[number])
    return [
        f"{faults[number].name}: {len(times)}, {min(times):.1f} to {max(times):.1f} s"
        for number, times in since.items()
    ]


def _sum(found: Mapping[str, Share], *, is_read: bool) -> Share:
    parts = [share for route, share in found.items() if route.startswith("GET ") is is_read]
    return Share(sum(one.requests for one in parts), sum(one.good for one in parts))


def _turns(scene: Scene, rounds: int) -> list[Fault]:
    """Every fault comes before one comes again."""
    found: list[Fault] = []
    while len(found) < rounds:
        found += scene.random.sample(FAULTS, len(FAULTS))
    return found[:rounds]


def one_minute(scene: Scene, fault: Fault) -> Outage:
    """The fault comes when chance says; until all is green again, what it breaks need not be served."""
    ends_at = time.monotonic() + MINUTE_S
    scene.inject(fault.name)
    scene.wait(scene.random.uniform(2.0, 15.0))
    from_s, noted = time.monotonic(), len(scene.stage.history.backwards)
    scene.heal()
    if fault.frozen_s:
        frozen = scene.house.freeze(fault.whom)
        scene.wait(fault.frozen_s)
        scene.house.thaw(frozen)
        scene.heal()
    elif fault.whom:
        scene.house.await_replaced(scene.house.kill(fault.whom))
    scene.await_green()
    if (
        fault.breaks
    ):  # what was held up is posted, and only then is whoever reads after a receipt served in time
        until(
            lambda: sum(map(scene.house.lag, POSTERS)) < POSTED,
            GREEN_WITHIN_S,
            "all is posted",
            scene.say,
        )
    if fault.forgets:
        scene.wait(SETTLES_S)
        scene.stage.history.excuse(noted)
    outage = Outage(from_s, time.monotonic(), fault.breaks)
    scene.wait(max(0.0, ends_at - time.monotonic()))
    return outage
