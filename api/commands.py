"""Commands: what became of a write whose answer was late or lost."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from api.documented import reading
from api.errands import Errand
from api.readings import OwnReading, ReadingOf, Views
from api.shapes import Id
from projections import command

routes = APIRouter(prefix="/v1/commands", tags=["commands"])

Senders = Annotated[OwnReading, Depends(ReadingOf())]

EXAMPLE = {
    "command_id": "0b4f6f6a-51e1-5f0c-8d57-0f3f2b8f9a10",
    "sender": "customer/17850",
    "type": "CheckOutCart",
    "stream": "cart/7c0f6d9e-8f8e-5d6b-9a53-3b1a4f0c7d11",
    "outcome": "accepted",
    "status": "",
    "rejection": None,
    "refused": [],
    "positions": ["cart/7c0f6d9e-8f8e-5d6b-9a53-3b1a4f0c7d11@3"],
    "correlation_id": "4bf92f35-77b3-4da6-a3ce-929d0e0e4736",
    "recorded_at": 1291191960012345,
}


@routes.get("/{command_id}", **reading(EXAMPLE, dated=False))
async def read_command(command_id: Id, asked: Senders) -> Response:
    """Its outcome, for 24 hours and for its sender only; 404 also while it is not decided."""
    served = await command.by_id(asked.redis, command_id)
    mine = served is not None and served.document()["sender"] == asked.principal.name
    return asked.shown(served if mine else None)


async def was_decided(views: Views, errand: Errand) -> bool:
    """Whether the same errand was sent before, within 24 hours, and decided."""
    return await command.by_id(views.redis, errand.command_id) is not None
