"""Inventory's rules, one sentence each, over one SKU and a few orders."""

from typing import Any, TypeAlias

import pytest

from commands.decider import Answer, Context, Deadline
from commands.inventory import DECIDER
from commands.rejections import StockBelowEmptyShelf, UnknownStockItem
from schemas.inventory import (
    ActiveClaim,
    AdjustStock,
    AllocatedClaim,
    AllocateStock,
    ChangeStockPolicy,
    ExpiredClaim,
    ExpireReservation,
    LowStockReached,
    ReceiptLine,
    ReceiveStock,
    ReleaseAllocation,
    ReleaseReservation,
    ReserveStock,
    ShipStock,
    StockAdjusted,
    StockAllocated,
    StockAllocationRefused,
    StockAllocationReleased,
    StockDepleted,
    StockItem,
    StockItemRegistered,
    StockPolicyChanged,
    StockReceived,
    StockReplenished,
    StockReservationExpired,
    StockReservationRefused,
    StockReservationReleased,
    StockReserved,
    StockShipmentRefused,
    StockShipped,
    StockShortfallFound,
    claim_path,
    stock_stream,
)
from schemas.meta import Micros, derived_id
from schemas.values import MAIN, Line, RefusedLine
from tests.specification import COMMAND_ID, DEADLINE, Given

LAMP, TEAPOT = "85123A", "22139"
SHELF = stock_stream(LAMP, MAIN)
ALICE, BOB = "order-of-alice", "order-of-bob"
LIMIT = Micros(600)
Release: TypeAlias = ReleaseReservation | ReleaseAllocation


def shelf(
    sellable: int = 0, reserved: int = 0, allocated: int = 0, shipped: int = 0, sku: str = LAMP
) -> tuple[str, str, int, int, int, int]:
    """The beginning of a stock event: the balances after it."""
    return sku, MAIN, sellable, reserved, allocated, shipped


def claim(order: str, line: int = 1) -> tuple[str, int, str]:
    """What an event about a claim says after the balances."""
    return order, line, derived_id(order, str(line), LAMP, MAIN)


def received(quantity: int, sku: str = LAMP) -> StockReceived:
    return StockReceived(*shelf(quantity, sku=sku), quantity, "invoice 7")


def given(*events: Any) -> Given:
    return Given(DECIDER, *events)


def on_the_shelf(quantity: int) -> Given:
    return given(StockItemRegistered(*shelf()), received(quantity))


def receive(*lines: tuple[str, int]) -> ReceiveStock:
    return ReceiveStock(MAIN, "invoice 7", tuple(ReceiptLine(*line) for line in lines))


def reserve(order: str, *quantities: int) -> ReserveStock:
    return ReserveStock(order, MAIN, lines_of(*quantities), 1, LIMIT)


def allocate(order: str, *quantities: int) -> AllocateStock:
    return AllocateStock(order, MAIN, lines_of(*quantities), 1)


def ship(order: str, *quantities: int) -> ShipStock:
    return ShipStock(order, MAIN, lines_of(*quantities), 1)


def give_back(order: str, *quantities: int, of: type[Release] = ReleaseReservation) -> Release:
    return of(order, MAIN, lines_of(*quantities), 1, "cancelled")


def lines_of(*quantities: int) -> tuple[Line, ...]:
    return tuple(Line(line, LAMP, quantity) for line, quantity in enumerate(quantities, start=1))


def adjust(delta: int, corrects: str | None = None) -> AdjustStock:
    return AdjustStock(LAMP, MAIN, delta, "damaged", "fell off the ladder", corrects)


def adjusted(before: int, after: int, reserved: int = 0, allocated: int = 0) -> StockAdjusted:
    head = shelf(after, reserved, allocated)
    return StockAdjusted(*head, before, after, "damaged", "fell off the ladder", None)


def expire(order: str, line: int = 1) -> ExpireReservation:
    return ExpireReservation(LAMP, MAIN, order, line)


def with_claim(state: str, quantity: int = 2, of: int = 5) -> Given:
    """`of` units on the shelf, and alice's claim of `quantity` in this state."""
    here = on_the_shelf(of)
    here.when(reserve(ALICE, quantity))
    if state == "allocated":
        here.when(allocate(ALICE, quantity))
    if state == "expired":
        here.when(expire(ALICE), DEADLINE, now=LIMIT)
    return here


# Receiving, counting, policy.


def test_what_is_received_for_the_first_time_is_registered():
    given().when(receive((LAMP, 5))).then(
        StockItemRegistered(*shelf()), received(5), StockReplenished(*shelf(5), 5)
    )


def test_what_is_known_is_received_without_being_registered_again():
    on_the_shelf(5).when(receive((LAMP, 3))).then(StockReceived(*shelf(8), 3, "invoice 7"))


def test_a_delivery_note_may_name_an_item_twice():
    given().when(receive((LAMP, 5), (TEAPOT, 1), (LAMP, 2))).then(
        StockItemRegistered(*shelf()),
        received(5),
        StockReplenished(*shelf(5), 5),
        StockItemRegistered(*shelf(sku=TEAPOT)),
        received(1, TEAPOT),
        StockReplenished(*shelf(1, sku=TEAPOT), 1),
        StockReceived(*shelf(7), 2, "invoice 7"),
    )


def test_the_same_document_under_another_command_is_another_receipt():
    here = given()
    here.when(receive((LAMP, 5)))
    here.when(receive((LAMP, 5))).then(StockReceived(*shelf(10), 5, "invoice 7"))


def test_an_adjustment_says_before_after_and_why():
    on_the_shelf(5).when(adjust(-2)).then(adjusted(5, 3))


def test_an_adjustment_may_name_what_it_corrects():
    [event] = on_the_shelf(5).when(adjust(-2, corrects="an earlier event")).events
    assert event.corrects == "an earlier event"


def test_an_adjustment_registers_an_item_that_nobody_knew():
    given().when(adjust(4)).then(
        StockItemRegistered(*shelf()), adjusted(0, 4), StockReplenished(*shelf(4), 4)
    )


def test_an_adjustment_by_nothing_changes_nothing():
    on_the_shelf(5).when(adjust(0)).then_nothing()


def test_a_shelf_may_be_emptied_by_an_adjustment_but_not_hold_less_than_nothing():
    on_the_shelf(5).when(adjust(-5)).then(adjusted(5, 0), StockDepleted(*shelf(0)))
    on_the_shelf(5).when(adjust(-6)).then_rejected(StockBelowEmptyShelf)
    given().when(adjust(-1)).then_rejected(StockBelowEmptyShelf)


def test_an_adjustment_that_uncovers_promises_is_made_and_says_by_how_much():
    here = with_claim("allocated", quantity=2, of=5)
    here.when(reserve(BOB, 2))
    here.when(adjust(-4)).then(
        adjusted(5, 1, reserved=2, allocated=2),
        StockDepleted(*shelf(1, 2, 2)),
        StockShortfallFound(*shelf(1, 2, 2), 3),
    )


def test_safety_stock_is_not_available():
    here = on_the_shelf(5)
    here.when(ChangeStockPolicy(LAMP, MAIN, 3, 0)).then(StockPolicyChanged(*shelf(5), 3, 0))
    here.when(reserve(ALICE, 3)).then(StockReservationRefused(*shelf(5), *claim(ALICE), 3, 2))
    here.when(reserve(ALICE, 2)).then(
        StockReserved(*shelf(5, 2), *claim(ALICE), 2, LIMIT), StockDepleted(*shelf(5, 2))
    )


def test_the_same_policy_again_changes_nothing():
    here = on_the_shelf(5)
    here.when(ChangeStockPolicy(LAMP, MAIN, 1, 2))
    here.when(ChangeStockPolicy(LAMP, MAIN, 1, 2)).then_nothing()


def test_an_unknown_item_has_no_policy_to_change():
    given().when(ChangeStockPolicy(LAMP, MAIN, 1, 2)).then_rejected(UnknownStockItem)


@pytest.mark.parametrize(
    ("safety_stock", "low_stock_at", "follows"),
    [
        (5, 0, [StockDepleted(*shelf(5))]),
        (9, 0, [StockDepleted(*shelf(5))]),
        (0, 5, [LowStockReached(*shelf(5), 5, 5)]),
        (0, 4, []),
        (5, 2, [LowStockReached(*shelf(5), 0, 2), StockDepleted(*shelf(5))]),
    ],
)
def test_a_policy_may_make_an_item_scarce(safety_stock, low_stock_at, follows):
    on_the_shelf(5).when(ChangeStockPolicy(LAMP, MAIN, safety_stock, low_stock_at)).then(
        StockPolicyChanged(*shelf(5), safety_stock, low_stock_at), *follows
    )


# Reserving.


def test_units_are_reserved_up_to_the_last_one():
    here = on_the_shelf(5)
    here.when(reserve(ALICE, 3)).then(StockReserved(*shelf(5, 3), *claim(ALICE), 3, LIMIT))
    here.when(reserve(BOB, 3)).then(StockReservationRefused(*shelf(5, 3), *claim(BOB), 3, 2)).then_answers(
        Answer(refused=(RefusedLine(1, LAMP, 3, 2),))
    )
    here.when(reserve(BOB, 2)).then(
        StockReserved(*shelf(5, 5), *claim(BOB), 2, LIMIT), StockDepleted(*shelf(5, 5))
    ).then_answers(Answer())


def test_a_claim_is_a_record_of_its_own():
    here = with_claim("active", quantity=2, of=5)
    assert here.records == {
        SHELF: StockItem(5, 2, 0, 0, 0, 0),
        claim_path(LAMP, MAIN, ALICE, 1): ActiveClaim(LAMP, MAIN, ALICE, 1, 2, LIMIT),
    }


@pytest.mark.parametrize("state", ["active", "expired", "allocated"])
def test_reserving_twice_for_the_same_order_changes_nothing(state):
    with_claim(state).when(reserve(ALICE, 2)).then_nothing().then_answers(Answer())


def test_lines_of_one_sku_share_what_is_available():
    on_the_shelf(5).when(reserve(ALICE, 3, 2)).then(
        StockReserved(*shelf(5, 3), *claim(ALICE, 1), 3, LIMIT),
        StockReserved(*shelf(5, 5), *claim(ALICE, 2), 2, LIMIT),
        StockDepleted(*shelf(5, 5)),
    )


def test_all_lines_are_reserved_or_none_and_each_refused_line_is_named():
    on_the_shelf(5).when(reserve(ALICE, 3, 4, 2, 1)).then(
        StockReservationRefused(*shelf(5), *claim(ALICE, 2), 4, 2),
        StockReservationRefused(*shelf(5), *claim(ALICE, 4), 1, 0),
    ).then_answers(Answer(refused=(RefusedLine(2, LAMP, 4, 2), RefusedLine(4, LAMP, 1, 0))))


def test_a_line_that_is_named_twice_is_reserved_once():
    line = Line(1, LAMP, 2)
    on_the_shelf(5).when(ReserveStock(ALICE, MAIN, (line, line), 1, LIMIT)).then(
        StockReserved(*shelf(5, 2), *claim(ALICE), 2, LIMIT)
    )


def test_another_line_of_an_order_is_reserved_beside_the_one_that_stands():
    with_claim("active", quantity=2, of=5).when(reserve(ALICE, 2, 1)).then(
        StockReserved(*shelf(5, 3), *claim(ALICE, 2), 1, LIMIT)
    )


def test_a_reservation_that_comes_after_its_own_limit_is_refused():
    on_the_shelf(5).when(reserve(ALICE, 2), now=LIMIT).then(
        StockReservationRefused(*shelf(5), *claim(ALICE), 2, 5)
    )


def test_an_unknown_item_is_refused_and_may_be_received_later():
    here = given()
    here.when(reserve(ALICE, 1)).then(StockReservationRefused(*shelf(), *claim(ALICE), 1, 0))
    here.when(receive((LAMP, 5))).then(received(5), StockReplenished(*shelf(5), 5))


# Limits.


def test_a_reservation_has_a_deadline_and_no_other_record_has():
    active = ActiveClaim(LAMP, MAIN, ALICE, 1, 2, LIMIT)
    assert DECIDER.deadline("", active) == Deadline(LIMIT, expire(ALICE))
    for record in (
        ExpiredClaim(LAMP, MAIN, ALICE, 1, 2),
        AllocatedClaim(LAMP, MAIN, ALICE, 1, 2),
        StockItem(5, 0, 0, 0, 0, 0),
    ):
        assert DECIDER.deadline("", record) is None


def test_a_reservation_expires_at_its_limit_and_not_before():
    with_claim("active").when(expire(ALICE), DEADLINE, now=LIMIT - 1).then_nothing()
    with_claim("active").when(expire(ALICE), DEADLINE, now=LIMIT).then(
        StockReservationExpired(*shelf(5), *claim(ALICE), 2)
    )


def test_the_units_of_an_expired_reservation_are_free_again():
    here = with_claim("active", quantity=5, of=5)
    here.when(expire(ALICE), DEADLINE, now=LIMIT).then(
        StockReservationExpired(*shelf(5), *claim(ALICE), 5), StockReplenished(*shelf(5), 5)
    )
    assert here.get(claim_path(LAMP, MAIN, ALICE, 1)) == ExpiredClaim(LAMP, MAIN, ALICE, 1, 5)


@pytest.mark.parametrize("state", ["expired", "allocated"])
def test_what_is_no_longer_a_reservation_does_not_expire(state):
    with_claim(state).when(expire(ALICE), DEADLINE, now=LIMIT).then_nothing()


def test_a_claim_that_was_given_back_does_not_expire():
    here = with_claim("active")
    here.when(give_back(ALICE, 2))
    here.when(expire(ALICE), DEADLINE, now=LIMIT).then_nothing()


# Allocating.


def test_a_reservation_becomes_a_promise():
    with_claim("active").when(allocate(ALICE, 2)).then(StockAllocated(*shelf(5, 0, 2), *claim(ALICE), 2, 2))


def test_allocating_twice_changes_nothing():
    with_claim("allocated").when(allocate(ALICE, 2)).then_nothing()


def test_what_is_allocated_already_does_not_keep_the_other_lines_from_it():
    here = on_the_shelf(5)
    here.when(reserve(ALICE, 2, 1))
    here.when(allocate(ALICE, 2))
    here.when(allocate(ALICE, 2, 1)).then(StockAllocated(*shelf(5, 0, 3), *claim(ALICE, 2), 1, 1))


def test_an_expired_claim_is_allocated_while_its_units_are_free():
    with_claim("expired", quantity=5, of=5).when(allocate(ALICE, 5)).then(
        StockAllocated(*shelf(5, 0, 5), *claim(ALICE), 5, 0), StockDepleted(*shelf(5, 0, 5))
    )


def test_an_expired_claim_is_refused_once_its_units_went_to_another():
    here = with_claim("expired", quantity=4, of=5)
    here.when(reserve(BOB, 3))
    here.when(allocate(ALICE, 4)).then(
        StockAllocationRefused(*shelf(5, 3), *claim(ALICE), 4, 2)
    ).then_answers(Answer(refused=(RefusedLine(1, LAMP, 4, 2),)))


def test_a_claim_that_was_given_back_is_never_allocated():
    here = with_claim("active")
    here.when(give_back(ALICE, 2))
    here.when(allocate(ALICE, 2)).then(StockAllocationRefused(*shelf(5), *claim(ALICE), 2, 5))


def test_an_unknown_item_is_not_allocated():
    given().when(allocate(ALICE, 2)).then(StockAllocationRefused(*shelf(), *claim(ALICE), 2, 0))


def test_all_lines_are_allocated_or_none():
    here = on_the_shelf(5)
    here.when(reserve(ALICE, 1, 4))
    for line in (1, 2):
        here.when(expire(ALICE, line), DEADLINE, now=LIMIT)
    here.when(reserve(BOB, 2))
    here.when(allocate(ALICE, 1, 4)).then(StockAllocationRefused(*shelf(5, 2), *claim(ALICE, 2), 4, 2))


# Giving back.


@pytest.mark.parametrize("of", [ReleaseReservation, ReleaseAllocation])
@pytest.mark.parametrize(
    ("state", "event"),
    [
        ("active", StockReservationReleased(*shelf(5), *claim(ALICE), 2, "cancelled")),
        ("expired", StockReservationReleased(*shelf(5), *claim(ALICE), 0, "cancelled")),
        ("allocated", StockAllocationReleased(*shelf(5), *claim(ALICE), 2, "cancelled")),
    ],
)
def test_either_release_ends_a_claim_in_whatever_state_it_is_and_once(state, event, of):
    here = with_claim(state)
    here.when(give_back(ALICE, 2, of=of)).then(event)
    assert here.records == {SHELF: StockItem(5, 0, 0, 0, 0, 0)}
    here.when(give_back(ALICE, 2, of=of)).then_nothing()


@pytest.mark.parametrize("of", [ReleaseReservation, ReleaseAllocation])
def test_what_was_never_claimed_is_given_back_without_a_word(of):
    given().when(give_back(ALICE, 2, of=of)).then_nothing()
    on_the_shelf(5).when(give_back(ALICE, 2, of=of)).then_nothing()


def test_units_that_are_given_back_can_be_reserved_again():
    here = with_claim("active", quantity=5, of=5)
    here.when(give_back(ALICE, 5)).then(
        StockReservationReleased(*shelf(5), *claim(ALICE), 5, "cancelled"), StockReplenished(*shelf(5), 5)
    )
    here.when(reserve(BOB, 1)).then(StockReserved(*shelf(5, 1), *claim(BOB), 1, LIMIT))


# Shipping.


def test_promised_goods_leave_the_shelf():
    here = with_claim("allocated", quantity=2, of=5)
    here.when(ship(ALICE, 2)).then(StockShipped(*shelf(3, 0, 0, 2), *claim(ALICE), 2))
    assert here.records == {SHELF: StockItem(3, 0, 0, 2, 0, 0)}


def test_the_last_units_on_the_shelf_may_leave_it():
    here = with_claim("allocated", quantity=5, of=5)
    here.when(ship(ALICE, 5)).then(StockShipped(*shelf(0, 0, 0, 5), *claim(ALICE), 5))


def test_shipping_twice_changes_nothing():
    here = with_claim("allocated")
    here.when(ship(ALICE, 2))
    here.when(ship(ALICE, 2)).then_nothing().then_answers(Answer())


@pytest.mark.parametrize(("state", "reserved"), [("active", 2), ("expired", 0)])
def test_only_what_was_promised_is_shipped(state, reserved):
    with_claim(state).when(ship(ALICE, 2)).then(
        StockShipmentRefused(*shelf(5, reserved), *claim(ALICE), 2, "not_allocated")
    ).then_answers(Answer(refused=(RefusedLine(1, LAMP, 2, 0),)))


def test_what_never_left_the_shelf_cannot_have_been_shipped_before():
    on_the_shelf(5).when(ship(ALICE, 2)).then(
        StockShipmentRefused(*shelf(5), *claim(ALICE), 2, "not_allocated")
    )
    given().when(ship(ALICE, 2)).then(StockShipmentRefused(*shelf(), *claim(ALICE), 2, "not_allocated"))


def test_each_line_is_shipped_or_refused_by_itself():
    here = on_the_shelf(5)
    here.when(reserve(ALICE, 2, 3))
    here.when(allocate(ALICE, 2, 3))
    here.when(adjust(-1))
    here.when(ship(ALICE, 2, 3)).then(
        StockShipped(*shelf(2, 0, 3, 2), *claim(ALICE, 1), 2),
        StockShipmentRefused(*shelf(2, 0, 3, 2), *claim(ALICE, 2), 3, "not_on_shelf"),
    ).then_answers(Answer(refused=(RefusedLine(2, LAMP, 3, 2),)))


# What is derived.


def test_low_stock_is_said_once_on_the_way_down():
    here = on_the_shelf(5)
    here.when(ChangeStockPolicy(LAMP, MAIN, 0, 3))
    here.when(reserve(ALICE, 2)).then(
        StockReserved(*shelf(5, 2), *claim(ALICE), 2, LIMIT), LowStockReached(*shelf(5, 2), 3, 3)
    )
    here.when(reserve(BOB, 1)).then(StockReserved(*shelf(5, 3), *claim(BOB), 1, LIMIT))


def test_what_was_low_already_is_not_low_anew():
    here = on_the_shelf(1)
    here.when(ChangeStockPolicy(LAMP, MAIN, 0, 1))
    here.when(reserve(ALICE, 1)).then(
        StockReserved(*shelf(1, 1), *claim(ALICE), 1, LIMIT), StockDepleted(*shelf(1, 1))
    )


def test_the_last_units_at_once_are_low_and_depleted():
    here = on_the_shelf(5)
    here.when(ChangeStockPolicy(LAMP, MAIN, 0, 3))
    here.when(reserve(ALICE, 5)).then(
        StockReserved(*shelf(5, 5), *claim(ALICE), 5, LIMIT),
        LowStockReached(*shelf(5, 5), 0, 3),
        StockDepleted(*shelf(5, 5)),
    )


def test_what_uncovered_promises_swallow_is_not_available():
    here = with_claim("active", quantity=5, of=5)
    here.when(adjust(-3))
    here.when(receive((LAMP, 3))).then(StockReceived(*shelf(5, 5), 3, "invoice 7"))
    here.when(receive((LAMP, 1))).then(
        StockReceived(*shelf(6, 5), 1, "invoice 7"), StockReplenished(*shelf(6, 5), 1)
    )


# What a command looks at is known beforehand, so that a batch is fetched at once.


class Noted:
    """Records, and which of them somebody looked at."""

    def __init__(self, here: Given) -> None:
        self._here = here
        self.looked_at: set[str] = set()

    def get(self, path: str) -> Any:
        self.looked_at.add(path)
        return self._here.get(path)


@pytest.mark.parametrize(
    "command",
    [
        receive((LAMP, 5), ("22139", 1)),
        adjust(1),
        ChangeStockPolicy(LAMP, MAIN, 0, 3),
        reserve(BOB, 2, 1),
        allocate(ALICE, 2),
        ship(ALICE, 2),
        give_back(ALICE, 2),
        expire(ALICE),
    ],
    ids=lambda command: type(command).__name__,
)
def test_a_command_names_the_records_that_it_will_look_at(command):
    noted = Noted(with_claim("active"))
    DECIDER.decide(noted, command, Context(LIMIT, COMMAND_ID, "saga", "checkout"))
    assert noted.looked_at == set(DECIDER.reads(command))
