"""The table of late and crossing facts in DOMAIN.md, a sentence for each cell: what the order says, what is asked."""

import pytest

from commands.decider import Command
from commands.order import DECIDER
from commands.rejections import OrderIsBeingShipped
from schemas.cart import CompleteCart, ReopenCart
from schemas.inventory import ReleaseAllocation, ReleaseReservation
from schemas.meta import SECOND, Micros
from schemas.order import (
    FLIGHT_LIMIT,
    CancelOrder,
    ExpireOrder,
    OrderCaptureFailed,
    OrderCaptureRequested,
    OrderCartClosed,
    OrderClaimsOrphaned,
    OrderClaimsReturned,
    OrderLinesAllocated,
    OrderLinesRefused,
    OrderMoneyReturned,
    OrderPaymentDeclined,
    OrderPaymentOrphaned,
    OrderReturnRequested,
    OrderSettled,
    OrderShipmentRefused,
    OrderShipmentRequested,
    RecordAllocation,
    RecordCapture,
    RecordCartAnswer,
    RecordMoneyReturn,
    RecordPaymentAnswer,
    RecordRelease,
    RecordShipment,
    RecordStockAnswer,
    RemindOrder,
    ShipOrder,
)
from schemas.payment import RequestCapture, RequestRefund, RequestVoid
from schemas.values import MAIN, Line
from streams import saga
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
    NOW,
    ORDER,
    PAYMENT,
    PLACED,
    READY,
    REMIND_AT,
    SECURED,
    asked_after,
    cancelled,
    refused,
    rejected,
    step,
)
from tests.specification import DEADLINE, SAGA, SHOP, Actor, Given, Outcome, customer

ANNA = customer("anna")
OUT_OF_TIME = Micros(NOW + FLIGHT_LIMIT)
REOPEN = ReopenCart(CART, ORDER, 1)
VOID = RequestVoid(PAYMENT, ORDER, CURRENCY, 1)
REFUND = RequestRefund(PAYMENT, ORDER, AMOUNT, 1)
CHANGED_MY_MIND = CancelOrder(ORDER, "changed my mind")
AUTHORIZED = RecordPaymentAnswer(ORDER, PAYMENT, "done", "")
DECLINED = RecordPaymentAnswer(ORDER, PAYMENT, "failed", "declined")
CAPTURE_DONE = RecordCapture(ORDER, PAYMENT, "done", "")

REJECTED = (*LAMP_RESERVED, rejected(LAMP, reason="stock"))
TIMED_OUT = (*SECURED, rejected(LAMP, BOWL, reason="timeout", money="void"))
CANCELLED_LATE = (
    *ALLOCATED,
    cancelled(LAMP, BOWL, reason="x", held="allocated", money="void", cart="complete"),
)


def release(line: Line, reason: str) -> ReleaseReservation:
    return ReleaseReservation(ORDER, MAIN, (line,), 1, reason)


def unallocate(line: Line, reason: str) -> ReleaseAllocation:
    return ReleaseAllocation(ORDER, MAIN, (line,), 1, reason)


def hear(*history: object, fact: Command, actor: Actor = SAGA, now: int = NOW) -> Outcome:
    return Given(DECIDER, *history).when(fact, actor, now)


def then_asked(outcome: Outcome, *commands: Command) -> None:
    """These commands follow, in whatever order."""
    asked = asked_after(saga.react, outcome.events)
    assert sorted(map(repr, asked)) == sorted(map(repr, commands))


def test_a_placed_order_of_which_a_line_is_refused_is_rejected_and_gives_back_what_it_holds() -> None:
    outcome = hear(*LAMP_RESERVED, fact=RecordStockAnswer(ORDER, (2,), (refused(BOWL, 1),), ""))
    outcome.then(OrderLinesRefused(ORDER, (refused(BOWL, 1),), ()), rejected(LAMP, reason="stock"))
    then_asked(outcome, release(LAMP, "rejected"), REOPEN)


def test_a_placed_order_may_be_cancelled_before_money_was_asked_for() -> None:
    outcome = hear(*LAMP_RESERVED, fact=CHANGED_MY_MIND, actor=ANNA)
    outcome.then(cancelled(LAMP, reason="changed my mind"))
    then_asked(outcome, release(LAMP, "cancelled"), REOPEN)


def test_a_placed_order_that_is_cancelled_after_money_was_asked_for_voids_it() -> None:
    outcome = hear(*SECURED, fact=CHANGED_MY_MIND, actor=ANNA)
    outcome.then(cancelled(LAMP, BOWL, reason="changed my mind", money="void"))
    then_asked(outcome, release(LAMP, "cancelled"), release(BOWL, "cancelled"), REOPEN, VOID)


def test_a_placed_order_whose_payment_is_declined_is_rejected() -> None:
    outcome = hear(*SECURED, fact=DECLINED)
    declined = OrderPaymentDeclined(ORDER, PAYMENT, "declined")
    outcome.then(declined, rejected(LAMP, BOWL, reason="payment", money="void"))
    then_asked(outcome, release(LAMP, "rejected"), release(BOWL, "rejected"), REOPEN, VOID)


def test_a_placed_order_that_is_in_flight_for_too_long_is_rejected_and_voids_what_it_asked_for() -> None:
    outcome = hear(*SECURED, fact=ExpireOrder(ORDER), actor=DEADLINE, now=OUT_OF_TIME)
    assert [(e.reason, e.money) for e in outcome.events] == [("timeout", "void")]
    then_asked(outcome, release(LAMP, "rejected"), release(BOWL, "rejected"), REOPEN, VOID)


def test_a_placed_order_that_runs_out_of_time_before_money_was_asked_for_voids_nothing() -> None:
    outcome = hear(*LAMP_RESERVED, fact=ExpireOrder(ORDER), actor=DEADLINE, now=OUT_OF_TIME)
    then_asked(outcome, release(LAMP, "rejected"), REOPEN)


def test_a_placed_order_whose_reservation_expires_is_rejected() -> None:
    outcome = hear(*SECURED, fact=RecordRelease(ORDER, (1,), "expired"))
    expired = OrderClaimsReturned(ORDER, (LAMP,), "expired")
    outcome.then(expired, rejected(LAMP, BOWL, reason="timeout", money="void"))


@pytest.mark.parametrize("history", [REJECTED, (*LAMP_RESERVED, cancelled(LAMP, reason="x"))])
def test_a_line_that_is_granted_after_the_end_is_orphaned_and_released(history: tuple[object, ...]) -> None:
    outcome = hear(*history, fact=RecordStockAnswer(ORDER, (2,), (), ""))
    outcome.then(OrderClaimsOrphaned(*step(BOWL), "reserved"))
    then_asked(outcome, release(BOWL, "orphaned"))


def test_a_line_that_is_allocated_after_the_cancellation_is_orphaned_and_released() -> None:
    history = (*CONFIRMED, cancelled(LAMP, BOWL, reason="x", held="allocated", money="void", cart="complete"))
    outcome = hear(*history, fact=RecordAllocation(ORDER, (1,), (), ""))
    outcome.then(OrderClaimsOrphaned(*step(LAMP), "allocated"))
    then_asked(outcome, unallocate(LAMP, "orphaned"))


def test_an_authorization_after_the_end_is_orphaned_and_voided() -> None:
    outcome = hear(*TIMED_OUT, fact=AUTHORIZED)
    outcome.then(OrderPaymentOrphaned(*step(), "void"))
    then_asked(outcome, VOID)


def test_a_capture_after_the_cancellation_is_orphaned_and_refunded() -> None:
    outcome = hear(*CANCELLED_LATE, fact=CAPTURE_DONE)
    outcome.then(OrderPaymentOrphaned(*step(), "refund"))
    then_asked(outcome, REFUND)


def test_a_confirmed_order_whose_allocation_is_refused_is_cancelled_and_gives_all_back() -> None:
    history = (*CONFIRMED, OrderLinesAllocated(ORDER, (LAMP,)))
    outcome = hear(*history, fact=RecordAllocation(ORDER, (2,), (refused(BOWL),), ""))
    outcome.then(cancelled(LAMP, BOWL, reason="stock", held="allocated", money="void", cart="complete"))
    unheard_of = CompleteCart(CART, ORDER, 1)
    then_asked(outcome, unallocate(LAMP, "cancelled"), unallocate(BOWL, "cancelled"), VOID, unheard_of)


def test_a_confirmed_order_may_be_cancelled_before_it_is_captured() -> None:
    outcome = hear(*ALLOCATED, OrderCartClosed(ORDER, "completed"), fact=CHANGED_MY_MIND, actor=ANNA)
    outcome.then(cancelled(LAMP, BOWL, reason="changed my mind", held="allocated", money="void", cart="none"))
    then_asked(outcome, unallocate(LAMP, "cancelled"), unallocate(BOWL, "cancelled"), VOID)


def test_a_confirmed_order_that_is_cancelled_after_its_capture_is_refunded() -> None:
    outcome = hear(*READY, fact=CHANGED_MY_MIND, actor=ANNA)
    outcome.then(
        cancelled(LAMP, BOWL, reason="changed my mind", held="allocated", money="refund", cart="none")
    )
    then_asked(outcome, unallocate(LAMP, "cancelled"), unallocate(BOWL, "cancelled"), REFUND)


def test_an_order_is_not_cancelled_once_its_shipment_was_requested() -> None:
    hear(*LEAVING, fact=CHANGED_MY_MIND, actor=ANNA).then_rejected(OrderIsBeingShipped)


def test_an_order_is_not_cancelled_once_some_of_it_was_shipped() -> None:
    shop = hear(*LEAVING, fact=RecordShipment(ORDER, (1,), (), 1, "")).given
    shop.when(RecordShipment(ORDER, (2,), (refused(BOWL),), 1, ""), SAGA, NOW)
    shop.when(CHANGED_MY_MIND, ANNA, NOW).then_rejected(OrderIsBeingShipped)


def test_an_order_is_not_cancelled_once_it_was_completed() -> None:
    shop = hear(*LEAVING, fact=RecordShipment(ORDER, (1, 2), (), 1, "")).given
    shop.when(CHANGED_MY_MIND, ANNA, NOW).then_rejected(OrderIsBeingShipped)


def test_a_shipment_that_is_refused_may_be_asked_for_again() -> None:
    fact = RecordShipment(ORDER, (1, 2), (refused(LAMP), refused(BOWL)), 1, "")
    outcome = hear(*LEAVING, fact=fact).then(OrderShipmentRefused(ORDER, (refused(LAMP), refused(BOWL))))
    again = outcome.given.when(ShipOrder(ORDER), SHOP, NOW)
    again.then(OrderShipmentRequested(*step(LAMP, BOWL), 2, REMIND_AT))


def test_a_shipment_that_is_refused_may_be_cancelled() -> None:
    fact = RecordShipment(ORDER, (1, 2), (refused(LAMP), refused(BOWL)), 1, "")
    outcome = hear(*LEAVING, fact=fact).given.when(CHANGED_MY_MIND, ANNA, NOW)
    outcome.then(
        cancelled(LAMP, BOWL, reason="changed my mind", held="allocated", money="refund", cart="none")
    )


def test_a_capture_that_failed_is_asked_for_again_later_and_later() -> None:
    shop = Given(DECIDER, *ALLOCATED, OrderCartClosed(ORDER, "completed"))
    failed, now = RecordCapture(ORDER, PAYMENT, "failed", "insufficient_funds"), int(NOW)
    for attempt, pause in enumerate((10, 20, 40), 2):
        retry_at = Micros(now + pause * SECOND)
        shop.when(failed, SAGA, now).then(OrderCaptureFailed(ORDER, PAYMENT, "insufficient_funds", retry_at))
        now = retry_at
        again = shop.when(RemindOrder(ORDER), DEADLINE, now)
        again.then(OrderCaptureRequested(*step(), attempt, Micros(now + 60 * SECOND)))
        then_asked(again, RequestCapture(PAYMENT, ORDER, AMOUNT, attempt))


def test_what_an_ended_order_is_owed_is_asked_for_every_minute_until_it_is_settled() -> None:
    shop = Given(DECIDER, *TIMED_OUT)
    for attempt in (2, 3):
        now = Micros(NOW + (attempt - 1) * 60 * SECOND)
        owed = ("reserved", "void", "reopen", Micros(now + 60 * SECOND), attempt)
        again = shop.when(RemindOrder(ORDER), DEADLINE, now).then(
            OrderReturnRequested(*step(LAMP, BOWL), *owed)
        )
        then_asked(
            again,
            ReleaseReservation(ORDER, MAIN, (LAMP,), attempt, "reminded"),
            ReleaseReservation(ORDER, MAIN, (BOWL,), attempt, "reminded"),
            RequestVoid(PAYMENT, ORDER, CURRENCY, attempt),
            ReopenCart(CART, ORDER, attempt),
        )
    shop.when(RecordRelease(ORDER, (1, 2), "released"), SAGA, NOW)
    shop.when(RecordCartAnswer(ORDER, CART, "reopened"), SAGA, NOW)
    last = shop.when(RecordMoneyReturn(ORDER, PAYMENT, "void", "done", ""), SAGA, NOW)
    last.then(OrderMoneyReturned(ORDER, PAYMENT, "void", AMOUNT), OrderSettled(ORDER))
    assert DECIDER.deadline(f"order/{ORDER}", shop.get(f"order/{ORDER}")) is None


FACTS = (
    (PLACED, RecordStockAnswer(ORDER, (1,), (), "")),
    (LAMP_RESERVED, RecordStockAnswer(ORDER, (2,), (refused(BOWL),), "")),
    (SECURED, AUTHORIZED),
    (SECURED, DECLINED),
    (SECURED, RecordRelease(ORDER, (1,), "expired")),
    (REJECTED, RecordStockAnswer(ORDER, (2,), (), "")),
    (REJECTED, RecordRelease(ORDER, (1,), "released")),
    (REJECTED, RecordCartAnswer(ORDER, CART, "reopened")),
    (TIMED_OUT, AUTHORIZED),
    (TIMED_OUT, RecordMoneyReturn(ORDER, PAYMENT, "void", "nothing", "")),
    (CANCELLED_LATE, CAPTURE_DONE),
    (CONFIRMED, RecordAllocation(ORDER, (1,), (), "")),
    (CONFIRMED, RecordAllocation(ORDER, (1,), (refused(LAMP),), "")),
    (CONFIRMED, RecordCartAnswer(ORDER, CART, "completed")),
    (ALLOCATED, CAPTURE_DONE),
    (LEAVING, RecordShipment(ORDER, (1,), (), 1, "")),
    (LEAVING, RecordShipment(ORDER, (1,), (refused(LAMP),), 1, "")),
    (LEAVING, RecordShipment(ORDER, (1, 2), (), 1, "")),
)


@pytest.mark.parametrize(("history", "fact"), FACTS, ids=lambda value: type(value).__name__)
def test_the_same_fact_again_changes_nothing(history: tuple[object, ...], fact: Command) -> None:
    first = hear(*history, fact=fact)
    assert first.events
    first.given.when(fact, SAGA, NOW).then_nothing()


def test_goods_and_money_in_either_order_complete_the_order() -> None:
    for last, before in ((CAPTURE_DONE, ALLOCATED), (RecordShipment(ORDER, (1, 2), (), 1, ""), CAPTURED)):
        shop = Given(DECIDER, *before, OrderCartClosed(ORDER, "completed"))
        shop.when(ShipOrder(ORDER), SHOP, NOW)
        if last is CAPTURE_DONE:
            shop.when(RecordShipment(ORDER, (1, 2), (), 1, ""), SAGA, NOW)
        names = [type(event).__name__ for event in shop.when(last, SAGA, NOW).events]
        assert names[-2:] == ["OrderCompleted", "OrderSettled"]
