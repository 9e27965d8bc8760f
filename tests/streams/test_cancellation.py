"""The cancellation saga: what an ended order holds goes back; claims, then money, then the cart."""

from dataclasses import replace

import pytest

from schemas.cart import CompleteCart, ReopenCart
from schemas.inventory import ReleaseAllocation, ReleaseReservation, StockReservationExpired
from schemas.order import (
    OrderClaimsOrphaned,
    OrderConfirmed,
    OrderPaymentOrphaned,
    OrderReturnRequested,
    RecordCartAnswer,
    RecordMoneyReturn,
    RecordRelease,
)
from schemas.payment import (
    PaymentRefunded,
    PaymentRefundFailed,
    PaymentVoidDeferred,
    PaymentVoided,
    PaymentVoidFailed,
    RequestRefund,
    RequestVoid,
)
from schemas.values import MAIN
from streams import saga
from streams.cancellation import react
from tests.an_order import (
    AMOUNT,
    BOWL,
    CART,
    CURRENCY,
    EXPIRED,
    LAMP,
    ORDER,
    PAYMENT,
    REMIND_AT,
    TOPICS,
    asked_after,
    bodies,
    cancelled,
    decided,
    recorded,
    rejected,
    step,
)

MONEY = ("p", ORDER, AMOUNT, CURRENCY, "key", "reference")


def test_a_rejected_order_releases_voids_and_reopens() -> None:
    assert asked_after(react, [rejected(LAMP, BOWL, reason="payment", money="void")]) == [
        ReleaseReservation(ORDER, MAIN, (LAMP,), 1, "rejected"),
        ReleaseReservation(ORDER, MAIN, (BOWL,), 1, "rejected"),
        RequestVoid(PAYMENT, ORDER, CURRENCY, 1),
        ReopenCart(CART, ORDER, 1),
    ]


def test_a_rejected_order_that_holds_nothing_only_reopens_its_cart() -> None:
    assert asked_after(react, [rejected(reason="stock")]) == [ReopenCart(CART, ORDER, 1)]


def test_a_cancelled_order_that_was_confirmed_gives_back_its_allocations_and_the_money() -> None:
    event = cancelled(LAMP, reason="x", held="allocated", money="refund", cart="none")
    assert asked_after(react, [event]) == [
        ReleaseAllocation(ORDER, MAIN, (LAMP,), 1, "cancelled"),
        RequestRefund(PAYMENT, ORDER, AMOUNT, 1),
    ]


def test_a_reminder_asks_again_as_often_as_it_says() -> None:
    event = OrderReturnRequested(*step(BOWL), "allocated", "refund", "complete", REMIND_AT, 5)
    assert asked_after(react, [event]) == [
        ReleaseAllocation(ORDER, MAIN, (BOWL,), 5, "reminded"),
        RequestRefund(PAYMENT, ORDER, AMOUNT, 5),
        CompleteCart(CART, ORDER, 5),
    ]


def test_a_reminder_has_ids_of_its_own() -> None:
    event = OrderReturnRequested(*step(LAMP), "reserved", "none", "none", REMIND_AT, 2)
    first, again = recorded(event), recorded(event)
    later = replace(again, meta=replace(again.meta, event_id="another"))
    ids = [react(fact, TOPICS)[0].meta.command_id for fact in (first, again, later)]
    assert ids[0] == ids[1] != ids[2]


def test_orphaned_claims_are_released() -> None:
    assert asked_after(react, [OrderClaimsOrphaned(*step(LAMP), "reserved")]) == [
        ReleaseReservation(ORDER, MAIN, (LAMP,), 1, "orphaned")
    ]
    assert asked_after(react, [OrderClaimsOrphaned(*step(LAMP), "allocated")]) == [
        ReleaseAllocation(ORDER, MAIN, (LAMP,), 1, "orphaned")
    ]


def test_orphaned_money_goes_back_the_way_it_came() -> None:
    void, refund = (OrderPaymentOrphaned(*step(), money) for money in ("void", "refund"))
    assert asked_after(react, [void]) == [RequestVoid(PAYMENT, ORDER, CURRENCY, 1)]
    assert asked_after(react, [refund]) == [RequestRefund(PAYMENT, ORDER, AMOUNT, 1)]


def test_a_reservation_that_expires_is_told_to_its_order() -> None:
    event = StockReservationExpired("LAMP", MAIN, 5, 0, 0, 0, ORDER, 1, "claim", 2)
    assert asked_after(react, [event]) == [RecordRelease(ORDER, (1,), "expired")]


@pytest.mark.parametrize(
    ("event", "command"),
    [
        (PaymentVoided(*MONEY), RecordMoneyReturn(ORDER, "p", "void", "done", "")),
        (PaymentVoidFailed(*MONEY, "no"), RecordMoneyReturn(ORDER, "p", "void", "failed", "no")),
        (PaymentRefunded(*MONEY), RecordMoneyReturn(ORDER, "p", "refund", "done", "")),
        (PaymentRefundFailed(*MONEY, "no"), RecordMoneyReturn(ORDER, "p", "refund", "failed", "no")),
    ],
)
def test_what_became_of_the_money_is_told_to_the_order(event: object, command: object) -> None:
    assert asked_after(react, [event]) == [command]


@pytest.mark.parametrize("event", [OrderConfirmed(*step(LAMP), REMIND_AT), PaymentVoidDeferred(*MONEY[:4])])
def test_other_events_are_not_its_business(event: object) -> None:
    assert asked_after(react, [event]) == []


CAPTURED = replace(EXPIRED, type="PaymentIsCaptured", kind="conflict")


@pytest.mark.parametrize(
    ("answer", "command"),
    [
        (decided("ReleaseReservation", "stock/LAMP/main", LAMP), RecordRelease(ORDER, (1,), "released")),
        (decided("ReleaseAllocation", "stock/LAMP/main", LAMP), RecordRelease(ORDER, (1,), "released")),
        (
            decided("ReleaseAllocation", "stock/LAMP/main", LAMP, rejection=EXPIRED),
            RecordRelease(ORDER, (1,), "failed"),
        ),
        (
            decided("RequestVoid", "payment/p", status="nothing"),
            RecordMoneyReturn(ORDER, "p", "void", "nothing", ""),
        ),
        (
            decided("RequestVoid", "payment/p", rejection=CAPTURED),
            RecordMoneyReturn(ORDER, "p", "void", "failed", "PaymentIsCaptured"),
        ),
        (
            decided("RequestRefund", "payment/p", status="pending"),
            RecordMoneyReturn(ORDER, "p", "refund", "pending", ""),
        ),
        (decided("ReopenCart", "cart/c"), RecordCartAnswer(ORDER, "c", "reopened")),
        (decided("ReopenCart", "cart/c", rejection=EXPIRED), RecordCartAnswer(ORDER, "c", "failed")),
    ],
)
def test_every_answer_becomes_one_command_to_the_order(answer: object, command: object) -> None:
    assert bodies(saga.react(answer, TOPICS)) == [command]  # type: ignore[arg-type]
