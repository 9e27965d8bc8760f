"""Answers of writes: what a writer decided, as status, headers and a short JSON document."""

from http import HTTPStatus

import orjson
from fastapi import Response

from api import receipts
from api.errands import Errand
from api.problems import RejectedError
from api.shapes import JSON
from schemas.decisions import ALREADY, Decided, Rejected


def is_new(decided: Decided | None, stream: str) -> bool:
    """Whether this very command is what `stream` began with."""
    return decided is not None and decided.status != ALREADY and _version(decided, stream) == 1


def _version(decided: Decided, stream: str) -> int | None:
    return next((p.version for p in decided.positions if p.stream == stream), None)


def answered(
    errand: Errand, decided: Decided | None, *, created: bool = False, location: str = "", **ids: str
) -> Response:
    """200 or 201 with the receipt, 202 while nothing is decided; raises RejectedError.

    `ids` name what the write made or touched (`cart_id`, …), `location` is where it can be read.
    """
    if decided is None:
        return _undecided(errand)
    rejection = decided.rejection or _of_refusal(decided)
    if rejection:
        raise RejectedError(rejection, command_id=errand.command_id)
    status = HTTPStatus.CREATED if created else HTTPStatus.OK
    headers = _headers(errand, decided)
    if created and location:
        headers["Location"] = location
    return Response(_document(decided, ids), status, headers, JSON)


def _undecided(errand: Errand) -> Response:
    location = f"/v1/commands/{errand.command_id}"
    body = orjson.dumps({"command_id": errand.command_id, "outcome": "undecided", "location": location})
    headers = {
        "Location": location,
        "Retry-After": "1",
        "Daybook-Command": errand.command_id,
        "traceparent": errand.traceparent,
    }
    return Response(body, HTTPStatus.ACCEPTED, headers, JSON)


def _headers(errand: Errand, decided: Decided) -> dict[str, str]:
    headers = {
        "Daybook-Command": errand.command_id,
        "Daybook-Receipt": receipts.written(decided.positions),
        "traceparent": errand.traceparent,
    }
    version = _version(decided, decided.stream)
    if version is not None:
        headers["ETag"] = f'"{version}"'
    return headers


def _document(decided: Decided, ids: dict[str, str]) -> bytes:
    return orjson.dumps(
        {
            "command_id": decided.command_id,
            "outcome": decided.outcome,
            "status": decided.status,
            **ids,
            "positions": [str(position) for position in decided.positions],
        }
    )


def _of_refusal(decided: Decided) -> Rejected | None:
    """A refusal stands in the log as an event; to a caller who asked for it directly it is a conflict."""
    if decided.outcome != "refused":
        return None
    skus = ", ".join(line.sku for line in decided.refused)
    return Rejected("CommandRefused", "conflict", f"It could not be granted: {skus}")
