"""The order's rules: the way of a checkout, facts in any order, many lines in small records."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from commands.decider import Deadline
from commands.order import DECIDER
from commands.order_state import BrokenInvariantError
from commands.rejections import OrderIsClosed, OrderIsNotConfirmed, UnknownOrder
from schemas.codec import Codec
from schemas.meta import SECOND, Micros, RecordMeta
from schemas.order import (
    FLIGHT_LIMIT,
    LINES_PER_RECORD,
    CancelOrder,
    ConfirmedOrder,
    EndedOrder,
    EraseOrderContact,
    ExpireOrder,
    OrderCaptured,
    OrderCaptureRequested,
    OrderCartClosed,
    OrderClaimsOrphaned,
    OrderClaimsReturned,
    OrderCompleted,
    OrderConfirmationRepeated,
    OrderConfirmed,
    OrderContactErased,
    OrderEvent,
    OrderLinesAllocated,
    OrderLinesRefused,
    OrderLinesReserved,
    OrderLinesShipped,
    OrderMoneyReturned,
    OrderPaymentAuthorized,
    OrderPaymentDeclined,
    OrderPaymentOrphaned,
    OrderPlaced,
    OrderSettled,
    OrderShipmentRefused,
    OrderShipmentRequested,
    OrderShipped,
    OrderStockSecured,
    PlaceOrder,
    RecordAllocation,
    RecordCapture,
    RecordCartAnswer,
    RecordMoneyReturn,
    RecordPaymentAnswer,
    RecordRelease,
    RecordShipment,
    RecordStockAnswer,
    RemindOrder,
    SettledOrder,
    ShipOrder,
    order_lines_path,
    order_stream,
)
from schemas.personal import SealedContact
from schemas.values import Line, PricedLine
from tests.an_order import (
    ALLOCATED,
    AMOUNT,
    BOWL,
    CAPTURED,
    CART,
    CONFIRMED,
    CURRENCY,
    LAMP,
    LAMP_RESERVED,
    LEAVING,
    LINES,
    NOW,
    ORDER,
    OWNER,
    PAYMENT,
    PLACED,
    READY,
    REMIND_AT,
    SECURED,
    TOKEN,
    cancelled,
    refused,
    rejected,
    step,
)
from tests.specification import DEADLINE, SAGA, SHOP, Actor, Given, customer

PLACE = PlaceOrder(ORDER, CART, OWNER, LINES, AMOUNT, CURRENCY, TOKEN)
POSTAGE = PricedLine(1, "POST", "Postage", 1, 100, 1, stocked=False)
POSTAGE_ONLY = PlaceOrder(ORDER, CART, OWNER, (POSTAGE,), 100, CURRENCY, TOKEN)
GRANTED = RecordStockAnswer(ORDER, (1,), (), "")
AUTHORIZED = RecordPaymentAnswer(ORDER, PAYMENT, "done", "")
CAPTURE = RecordCapture(ORDER, PAYMENT, "done", "")
SHIPPED = RecordShipment(ORDER, (1, 2), (), 1, "")
ROOT = order_stream(ORDER)
CODEC = Codec()


# Placed.


def test_placing_an_order_announces_its_lines_and_its_deadline() -> None:
    Given(DECIDER).when(PLACE, SAGA, NOW).then(*PLACED)


def test_placing_an_order_twice_changes_nothing() -> None:
    Given(DECIDER, *PLACED).when(PLACE, SAGA, NOW).then_nothing()


def test_an_order_that_needs_no_stock_asks_for_money_at_once() -> None:
    shop = Given(DECIDER).when(POSTAGE_ONLY, SAGA, NOW)
    assert shop.events[1:] == (OrderStockSecured(ORDER, CART, OWNER, PAYMENT, (), 100, CURRENCY, TOKEN),)


def test_stock_is_secured_with_the_last_answer() -> None:
    shop = Given(DECIDER, *PLACED)
    shop.when(GRANTED, SAGA, NOW).then(OrderLinesReserved(ORDER, (LAMP,)))
    last = shop.when(RecordStockAnswer(ORDER, (2,), (), ""), SAGA, NOW)
    last.then(OrderLinesReserved(ORDER, (BOWL,)), OrderStockSecured(*step(LAMP, BOWL), TOKEN))


def test_a_line_refused_withholds_those_that_were_asked_for_with_it() -> None:
    answer = RecordStockAnswer(ORDER, (1, 2), (refused(LAMP, 1),), "")
    outcome = Given(DECIDER, *PLACED).when(answer, SAGA, NOW)
    outcome.then(OrderLinesRefused(ORDER, (refused(LAMP, 1),), (2,)), rejected(reason="stock"))


def test_a_reservation_without_effect_counts_as_refused() -> None:
    answer = RecordStockAnswer(ORDER, (1, 2), (), "CommandExpired")
    outcome = Given(DECIDER, *PLACED).when(answer, SAGA, NOW)
    every_line = (refused(LAMP), refused(BOWL))
    outcome.then(OrderLinesRefused(ORDER, every_line, ()), rejected(reason="stock"))


def test_an_authorization_confirms_the_order() -> None:
    confirmation = OrderConfirmed(*step(LAMP, BOWL), REMIND_AT)
    authorized = OrderPaymentAuthorized(ORDER, PAYMENT, AMOUNT)
    Given(DECIDER, *SECURED).when(AUTHORIZED, SAGA, NOW).then(authorized, confirmation)


def test_a_pending_answer_that_comes_after_the_authorization_changes_nothing() -> None:
    pending = RecordPaymentAnswer(ORDER, PAYMENT, "pending", "")
    Given(DECIDER, *CONFIRMED).when(pending, SAGA, NOW).then_nothing()


def test_a_decline_after_the_authorization_lowers_nothing() -> None:
    declined = RecordPaymentAnswer(ORDER, PAYMENT, "failed", "declined")
    Given(DECIDER, *CONFIRMED).when(declined, SAGA, NOW).then_nothing()


def test_another_payment_s_answer_is_not_this_order_s() -> None:
    stranger = RecordPaymentAnswer(ORDER, "another", "done", "")
    Given(DECIDER, *SECURED).when(stranger, SAGA, NOW).then_nothing()


def test_a_placed_order_waits_no_longer_than_its_deadline() -> None:
    shop = Given(DECIDER, *SECURED)
    due = DECIDER.deadline(ROOT, shop.get(ROOT))
    assert due is not None
    assert (due.at, due.command) == (NOW + FLIGHT_LIMIT, ExpireOrder(ORDER))
    shop.when(ExpireOrder(ORDER), DEADLINE, due.at - 1).then_nothing()


# Confirmed.


def test_answers_after_the_confirmation_may_come_in_any_order() -> None:
    answers = (
        RecordAllocation(ORDER, (1,), (), ""),
        RecordAllocation(ORDER, (2,), (), ""),
        CAPTURE,
        RecordCartAnswer(ORDER, CART, "completed"),
    )
    ends = set()
    for order in permutations(answers):
        shop = Given(DECIDER, *CONFIRMED)
        for answer in order:
            shop.when(answer, SAGA, NOW)
        ends.add(shop.get(ROOT))
    assert len(ends) == 1
    assert DECIDER.deadline(ROOT, ends.pop()) is None


def test_a_confirmed_order_asks_again_for_what_it_has_not_heard_of() -> None:
    shop = Given(
        DECIDER, *CONFIRMED, OrderLinesAllocated(ORDER, (LAMP,)), OrderCaptured(ORDER, PAYMENT, AMOUNT)
    )
    again = shop.when(RemindOrder(ORDER), DEADLINE, REMIND_AT)
    later = Micros(REMIND_AT + 60 * SECOND)
    again.then(OrderConfirmationRepeated(*step(BOWL), 2, "complete", later))


def test_a_refused_allocation_that_was_granted_before_lowers_nothing() -> None:
    late = RecordAllocation(ORDER, (1,), (), "InternalError")
    Given(DECIDER, *ALLOCATED).when(late, SAGA, NOW).then_nothing()


def test_a_claim_that_expired_may_still_be_allocated() -> None:
    shop = Given(DECIDER, *CONFIRMED)
    shop.when(RecordRelease(ORDER, (1,), "expired"), SAGA, NOW).then(
        OrderClaimsReturned(ORDER, (LAMP,), "expired")
    )
    shop.when(RecordAllocation(ORDER, (1,), (), ""), SAGA, NOW).then(OrderLinesAllocated(ORDER, (LAMP,)))


def test_an_expiry_that_is_heard_of_after_the_allocation_is_no_news() -> None:
    Given(DECIDER, *ALLOCATED).when(RecordRelease(ORDER, (1,), "expired"), SAGA, NOW).then_nothing()


def test_nothing_is_shipped_before_the_confirmation() -> None:
    Given(DECIDER, *SECURED).when(ShipOrder(ORDER), SHOP, NOW).then_rejected(OrderIsNotConfirmed)


def test_an_order_may_be_shipped_before_its_allocation_is_heard_of() -> None:
    asked = Given(DECIDER, *CONFIRMED).when(ShipOrder(ORDER), SHOP, NOW)
    asked.then(OrderShipmentRequested(*step(LAMP, BOWL), 1, REMIND_AT))


def test_asking_twice_for_a_shipment_changes_nothing() -> None:
    Given(DECIDER, *LEAVING).when(ShipOrder(ORDER), SHOP, NOW).then_nothing()


def test_a_shipped_and_captured_order_is_completed_and_settled() -> None:
    outcome = Given(DECIDER, *LEAVING).when(SHIPPED, SAGA, NOW)
    outcome.then(
        OrderLinesShipped(ORDER, (LAMP, BOWL)),
        OrderShipped(ORDER),
        OrderCompleted(ORDER, REMIND_AT),
        OrderSettled(ORDER),
    )


def test_a_completed_order_waits_for_its_cart_before_it_is_settled() -> None:
    asked = OrderShipmentRequested(*step(LAMP, BOWL), 1, REMIND_AT)
    shop = Given(DECIDER, *CAPTURED, asked)
    shop.when(SHIPPED, SAGA, NOW)
    assert isinstance(shop.get(ROOT), EndedOrder)
    closed = shop.when(RecordCartAnswer(ORDER, CART, "completed"), SAGA, NOW)
    closed.then(OrderCartClosed(ORDER, "completed"), OrderSettled(ORDER))


def test_only_what_was_not_shipped_is_asked_for_again() -> None:
    shop = Given(DECIDER, *LEAVING)
    shop.when(RecordShipment(ORDER, (2,), (refused(BOWL),), 1, ""), SAGA, NOW).then(
        OrderShipmentRefused(ORDER, (refused(BOWL),))
    )
    shop.when(RecordShipment(ORDER, (1,), (), 1, ""), SAGA, NOW).then(OrderLinesShipped(ORDER, (LAMP,)))
    shop.when(ShipOrder(ORDER), SHOP, NOW).then(OrderShipmentRequested(*step(BOWL), 2, REMIND_AT))


def test_a_refusal_of_an_earlier_shipment_does_not_answer_the_latest() -> None:
    again = OrderShipmentRequested(*step(LAMP, BOWL), 2, REMIND_AT)
    late = RecordShipment(ORDER, (1,), (refused(LAMP),), 1, "")
    Given(DECIDER, *LEAVING, again).when(late, SAGA, NOW).then_nothing()


def test_an_allocation_refused_while_goods_are_leaving_is_asked_for_again_and_cancels_nothing() -> None:
    history = (*CONFIRMED, OrderShipmentRequested(*step(LAMP, BOWL), 1, REMIND_AT))
    shop = Given(DECIDER, *history)
    shop.when(RecordAllocation(ORDER, (2,), (refused(BOWL),), ""), SAGA, NOW).then_nothing()
    shop.when(RecordShipment(ORDER, (1,), (), 1, ""), SAGA, NOW)
    shop.when(RecordShipment(ORDER, (2,), (refused(BOWL),), 1, ""), SAGA, NOW)
    again = shop.when(RemindOrder(ORDER), DEADLINE, REMIND_AT).events[0]
    assert isinstance(again, OrderConfirmationRepeated)
    assert again.lines == (BOWL,)


def test_postage_alone_is_shipped_when_it_is_asked_for() -> None:
    shop = Given(DECIDER)
    for command in (POSTAGE_ONLY, AUTHORIZED, CAPTURE, RecordCartAnswer(ORDER, CART, "completed")):
        shop.when(command, SAGA, NOW)
    names = [type(event).__name__ for event in shop.when(ShipOrder(ORDER), SHOP, NOW).events]
    assert names == ["OrderShipmentRequested", "OrderShipped", "OrderCompleted", "OrderSettled"]


# Ended.


def test_a_release_that_is_heard_of_before_the_grant_does_not_end_the_claim() -> None:
    shop = Given(DECIDER, *LAMP_RESERVED, cancelled(LAMP, reason="x"))
    shop.when(RecordRelease(ORDER, (2,), "released"), SAGA, NOW).then_nothing()
    granted = shop.when(RecordStockAnswer(ORDER, (2,), (), ""), SAGA, NOW)
    granted.then(OrderClaimsOrphaned(*step(BOWL), "reserved"))


def test_an_allocation_that_is_heard_of_after_the_release_is_no_news() -> None:
    history = (*CONFIRMED, cancelled(LAMP, BOWL, reason="x", held="allocated", money="void", cart="none"))
    shop = Given(DECIDER, *history)
    shop.when(RecordRelease(ORDER, (1,), "released"), SAGA, NOW)
    shop.when(RecordAllocation(ORDER, (1,), (), ""), SAGA, NOW).then_nothing()


def test_a_release_or_a_return_that_failed_is_still_owed() -> None:
    shop = Given(DECIDER, *SECURED, rejected(LAMP, BOWL, reason="timeout", money="void"))
    shop.when(RecordRelease(ORDER, (1,), "failed"), SAGA, NOW).then_nothing()
    shop.when(
        RecordMoneyReturn(ORDER, PAYMENT, "void", "failed", "PaymentIsCaptured"), SAGA, NOW
    ).then_nothing()
    shop.when(RecordCartAnswer(ORDER, CART, "failed"), SAGA, NOW).then_nothing()
    assert DECIDER.deadline(ROOT, shop.get(ROOT)) is not None


def test_a_void_that_failed_because_of_a_capture_becomes_a_refund() -> None:
    cancellation = cancelled(LAMP, BOWL, reason="x", held="allocated", money="void", cart="none")
    shop = Given(DECIDER, *ALLOCATED, cancellation)
    shop.when(
        RecordMoneyReturn(ORDER, PAYMENT, "void", "failed", "PaymentIsCaptured"), SAGA, NOW
    ).then_nothing()
    shop.when(CAPTURE, SAGA, NOW).then(OrderPaymentOrphaned(*step(), "refund"))


def test_a_decline_that_is_heard_of_after_the_end_settles_the_money() -> None:
    shop = Given(DECIDER, *SECURED, rejected(LAMP, BOWL, reason="timeout", money="void"))
    declined = RecordPaymentAnswer(ORDER, PAYMENT, "failed", "declined")
    shop.when(declined, SAGA, NOW).then(OrderPaymentDeclined(ORDER, PAYMENT, "declined"))
    shop.when(RecordRelease(ORDER, (1, 2), "released"), SAGA, NOW)
    closed = shop.when(RecordCartAnswer(ORDER, CART, "refused"), SAGA, NOW)
    closed.then(OrderCartClosed(ORDER, "refused"), OrderSettled(ORDER))


def test_a_cancelled_order_is_cancelled_again_without_a_word() -> None:
    shop = Given(DECIDER, *LAMP_RESERVED, cancelled(LAMP, reason="x"))
    shop.when(CancelOrder(ORDER, "again"), customer(OWNER), NOW).then_nothing()


def test_a_rejected_order_is_neither_cancelled_nor_shipped() -> None:
    shop = Given(DECIDER, *LAMP_RESERVED, rejected(LAMP, reason="stock"))
    shop.when(CancelOrder(ORDER, "x"), customer(OWNER), NOW).then_rejected(OrderIsClosed)
    shop.when(ShipOrder(ORDER), SHOP, NOW).then_rejected(OrderIsClosed)


def test_a_history_that_cannot_be_says_what_is_wrong_with_it() -> None:
    with pytest.raises(BrokenInvariantError, match=r"^PlacedOrder where a ConfirmedOrder must be$"):
        Given(DECIDER, *PLACED, OrderShipped(ORDER))
    settled = (*SECURED, cancelled(LAMP, reason="late"), OrderSettled(ORDER))
    with pytest.raises(BrokenInvariantError, match=r"^nothing happens to a settled order$"):
        Given(DECIDER, *settled, OrderStockSecured(*step(LAMP), TOKEN))


CONTACT = SealedContact("key", b"n", b"e", b"a")
FORGET, OPERATOR = EraseOrderContact(ORDER), Actor("operator", "otto")


PLACED_BY: tuple[OrderEvent, ...] = (replace(PLACED[0], contact=CONTACT),)  # type: ignore[arg-type]  # it is the one that placed it
IN_EVERY_STATE: dict[str, tuple[OrderEvent, ...]] = {
    "placed": PLACED_BY,
    "confirmed": (*PLACED_BY, *CONFIRMED[1:]),
    "ended": (*PLACED_BY, cancelled(reason="late")),
    "settled": (*PLACED_BY, cancelled(reason="late"), OrderSettled(ORDER)),
    "completed": (*PLACED_BY, *CONFIRMED[1:], OrderCompleted(ORDER, REMIND_AT)),
}


@pytest.mark.parametrize("state", IN_EVERY_STATE)
def test_a_contact_is_erased_once_in_whatever_state_the_order_is(state: str) -> None:
    shop = Given(DECIDER, *IN_EVERY_STATE[state])
    shop.when(FORGET, OPERATOR, NOW).then(OrderContactErased(ORDER))
    shop.when(FORGET, OPERATOR, NOW).then_nothing()


def test_an_order_is_placed_with_the_contact_it_was_asked_with() -> None:
    placing = replace(PLACE, contact=CONTACT)
    event = Given(DECIDER).when(placing, SAGA, NOW).events[0]
    assert isinstance(event, OrderPlaced)
    assert event.contact == CONTACT


def test_where_there_is_no_contact_nothing_is_erased() -> None:
    Given(DECIDER, *PLACED).when(FORGET, OPERATOR, NOW).then_nothing()


@pytest.mark.parametrize("actor", [customer(OWNER), SHOP, SAGA])
def test_only_an_operator_has_a_contact_erased(actor: Any) -> None:
    Given(DECIDER, *PLACED_BY).when(FORGET, actor, NOW).then_rejected(UnknownOrder)


def test_whatever_is_owed_is_asked_for_every_minute() -> None:
    shop = Given(DECIDER, *SECURED, rejected(LAMP, BOWL, reason="payment", money="void"))
    for at in (REMIND_AT, Micros(REMIND_AT + 60 * SECOND)):
        due = DECIDER.deadline(ROOT, shop.get(ROOT))
        assert due is not None
        assert (due.at, due.command) == (at, RemindOrder(ORDER))
        shop.when(RemindOrder(ORDER), DEADLINE, at - 1).then_nothing()
        assert len(shop.when(RemindOrder(ORDER), DEADLINE, at).events) == 1


def test_a_settled_order_hears_everything_and_says_nothing() -> None:
    shop = Given(DECIDER, *LEAVING)
    shop.when(SHIPPED, SAGA, NOW)
    assert shop.get(ROOT) == SettledOrder(ORDER, OWNER, "completed")
    for fact in (GRANTED, AUTHORIZED, CAPTURE, SHIPPED, PLACE, RemindOrder(ORDER), ExpireOrder(ORDER)):
        shop.when(fact, SAGA, NOW).then_nothing()


# Who may.


@pytest.mark.parametrize("history", [PLACED, READY])
def test_another_customer_s_order_is_unknown(history: tuple[object, ...]) -> None:
    shop = Given(DECIDER, *history)
    shop.when(CancelOrder(ORDER, "mine"), customer("mallory"), NOW).then_rejected(UnknownOrder)


def test_a_customer_ships_nothing() -> None:
    Given(DECIDER, *READY).when(ShipOrder(ORDER), customer(OWNER), NOW).then_rejected(UnknownOrder)


def test_an_order_that_was_never_placed_is_unknown() -> None:
    Given(DECIDER).when(AUTHORIZED, SAGA, NOW).then_rejected(UnknownOrder)
    Given(DECIDER).when(CancelOrder(ORDER, "x"), SHOP, NOW).then_rejected(UnknownOrder)


# Many lines.


def many(count: int) -> PlaceOrder:
    lines = tuple(
        PricedLine(n, f"SKU{n}", f"name {n}", 5_000, 100, 1, n % 10 != 0) for n in range(1, count + 1)
    )
    return PlaceOrder(ORDER, CART, OWNER, lines, count * 500_000, CURRENCY, TOKEN)


def size(record: object) -> int:
    meta = RecordMeta(ROOT, NOW, "batch")
    return len(CODEC.encode(record, vars(meta), 1, bytes(32)))


def test_an_order_of_a_hundred_lines_is_one_record() -> None:
    assert list(Given(DECIDER).when(many(100), SAGA, NOW).given.records) == [ROOT]


def test_the_lines_of_a_long_order_lie_apart_and_never_change() -> None:
    shop = Given(DECIDER).when(many(2_000), SAGA, NOW).given
    paths = [order_lines_path(ORDER, chunk) for chunk in range(20)]
    assert sorted(shop.records) == sorted([ROOT, *paths])
    before = {path: shop.get(path) for path in paths}
    shop.when(RecordStockAnswer(ORDER, tuple(n for n in range(1, 2_001) if n % 10), (), ""), SAGA, NOW)
    shop.when(AUTHORIZED, SAGA, NOW)
    assert isinstance(shop.get(ROOT), ConfirmedOrder)
    assert all(shop.get(path) is before[path] for path in paths)
    assert size(shop.get(ROOT)) < 10_000
    assert max(size(record) for record in before.values()) < 10_000


def test_a_step_of_a_long_order_names_the_very_lines() -> None:
    shop = Given(DECIDER).when(many(1_114), SAGA, NOW).given
    reserved = shop.when(RecordStockAnswer(ORDER, (99, 101, 1_114), (), ""), SAGA, NOW)
    lines = tuple(Line(n, f"SKU{n}", 5_000) for n in (99, 101, 1_114))
    reserved.then(OrderLinesReserved(ORDER, lines))


def test_a_settled_long_order_leaves_one_small_record() -> None:
    shop = Given(DECIDER).when(many(1_114), SAGA, NOW).given
    numbers = tuple(n for n in range(1, 1_115) if n % 10)
    shop.when(RecordStockAnswer(ORDER, numbers, (), "InternalError"), SAGA, NOW)
    shop.when(RecordCartAnswer(ORDER, CART, "reopened"), SAGA, NOW)
    assert shop.records == {ROOT: SettledOrder(ORDER, OWNER, "rejected")}


# What it remembers, field by field.

LATER = Micros(REMIND_AT + 60 * SECOND)
GIVEN_UP = (*PLACED, cancelled(reason="late"))
UNPAID = (*SECURED, rejected(LAMP, BOWL, reason="payment", money="void"))
GONE = (
    *CAPTURED,
    OrderShipmentRequested(*step(LAMP, BOWL), 1, REMIND_AT),
    OrderLinesShipped(ORDER, (LAMP, BOWL)),
    OrderShipped(ORDER),
    OrderCompleted(ORDER, LATER),
)
"""It only waits for its cart."""


@pytest.mark.parametrize(
    ("history", "remembered"),
    [
        (PLACED, {"claims": "oo-", "money": "none"}),
        ((*PLACED, OrderLinesRefused(ORDER, (refused(LAMP),), (2,))), {"claims": "xx-"}),
        ((*LAMP_RESERVED, OrderLinesRefused(ORDER, (refused(BOWL),), ())), {"claims": "rx-"}),
        ((*CONFIRMED, OrderClaimsReturned(ORDER, (LAMP,), "expired")), {"claims": "er-"}),
        ((*CONFIRMED, OrderClaimsReturned(ORDER, (LAMP,), "released")), {"claims": "dr-"}),
        ((*GIVEN_UP, OrderClaimsOrphaned(*step(LAMP), "reserved")), {"claims": "ro-"}),
        ((*GIVEN_UP, OrderClaimsOrphaned(*step(LAMP), "allocated")), {"claims": "ao-"}),
        ((*GIVEN_UP, OrderPaymentOrphaned(*step(), "void")), {"money": "authorized"}),
        ((*GIVEN_UP, OrderPaymentOrphaned(*step(), "refund")), {"money": "captured"}),
        (
            (*CONFIRMED, OrderConfirmationRepeated(*step(LAMP), 7, "complete", LATER)),
            {"attempt": 7, "remind_at": LATER},
        ),
        ((*CONFIRMED, OrderCaptureRequested(*step(), 3, LATER)), {"captures": 3, "remind_at": LATER}),
        (
            (*READY, OrderShipmentRequested(*step(LAMP, BOWL), 4, LATER)),
            {"parcels": "??-", "shipments": 4, "remind_at": LATER},
        ),
        (
            GONE,
            {
                "ending": "completed",
                "claims": "---",
                "held": "allocated",
                "attempt": 1,
                "cart": "complete",
                "remind_at": LATER,
            },
        ),
    ],
    ids=lambda given: type(given[-1]).__name__ if isinstance(given, tuple) else "",
)
def test_an_order_remembers_what_happened(history: Sequence[OrderEvent], remembered: dict[str, Any]) -> None:
    root = vars(Given(DECIDER, *history).get(ROOT))
    assert {name: root[name] for name in remembered} == remembered


@pytest.mark.parametrize(
    ("history", "fact", "events"),
    [
        (LEAVING, RemindOrder(ORDER), (OrderShipmentRequested(*step(LAMP, BOWL), 2, LATER),)),
        (CAPTURED, RemindOrder(ORDER), (OrderConfirmationRepeated(*step(), 2, "complete", LATER),)),
        (CONFIRMED, CAPTURE, (OrderCaptured(ORDER, PAYMENT, AMOUNT),)),
        (CONFIRMED, RecordAllocation(ORDER, (3,), (), ""), ()),
        (CAPTURED, RecordCapture(ORDER, PAYMENT, "failed", "late"), ()),
        (UNPAID, CAPTURE, (OrderPaymentOrphaned(*step(), "refund"),)),
        (
            (*UNPAID, OrderPaymentDeclined(ORDER, PAYMENT, "no")),
            CAPTURE,
            (OrderPaymentOrphaned(*step(), "refund"),),
        ),
        (
            (*UNPAID, OrderPaymentDeclined(ORDER, PAYMENT, "no")),
            AUTHORIZED,
            (OrderPaymentOrphaned(*step(), "void"),),
        ),
        (
            UNPAID,
            RecordMoneyReturn(ORDER, PAYMENT, "void", "nothing", ""),
            (OrderMoneyReturned(ORDER, PAYMENT, "void", 0),),
        ),
        (CAPTURED, RecordMoneyReturn(ORDER, PAYMENT, "refund", "done", ""), ()),
        (GONE, RecordMoneyReturn(ORDER, PAYMENT, "refund", "done", ""), ()),
        (GONE, ShipOrder(ORDER), ()),
        (UNPAID, RecordRelease(ORDER, (1,), "released"), (OrderClaimsReturned(ORDER, (LAMP,), "released"),)),
        (
            LEAVING,
            RecordShipment(ORDER, (1, 2), (), 1, "CommandExpired"),
            (OrderShipmentRefused(ORDER, (refused(LAMP), refused(BOWL))),),
        ),
        (LEAVING, RecordShipment(ORDER, (3,), (), 1, ""), ()),
    ],
    ids=lambda given: type(given).__name__,
)
def test_what_an_order_hears_has_exactly_this_effect(
    history: Sequence[OrderEvent], fact: Any, events: tuple[OrderEvent, ...]
) -> None:
    Given(DECIDER, *history).when(fact, SAGA, REMIND_AT).then(*events)


@pytest.mark.parametrize(
    "history",
    [
        CAPTURED,
        LEAVING,
        (*ALLOCATED, OrderCartClosed(ORDER, "completed")),
        (*CONFIRMED, OrderCaptured(ORDER, PAYMENT, AMOUNT), OrderCartClosed(ORDER, "completed")),
    ],
    ids=["the cart", "goods that leave", "money", "an allocation"],
)
def test_a_confirmed_order_is_reminded_of_whatever_it_waits_for(history: Sequence[OrderEvent]) -> None:
    due = DECIDER.deadline(ROOT, Given(DECIDER, *history).get(ROOT))
    assert due == Deadline(REMIND_AT, RemindOrder(ORDER))


def test_a_confirmed_order_that_waits_for_nothing_has_no_deadline() -> None:
    assert DECIDER.deadline(ROOT, Given(DECIDER, *READY).get(ROOT)) is None


def test_an_order_that_holds_a_claim_is_not_settled() -> None:
    shop = Given(DECIDER, *LAMP_RESERVED, rejected(LAMP, reason="timeout"))
    reopened = RecordCartAnswer(ORDER, CART, "reopened")
    shop.when(reopened, SAGA, NOW).then(OrderCartClosed(ORDER, "reopened"))


def test_the_longest_order_of_one_record_knows_its_first_and_its_last_line() -> None:
    lines = tuple(PricedLine(n, f"S{n}", "", 1, 1, 1, stocked=True) for n in range(1, LINES_PER_RECORD + 1))
    shop = Given(DECIDER)
    shop.when(PlaceOrder(ORDER, CART, OWNER, lines, len(lines), CURRENCY, TOKEN), SAGA, NOW)
    ends = (Line(1, "S1", 1), Line(LINES_PER_RECORD, f"S{LINES_PER_RECORD}", 1))
    answer = RecordStockAnswer(ORDER, (1, LINES_PER_RECORD), (), "")
    shop.when(answer, SAGA, NOW).then(OrderLinesReserved(ORDER, ends))
    assert shop.records.keys() == {ROOT}
