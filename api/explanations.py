"""What a problem's `type` means, for who follows it."""

from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Response

from api.documented import explaining
from api.problems import NotFoundError, documented
from api.shapes import JSON

Slug = Annotated[str, Path(pattern="^[a-z]+(-[a-z]+)*$", max_length=100, examples=["cart-is-empty"])]

routes = APIRouter(prefix="/problems", tags=["problems"])


@routes.get("/{slug}", **explaining(documented()["cart-is-empty"]))
async def explain_problem(slug: Slug) -> Response:
    """What a problem's `type` means."""
    page = documented().get(slug)
    if page is None:
        raise NotFoundError("There is no such type of problem.")
    return Response(orjson.dumps(page), media_type=JSON)
