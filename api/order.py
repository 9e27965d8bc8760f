"""Orders: what became of a checkout."""

import asyncio
from functools import partial
from operator import itemgetter
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import Field

from api.answers import answered
from api.documented import reading, writing
from api.errands import Errand, ErrandOf
from api.personal import Vault, vault_of
from api.problems import NotFoundError
from api.readings import OwnReading, ReadingOf
from api.shapes import Body, Cursor, Id, Limit, Nothing, Subject
from projections import order
from projections.receipt import of_kinds
from schemas.cart import cart_stream
from schemas.order import CancelOrder, ShipOrder, order_stream
from schemas.values import Position

routes = APIRouter(prefix="/v1", tags=["order"])

Merchants = Annotated[Errand, Depends(ErrandOf("merchant"))]
Owners = Annotated[Errand, Depends(ErrandOf("customer", "merchant"))]
Readers = Annotated[OwnReading, Depends(ReadingOf("customer", "merchant"))]

ORDER_ID = "1d1c3a64-2f0a-5b0e-9d51-0c6f4e1b2a33"
SUMMARY = {
    "order_id": ORDER_ID,
    "status": "confirmed",
    "reason": "",
    "payment_status": "captured",
    "fulfilment_status": "allocated",
    "amount": 1530,
    "currency": "GBP",
    "line_count": 1,
    "placed_at": 1291191960000000,
    "version": 7,
}
EXAMPLE = {
    **SUMMARY,
    "cart_id": "7c0f6d9e-8f8e-5d6b-9a53-3b1a4f0c7d11",
    "owner": "17850",
    "payment_id": "61ded311-95ff-5d31-8414-09f9271be0d8",
    "changed_at": 1291191961000000,
    "settled": True,
    "stocked_count": 1,
    "refused": [],
    "lines": [{"line": 1, "sku": "85123A", "quantity": 6, "unit_price": 255}],
    "contact": None,
    "erased": False,
}


class Cancellation(Body):
    reason: Annotated[str, Field(max_length=1_000, examples=["changed my mind"])] = ""


@routes.get("/orders/{order_id}", **reading(EXAMPLE))
async def read_order(order_id: Id, asked: Readers, request: Request) -> Response:
    """The order with its lines, its money and its goods. Its contact is null if none was given, or if it is `erased`."""
    read = partial(order.find, asked.cassandra, order_id)
    found = await asked.own(order_stream(order_id), read, itemgetter("owner"))
    if found is None:
        return asked.shown(None)
    if found["contact"] is not None:
        await _open(found, vault_of(request))
    return asked.shown(order.served(found))


async def _open(found: dict[str, Any], vault: Vault) -> None:
    """Its contact in plain text; it is `erased` as soon as there is no key, also before the view hears of it."""
    place = cart_stream(found["cart_id"])
    found["contact"] = await vault.open(found["owner"], place, order.sealed_of(found["contact"]))
    found["erased"] = found["contact"] is None


@routes.get("/customers/{customer_id}/orders", **reading({"orders": [SUMMARY], "next": None}))
async def list_orders(
    customer_id: Subject, asked: Readers, cursor: Cursor = "", limit: Limit = 20
) -> Response:
    """A customer's orders, newest first."""
    if asked.principal.role == "customer" and asked.principal.subject != customer_id:
        raise NotFoundError("There is no such customer, or it is somebody else.")
    after = await _without_anothers(asked)
    return asked.shown(await order.of_customer(asked.cassandra, customer_id, cursor, limit, after))


async def _without_anothers(asked: OwnReading) -> list[Position]:
    """What the receipt says of orders; another's are not waited for, which would tell how far they are."""
    after = of_kinds(asked.after, [order.VIEW.kind])
    named = [order.find(asked.cassandra, one.stream.removeprefix(order_stream(""))) for one in after]
    orders = await asyncio.gather(*named)
    return [
        one
        for one, found in zip(after, orders, strict=True)
        if found is None or asked.may_see(found["owner"])
    ]


@routes.post("/orders/{order_id}/cancellation", **writing(order_id=ORDER_ID))
async def cancel_order(order_id: Id, errand: Owners, body: Cancellation = Cancellation()) -> Response:  # noqa: B008  # it is frozen
    """Cancel the order, as long as it is not being shipped: claims and money go back."""
    decided = await errand.send("order", order_id, CancelOrder(order_id, body.reason), body)
    return answered(errand, decided, order_id=order_id)


@routes.post("/orders/{order_id}/shipment", **writing(order_id=ORDER_ID))
async def ship_order(order_id: Id, errand: Merchants, body: Nothing = Nothing()) -> Response:  # noqa: B008  # it is frozen
    """Have a confirmed order shipped."""
    return answered(
        errand, await errand.send("order", order_id, ShipOrder(order_id), body), order_id=order_id
    )
