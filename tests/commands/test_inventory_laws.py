"""Laws 1 and 2 at the decider: whatever is asked in whatever order, nothing is negative and nothing oversold."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from commands import inventory
from commands.decider import Changes, Context, Decider, Snapshot
from commands.rejections import Rejection
from schemas.inventory import (
    RESERVATION_LIMIT,
    ActiveClaim,
    AdjustStock,
    AllocatedClaim,
    AllocateStock,
    ChangeStockPolicy,
    ExpireReservation,
    ReceiptLine,
    ReceiveStock,
    ReleaseAllocation,
    ReleaseReservation,
    ReserveStock,
    ShipStock,
    StockAdjusted,
    StockItem,
    StockReceived,
    StockReserved,
    StockShipped,
    claim_path,
    stock_stream,
)
from schemas.meta import Micros
from schemas.values import Line
from tests.specification import Given

SKUS = ("A", "B")
LOCATIONS = ("main",) * 7 + ("attic",)
"""Mostly one: what meets is what may collide."""
ORDERS = ("o1", "o2")
SKU_OF_LINE = {1: "A", 2: "B", 3: "A"}

skus, locations, orders = st.sampled_from(SKUS), st.sampled_from(LOCATIONS), st.sampled_from(ORDERS)
quantities = st.integers(1, 3)
limits = st.integers(1, 60)
line_numbers = st.sampled_from(tuple(SKU_OF_LINE))
a_line = st.builds(lambda line, quantity: Line(line, SKU_OF_LINE[line], quantity), line_numbers, quantities)
lines = st.lists(a_line, min_size=1, max_size=2).map(tuple)
receipts = st.lists(st.builds(ReceiptLine, skus, quantities), min_size=1, max_size=3).map(tuple)
attempts = st.just(1)
reasons = st.just("cancelled")

RESERVE = st.builds(ReserveStock, orders, locations, lines, attempts, limits)
ALLOCATE = st.builds(AllocateStock, orders, locations, lines, attempts)
SHIP = st.builds(ShipStock, orders, locations, lines, attempts)
OTHERS = [
    st.builds(ReceiveStock, locations, st.just("invoice"), receipts),
    st.builds(AdjustStock, skus, locations, st.integers(-6, 6), reasons, st.just(""), st.none()),
    st.builds(ChangeStockPolicy, skus, locations, st.integers(0, 1), st.integers(0, 3)),
    st.builds(ReleaseReservation, orders, locations, lines, attempts, reasons),
    st.builds(ReleaseAllocation, orders, locations, lines, attempts, reasons),
    st.builds(ExpireReservation, skus, locations, orders, line_numbers),
]
KINDS: list[st.SearchStrategy[Any]] = [*[RESERVE] * 6, *[ALLOCATE] * 4, *[SHIP] * 2, *OTHERS]
"""What makes others possible comes more often."""
commands = st.sampled_from(KINDS).flatmap(lambda kind: kind)
stories = st.lists(st.tuples(commands, st.integers(0, 3)), min_size=10, max_size=40)
"""Commands, and how much time goes by before each."""


DELIVERY = ReceiveStock("main", "invoice", (ReceiptLine("A", 5), ReceiptLine("B", 5)))


def broken_law(decider: Decider, story: Sequence[tuple[Any, int]]) -> str | None:
    """What is wrong after some command of the story, or None."""
    here, now = Given(decider), 0
    log = list(here.when(DELIVERY).events)
    for command, pause in story:
        now += pause
        before = dict(here.records)
        events = here.when(command, now=now).events
        log += events
        wrong = (
            _is_out_of_balance(here, log)
            or _was_oversold(before, events)
            or _says_other_than_it_left(here, events)
            or _asking_again_changes(here, command, now)
        )
        if wrong:
            return f"{wrong} after {command}"
    return None if Given(decider, *log).records == here.records else "the log folds to something else"


def _is_out_of_balance(here: Given, log: Sequence[Any]) -> str | None:
    """Law 1."""
    on_hand: Counter[str] = Counter()
    for event in log:
        match event:
            case StockReceived(quantity=quantity):
                on_hand[event.stream] += quantity
            case StockAdjusted(before=before, after=after):
                on_hand[event.stream] += after - before
            case StockShipped(quantity=quantity):
                on_hand[event.stream] -= quantity
    reserved, allocated = _claimed(here, ActiveClaim), _claimed(here, AllocatedClaim)
    for stream, item in here.records.items():
        if not isinstance(item, StockItem):
            continue
        if min(item.sellable, item.reserved, item.allocated, item.shipped) < 0:
            return f"{stream} is negative: {item}"
        if (item.sellable, item.reserved, item.allocated) != (
            on_hand[stream],
            reserved[stream],
            allocated[stream],
        ):
            return f"{stream} is out of balance: {item}"
    return None


def _claimed(here: Given, state: type[ActiveClaim | AllocatedClaim]) -> Counter[str]:
    claimed: Counter[str] = Counter()
    for record in here.records.values():
        if isinstance(record, state):
            claimed[stock_stream(record.sku, record.location)] += record.quantity
    return claimed


def _was_oversold(before: dict[str, Any], events: Sequence[Any]) -> str | None:
    """Law 2: what one command takes was available when it came."""
    taken: Counter[str] = Counter()
    for event in events:
        taken[event.stream] += getattr(event, "quantity", 0) if isinstance(event, StockReserved) else 0
    for stream, quantity in taken.items():
        if quantity and quantity > before[stream].available:
            return f"{stream} is oversold"
    return None


def _says_other_than_it_left(here: Given, events: Sequence[Any]) -> str | None:
    """The balances in the last event of an item are the item's."""
    for event in {event.stream: event for event in events}.values():
        item = here.records[event.stream]
        if (event.sellable, event.reserved, event.allocated, event.shipped) != (
            item.sellable,
            item.reserved,
            item.allocated,
            item.shipped,
        ):
            return f"{event} is not what it left: {item}"
    return None


def _asking_again_changes(here: Given, command: Any, now: int) -> str | None:
    """A receipt and an adjustment are facts, each a new one; all else is so already."""
    if isinstance(command, ReceiveStock | AdjustStock):
        return None
    again = Given(here.decider)
    again.records = dict(here.records)
    again.when(command, now=now)
    return None if again.records == here.records else "asking again changed something"


def grants(decider: Decider, units: int, wanted: Sequence[int]) -> int:
    """Units that are granted of so many, if that many orders ask for `wanted` each."""
    here = Given(decider)
    here.when(ReceiveStock("main", "invoice", (ReceiptLine("A", units),)))
    for order, quantity in enumerate(wanted):
        line = Line(1, "A", quantity)
        here.when(ReserveStock(f"o{order}", "main", (line,), 1, Micros(RESERVATION_LIMIT)))
    item: StockItem = here.records[stock_stream("A", "main")]
    return item.reserved


@settings(max_examples=300, deadline=None)
@given(stories)
def test_no_story_breaks_a_law(story):
    assert broken_law(inventory.DECIDER, story) is None


@given(st.integers(1, 40), st.integers(0, 60))
def test_of_s_units_exactly_s_are_granted_to_any_number_of_claims(units, more):
    assert grants(inventory.DECIDER, units, [1] * (units + more)) == units


@given(st.integers(1, 40), st.lists(quantities, max_size=40))
def test_what_is_refused_would_not_have_fitted(units, wanted):
    left = units - grants(inventory.DECIDER, units, wanted)
    assert left >= 0
    assert left == 0 or sum(wanted) < units or left < max(wanted)


# A bug planted in each law, to see that the properties above have eyes.


def reserves_line_by_line(state: Snapshot, command: Any, context: Context) -> Any:
    """Each line is decided on the state before the command, as if no other line took of the same units."""
    if not isinstance(command, ReserveStock):
        return inventory.decide(state, command, context)
    events: list[Any] = []
    for line in command.lines:
        decided = inventory.decide(state, replace(command, lines=(line,)), context)
        assert not isinstance(decided, Rejection)
        events += decided
    return events


def reserves_what_is_promised(state: Snapshot, command: Any, context: Context) -> Any:
    """Allocated units are taken for free ones."""
    if not isinstance(command, ReserveStock):
        return inventory.decide(state, command, context)
    return inventory.decide(_Forgetful(state), command, context)


class _Forgetful:
    def __init__(self, state: Snapshot) -> None:
        self._state = state

    def get(self, path: str) -> Any:
        record = self._state.get(path)
        return replace(record, allocated=0) if isinstance(record, StockItem) else record


def forgets_claims_when_asked_twice(state: Snapshot, command: Any, context: Context) -> Any:
    """A claim that stands is granted once more."""
    if not isinstance(command, ReserveStock):
        return inventory.decide(state, command, context)
    return inventory.decide(_Claimless(state), command, context)


class _Claimless:
    def __init__(self, state: Snapshot) -> None:
        self._state = state

    def get(self, path: str) -> Any:
        return None if path.startswith("claim/") else self._state.get(path)


def keeps_released_claims(state: Snapshot, event: Any) -> Changes:
    return {path: record for path, record in inventory.evolve(state, event).items() if record is not None}


def loses_a_claim(state: Snapshot, event: Any) -> Changes:
    """Only the first line's claim is written down."""
    changes = dict(inventory.evolve(state, event))
    if isinstance(event, StockReserved) and event.line > 1:
        del changes[claim_path(event.sku, event.location, event.order_id, event.line)]
    return changes


BROKEN = [
    replace(inventory.DECIDER, decide=reserves_line_by_line),
    replace(inventory.DECIDER, decide=reserves_what_is_promised),
    replace(inventory.DECIDER, decide=forgets_claims_when_asked_twice),
    replace(inventory.DECIDER, evolve=keeps_released_claims),
    replace(inventory.DECIDER, evolve=loses_a_claim),
]


def name_of_the_bug(decider: Decider) -> str:
    bug = decider.decide if decider.decide is not inventory.decide else decider.evolve
    return bug.__name__


@pytest.mark.parametrize("decider", BROKEN, ids=name_of_the_bug)
def test_a_planted_bug_breaks_a_law(decider):
    try:
        find(
            stories,
            lambda story: broken_law(decider, story) is not None,
            settings=settings(max_examples=2000, phases=[Phase.generate], derandomize=True),
        )
    except NoSuchExample:
        pytest.fail("no story caught it")


def sees_one_unit_too_many(state: Snapshot, command: Any, context: Context) -> Any:
    return inventory.decide(_Generous(state), command, context)


class _Generous:
    def __init__(self, state: Snapshot) -> None:
        self._state = state

    def get(self, path: str) -> Any:
        record = self._state.get(path)
        return (
            replace(record, safety_stock=record.safety_stock - 1) if isinstance(record, StockItem) else record
        )


def test_a_unit_that_is_sold_twice_is_seen_by_the_count():
    broken = replace(inventory.DECIDER, decide=sees_one_unit_too_many)
    assert grants(broken, 5, [1] * 9) == 6
