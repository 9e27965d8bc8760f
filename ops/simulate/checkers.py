"""The laws and checkers, asked of the log at rest; none shares code with the worker, C11 alone uses the views' own."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from ops.audit.breaches import HOLDS
from ops.audit.law_book import GRACE_US, STREAM_OF, LawBook
from ops.simulate.callers import Callers, Heard
from ops.simulate.site import Site
from ops.simulate.testimony import READER, Said, Testimony, testify
from ops.simulate.views import view_errors
from schemas.meta import SECOND

ENDS_OF_ORDERS = ("OrderConfirmed", "OrderRejected", "OrderCancelled")
CLAIMS = ("StockReserved", "StockReservationReleased", "StockReservationExpired", "StockAllocated")
NAMED = 3
"""So many breaches of each checker are told."""


@dataclass(frozen=True)
class Evidence:
    """All that there is to judge a run by."""

    said: Testimony
    heard: Mapping[str, Heard]
    ledger: Sequence[Mapping[str, Any]]
    poison: set[tuple[tuple[str, int], int]]
    now: int
    grace_us: int
    set_aside: set[str]
    """Reservations that no order asked for: that one expired, nobody is there to hear."""
    hampered: Sequence[tuple[int, int]]
    """From when to when writers may have been late."""
    awaited: Mapping[str, Sequence[tuple[int, int]]]
    """By slot, from when to when its writer waited for the broker to write a marker."""


def verdicts(site: Site, callers: Callers, late_us: int) -> list[str]:
    """What is broken, a line each, beginning with the law or checker. `late_us`: by so much faults may delay a deadline."""
    poison = set(site.poison)
    said = testify(site.broker, poison)
    evidence = Evidence(
        said,
        callers.heard,
        site.provider.ledger,
        poison,
        site.clock.now,
        GRACE_US + late_us,
        callers.set_aside,
        sorted(site.network.hampered),
        {owner.rpartition("-")[2]: sorted(spans) for owner, spans in site.broker.awaited.items()},
    )
    broken = [f"law 8: {unreadable}" for unreadable in said.unreadable[:NAMED]]
    broken += _law_book(evidence)
    for name, checker in CHECKERS.items():
        broken += [f"{name}: {breach}" for breach in list(checker(evidence))[:NAMED]]
    broken += [f"C11: {error}" for error in view_errors(site)[:NAMED]]
    broken += [f"worker: {failure}" for failure in (*site.failures, *site.damaged)[:NAMED]]
    return broken


def _law_book(evidence: Evidence) -> list[str]:
    book = LawBook(READER, evidence.grace_us)
    for said in (*evidence.said.events, *evidence.said.decisions):
        book.feed(said.topic, said.partition, said.value)
    told = [
        f"{position.stream}@{position.version}"
        for heard in evidence.heard.values()
        if heard.decided is not None and heard.told != "rejected"
        for position in heard.decided.positions
        if position.stream.startswith(STREAM_OF[heard.aggregate])
    ]
    found = book.finish(evidence.now, evidence.ledger, told, settled=True)
    return [f"law {law}: {said}" for law, said in found.items() if said != HOLDS]


def _each_command_is_answered(evidence: Evidence) -> Iterable[str]:
    """C1: whatever stands among the commands was decided, or is a letter."""
    answered = {one["command_id"] for one in evidence.said.decided()}
    for said in evidence.said.commands:
        if said.meta["command_id"] not in answered:
            yield f"{said.name} {said.meta['command_id']} at {said.topic}[{said.partition}]@{said.offset} was never decided"


def _first_outcome_stands(evidence: Evidence) -> Iterable[str]:
    """C2: however often a command is read, it is told the same."""
    first: dict[str, Any] = {}
    for one in evidence.said.decided():
        if one["rejection"] is not None and one["rejection"]["kind"] == "expired":
            continue
        told = (one["outcome"], one["rejection"], one["positions"], one["recorded_at"])
        if first.setdefault(one["command_id"], told) != told:
            yield f"{one['type']} {one['command_id']} was told {told[0]} and {first[one['command_id']][0]}, or elsewhere"


def _rejected_has_no_effect(evidence: Evidence) -> Iterable[str]:
    """C3: what was rejected has no event; nothing happens after its time; each event has a decision that told it."""
    rejected = {id_ for id_, heard in evidence.heard.items() if heard.told == "rejected"}
    latest = {id_: heard.last_until for id_, heard in evidence.heard.items()}
    for said in evidence.said.events:
        id_ = said.meta["command_id"]
        if id_ in rejected:
            yield f"{said.name} is the effect of {id_}, whose caller was told that it was rejected"
        if said.meta["recorded_at"] > latest.get(id_, said.meta["recorded_at"]):
            yield f"{said.name} happened after the time of {id_}"


def _all_ends_in_time(evidence: Evidence) -> Iterable[str]:
    """C8, C9: orders leave `placed`, and reservations end, when they are due; only a hampered writer is excused."""
    due: dict[str, int] = {}
    ended: dict[str, Mapping[str, Any]] = {}
    for said in evidence.said.events:
        record = said.record
        if said.name == "OrderPlaced":
            due[f"order/{record['order_id']}"] = record["expires_at"]
        elif said.name in ENDS_OF_ORDERS:
            ended.setdefault(f"order/{record['order_id']}", said.meta)
        elif said.name in CLAIMS:
            claim = f"{said.meta['stream']}, order {record['order_id']}, line {record['line']}"
            if said.name == "StockReserved":
                due[claim] = record["expires_at"]
            else:
                ended.setdefault(claim, said.meta)
    for what, when in due.items():
        began, end = _excused_until(when, evidence.hampered), ended.get(what, {})
        late_us = end.get("recorded_at", evidence.now) - began
        slot = end.get("batch_id", "").partition("-")[0]
        if late_us - _covered(evidence.awaited.get(slot, ()), began, began + late_us) > GRACE_US:
            yield f"{what} was due at {when} and ended {late_us / SECOND:.1f} s after anything could excuse it"


def _excused_until(due: int, hampered: Sequence[tuple[int, int]]) -> int:
    """Where the unbroken row of disturbances ends that was under way when it was due."""
    for began, ended in hampered:
        if began <= due + GRACE_US:
            due = max(due, ended)
    return due


def _covered(spans: Sequence[tuple[int, int]], first: int, last: int) -> int:
    """How much of the time from first to last lies in one of the spans, which are sorted."""
    covered = 0
    for began, ended in spans:
        covered += max(0, min(ended, last) - max(began, first))
        first = max(first, ended)
    return covered


def _orders_are_settled(evidence: Evidence) -> Iterable[str]:
    """C8: at rest an order is settled, or confirmed with its stock, its money and its cart as they should be."""
    said = evidence.said
    seen: defaultdict[str, set[str]] = defaultdict(set)
    allocated: defaultdict[str, set[int]] = defaultdict(set)
    for one in said.events:
        if one.name.startswith("Order"):
            order_id = one.record["order_id"]
            seen[order_id].add(one.name)
            if one.name == "OrderLinesAllocated":
                allocated[order_id] |= {line["line"] for line in one.record["lines"]}
    for placed in said.named("OrderPlaced"):
        order_id = placed.record["order_id"]
        names, stocked = seen[order_id], {line["line"] for line in placed.record["lines"] if line["stocked"]}
        ended = names & {"OrderRejected", "OrderCancelled", "OrderCompleted"}
        if ended and "OrderSettled" not in names:
            yield f"order/{order_id} has ended ({', '.join(sorted(ended))}) and is never settled"
        elif not ended and not {"OrderConfirmed", "OrderCaptured", "OrderCartClosed"} <= names:
            yield f"order/{order_id} rests half-way: {', '.join(sorted(names))}"
        elif not ended and allocated[order_id] < stocked:
            yield f"order/{order_id} is confirmed and was promised lines {sorted(allocated[order_id])} of {sorted(stocked)}"


def _carts_are_closed(evidence: Evidence) -> Iterable[str]:
    """C8, the cart's side: each checkout becomes one order, and the cart hears how it ended."""
    placed = {said.record["order_id"] for said in evidence.said.named("OrderPlaced")}
    frozen: dict[str, str] = {}
    for said in evidence.said.named("CartCheckedOut", "CartReopened", "CartCompleted"):
        cart_id, order_id = said.record["cart_id"], said.record["order_id"]
        if said.name == "CartCheckedOut":
            if cart_id in frozen:
                yield f"cart/{cart_id} was checked out twice at once, as {frozen[cart_id]} and {order_id}"
            if order_id not in placed:
                yield f"cart/{cart_id} was checked out as order/{order_id}, which was never placed"
            frozen[cart_id] = order_id
        elif frozen.pop(cart_id, None) != order_id:
            yield f"cart/{cart_id}: {said.name} for order/{order_id}, as which it was not checked out"
    for cart_id, order_id in frozen.items():
        yield f"cart/{cart_id} stays checked out as order/{order_id}"


def _claims_are_whole(evidence: Evidence) -> Iterable[str]:
    """C9: of one ReserveStock all lines are granted, or none."""
    outcomes: defaultdict[str, set[str]] = defaultdict(set)
    for said in evidence.said.named("StockReserved", "StockReservationRefused"):
        outcomes[said.meta["command_id"]].add(said.name)
    for command_id, names in outcomes.items():
        if len(names) > 1:
            yield f"{command_id} was granted in part"


def _provider_agrees(evidence: Evidence) -> Iterable[str]:
    """C10: at rest the provider has charged each order that stands once, and holds no money of any other."""
    moved: defaultdict[str, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row in evidence.ledger:
        if row["outcome"] == "succeeded":
            moved[row["payment_id"]][row["verb"]].append(row["amount"])
    ended = {said.record["order_id"] for said in evidence.said.named("OrderRejected", "OrderCancelled")}
    confirmed = {
        said.record["order_id"]: said.record["amount"] for said in evidence.said.named("OrderConfirmed")
    }
    asked = {said.record["payment_id"]: said for said in evidence.said.named("PaymentAuthorizationRequested")}
    for payment_id, verbs in moved.items():
        order_id = asked[payment_id].record["order_id"] if payment_id in asked else "nobody's"
        charged = sum(verbs["capture"]) - sum(verbs["refund"])
        held = sum(verbs["authorization"]) - sum(verbs["capture"]) - sum(verbs["void"])
        due = confirmed[order_id] if order_id in confirmed and order_id not in ended else 0
        if len(verbs["authorization"]) > 1 or len(verbs["capture"]) > 1:
            yield f"order/{order_id}: the provider did it twice: {dict(verbs)}"
        if (charged, held) != (due, 0):
            yield f"order/{order_id} owes {due}, was charged {charged}, and {held} is held"


def _saga_is_in_order(evidence: Evidence) -> Iterable[str]:
    """C15: no money before all stock is secured; no capture and no shipment before the confirmation."""
    said = evidence.said
    for first, then in (
        ("OrderStockSecured", ("PaymentAuthorizationRequested",)),
        (
            "OrderConfirmed",
            ("PaymentCaptureRequested", "OrderShipmentRequested", "StockAllocated", "StockShipped"),
        ),
    ):
        began = {order_id: some[0].order for order_id, some in said.by_order(first).items()}
        for one in said.named(*then):
            if one.order < began.get(one.record["order_id"], one.order + 1):
                yield f"order/{one.record['order_id']}: {one.name} before {first}"


def _poison_is_lettered(evidence: Evidence) -> Iterable[str]:
    """C16: whatever cannot be applied is a letter of each who reads it; nothing else is."""
    lettered: defaultdict[tuple[tuple[str, int], int], set[str]] = defaultdict(set)
    for said in evidence.said.letters:
        letter = said.record
        where = (letter["topic"], letter["partition"]), letter["offset"]
        lettered[where].add(letter["consumer"])
        about_nobody = any(
            f"there is no order {order_id}" in letter["reason"] for order_id in evidence.set_aside
        )
        if where not in evidence.poison and not about_nobody:
            yield f"a letter about {letter['topic']}[{letter['partition']}]@{letter['offset']}: {letter['reason']}"
    for where in sorted(evidence.poison):
        missing = _readers_of(where[0][0]) - lettered[where]
        if missing:
            yield f"{where[0][0]}[{where[0][1]}]@{where[1]} is no letter of {', '.join(sorted(missing))}"


def _readers_of(topic: str) -> set[str]:
    _, kind, aggregate = topic.split(".")
    if kind == "commands":
        return {"commands"}
    readers = {"sagas"} if aggregate != "catalog" else set()
    readers |= {"payments"} if aggregate == "payment" else set()
    readers |= {"views.redis"} if aggregate in ("catalog", "cart", "inventory") else set()
    readers |= {"views.order"} if aggregate == "order" else set()
    return readers | ({"views.ledger"} if aggregate == "inventory" else set())


def _time_never_runs_backwards(evidence: Evidence) -> Iterable[str]:
    """C5, the clock's side: what is recorded in a stream is recorded in its order."""
    last: dict[str, int] = {}
    for said in evidence.said.events:
        stream, at = said.meta["stream"], said.meta["recorded_at"]
        if at < last.get(stream, at):
            yield f"{stream}@{said.meta['version']} was recorded {last[stream] - at} us before the event that it follows"
        last[stream] = at


def _state_is_the_last_event(evidence: Evidence) -> Iterable[str]:
    """C5, the state's side: the latest record of a stream names its last event."""
    last: dict[str, Said] = {}
    for said in evidence.said.events:
        last[said.meta["stream"]] = said
    kept = {said.meta["stream"]: said for said in evidence.said.state if "version" in said.record}
    for stream, said in last.items():
        state = kept.get(stream)
        told = (said.meta["version"], sha256(said.value).digest())
        if state is None or (state.record["version"], state.record["hash"]) != told:
            yield f"{stream}@{told[0]} is its last event, and its state is of {state and state.record['version']}"


CHECKERS: Mapping[str, Callable[[Evidence], Iterable[str]]] = {
    "C1": _each_command_is_answered,
    "C2": _first_outcome_stands,
    "C3": _rejected_has_no_effect,
    "C5": _state_is_the_last_event,
    "C5 (clock)": _time_never_runs_backwards,
    "C8": _orders_are_settled,
    "C8 (time)": _all_ends_in_time,
    "C8 (cart)": _carts_are_closed,
    "C9": _claims_are_whole,
    "C10": _provider_agrees,
    "C15": _saga_is_in_order,
    "C16": _poison_is_lettered,
}
