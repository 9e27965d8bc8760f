"""The reader of the laws finds what is begun and never finished: a checkout, a charge, a settlement."""

import pytest

from tests.ops.test_laws import charge, place, row, tell
from tests.written_log import Log

A_LONG_TIME = 100 * 24 * 3600.0
LINE = {"line": 1, "sku": "A", "quantity": 3}
LEDGER = [row("authorization", "o"), row("capture", "o")]


@pytest.fixture
def log() -> Log:
    return Log()


def cart(log: Log, name: str, order: str = "o") -> None:
    log.transact(("cart/c", name, {"cart_id": "c", "order_id": order}))


def conclude(log: Log) -> None:
    """What a confirmed order hears of its charge and its cart."""
    tell(log, "o", "OrderCaptured", amount=500)
    tell(log, "o", "OrderCartClosed", how="completed")


# ── the checkout ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_checkout_whose_order_is_never_placed_breaks_law_3(log: Log):
    cart(log, "CartCheckedOut")
    log.after(A_LONG_TIME)
    assert log.broken(ledger=[]) == {"3": "order/o was checked out and never placed"}


def test_a_checkout_has_time_while_trade_goes_on_and_none_once_all_is_settled(log: Log):
    cart(log, "CartCheckedOut")
    assert log.broken() == {}
    assert log.broken(settled=True) == {"3": "cart/c stays checked out as order/o"}


def test_the_order_may_be_read_before_the_checkout(log: Log):
    cart(log, "CartCheckedOut")
    place(log, "o")
    tell(log, "o", "OrderRejected", reason="stock", money="none")
    tell(log, "o", "OrderSettled")
    log.records.sort(key=lambda record: record.topic, reverse=True)
    log.after(A_LONG_TIME)
    assert log.broken() == {}


def test_a_cart_that_is_closed_for_another_order_breaks_law_3(log: Log):
    cart(log, "CartCheckedOut")
    cart(log, "CartCompleted", "another")
    assert "CartCompleted for order/another, as which it was not checked out" in log.broken()["3"]


def test_a_cart_checked_out_twice_at_once_breaks_law_3(log: Log):
    cart(log, "CartCheckedOut", "first")
    cart(log, "CartCheckedOut", "second")
    assert log.broken() == {"3": "cart/c was checked out as order/first and again as order/second"}


def test_a_cart_that_was_reopened_may_be_checked_out_again(log: Log):
    cart(log, "CartCheckedOut", "first")
    cart(log, "CartReopened", "first")
    cart(log, "CartCheckedOut", "second")
    cart(log, "CartReopened", "second")
    assert log.broken(settled=True) == {}


# ── the end ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("end", ["OrderRejected", "OrderCancelled", "OrderCompleted"])
def test_an_order_that_has_ended_and_is_never_settled_breaks_law_3(log: Log, end: str):
    place(log, "o")
    if end == "OrderCompleted":
        charge(log, "o")
    tell(log, "o", end, money="none", cart="reopen")
    log.after(A_LONG_TIME)
    assert log.broken() == {"3": "order/o has ended and is not settled, and does not ask again"}


def test_an_order_may_wait_for_long_if_it_asks_again(log: Log):
    place(log, "o")
    tell(log, "o", "OrderRejected", money="void")
    for attempt in range(2, 30):
        log.after(60)
        tell(log, "o", "OrderReturnRequested", money="void", attempt=attempt)
    assert log.broken() == {}
    assert log.broken(settled=True) == {"3": "order/o has ended and is not settled"}


def test_an_order_in_flight_has_its_time_and_none_once_all_is_settled(log: Log):
    place(log, "o")
    assert log.broken() == {}
    assert log.broken(settled=True) == {"3": "order/o was placed and has not ended"}


# ── the confirmation ──────────────────────────────────────────────────────────────────────────────────────


def test_an_order_that_is_confirmed_and_never_charged_breaks_law_5(log: Log):
    place(log, "o")
    tell(log, "o", "OrderConfirmed")
    tell(log, "o", "OrderCartClosed", how="completed")
    assert log.broken(ledger=[]) == {}
    log.after(A_LONG_TIME)
    assert log.broken(ledger=[]) == {"5": "order/o was confirmed and is not charged, and does not ask again"}


def test_a_charge_that_failed_is_asked_for_again_when_the_order_says(log: Log):
    place(log, "o")
    tell(log, "o", "OrderConfirmed")
    tell(log, "o", "OrderCartClosed", how="completed")
    tell(log, "o", "OrderCaptureFailed", retry_at=log.now + 600_000_000)
    log.after(600)
    assert log.broken() == {}
    log.after(3)
    assert set(log.broken()) == {"5"}


def test_an_order_that_says_it_was_charged_and_was_not_breaks_law_5(log: Log):
    place(log, "o")
    tell(log, "o", "OrderConfirmed")
    conclude(log)
    assert log.broken() == {"5": "order/o says that it was charged 500, and its payments 0"}


@pytest.mark.parametrize(
    ("missing", "law"),
    [("OrderCaptured", "5"), ("OrderCartClosed", "3"), ("OrderLinesAllocated", "3")],
)
def test_a_confirmed_order_waits_for_its_charge_its_cart_and_its_stock(log: Log, missing: str, law: str):
    place(log, "o")
    charge(log, "o", lines=[LINE])
    conclude(log)
    tell(log, "o", "OrderLinesAllocated", lines=[LINE])
    log.after(A_LONG_TIME)
    assert log.broken(ledger=LEDGER, settled=True) == {}
    assert set(without(log, missing).broken(ledger=LEDGER)) - {"6", "8"} == {law}


def test_a_shipment_that_was_asked_for_is_answered(log: Log):
    place(log, "o")
    charge(log, "o", lines=[LINE])
    conclude(log)
    tell(log, "o", "OrderLinesAllocated", lines=[LINE])
    tell(log, "o", "OrderShipmentRequested", lines=[LINE])
    log.after(A_LONG_TIME)
    waits = "order/o was confirmed and is not shipped as was asked, and does not ask again"
    assert log.broken() == {"3": waits}
    tell(log, "o", "OrderShipmentRefused", lines=[LINE | {"available": 0}])
    assert log.broken() == {}


def without(log: Log, name: str) -> Log:
    return Log(log.now, [record for record in log.records if record.name != name])
