"""Stock: how many units there are, what came in, and why a number was changed."""

from typing import Annotated, Literal

import orjson
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import AfterValidator, Field, JsonValue

from api.answers import answered
from api.documented import reading, writing
from api.errands import Errand, ErrandOf
from api.problems import NotFoundError
from api.readings import OwnReading, Reading, ReadingOf, open_reading
from api.shapes import Body, Cursor, Delta, Quantity, SkuInPath, Threshold
from projections import as_of as past
from projections import history, stock
from projections.as_of import Cutoff
from projections.history import EVER, Page, Period, Wanted
from projections.movements import csv_header, csv_of, flat
from schemas.instants import first_moment, last_moment
from schemas.inventory import AdjustmentReason, AdjustStock, ChangeStockPolicy, ReceiptLine, ReceiveStock
from schemas.values import MAIN

routes = APIRouter(prefix="/v1/inventory/{sku}", tags=["inventory"])

Merchants = Annotated[Errand, Depends(ErrandOf("merchant"))]
Anybodys = Annotated[Reading, Depends(open_reading)]
for_auditors = ReadingOf("merchant", "auditor")
Auditors = Annotated[OwnReading, Depends(for_auditors)]

MovementsMax = Annotated[int, Query(ge=1, le=1_000)]
Words = Annotated[str, Query(max_length=200)]
_INSTANT = (
    "[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"(T([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9]))?"
)
Instant = Annotated[
    str,
    Query(
        pattern=f"^({_INSTANT})?$",
        description="a day (UTC), or a time with its offset",
        examples=["2010-12-31"],
    ),
]
Moment = Annotated[
    str,
    Query(
        pattern=f"^({_INSTANT}|[1-9][0-9]{{0,17}})?$",
        description="a day (UTC) to its end, a time with its offset, or a version",
        examples=["2010-12-31T18:00:00Z"],
    ),
]

LEVEL = {
    "sku": "85123A",
    "location": "main",
    "sellable": 120,
    "reserved": 6,
    "allocated": 0,
    "shipped": 0,
    "safety_stock": 0,
    "low_stock_at": 10,
    "available": 114,
    "version": 2,
}
MOVEMENT = {
    "version": 2,
    "type": "StockReserved",
    "occurred_at": 1291191960000000,
    "recorded_at": 1291191960012345,
    "before": {"sellable": 120, "reserved": 0, "allocated": 0, "shipped": 0},
    "after": {"sellable": 120, "reserved": 6, "allocated": 0, "shipped": 0},
    "quantity": 6,
    "reason": "",
    "note": "",
    "document": "",
    "order_id": "7c0f6d9e-8f8e-5d6b-9a53-3b1a4f0c7d11",
    "line": 1,
    "corrects": "",
    "actor_kind": "saga",
    "actor_id": "checkout",
    "command_id": "0b4f6f6a-51e1-5f0c-8d57-0f3f2b8f9a10",
    "correlation_id": "4bf92f35-77b3-4da6-a3ce-929d0e0e4736",
    "causation_id": "61ded311-95ff-5d31-8414-09f9271be0d8",
    "event_id": "0f6b1d5e-33c8-5c55-9b43-6f3c2c1f7a20",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
}
PAST = {
    "sku": "85123A",
    "location": "main",
    "as_of": 1293839999999999,
    "known_at": None,
    "entries": 31,
    "version": 31,
    "sellable": 96,
    "reserved": 0,
    "allocated": 0,
    "shipped": 24,
}
CSV = "text/csv"
NOT_ZERO: dict[str, JsonValue] = {"not": {"const": 0}}


def _not_zero(delta: int) -> int:
    if delta == 0:
        raise ValueError("must not be zero")
    return delta


class Receipt(Body):
    """Goods that came in under a document (a delivery note, say)."""

    document: Annotated[str, Field(min_length=1, max_length=200, examples=["delivery-note-4711"])]
    quantity: Quantity


class Adjustment(Body):
    """A fact about the shelf that nobody ordered; `corrects` names the event that was wrong."""

    delta: Annotated[Delta, AfterValidator(_not_zero), Field(json_schema_extra=NOT_ZERO)]
    reason: AdjustmentReason
    note: Annotated[str, Field(max_length=1_000)] = ""
    corrects: Annotated[str, Field(min_length=1, max_length=200)] | None = None


class Policy(Body):
    """What is kept back, and when to warn."""

    safety_stock: Threshold
    low_stock_at: Threshold


@routes.post("/receipts", **writing(sku="85123A"))
async def receive_stock(sku: SkuInPath, body: Receipt, errand: Merchants) -> Response:
    """Put units on the shelf; the first receipt registers the item."""
    command = ReceiveStock(MAIN, body.document, (ReceiptLine(sku, body.quantity),))
    return answered(errand, await errand.send("inventory", sku, command, body), sku=sku)


@routes.post("/adjustments", **writing(sku="85123A"))
async def adjust_stock(sku: SkuInPath, body: Adjustment, errand: Merchants) -> Response:
    """Say what else happened to the shelf, and why."""
    command = AdjustStock(sku, MAIN, body.delta, body.reason, body.note, body.corrects)
    return answered(errand, await errand.send("inventory", sku, command, body), sku=sku)


@routes.put("/policy", **writing(sku="85123A"))
async def change_policy(sku: SkuInPath, body: Policy, errand: Merchants) -> Response:
    """Change the safety stock and the level at which stock counts as low."""
    command = ChangeStockPolicy(sku, MAIN, body.safety_stock, body.low_stock_at)
    return answered(errand, await errand.send("inventory", sku, command, body), sku=sku)


@routes.get("", **reading(LEVEL, PAST))
async def read_level(
    sku: SkuInPath, asked: Anybodys, request: Request, as_of: Moment = "", known_at: Instant = ""
) -> Response:
    """How many units there are, are promised, and are available.

    With `as_of` or `known_at` (for merchants and auditors): the balances out of what had happened by then, as it was
    known by then.
    """
    if as_of or known_at:
        return await _past_level(sku, await for_auditors(request), _cutoff(as_of, known_at))
    return asked.shown(await stock.by_sku(asked.redis, sku, MAIN, asked.after))


async def _past_level(sku: str, asked: OwnReading, cutoff: Cutoff) -> Response:
    found = await past.standing(asked.cassandra, sku, cutoff, MAIN, asked.after)
    if found is None:
        raise _unknown(sku)
    if not found.entries:
        raise NotFoundError(f"The ledger of {sku} has nothing of that time, or does not go so far.")
    return asked.shown(past.served(sku, cutoff, found))


def _cutoff(moment: str, known_at: str) -> Cutoff:
    """Digits alone are a version of the stream. Raises BadInstant."""
    known = last_moment(known_at) if known_at else EVER
    if moment.isdecimal():
        return Cutoff(known_at=known, version=int(moment))
    return Cutoff(last_moment(moment) if moment else EVER, known)


def _unknown(sku: str) -> NotFoundError:
    return NotFoundError(f"Nothing was ever recorded of the stock of {sku}.")


def wanted(
    since: Annotated[Instant, Query(alias="from")] = "",
    until: Annotated[Instant, Query(alias="to")] = "",
    by: Period = "occurred",
    reason: Words = "",
    actor: Words = "",
    order: Words = "",
) -> Wanted:
    """What a caller filters by; both ends of a period are included. Raises BadInstant."""
    begin = first_moment(since) if since else 0
    return Wanted(begin, last_moment(until) if until else EVER, by, reason, actor, order)


@routes.get("/history", **reading({"movements": [MOVEMENT], "next": None}, also=CSV))
async def read_history(
    sku: SkuInPath,
    asked: Auditors,
    wanted: Annotated[Wanted, Depends(wanted)],
    request: Request,
    cursor: Cursor = "",
    limit: MovementsMax = 50,
    form: Annotated[Literal["", "json", "csv"], Query(alias="format")] = "",
    accept: Annotated[str, Header()] = "",
) -> Response:
    """Every movement, newest first: before, after, why, by whom, for which order.

    A page looks at so many movements and no more: it may hold few of those that are wanted, even none, and name a
    next one. As CSV (`format=csv`, or `Accept: text/csv`) the next page is named by a Link header.
    """
    page = await history.of_item(asked.cassandra, sku, cursor, limit, MAIN, asked.after, wanted)
    if page is None:
        raise _unknown(sku)
    if form == "csv" or (not form and accept.startswith(CSV)):
        return _as_csv(sku, page, request)
    return asked.shown(page.served())


def _as_csv(sku: str, page: Page, request: Request) -> Response:
    rows = csv_of(flat(sku, MAIN, orjson.loads(movement)) for movement in page.movements)
    headers = {"Content-Disposition": 'attachment; filename="movements.csv"'}
    if page.next:
        query = request.url.include_query_params(cursor=page.next, format="csv").query
        headers["Link"] = f'<?{query}>; rel="next"'
    return Response(csv_header() + rows, headers=headers, media_type=CSV)
