"""What OpenAPI says of every route beside its own words: the headers it takes and the problems it may answer."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI

from api.problems import MEDIA_TYPE

_PROBLEM: Mapping[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {"type": "string", "description": "what went wrong; GET it for an explanation"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "description": "the path that was asked for"},
        "command_id": {
            "type": "string",
            "format": "uuid",
            "description": "of a write that was sent, perhaps",
        },
        "errors": {
            "type": "array",
            "items": {"type": "object"},
            "description": "fields that are not allowed",
        },
    },
    "example": {
        "type": "/problems/cart-is-empty",
        "title": "Cart is empty",
        "status": 409,
        "detail": "there is nothing in it to check out",
        "instance": "/v1/carts/7c0f6d9e-8f8e-5d6b-9a53-3b1a4f0c7d11/checkout",
        "command_id": "0b4f6f6a-51e1-5f0c-8d57-0f3f2b8f9a10",
    },
}

_DESCRIPTION_OF: Mapping[int, str] = {
    304: "Not changed since the version in If-None-Match.",
    400: "The body is no JSON, or a header is missing or not of its form.",
    401: "No bearer token (or, of a webhook, no signature), or none of ours.",
    403: "Not for this role.",
    404: "No such thing, or somebody else's.",
    409: "It is in a state that does not allow this.",
    412: "The stream is at another version than If-Match says.",
    413: "The body is over 256 KB.",
    422: "A field is unknown or out of its limits, or the key was used before with another body.",
    500: "A mistake of ours.",
    503: "Not now: come again after Retry-After seconds. Of a write whose `command_id` is named the outcome is unknown; "
    "send it again with the same key.",
}

_RECEIPT = "cart/7c0f6d9e-8f8e-5d6b-9a53-3b1a4f0c7d11@3"
_WRITTEN: Mapping[str, Any] = {
    "command_id": "0b4f6f6a-51e1-5f0c-8d57-0f3f2b8f9a10",
    "outcome": "accepted",
    "status": "",
    "positions": [_RECEIPT],
}
_RESPONSE_HEADERS: Mapping[str, Any] = {
    "Daybook-Receipt": {
        "description": "send it as Daybook-After with a read that must show this write",
        "schema": {"type": "string", "example": _RECEIPT},
    },
    "Daybook-Command": {"schema": {"type": "string", "format": "uuid"}},
    "ETag": {"schema": {"type": "string", "example": '"3"'}},
    "traceparent": {"schema": {"type": "string"}},
}


def _header(name: str, description: str, example: str, *, required: bool = False) -> dict[str, Any]:
    schema = {"type": "string", "example": example}
    return {"name": name, "in": "header", "required": required, "description": description, "schema": schema}


_TRACE = _header(
    "traceparent", "W3C trace context", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
)
_WRITE_HEADERS = (
    _header(
        "Idempotency-Key",
        "1 to 200 visible ASCII characters; the same key is the same command",
        "6f9d2c1e",
        required=True,
    ),
    _header("If-Match", "the version that the stream must be at", '"3"'),
    _header(
        "Daybook-Occurred-At", "when it happened (RFC 3339); needs the claim backdate", "2010-12-01T08:26:00Z"
    ),
    _TRACE,
)
_READ_HEADERS = (
    _header("Daybook-After", "a receipt: wait up to 2 s until the view shows it", _RECEIPT),
    _header("If-None-Match", "an ETag: 304 if nothing changed", '"3"'),
)


def writing(*, created: bool = False, **ids: str) -> dict[str, Any]:
    """Keywords of a route that writes. `ids` are examples of what its answer names."""
    success = {
        "headers": _RESPONSE_HEADERS,
        "content": {"application/json": {"example": {**_WRITTEN, **ids}}},
    }
    answers: dict[int | str, Any] = {
        200: {"description": "Accepted, or it was so already.", **success},
        202: {"description": "Not decided yet: ask at Location."},
    }
    if created:
        answers[201] = {"description": "Created.", **success}
    problems = _problems(400, 401, 403, 404, 409, 412, 413, 422, 500, 503)
    return {
        "status_code": 201 if created else 200,
        "responses": answers | problems,
        "openapi_extra": {"parameters": list(_WRITE_HEADERS)},
    }


def reading(example: object, *, guarded: bool = True, dated: bool = True) -> dict[str, Any]:
    """Keywords of a route that reads. `guarded`: by a token; `dated`: it takes a receipt and an ETag."""
    answers: dict[int | str, Any] = {
        200: {"description": "As the view has it.", "content": {"application/json": {"example": example}}},
    }
    if dated:
        answers[304] = {"description": _DESCRIPTION_OF[304]}
    refused = (401, 403) if guarded else ()
    extra = {"openapi_extra": {"parameters": list(_READ_HEADERS)}} if dated else {}
    return {"responses": answers | _problems(400, *refused, 404, 422, 500, 503), **extra}


def notified(example: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of a route that another system calls, and proves who it is by signing the body."""
    body = {"required": True, "content": {"application/json": {"example": example}}}
    signed = (
        "v1,<Base64 of HMAC-SHA256 over id, timestamp and body, divided by dots>; several divided by blanks"
    )
    headers = [
        _header("webhook-id", "of the event; the same however often it is sent", "evt_1", required=True),
        _header("webhook-timestamp", "seconds since 1970, within 5 minutes", "1291191960", required=True),
        _header(
            "webhook-signature", signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", required=True
        ),
    ]
    return {
        "status_code": 204,
        "responses": _problems(401, 413, 422, 500, 503),
        "openapi_extra": {"requestBody": body, "parameters": headers},
    }


def _problems(*statuses: int) -> dict[int | str, Any]:
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _DESCRIPTION_OF[status], "content": content} for status in statuses}


def describe(app: FastAPI) -> None:
    """Add to the app's own OpenAPI the one schema that no model of a body stands for."""
    own = app.openapi

    def openapi() -> dict[str, Any]:
        document = own()
        document["components"]["schemas"]["Problem"] = dict(_PROBLEM)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it
