"""Carts: what a customer means to buy, until it becomes an order."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi import Body as FromBody
from pydantic import Field

from api.answers import answered, is_new
from api.commands import was_decided
from api.documented import reading, writing
from api.errands import Errand, ErrandOf
from api.personal import vault_of
from api.problems import UnknownProductError
from api.readings import OwnReading, ReadingOf, Views
from api.shapes import VISIBLE_ASCII, Body, Currency, Id, Quantity, Sku, SkuInPath
from projections import cart, product
from projections.order import sealed_as_json
from projections.view import Served
from schemas.cart import (
    AddItemsToCart,
    CartItem,
    ChangeItemQuantity,
    CheckOutCart,
    ClearCart,
    CreateCart,
    RemoveItemFromCart,
    cart_stream,
)
from schemas.decisions import ALREADY, Decided
from schemas.values import LINES_MAX

routes = APIRouter(prefix="/v1/carts", tags=["cart"])

Customers = Annotated[Errand, Depends(ErrandOf("customer"))]
Owners = Annotated[OwnReading, Depends(ReadingOf("customer"))]

CART_ID = "7c0f6d9e-8f8e-5d6b-9a53-3b1a4f0c7d11"
ORDER_ID = "1d1c3a64-2f0a-5b0e-9d51-0c6f4e1b2a33"
EXAMPLE = {
    "cart_id": CART_ID,
    "owner": "17850",
    "status": "open",
    "currency": "GBP",
    "items": [
        {
            "sku": "85123A",
            "name": "WHITE HANGING HEART T-LIGHT HOLDER",
            "quantity": 6,
            "unit_price": 255,
            "price_version": 1,
            "stocked": True,
            "amount": 1530,
        }
    ],
    "units": 6,
    "amount": 1530,
    "order_id": None,
    "expires_at": None,
    "version": 2,
}


_ONE_LINE = r"^[^\x00-\x1f\x7f]+$"
_LINES = r"^[^\x00-\x09\x0b-\x1f\x7f]+$"
_EMAIL = r"^[^\x00-\x20\x7f@]+@[^\x00-\x20\x7f@]+$"
"""No more is asked of an address than that mail could be sent to it."""


class NewCart(Body):
    currency: Currency = "GBP"


class Item(Body):
    """Units of a SKU. The price is the catalog's, and no field of this body."""

    sku: Sku
    quantity: Quantity


class ItemQuantity(Body):
    quantity: Quantity


class Contact(Body):
    """Who orders, and where to reach them. It is encrypted before it goes anywhere, and erased on demand."""

    name: Annotated[str, Field(pattern=_ONE_LINE, max_length=200, repr=False, examples=["Ada Example"])]
    email: Annotated[str, Field(pattern=_EMAIL, max_length=320, repr=False, examples=["ada@example.test"])]
    address: Annotated[
        str, Field(pattern=_LINES, max_length=500, repr=False, examples=["1 Sample Street\nExampleton"])
    ]


class Checkout(Body):
    payment_token: Annotated[str, Field(pattern=VISIBLE_ASCII, max_length=200, examples=["tok_ok"])]
    contact: Contact | None = None


Items = Annotated[list[Item], FromBody(min_length=1, max_length=LINES_MAX)]


@routes.post("", **writing(created=True, cart_id=CART_ID))
async def create_cart(errand: Customers, body: NewCart = NewCart()) -> Response:  # noqa: B008  # it is frozen
    """A new, empty cart of the caller's own."""
    cart_id = errand.new_id
    command = CreateCart(cart_id, errand.principal.subject, body.currency)
    decided = await errand.send("cart", cart_id, command, body)
    created = is_new(decided, cart_stream(cart_id))
    return answered(errand, decided, created=created, location=f"/v1/carts/{cart_id}", cart_id=cart_id)


@routes.get("/{cart_id}", **reading(EXAMPLE))
async def read_cart(cart_id: Id, asked: Owners) -> Response:
    """The cart with its lines and their sum."""
    read = partial(cart.by_id, asked.redis, cart_id)
    found = await asked.own(cart_stream(cart_id), read, _owner_of)
    return asked.shown(found)


def _owner_of(found: Served) -> str:
    return str(found.document()["owner"])


@routes.post("/{cart_id}/items", **writing(cart_id=CART_ID))
async def add_items(cart_id: Id, body: Items, errand: Customers, request: Request) -> Response:
    """Add all of these or, if one is not for sale, none; a SKU that is there already gets more units."""
    views: Views = request.app.state.views
    try:
        items = await _resolved(views, body)
    except UnknownProductError:
        if not await was_decided(views, errand):
            raise
        items = ()  # it was sent before, while all was for sale: the writer answers what became of it then
    decided = await errand.send("cart", cart_id, AddItemsToCart(cart_id, items), body)
    return answered(errand, decided, cart_id=cart_id)


async def _resolved(views: Views, asked: Sequence[Item]) -> tuple[CartItem, ...]:
    """The items at the catalog's prices; raises UnknownProductError."""
    products = await product.by_skus(views.redis, list({item.sku for item in asked}))
    missing = [item.sku for item in asked if item.sku not in products or products[item.sku].retired]
    if missing:
        raise UnknownProductError(f"Not for sale: {', '.join(missing[:10])}", skus=missing)
    return tuple(_priced(item, products[item.sku]) for item in asked)


def _priced(item: Item, found: product.Product) -> CartItem:
    return CartItem(
        item.sku, found.name, item.quantity, found.price, found.currency, found.version, found.stocked
    )


@routes.patch("/{cart_id}/items/{sku}", **writing(cart_id=CART_ID))
async def change_quantity(cart_id: Id, sku: SkuInPath, body: ItemQuantity, errand: Customers) -> Response:
    """Have so many units of a SKU that is in the cart."""
    decided = await errand.send("cart", cart_id, ChangeItemQuantity(cart_id, sku, body.quantity), body)
    return answered(errand, decided, cart_id=cart_id)


@routes.delete("/{cart_id}/items/{sku}", **writing(cart_id=CART_ID))
async def remove_item(cart_id: Id, sku: SkuInPath, errand: Customers) -> Response:
    """Take a SKU out of the cart."""
    decided = await errand.send("cart", cart_id, RemoveItemFromCart(cart_id, sku))
    return answered(errand, decided, cart_id=cart_id)


@routes.delete("/{cart_id}/items", **writing(cart_id=CART_ID))
async def clear_cart(cart_id: Id, errand: Customers) -> Response:
    """Take everything out of the cart."""
    return answered(errand, await errand.send("cart", cart_id, ClearCart(cart_id)), cart_id=cart_id)


@routes.post("/{cart_id}/checkout", **writing(created=True, order_id=ORDER_ID, cart_id=CART_ID))
async def check_out(cart_id: Id, body: Checkout, errand: Customers, request: Request) -> Response:
    """Place the order. Asked again, a cart that is checked out answers with the order it has become."""
    command = CheckOutCart(cart_id, body.payment_token)
    if body.contact:
        who, said = errand.principal.subject, body.contact.model_dump()
        command = replace(command, contact=await vault_of(request).seal(who, command.stream, said))
    decided = await errand.send("cart", cart_id, command, _said(command))
    order_id = _order_of(decided)
    created = decided is not None and decided.status != ALREADY
    location = f"/v1/orders/{order_id}"
    return answered(errand, decided, created=created, location=location, cart_id=cart_id, order_id=order_id)


def _said(command: CheckOutCart) -> dict[str, str]:
    """As the fingerprint has it: of a contact the ciphertext, since a hash of the text could be guessed at for ever."""
    said = {"payment_token": command.token}
    return said | {"contact": sealed_as_json(command.contact)} if command.contact else said


def _order_of(decided: Decided | None) -> str:
    """The order that a checkout's receipt names; empty where there is none."""
    streams = [position.stream for position in decided.positions] if decided else []
    return next((s.removeprefix("order/") for s in streams if s.startswith("order/")), "")
