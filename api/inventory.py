"""Stock: how many units there are, what came in, and why a number was changed."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from pydantic import AfterValidator, Field, JsonValue

from api.answers import answered
from api.documented import reading, writing
from api.errands import Errand, ErrandOf
from api.readings import OwnReading, Reading, ReadingOf, open_reading
from api.shapes import Body, Cursor, Delta, Limit, Quantity, SkuInPath, Threshold
from projections import ledger, stock
from schemas.inventory import AdjustmentReason, AdjustStock, ChangeStockPolicy, ReceiptLine, ReceiveStock
from schemas.values import MAIN

routes = APIRouter(prefix="/v1/inventory/{sku}", tags=["inventory"])

Merchants = Annotated[Errand, Depends(ErrandOf("merchant"))]
Anybodys = Annotated[Reading, Depends(open_reading)]
Auditors = Annotated[OwnReading, Depends(ReadingOf("merchant", "auditor"))]

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
    "actor_kind": "saga",
    "actor_id": "checkout",
    "command_id": "0b4f6f6a-51e1-5f0c-8d57-0f3f2b8f9a10",
    "correlation_id": "4bf92f35-77b3-4da6-a3ce-929d0e0e4736",
    "causation_id": "61ded311-95ff-5d31-8414-09f9271be0d8",
    "event_id": "0f6b1d5e-33c8-5c55-9b43-6f3c2c1f7a20",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
}


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


@routes.get("", **reading(LEVEL, guarded=False))
async def read_level(sku: SkuInPath, asked: Anybodys) -> Response:
    """How many units there are, are promised, and are available."""
    return asked.shown(await stock.by_sku(asked.redis, sku, MAIN, asked.after))


@routes.get("/history", **reading({"movements": [MOVEMENT], "next": None}))
async def read_history(sku: SkuInPath, asked: Auditors, cursor: Cursor = "", limit: Limit = 50) -> Response:
    """Every movement, newest first: before, after, why, by whom, for which order."""
    return asked.shown(await ledger.history(asked.cassandra, sku, cursor, limit, MAIN, asked.after))
