"""The shipment: a confirmed order's goods leave, partition by partition, and the order hears which did."""

from schemas.decisions import Decided
from schemas.inventory import ShipStock
from schemas.order import OrderShipmentRequested, RecordShipment
from schemas.topics import Topics
from schemas.values import MAIN
from streams.asked import Asked, Asking, Fact, asking_order, code_of

ACTOR = "shipment"


def react(fact: Fact, topics: Topics) -> list[Asked]:
    asking = Asking(ACTOR, fact)
    if isinstance(fact, Decided):
        order_id = asking_order(fact)
        return [_hear(fact, order_id, asking)] if order_id and fact.type == "ShipStock" else []
    if isinstance(fact.body, OrderShipmentRequested):
        return _ship(fact.body, asking, topics)
    return []


def _ship(event: OrderShipmentRequested, asking: Asking, topics: Topics) -> list[Asked]:
    return asking.stock(
        event.stream,
        event.lines,
        topics,
        lambda lines: ShipStock(event.order_id, MAIN, lines, event.attempt),
    )


def _hear(decided: Decided, order_id: str, asking: Asking) -> Asked:
    body = RecordShipment(order_id, decided.lines, decided.refused, decided.attempt, code_of(decided))
    return asking.order(body)
