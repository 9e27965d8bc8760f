"""Each view's rules: given what happened, when one more thing happens, then this is what it shows."""

from dataclasses import replace
from typing import Any

import orjson
import pytest

from projections import cart, command, ledger, order, product, stock
from projections.redis_store import Mark
from projections.store import Folded
from projections.view import Fact
from schemas.cart import (
    CartCheckedOut,
    CartCleared,
    CartCompleted,
    CartExpired,
    CartItemQuantityChanged,
    CartReopened,
    ItemRemovedFromCart,
)
from schemas.catalog import PriceChanged, ProductRetired
from schemas.inventory import LowStockReached, StockPolicyChanged, StockReservationRefused
from schemas.order import (
    OrderCancelled,
    OrderCaptured,
    OrderCaptureFailed,
    OrderClaimsOrphaned,
    OrderCompleted,
    OrderConfirmed,
    OrderContactErased,
    OrderLinesAllocated,
    OrderLinesRefused,
    OrderLinesReserved,
    OrderMoneyReturned,
    OrderPaymentAuthorized,
    OrderPaymentDeclined,
    OrderPaymentOrphaned,
    OrderRejected,
    OrderReturnRequested,
    OrderSettled,
    OrderShipmentRefused,
    OrderShipmentRequested,
    OrderShipped,
    OrderStockSecured,
)
from schemas.personal import SealedContact
from schemas.values import RefusedLine
from tests.projections.shop import (
    LATER,
    added,
    adjusted,
    changed,
    created,
    decided,
    ended,
    lines,
    placed,
    priced,
    published,
    received,
    reserved,
    step,
)
from tests.projections.story import Story, folded


def product_after(*events: Any) -> product.Product:
    found: product.Product = folded(product.evolve, Story().tell(*events))
    return found


def level_after(*events: Any) -> stock.StockLevel:
    found: stock.StockLevel = folded(stock.evolve, Story().tell(*events))
    return found


def cart_after(*events: Any) -> dict[str, Any]:
    shown: dict[str, Any] = orjson.loads(cart.dump(folded(cart.evolve, Story().tell(*events))))
    return shown


def order_after(*events: Any) -> order.Order:
    found: order.Order = folded(order.evolve, Story().tell(*events))
    return found


def statuses(*events: Any) -> tuple[str, str, str]:
    found = order_after(*events)
    return found.status, found.payment_status, found.fulfilment_status


# Products.


def test_a_published_product_is_shown_as_it_was_published() -> None:
    found = product_after(published("A", "tin", "toys", price=250))
    assert (found.sku, found.price, found.categories) == ("A", 250, ("tin", "toys"))
    assert (found.retired, found.version) == (False, 1)


def test_a_change_leaves_the_price_and_a_price_leaves_the_rest() -> None:
    found = product_after(published("A", "tin"), PriceChanged("A", 99, "GBP", 295), changed("A", "gold"))
    assert (found.name, found.price, found.categories, found.version) == ("the new A", 99, ("gold",), 3)


def test_a_retired_product_is_still_shown_and_publishing_brings_it_back() -> None:
    assert product_after(published("A"), ProductRetired("A")).retired
    assert not product_after(published("A"), ProductRetired("A"), published("A")).retired


def test_a_product_stands_in_its_categories_and_in_the_list_of_all() -> None:
    before = product_after(published("A", "tin", "toys"))
    after = replace(before, categories=("toys", "gold"))
    assert set(product.marks(None, before)) == {
        Mark("category/", "A", 0), Mark("category/tin", "A", 0), Mark("category/toys", "A", 0)
    }  # fmt: skip
    assert Mark("category/tin", "A", None) in set(product.marks(before, after))


def test_a_retired_product_stands_in_no_list() -> None:
    before = product_after(published("A", "tin"))
    marks = set(product.marks(before, replace(before, retired=True)))
    assert marks == {Mark("category/", "A", None), Mark("category/tin", "A", None)}


def test_a_product_is_read_back_as_it_was_written() -> None:
    found = product_after(published("A", "tin"))
    assert product.load(orjson.dumps(found)) == found


# Stock levels and demand.


def test_a_level_shows_the_balances_of_the_last_event() -> None:
    found = level_after(received("A", 10, 10), reserved("A", 10, 3, allocated=2, shipped=1))
    assert (found.sellable, found.reserved, found.allocated, found.shipped) == (10, 3, 2, 1)
    assert (found.available, found.version) == (5, 2)


def test_safety_stock_is_not_available() -> None:
    policy = StockPolicyChanged("A", "main", 10, 0, 0, 0, safety_stock=4, low_stock_at=6)
    found = level_after(received("A", 10, 10), policy, reserved("A", 10, 3))
    assert (found.available, found.safety_stock, found.low_stock_at) == (3, 4, 6)


def test_uncovered_promises_leave_nothing_available() -> None:
    assert level_after(received("A", 1, 1), reserved("A", 1, 5)).available == 0


def test_demand_is_what_customers_hold_or_have_got() -> None:
    found = level_after(received("A", 10, 10), reserved("A", 10, 3, allocated=2, shipped=1))
    assert list(stock.marks(None, found)) == [Mark("demand", "A", 6)]
    assert list(stock.marks(None, replace(found, location="attic"))) == []


def test_a_level_is_read_back_as_it_was_written() -> None:
    found = level_after(received("A", 10, 10), reserved("A", 10, 3))
    assert stock.load(stock.dump(found)) == found


# Carts.


def test_a_cart_shows_its_lines_and_what_they_come_to() -> None:
    found = cart_after(created("1"), added("1", "A", 2), added("1", "B", 1), added("1", "A", 1, 3))
    assert [(item["sku"], item["quantity"], item["amount"]) for item in found["items"]] == [
        ("A", 3, 885),
        ("B", 1, 295),
    ]
    assert (found["units"], found["amount"], found["owner"], found["status"]) == (4, 1180, "anna", "open")


def test_lines_change_and_go() -> None:
    start = (created("1"), added("1", "A", 2), added("1", "B", 1))
    found = cart_after(*start, CartItemQuantityChanged("1", "A", 7, 2, LATER))
    assert found["units"] == 8
    assert [item["sku"] for item in cart_after(*start, ItemRemovedFromCart("1", "A", LATER))["items"]] == [
        "B"
    ]
    assert cart_after(*start, CartCleared("1", LATER))["items"] == []


def test_a_cart_that_is_checked_out_names_its_order_and_forgets_it_when_reopened() -> None:
    out = CartCheckedOut("1", "anna", "order-1", 1, priced("A"), 590, "GBP", "tok_ok")
    start = (created("1"), added("1", "A", 2), out)
    assert [cart_after(*start)[name] for name in ("status", "order_id", "expires_at")] == [
        "checked_out",
        "order-1",
        None,
    ]
    again = cart_after(*start, CartReopened("1", "order-1", LATER))
    assert (again["status"], again["order_id"], again["units"]) == ("open", None, 2)
    done = cart_after(*start, CartCompleted("1", "order-1"))
    assert (done["status"], done["order_id"], done["units"]) == ("completed", "order-1", 2)


def test_a_cart_expires() -> None:
    assert cart_after(created("1"), CartExpired("1"))["status"] == "expired"


def test_a_cart_is_read_back_as_it_was_written() -> None:
    found = folded(cart.evolve, Story().tell(created("1"), added("1", "A", 2)))
    assert cart.load(cart.dump(found)) == found


# Commands.


def test_only_commands_with_a_sender_can_be_asked_for() -> None:
    story = Story().decide(decided("1"), decided("2", sender=""), decided("3", outcome="rejected"))
    (message,) = story.messages
    assert [fact.stream for fact in command.facts(message)] == ["command/1", "command/3"]


@pytest.mark.parametrize("outcome", ["accepted", "refused", "rejected"])
def test_an_outcome_is_shown_with_its_reason_and_its_positions(outcome: str) -> None:
    found = command.evolve(None, decided("1", outcome=outcome))
    assert (found.outcome, found.positions, found.sender) == (outcome, ("cart/1@4",), "anna")
    assert bool(found.rejection) == (outcome == "rejected")
    assert bool(found.refused) == (outcome == "refused")
    assert command.load(orjson.dumps(found)) == found


# Orders.

BEGUN = (placed("1", "A", "B"),)
SECURED = (
    *BEGUN,
    OrderLinesReserved("1", lines("A", "B")),
    step(OrderStockSecured, "1", "A", "B", token="t"),
)
PAID = (*SECURED, OrderPaymentAuthorized("1", "payment-1", 1180))
CONFIRMED = (*PAID, step(OrderConfirmed, "1", "A", "B", remind_at=LATER))
PROMISED = (*CONFIRMED, OrderLinesAllocated("1", lines("A")), OrderLinesAllocated("1", lines("B")))
SHIPPING = (*PROMISED, step(OrderShipmentRequested, "1", "A", "B", attempt=1, remind_at=LATER))


@pytest.mark.parametrize(
    ("happened", "shows"),
    [
        (BEGUN, ("placed", "none", "reserving")),
        (SECURED, ("placed", "pending", "reserved")),
        (PAID, ("placed", "authorized", "reserved")),
        (CONFIRMED, ("confirmed", "authorized", "reserved")),
        ((*CONFIRMED, OrderLinesAllocated("1", lines("A"))), ("confirmed", "authorized", "reserved")),
        (PROMISED, ("confirmed", "authorized", "allocated")),
        ((*PROMISED, OrderCaptured("1", "payment-1", 1180)), ("confirmed", "captured", "allocated")),
        (
            (*PROMISED, OrderCaptureFailed("1", "payment-1", "no_funds", LATER)),
            ("confirmed", "capture_failed", "allocated"),
        ),
        (SHIPPING, ("confirmed", "authorized", "requested")),
        ((*SHIPPING, OrderShipped("1")), ("confirmed", "authorized", "shipped")),
        (
            (*SHIPPING, OrderShipped("1"), OrderCaptured("1", "payment-1", 1180), OrderCompleted("1", LATER)),
            ("completed", "captured", "shipped"),
        ),
        (
            (*SHIPPING, OrderShipmentRefused("1", (RefusedLine(1, "A", 2, 0),))),
            ("confirmed", "authorized", "refused"),
        ),
    ],
)
def test_status_payment_and_fulfilment_are_derived_from_what_happened(
    happened: tuple[Any, ...], shows: tuple[str, str, str]
) -> None:
    assert statuses(*happened) == shows


def test_an_order_of_postage_only_has_nothing_to_fulfil() -> None:
    (line,) = priced("POST")
    postage = replace(placed("1"), lines=(replace(line, stocked=False),))
    assert statuses(postage, step(OrderStockSecured, "1", token="t"))[2] == "none"


def test_a_rejected_order_says_why_and_what_was_refused() -> None:
    refused = OrderLinesRefused("1", (RefusedLine(2, "B", 2, 1),), ())
    found = order_after(*BEGUN, refused, ended(OrderRejected, "1", reason="stock"))
    assert (found.status, found.reason, found.fulfilment_status) == ("rejected", "stock", "none")
    assert orjson.loads(found.refused) == [{"line": 2, "sku": "B", "quantity": 2, "available": 1}]


def test_a_declined_order_gives_its_claims_back() -> None:
    declined = (*SECURED, OrderPaymentDeclined("1", "payment-1", "card_declined"))
    rejected = ended(OrderRejected, "1", "A", "B", reason="payment")
    assert statuses(*declined, rejected) == ("rejected", "declined", "returning")
    assert statuses(*declined, rejected, OrderSettled("1")) == ("rejected", "declined", "returned")


def test_a_cancelled_order_returns_money_and_goods_until_it_is_settled() -> None:
    cancelled = (*PROMISED, ended(OrderCancelled, "1", "A", "B", money="refund", reason="changed my mind"))
    assert statuses(*cancelled) == ("cancelled", "returning", "returning")
    money_back = (*cancelled, OrderMoneyReturned("1", "payment-1", "refund", 1180))
    assert statuses(*money_back) == ("cancelled", "returned", "returning")
    again = (*money_back, ended(OrderReturnRequested, "1", attempt=1))
    assert statuses(*again) == ("cancelled", "returned", "returned")
    assert order_after(*again, OrderSettled("1")).settled


SEALED = SealedContact("key", b"\x00name", b"\x01email", b"\x02address")


def test_an_orders_contact_is_kept_as_ciphertext_until_it_is_erased() -> None:
    begun = replace(placed("1", "A"), contact=SEALED)
    found = order_after(begun)
    assert (order.sealed_of(orjson.loads(found.contact)), found.erased) == (SEALED, False)

    forgotten = order_after(begun, ended(OrderRejected, "1", reason="timeout"), OrderContactErased("1"))
    assert (forgotten.contact, forgotten.erased, forgotten.status) == ("", True, "rejected")
    assert (order_after(placed("1", "A")).contact, order_after(placed("1", "A")).erased) == ("", False)


def test_what_comes_after_the_end_goes_back() -> None:
    over = (*BEGUN, ended(OrderRejected, "1", reason="timeout"))
    assert statuses(*over, step(OrderClaimsOrphaned, "1", "A", held="reserved"))[2] == "returning"
    assert statuses(*over, step(OrderPaymentOrphaned, "1", money="void"))[1] == "returning"


def test_an_orders_lines_are_written_once_with_its_first_event() -> None:
    story = Story().tell(*PAID)
    steps = [(None, Fact("order/1", m.meta.version, m)) for m in story.messages]
    rows = list(order.rows(Folded({}, {"order/1": order_after(*PAID)}, steps)))
    assert [(row.insert, row.version) for row in rows] == [
        (order.LINES, 1), (order.LISTED, 4), (order.ORDER, 4)
    ]  # fmt: skip
    assert [line["sku"] for line in orjson.loads(rows[0].values[1])] == ["A", "B"]


# The ledger.


def movements(*events: Any) -> list[dict[str, Any]]:
    head, rows = None, []
    for message in Story().tell(*events).messages:
        row = ledger.movement(head, Fact(message.meta.stream, message.meta.version, message))
        rows.append(orjson.loads(row.values[-1]))
        head = ledger.evolve(head, message)
    return rows


def test_a_movement_shows_the_balances_before_and_after_it() -> None:
    _, row = movements(received("A", 10, 10), reserved("A", 10, 3, quantity=3))
    assert row["before"] == {"sellable": 10, "reserved": 0, "allocated": 0, "shipped": 0}
    assert row["after"] == {"sellable": 10, "reserved": 3, "allocated": 0, "shipped": 0}
    assert (row["quantity"], row["order_id"]) == (3, "order-1")


def test_an_adjustment_keeps_reason_note_and_sign() -> None:
    _, row = movements(received("A", 10, 10), adjusted("A", 10, 8))
    assert (row["quantity"], row["reason"], row["note"], row["before"]["sellable"]) == (
        -2,
        "damaged",
        "wet",
        10,
    )


def test_a_movement_names_its_actor_and_its_cause() -> None:
    (row,) = movements(received("A", 10, 10))
    assert (row["actor_id"], row["document"], row["traceparent"]) == ("anna", "delivery note 1", "00-trace")
    assert (row["command_id"], row["correlation_id"]) == ("cause of stock/A/main@1", "correlation")


def test_refusals_and_notices_are_in_the_ledger_too() -> None:
    refused = StockReservationRefused("A", "main", 10, 0, 0, 0, "order-1", 1, "claim-1", 99, 10)
    low = LowStockReached("A", "main", 10, 0, 0, 0, 10, 12)
    assert [row["type"] for row in movements(received("A", 10, 10), refused, low)] == [
        "StockReceived", "StockReservationRefused", "LowStockReached"
    ]  # fmt: skip


def test_months_are_of_utc_and_january_follows_december() -> None:
    assert ledger.month_of(1_293_839_999_999_999) == 201012
    assert ledger.month_of(1_293_840_000_000_000) == 201101
    assert (ledger.month_before(201101), ledger.month_before(201012)) == (201012, 201011)
