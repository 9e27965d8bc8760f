"""A shop as its customers and its merchant see it, over HTTP; every shop has SKUs of its own."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from ops.demo.client import Badges
from ops.demo.frontend import Answer, Frontend, Write

WITHIN_S = 90.0
"""An order ends within its 60 s and a moment."""


class Shop:
    def __init__(self, frontend: Frontend, jwks: Path) -> None:
        self.frontend = frontend
        self._badges = Badges(jwks)
        self._name = uuid.uuid4().hex[:8]

    def sku(self, what: str) -> str:
        return f"{what} {self._name}"  # with a blank, as the retailer's

    def customer(self, who: str) -> str:
        return f"{who}-{self._name}"

    def token_of(self, customer: str) -> str:
        return self._badges.customer(customer)

    @property
    def merchant(self) -> str:
        return self._badges.merchant

    async def write(self, path: str, body: object, token: str = "", method: str = "POST") -> Answer:
        write = Write(method, path, uuid.uuid4().hex, token or self.merchant, body=body)
        return await self.frontend.write(write)

    async def read(self, path: str, token: str = "", after: str = "") -> dict[str, Any]:
        return await self.frontend.read(path, token or self.merchant, after)

    async def sells(self, sku: str, *, price: int, units: int) -> None:
        """Published and, unless there are none, on the shelf; visible to who fills a cart."""
        path = sku.replace(" ", "%20")
        product = {"name": sku, "price": price, "currency": "GBP"}
        published = await self.write(f"/products/{path}", product, method="PUT")
        await self.read(f"/products/{path}", after=published.receipt)
        if units:
            await self.write(f"/inventory/{path}/receipts", {"document": "opening", "quantity": units})

    async def level(self, sku: str) -> dict[str, Any]:
        return await self.read(f"/inventory/{sku.replace(' ', '%20')}")

    async def checks_out(
        self,
        customer: str,
        items: Mapping[str, int],
        token: str = "tok_ok",
        contact: Mapping[str, str] | None = None,
    ) -> str:
        """The new order's id; it is placed, no more."""
        badge = self.token_of(customer)
        cart = f"/carts/{(await self.write('/carts', {}, badge)).document['cart_id']}"
        lines = [{"sku": sku, "quantity": quantity} for sku, quantity in items.items()]
        await self.write(f"{cart}/items", lines, badge)
        answer = await self.write(f"{cart}/checkout", {"payment_token": token, "contact": contact}, badge)
        await self.read(f"/orders/{answer.document['order_id']}", badge, answer.receipt)
        return str(answer.document["order_id"])

    async def order_once(self, order_id: str, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        return await eventually(lambda: self.read(f"/orders/{order_id}"), is_so)

    async def ended(self, order_id: str) -> dict[str, Any]:
        """The order when it has ended and nothing is owed any more, on either side."""
        return await self.order_once(order_id, lambda order: bool(order["settled"]))

    async def secured(self, order_id: str) -> dict[str, Any]:
        """The order when its goods are allocated and its money is taken: nothing happens until somebody wants it."""
        return await self.order_once(
            order_id,
            lambda order: (order["fulfilment_status"], order["payment_status"]) == ("allocated", "captured"),
        )


async def eventually(
    look: Callable[[], Awaitable[dict[str, Any]]],
    is_so: Callable[[dict[str, Any]], bool],
    within_s: float = WITHIN_S,
) -> dict[str, Any]:
    """What was seen as soon as it is so; the last thing seen is named when it never was."""
    deadline = time.monotonic() + within_s
    while not is_so(seen := await look()):
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {seen}"
        await asyncio.sleep(0.1)
    return seen
