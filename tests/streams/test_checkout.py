"""The checkout saga: each fact, and the commands that follow from it."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from schemas.cart import CartCheckedOut, CompleteCart
from schemas.decisions import Rejected
from schemas.inventory import RESERVATION_LIMIT, AllocateStock, ReserveStock
from schemas.meta import HOUR, SECOND, Micros, derived_id
from schemas.order import (
    OrderCaptureRequested,
    OrderConfirmationRepeated,
    OrderConfirmed,
    OrderPlaced,
    OrderStockSecured,
    PlaceOrder,
    RecordAllocation,
    RecordCapture,
    RecordCartAnswer,
    RecordPaymentAnswer,
    RecordStockAnswer,
    order_stream,
)
from schemas.payment import (
    PaymentAuthorized,
    PaymentCaptured,
    PaymentCaptureFailed,
    PaymentDeclined,
    PaymentUnknown,
    RequestAuthorization,
    RequestCapture,
)
from schemas.personal import SealedContact
from schemas.topics import Topics
from schemas.values import MAIN, Line, RefusedLine
from streams import saga
from streams.asked import Asked, SagaCommandRejected
from streams.checkout import react
from tests.an_order import (
    AMOUNT,
    BOWL,
    CART,
    CURRENCY,
    EXPIRED,
    LAMP,
    LINES,
    NOW,
    ORDER,
    OWNER,
    PAYMENT,
    PLACED,
    REMIND_AT,
    TOKEN,
    TOPICS,
    asked_after,
    bodies,
    decided,
    recorded,
    refused,
    step,
)

UNTIL = Micros(NOW + RESERVATION_LIMIT)
MONEY = ("p", ORDER, AMOUNT, CURRENCY, "key", "reference")


def test_a_cart_that_is_checked_out_places_an_order() -> None:
    contact = SealedContact("key", b"n", b"e", b"a")
    event = CartCheckedOut(CART, OWNER, ORDER, 1, LINES, AMOUNT, CURRENCY, TOKEN, contact)
    assert asked_after(react, [event]) == [
        PlaceOrder(ORDER, CART, OWNER, LINES, AMOUNT, CURRENCY, TOKEN, contact)
    ]


def test_a_placed_order_reserves_its_goods_partition_by_partition() -> None:
    assert asked_after(react, PLACED) == [
        ReserveStock(ORDER, MAIN, (LAMP,), 1, UNTIL),
        ReserveStock(ORDER, MAIN, (BOWL,), 1, UNTIL),
    ]


def test_lines_that_live_together_are_asked_for_together() -> None:
    (placed,) = PLACED
    asked = react(recorded(placed), Topics(partitions=1))
    assert bodies(asked) == [ReserveStock(ORDER, MAIN, (LAMP, BOWL), 1, UNTIL)]


def test_an_order_without_goods_reserves_nothing() -> None:
    (placed,) = PLACED
    assert isinstance(placed, OrderPlaced)
    assert asked_after(react, [replace(placed, lines=LINES[2:])]) == []


def test_secured_stock_asks_for_money() -> None:
    event = OrderStockSecured(*step(LAMP, BOWL), TOKEN)
    assert asked_after(react, [event]) == [
        RequestAuthorization(PAYMENT, ORDER, OWNER, AMOUNT, CURRENCY, TOKEN, 1)
    ]


def test_a_confirmation_allocates_captures_and_completes() -> None:
    assert asked_after(react, [OrderConfirmed(*step(LAMP, BOWL), REMIND_AT)]) == [
        AllocateStock(ORDER, MAIN, (LAMP,), 1),
        AllocateStock(ORDER, MAIN, (BOWL,), 1),
        RequestCapture(PAYMENT, ORDER, AMOUNT, 1),
        CompleteCart(CART, ORDER, 1),
    ]


def test_a_repeated_confirmation_asks_only_for_what_was_not_heard_of() -> None:
    goods = OrderConfirmationRepeated(*step(BOWL), 2, "none", REMIND_AT)
    assert asked_after(react, [goods]) == [AllocateStock(ORDER, MAIN, (BOWL,), 2)]
    cart = OrderConfirmationRepeated(*step(), 3, "complete", REMIND_AT)
    assert asked_after(react, [cart]) == [CompleteCart(CART, ORDER, 3)]


def test_a_capture_is_asked_for_again() -> None:
    event = OrderCaptureRequested(*step(), 4, REMIND_AT)
    assert asked_after(react, [event]) == [RequestCapture(PAYMENT, ORDER, AMOUNT, 4)]


@pytest.mark.parametrize(
    ("event", "command"),
    [
        (PaymentAuthorized(*MONEY), RecordPaymentAnswer(ORDER, "p", "done", "")),
        (PaymentDeclined(*MONEY, "declined"), RecordPaymentAnswer(ORDER, "p", "failed", "declined")),
        (PaymentCaptured(*MONEY), RecordCapture(ORDER, "p", "done", "")),
        (PaymentCaptureFailed(*MONEY, "no"), RecordCapture(ORDER, "p", "failed", "no")),
    ],
)
def test_what_became_of_the_money_is_told_to_the_order(event: object, command: object) -> None:
    assert asked_after(react, [event]) == [command]


def test_doubt_is_the_payment_s_own_business() -> None:
    assert asked_after(react, [PaymentUnknown(*MONEY, "capture", NOW)]) == []


REFUSED = (refused(LAMP, 1),)


@pytest.mark.parametrize(
    ("answer", "command"),
    [
        (decided("ReserveStock", "stock/LAMP/main", LAMP), RecordStockAnswer(ORDER, (1,), (), "")),
        (
            decided("ReserveStock", "stock/LAMP/main", LAMP, refused=REFUSED),
            RecordStockAnswer(ORDER, (1,), REFUSED, ""),
        ),
        (
            decided("ReserveStock", "stock/LAMP/main", LAMP, rejection=EXPIRED),
            RecordStockAnswer(ORDER, (1,), (), "CommandExpired"),
        ),
        (decided("AllocateStock", "stock/BOWL/main", BOWL), RecordAllocation(ORDER, (2,), (), "")),
        (
            decided("AllocateStock", "stock/BOWL/main", BOWL, rejection=EXPIRED),
            RecordAllocation(ORDER, (2,), (), "CommandExpired"),
        ),
        (
            decided("RequestAuthorization", "payment/p", status="pending"),
            RecordPaymentAnswer(ORDER, "p", "pending", ""),
        ),
        (
            decided("RequestAuthorization", "payment/p", rejection=EXPIRED),
            RecordPaymentAnswer(ORDER, "p", "failed", "CommandExpired"),
        ),
        (decided("RequestCapture", "payment/p", status="done"), RecordCapture(ORDER, "p", "done", "")),
        (
            decided("RequestCapture", "payment/p", rejection=EXPIRED),
            RecordCapture(ORDER, "p", "failed", "CommandExpired"),
        ),
        (decided("CompleteCart", "cart/c"), RecordCartAnswer(ORDER, "c", "completed")),
        (decided("CompleteCart", "cart/c", rejection=EXPIRED), RecordCartAnswer(ORDER, "c", "failed")),
        (
            decided("CompleteCart", "cart/c", rejection=Rejected("UnknownCart", "not_found", "")),
            RecordCartAnswer(ORDER, "c", "refused"),
        ),
    ],
)
def test_every_answer_becomes_one_command_to_the_order(answer: object, command: object) -> None:
    assert bodies(saga.react(answer, TOPICS)) == [command]  # type: ignore[arg-type]


def test_answers_to_others_are_not_the_saga_s() -> None:
    assert saga.react(decided("CheckOutCart", "cart/c", reply_to="api-1"), TOPICS) == []
    assert saga.react(decided("ReserveStock", "stock/LAMP/main", LAMP, reply_to=None), TOPICS) == []


def test_the_order_s_own_answers_are_not_reported_back() -> None:
    assert saga.react(decided("RecordStockAnswer", order_stream(ORDER), reply_to=None), TOPICS) == []


def test_what_an_order_refuses_to_hear_is_a_dead_letter() -> None:
    answer = decided("RecordStockAnswer", order_stream(ORDER), reply_to=None, rejection=EXPIRED)
    (letter,) = saga.react(answer, TOPICS)
    expected = SagaCommandRejected(order_stream(ORDER), answer.command_id, "RecordStockAnswer", EXPIRED)
    assert letter == expected


def test_a_customer_who_was_refused_is_no_dead_letter() -> None:
    answer = decided("CancelOrder", order_stream(ORDER), reply_to="api-1", rejection=EXPIRED)
    assert saga.react(answer, TOPICS) == []


def test_a_command_inherits_from_its_trigger() -> None:
    (placed,) = PLACED
    fact = recorded(placed)
    first, second = react(fact, TOPICS)
    assert first.meta.command_id == derived_id(fact.meta.event_id, "ReserveStock", "0")
    assert second.meta.command_id == derived_id(fact.meta.event_id, "ReserveStock", "1")
    assert (first.key, second.key) == ("LAMP", "BOWL")
    meta = first.meta
    assert (meta.issued_at, meta.not_after) == (NOW, NOW + 12 * HOUR)
    assert meta.occurred_at == fact.meta.occurred_at
    assert (meta.correlation_id, meta.causation_id) == ("story", fact.meta.event_id)
    assert (meta.reply_to, meta.traceparent) == (order_stream(ORDER), "00-trace")
    assert (meta.actor_kind, meta.actor_id) == ("saga", "checkout")
    assert meta.stream == first.body.stream


def test_an_order_is_placed_however_long_the_sagas_were_away() -> None:
    event = CartCheckedOut(CART, OWNER, ORDER, 1, LINES, AMOUNT, CURRENCY, TOKEN, None)
    (asked,) = react(recorded(event), TOPICS)
    assert isinstance(asked, Asked)
    assert datetime.fromtimestamp(asked.meta.not_after / SECOND, UTC).year == 9999


def test_a_command_to_the_order_asks_for_no_answer() -> None:
    (told,) = saga.react(decided("ReserveStock", "stock/LAMP/main", LAMP), TOPICS)
    assert isinstance(told, Asked)
    assert (told.aggregate, told.key, told.meta.reply_to) == ("order", ORDER, None)


def test_all_lines_of_a_command_live_in_its_partition() -> None:
    lines = tuple(Line(n, f"SKU{n}", 1) for n in range(1, 301))
    topics = Topics(partitions=12)
    asked = react(recorded(OrderConfirmed(*step(*lines), REMIND_AT)), topics)
    stock = [one for one in asked if one.aggregate == "inventory"]
    assert len(stock) == 12
    assert sorted(line.line for one in stock for line in one.body.lines) == list(range(1, 301))
    for one in stock:
        assert {topics.partition_of(line.sku) for line in one.body.lines} == {topics.partition_of(one.key)}


def test_a_refused_line_keeps_what_was_available() -> None:
    (told,) = saga.react(decided("ReserveStock", "stock/LAMP/main", LAMP, refused=REFUSED), TOPICS)
    assert isinstance(told, Asked)
    assert told.body.refused == (RefusedLine(1, "LAMP", 2, 1),)
