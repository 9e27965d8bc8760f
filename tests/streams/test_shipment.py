"""The shipment saga: goods leave partition by partition, and the order hears which did."""

from schemas.inventory import ShipStock
from schemas.order import OrderShipmentRequested, OrderShipped, RecordShipment
from schemas.values import MAIN
from streams import saga
from streams.shipment import react
from tests.an_order import (
    BOWL,
    EXPIRED,
    LAMP,
    ORDER,
    REMIND_AT,
    TOPICS,
    asked_after,
    bodies,
    decided,
    refused,
    step,
)


def test_a_shipment_that_is_requested_leaves_from_each_partition() -> None:
    assert asked_after(react, [OrderShipmentRequested(*step(LAMP, BOWL), 2, REMIND_AT)]) == [
        ShipStock(ORDER, MAIN, (LAMP,), 2),
        ShipStock(ORDER, MAIN, (BOWL,), 2),
    ]


def test_a_shipment_without_goods_asks_nobody() -> None:
    assert asked_after(react, [OrderShipmentRequested(*step(), 1, REMIND_AT)]) == []


def test_a_shipped_order_asks_for_nothing() -> None:
    assert asked_after(react, [OrderShipped(ORDER)]) == []


def test_what_was_shipped_is_told_to_the_order() -> None:
    answer = decided("ShipStock", "stock/LAMP/main", LAMP, attempt=2)
    assert bodies(saga.react(answer, TOPICS)) == [RecordShipment(ORDER, (1,), (), 2, "")]


def test_what_was_refused_is_told_to_the_order() -> None:
    answer = decided("ShipStock", "stock/LAMP/main", LAMP, BOWL, refused=[refused(LAMP)])
    assert bodies(saga.react(answer, TOPICS)) == [RecordShipment(ORDER, (1, 2), (refused(LAMP),), 1, "")]


def test_a_shipment_without_effect_is_refused_as_a_whole() -> None:
    answer = decided("ShipStock", "stock/LAMP/main", LAMP, rejection=EXPIRED)
    assert bodies(saga.react(answer, TOPICS)) == [RecordShipment(ORDER, (1,), (), 1, "CommandExpired")]


def test_somebody_else_s_shipment_is_not_the_saga_s() -> None:
    assert react(decided("ShipStock", "stock/LAMP/main", LAMP, reply_to="api-1"), TOPICS) == []
