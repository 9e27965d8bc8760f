"""One box for everything: what a text may be is looked for in every place where it could stand."""

import asyncio
import re
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from api.security import is_subject
from ops.console.pages import page
from ops.console.sources import Sources, sources_of
from ops.console.visitors import HOME, Visitor
from projections import cart, command, history, order, product

TEXT_MAX = 200
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SKU_MAX = 64

routes = APIRouter(prefix=HOME)


@dataclass(frozen=True)
class Hit:
    """What was found, and its page."""

    what: str
    name: str
    path: str


@routes.get("")
async def show_home(request: Request, _: Visitor) -> Response:
    return page(request, "home")


@routes.get("/search")
async def search(request: Request, _: Visitor, q: str = "") -> Response:
    """Straight to the page if only one thing is meant."""
    text = q.strip()[:TEXT_MAX]
    if not text:
        return RedirectResponse(HOME, 303)
    looked, hits = await find(sources_of(request), text)
    if len(hits) == 1:
        return RedirectResponse(hits[0].path, 303)
    return page(
        request, "found", 200 if hits else 404, text=text, looked=looked, hits=hits, in_log=_in_log(text)
    )


async def find(sources: Sources, text: str) -> tuple[list[str], list[Hit]]:
    """What was looked for, and what is there. Raises StoreUnavailable."""
    asked = dict(_places(sources, text))
    found = await asyncio.gather(*asked.values())
    return list(asked), list(dict.fromkeys(hit for hit in found if hit))


def _places(sources: Sources, text: str) -> Iterator[tuple[str, Awaitable[Hit | None]]]:
    """A stream's name says itself what it is; an id may be of several things, and a word too."""
    kind, _, rest = text.partition("/")
    key, narrowed = (rest.partition("/")[0], kind) if rest else (text, "")
    if UUID.fullmatch(key.lower()):
        kinds = {"order": _order, "command": _command, "cart": _cart}
        key = key.lower()
    else:
        kinds = {"SKU": _sku, "customer": _customer}
        narrowed = {"stock": "SKU", "product": "SKU"}.get(narrowed, narrowed)
    for name, looked_up in kinds.items():
        if narrowed in ("", name):
            yield f"{name} {key}", looked_up(sources, key)


def _in_log(text: str) -> str:
    """A command that the views have forgotten, or never knew, may be in the log."""
    key = text.removeprefix("command/").lower()
    return f"{HOME}/commands/{key}?log=1" if UUID.fullmatch(key) else ""


async def _order(sources: Sources, key: str) -> Hit | None:
    found = await order.by_id(sources.cassandra, key)
    return Hit("order", key, f"{HOME}/orders/{key}") if found else None


async def _command(sources: Sources, key: str) -> Hit | None:
    found = await command.by_id(sources.redis, key)
    return Hit("command", key, f"{HOME}/commands/{key}") if found else None


async def _cart(sources: Sources, key: str) -> Hit | None:
    """A cart has no page of its own: its order's tells its story too."""
    found = await cart.by_id(sources.redis, key)
    placed = found.document()["order_id"] if found else None
    return Hit("order of this cart", placed, f"{HOME}/orders/{placed}") if placed else None


async def _sku(sources: Sources, key: str) -> Hit | None:
    """Also in capitals, as most shops write them."""
    for sku in dict.fromkeys((key, key.upper())):
        if len(sku) <= SKU_MAX and (
            await history.of_item(sources.cassandra, sku, limit=1) or await product.by_sku(sources.redis, sku)
        ):
            return Hit("SKU", sku, f"{HOME}/skus/{quote(sku, safe='')}")
    return None


async def _customer(sources: Sources, key: str) -> Hit | None:
    if not is_subject(key):
        return None
    orders = (await order.of_customer(sources.cassandra, key, limit=1)).document()["orders"]
    return Hit("customer", key, f"{HOME}/customers/{quote(key, safe='')}") if orders else None
