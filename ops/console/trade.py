"""Pages of the trade: an order and its story, a SKU's ledger, a customer's orders, a command's fate."""

from functools import partial
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from api.shapes import Cursor, Id, SkuInPath, Subject
from ops.console.chart import Moved, chart_of
from ops.console.pages import page
from ops.console.sources import sources_of
from ops.console.timeline import fate_of, order_timeline
from ops.console.visitors import HOME, Visitor
from ops.story import NoStory
from projections import command, history, order, product, stock

MOVEMENTS = 50
ORDERS = 25

routes = APIRouter(prefix=HOME)


class NothingThere(Exception):
    """`what` was looked for and is not there; `advice` says what to try."""

    def __init__(self, what: str, *advice: str) -> None:
        super().__init__(what)
        self.what = what
        self.advice = advice


@routes.get("/orders/{order_id}")
async def show_order(request: Request, _: Visitor, order_id: Id) -> Response:
    """What it has come to by the view, and how by the log."""
    sources = sources_of(request)
    found = await order.by_id(sources.cassandra, order_id)
    if found is None:
        raise NothingThere(
            f"order {order_id}",
            "An order that was placed this moment is here within a second or two: reload.",
            "What was confirmed to a customer as a cart or a command has an id of its own: search for it.",
        )
    try:
        story = await sources.archive.ask(partial(order_timeline, topics=sources.topics, order_id=order_id))
    except NoStory as nothing:  # the view has what the log has not: the auditor calls it a drift
        return page(request, "order", order=found.document(), story=None, missing=str(nothing))
    return page(request, "order", order=found.document(), story=story, missing="")


@routes.get("/skus/{sku}")
async def show_sku(request: Request, _: Visitor, sku: SkuInPath, cursor: Cursor = "") -> Response:
    """A page of its movements, the latest first, with a chart of the same."""
    sources = sources_of(request)
    movements = await history.of_item(sources.cassandra, sku, cursor, MOVEMENTS)
    goods = await product.by_sku(sources.redis, sku)
    if movements is None and goods is None:
        raise NothingThere(
            f"SKU {sku}",
            "Capital and small letters count.",
            "A SKU is known once it was published, or once stock was received.",
        )
    level = await stock.by_sku(sources.redis, sku)
    moves = [orjson.loads(one) for one in movements.movements] if movements else []
    return page(
        request,
        "sku",
        sku=sku,
        product=goods and goods.document(),
        level=level and level.document(),
        moves=moves,
        older=movements.next if movements else "",
        is_latest=not cursor,
        chart=chart_of([_moved(move) for move in reversed(moves)]),
    )


def _moved(move: dict[str, Any]) -> Moved:
    return Moved(move["occurred_at"], move["version"], move["before"], move["after"])


@routes.get("/customers/{customer_id}")
async def show_customer(request: Request, _: Visitor, customer_id: Subject, cursor: Cursor = "") -> Response:
    found = await order.of_customer(sources_of(request).cassandra, customer_id, cursor, ORDERS)
    shown = found.document()
    return page(
        request,
        "customer",
        customer_id=customer_id,
        orders=shown["orders"],
        older=shown["next"],
        is_latest=not cursor,
    )


@routes.get("/commands/{command_id}")
async def show_command(request: Request, _: Visitor, command_id: Id, *, log: bool = False) -> Response:
    """By the view, which remembers what callers sent for 24 hours; or, if it is asked, by the whole log."""
    sources = sources_of(request)
    found = await command.by_id(sources.redis, command_id)
    fate = None
    if log:
        fate = await sources.archive.ask(partial(fate_of, topics=sources.topics, command_id=command_id))
        if not fate.is_known and found is None:
            raise NothingThere(f"command {command_id}", "Neither the views nor the log know of it.")
    status = 404 if found is None and fate is None else 200
    known = found and found.document()
    return page(request, "command", status, command_id=command_id, known=known, fate=fate)
