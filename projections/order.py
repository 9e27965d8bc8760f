"""The order as its owner and the merchant see it, with what was paid and what was shipped; a customer's orders."""

from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from projections.cassandra_store import CassandraReader, CassandraView, Insert, Row
from projections.cursor import cursor_of, place_of
from projections.store import Folded
from projections.view import Served, UnexpectedFact, existing
from schemas.codec import Decoded
from schemas.meta import EventMeta
from schemas.order import (
    OrderCancelled,
    OrderCaptured,
    OrderCaptureFailed,
    OrderCaptureRequested,
    OrderClaimsOrphaned,
    OrderCompleted,
    OrderConfirmed,
    OrderContactErased,
    OrderEvent,
    OrderLinesAllocated,
    OrderLinesRefused,
    OrderMessage,
    OrderMoneyReturned,
    OrderPaymentAuthorized,
    OrderPaymentDeclined,
    OrderPaymentOrphaned,
    OrderPlaced,
    OrderRejected,
    OrderReturnRequested,
    OrderSettled,
    OrderShipmentRefused,
    OrderShipmentRequested,
    OrderShipped,
    OrderStockSecured,
)
from schemas.personal import SealedContact
from schemas.values import Position


@dataclass(frozen=True, slots=True)
class Order:
    """status: placed, confirmed, completed, rejected or cancelled (and its reason).

    payment_status: none, pending, authorized, declined, captured, capture_failed, returning, returned.
    fulfilment_status: none (no goods), reserving, reserved, allocated, requested, shipped, refused, returning,
    returned. `refused` are the lines last refused, as JSON; `contact` is a SealedContact as JSON, empty where none was
    given or where it is `erased`. The lines themselves are no part of the fold: they are written once, and nothing
    that happens later changes them.
    """

    order_id: str
    cart_id: str
    owner: str
    payment_id: str
    amount: int
    currency: str
    placed_at: int
    changed_at: int
    status: str
    reason: str
    payment_status: str
    fulfilment_status: str
    settled: bool
    line_count: int
    stocked_count: int
    allocated_count: int
    refused: str
    contact: str
    erased: bool
    version: int


def evolve(order: Order | None, event: Decoded[EventMeta]) -> Order:
    """What the order, its payment and its goods have come to is derived here, and nowhere else."""
    body: OrderEvent = event.body
    if isinstance(body, OrderPlaced):
        return _placed(body, event.meta)
    if not isinstance(body, OrderMessage):
        raise UnexpectedFact(f"{type(body).__name__} is no event of an order")
    order = _with_details(existing(order), body)
    status, reason = _status(order, body)
    return replace(
        order,
        status=status,
        reason=reason,
        payment_status=_payment_status(order, body),
        fulfilment_status=_fulfilment_status(order, body),
        settled=order.settled or isinstance(body, OrderSettled),
        changed_at=event.meta.occurred_at,
        version=event.meta.version,
    )


def _with_details(order: Order, body: OrderEvent) -> Order:
    match body:
        case OrderLinesRefused() | OrderShipmentRefused():
            return replace(order, refused=_json_of(body.lines))
        case OrderLinesAllocated():
            return replace(order, allocated_count=order.allocated_count + len(body.lines))
        case OrderContactErased():
            return replace(order, contact="", erased=True)
        case _:
            return order


def _status(order: Order, body: OrderEvent) -> tuple[str, str]:
    match body:
        case OrderConfirmed():
            return "confirmed", ""
        case OrderRejected():
            return "rejected", body.reason
        case OrderCancelled():
            return "cancelled", body.reason
        case OrderCompleted():
            return "completed", ""
        case _:
            return order.status, order.reason


def _payment_status(order: Order, body: OrderEvent) -> str:
    match body:
        case OrderStockSecured():
            return "pending"
        case OrderPaymentAuthorized() | OrderCaptureRequested():
            return "authorized"
        case OrderPaymentDeclined():
            return "declined"
        case OrderCaptured():
            return "captured"
        case OrderCaptureFailed():
            return "capture_failed"
        case OrderPaymentOrphaned():
            return "returning"
        case OrderRejected() | OrderCancelled() | OrderReturnRequested() if body.money != "none":
            return "returning"
        case OrderMoneyReturned():
            return "returned"
        case OrderSettled() if order.payment_status == "returning":
            return "returned"
        case _:
            return order.payment_status


def _fulfilment_status(order: Order, body: OrderEvent) -> str:
    """An order without goods has nothing to fulfil, whatever happens."""
    if not order.stocked_count:
        return "none"
    match body:
        case OrderStockSecured():
            return "reserved"
        case OrderLinesAllocated() if order.allocated_count >= order.stocked_count:
            return "allocated"
        case OrderShipmentRequested():
            return "requested"
        case OrderShipmentRefused():
            return "refused"
        case OrderShipped():
            return "shipped"
        case OrderRejected() | OrderCancelled() | OrderReturnRequested() | OrderClaimsOrphaned():
            return "returning" if body.lines else _without_claims(order.fulfilment_status)
        case OrderSettled():
            return _without_claims(order.fulfilment_status)
        case _:
            return order.fulfilment_status


def _placed(placed: OrderPlaced, meta: EventMeta) -> Order:
    stocked = sum(line.stocked for line in placed.lines)
    return Order(
        order_id=placed.order_id,
        cart_id=placed.cart_id,
        owner=placed.owner,
        payment_id=placed.payment_id,
        amount=placed.amount,
        currency=placed.currency,
        placed_at=meta.occurred_at,
        changed_at=meta.occurred_at,
        status="placed",
        reason="",
        payment_status="none",
        fulfilment_status="reserving" if stocked else "none",
        settled=False,
        line_count=len(placed.lines),
        stocked_count=stocked,
        allocated_count=0,
        refused="[]",
        contact=sealed_as_json(placed.contact) if placed.contact else "",
        erased=False,
        version=meta.version,
    )


def sealed_as_json(sealed: SealedContact) -> str:
    return orjson.dumps(sealed, _base64, orjson.OPT_PASSTHROUGH_DATACLASS).decode()


def _base64(value: object) -> object:
    return b64encode(value).decode() if isinstance(value, bytes) else vars(value)


def sealed_of(told: Mapping[str, str]) -> SealedContact:
    """The contact as it was written into an order's row."""
    name, email, address = (b64decode(told[part]) for part in ("name", "email", "address"))
    return SealedContact(told["key_id"], name, email, address)


def _without_claims(status: str) -> str:
    """An ended order without claims has given them back or never had any, unless it is shipped."""
    match status:
        case "returning" | "returned":
            return "returned"
        case "shipped":
            return "shipped"
        case _:
            return "none"


def _json_of(lines: Iterable[object]) -> str:
    return orjson.dumps([vars(line) for line in lines]).decode()


_KEY = ("order_id",)
_LIST_KEY = ("owner", "placed_at", "order_id")
_STATUS = ("status", "reason", "payment_status", "fulfilment_status")
_WHOSE = ("cart_id", "owner", "payment_id", "amount", "currency", "placed_at", "changed_at")
_COUNTS = ("settled", "line_count", "stocked_count", "allocated_count", "refused")
_CONTACT = ("contact", "erased")

ORDER = Insert("orders", _KEY, ("version", *_WHOSE, *_STATUS, *_COUNTS, *_CONTACT), partition=1)
LINES = Insert("orders", _KEY, ("lines",), partition=1)
LISTED = Insert(
    "customer_orders", _LIST_KEY, ("version", *_STATUS, "amount", "currency", "line_count"), partition=1
)


def rows(folded: Folded) -> Iterable[Row]:
    """An order's lines, once, as of its first event; its place in its customer's list; its own row."""
    for _, fact in folded.steps:
        if isinstance(fact.what.body, OrderPlaced):
            placed = fact.what.body
            yield Row(LINES, (placed.order_id, _json_of(placed.lines)), fact.version)
    for order in folded.after.values():
        yield LISTED.row_of(order)
        yield ORDER.row_of(order)


VIEW = CassandraView(
    name="order",
    version=2,
    kind="order",
    aggregates=("order",),
    evolve=evolve,
    inserts=(ORDER, LINES, LISTED),
    rows=rows,
    row_per_fact=True,
    key_of=lambda stream: (stream.removeprefix("order/"),),
    load=lambda columns: Order(**columns),
)


async def find(
    reader: CassandraReader, order_id: str, after: Sequence[Position] = ()
) -> dict[str, Any] | None:
    """The order's fields, to be `served`; its contact is None or a SealedContact, its bytes in base64."""
    await reader.caught_up(after, VIEW)
    found = await reader.select(VIEW, "SELECT * FROM orders_{g} WHERE order_id = ?", (order_id,))
    if not found or found[0]["version"] is None:  # only its lines: it is being written this moment
        return None
    order = dict(found[0])
    del order["allocated_count"]
    for name in ("lines", "refused"):
        order[name] = orjson.Fragment(order[name])
    order["contact"] = orjson.loads(order["contact"]) if order["contact"] else None
    return order


def served(order: Mapping[str, Any]) -> Served:
    return Served(orjson.dumps(order), order["version"])


async def by_id(reader: CassandraReader, order_id: str, after: Sequence[Position] = ()) -> Served | None:
    """The order as `find` finds it."""
    found = await find(reader, order_id, after)
    return served(found) if found else None


async def of_customer(
    reader: CassandraReader, owner: str, cursor: str = "", limit: int = 20, after: Sequence[Position] = ()
) -> Served:
    """A page of a customer's orders, newest first; `next` is the cursor of the page behind it, or null."""
    await reader.caught_up(after, VIEW)
    found = await reader.select(VIEW, *_page(owner, cursor, limit))
    more = len(found) > limit
    last = found[limit - 1] if more else None
    page = [{name: row[name] for name in _SHOWN} for row in found[:limit]]
    return Served(
        orjson.dumps({"orders": page, "next": last and cursor_of(last["placed_at"], last["order_id"])})
    )


_SHOWN = ("order_id", *_STATUS, "amount", "currency", "line_count", "placed_at", "version")


def _page(owner: str, cursor: str, limit: int) -> tuple[str, tuple[Any, ...]]:
    """One order more than the page holds: it tells whether there is another page."""
    start = "SELECT * FROM customer_orders_{g} WHERE owner = ?"
    if not cursor:
        return f"{start} LIMIT ?", (owner, limit + 1)
    place = place_of(cursor, int, str)
    return f"{start} AND (placed_at, order_id) < (?, ?) LIMIT ?", (owner, *place, limit + 1)
