"""The cart as its owner sees it: what is in it, what it comes to, and what became of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, assert_never

import orjson

from projections.redis_store import RedisReader, RedisView
from projections.view import Served, existing
from schemas.cart import (
    CartCheckedOut,
    CartCleared,
    CartCompleted,
    CartCreated,
    CartEvent,
    CartExpired,
    CartItemQuantityChanged,
    CartReopened,
    ItemAddedToCart,
    ItemRemovedFromCart,
    cart_stream,
)
from schemas.codec import Decoded
from schemas.meta import EventMeta
from schemas.values import Position


@dataclass(frozen=True, slots=True)
class Item:
    sku: str
    name: str
    quantity: int
    unit_price: int
    price_version: int
    stocked: bool

    @property
    def amount(self) -> int:
        return self.quantity * self.unit_price


@dataclass(frozen=True, slots=True)
class CartSummary:
    """`items` by sku, in the order in which they came. A cart that is checked out belongs to `order_id`."""

    cart_id: str
    owner: str
    currency: str
    status: Literal["open", "checked_out", "completed", "expired"]
    items: Mapping[str, Item]
    order_id: str | None
    expires_at: int | None
    version: int


def evolve(cart: CartSummary | None, event: Decoded[EventMeta]) -> CartSummary:
    body: CartEvent = event.body
    version = event.meta.version
    if isinstance(body, CartCreated):
        return CartSummary(
            body.cart_id, body.owner, body.currency, "open", {}, None, body.expires_at, version
        )
    cart = replace(existing(cart), version=version)
    match body:
        case ItemAddedToCart():
            return replace(cart, items={**cart.items, body.sku: _item(body)}, expires_at=body.expires_at)
        case CartItemQuantityChanged():
            changed = replace(cart.items[body.sku], quantity=body.quantity)
            return replace(cart, items={**cart.items, body.sku: changed}, expires_at=body.expires_at)
        case ItemRemovedFromCart():
            kept = {sku: item for sku, item in cart.items.items() if sku != body.sku}
            return replace(cart, items=kept, expires_at=body.expires_at)
        case CartCleared():
            return replace(cart, items={}, expires_at=body.expires_at)
        case CartCheckedOut():
            return replace(cart, status="checked_out", order_id=body.order_id, expires_at=None)
        case CartReopened():
            return replace(cart, status="open", order_id=None, expires_at=body.expires_at)
        case CartCompleted():
            return replace(cart, status="completed", order_id=body.order_id)
        case CartExpired():
            return replace(cart, status="expired", expires_at=None)
        case _:
            assert_never(body)


def _item(added: ItemAddedToCart) -> Item:
    return Item(
        added.sku, added.name, added.quantity_after, added.unit_price, added.price_version, added.stocked
    )


def dump(cart: CartSummary) -> bytes:
    items = cart.items.values()
    return orjson.dumps(
        {
            "cart_id": cart.cart_id,
            "owner": cart.owner,
            "status": cart.status,
            "currency": cart.currency,
            "items": [_line(item) for item in items],
            "units": sum(item.quantity for item in items),
            "amount": sum(item.amount for item in items),
            "order_id": cart.order_id,
            "expires_at": cart.expires_at,
            "version": cart.version,
        }
    )


def _line(item: Item) -> dict[str, object]:
    return {
        "sku": item.sku,
        "name": item.name,
        "quantity": item.quantity,
        "unit_price": item.unit_price,
        "price_version": item.price_version,
        "stocked": item.stocked,
        "amount": item.amount,
    }


def load(json: bytes) -> CartSummary:
    fields = orjson.loads(json)
    del fields["units"], fields["amount"]
    for line in fields["items"]:
        del line["amount"]
    items = {line["sku"]: Item(**line) for line in fields["items"]}
    return CartSummary(**fields | {"items": items})


VIEW = RedisView(
    name="cart",
    version=1,
    kind="cart",
    aggregates=("cart",),
    evolve=evolve,
    dump=dump,
    load=load,
    weigh=lambda cart: 1 + len(cart.items),
)


async def by_id(reader: RedisReader, cart_id: str, after: Sequence[Position] = ()) -> Served | None:
    await reader.caught_up(after, VIEW)
    return await reader.document(VIEW, cart_stream(cart_id))
