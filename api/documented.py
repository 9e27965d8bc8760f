"""What OpenAPI says of every route beside its own words: the headers it takes, what it answers, what may follow."""

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel

from api.links import links_of
from api.problems import MEDIA_TYPE
from api.shapes import JSON, VISIBLE_ASCII

SCHEMAS = "#/components/schemas/"

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
        "skus": {
            "type": "array",
            "items": {"type": "string"},
            "description": "those that are not for sale",
        },
        "missing": {
            "type": "array",
            "items": {"type": "string"},
            "description": "what the view has not seen yet, as stream@version",
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
    408: "The body was not here within 10 s.",
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
_UNDECIDED: Mapping[str, Any] = {
    "command_id": "0b4f6f6a-51e1-5f0c-8d57-0f3f2b8f9a10",
    "outcome": "undecided",
    "location": "/v1/commands/0b4f6f6a-51e1-5f0c-8d57-0f3f2b8f9a10",
}


def _told(description: str, *, always: bool = True, **schema: object) -> Mapping[str, Any]:
    """A header of an answer."""
    return {"description": description, "required": always, "schema": {"type": "string", **schema}}


_ETAG = {"ETag": _told("of the document: its stream's version", always=False, example='"3"')}
_RETRY_AFTER = {"Retry-After": _told("seconds", pattern="^[0-9]+$")}
_SENT = {
    "Daybook-Command": _told("the command's id", format="uuid"),
    "traceparent": _told("the caller's, or the new trace's"),
}
_DECIDED = {
    **_SENT,
    **_ETAG,
    "Daybook-Receipt": _told(
        "send it as Daybook-After with a read that must show this write", example=_RECEIPT
    ),
}
_LOCATION = {"Location": _told("where to look")}
_HEADERS_OF: Mapping[int, Mapping[str, Any]] = {
    401: {"WWW-Authenticate": _told("how to say who one is")},
    503: _RETRY_AFTER,
}


def _header(
    name: str, description: str, example: str, *, required: bool = False, **schema: object
) -> dict[str, Any]:
    """A header of a request."""
    schema = {"type": "string", "example": example, **schema}
    return {"name": name, "in": "header", "required": required, "description": description, "schema": schema}


_PLACE = r"[a-z]+/[ -+\--?A-~]+@[0-9]{1,18}"


_TRACE = _header(
    "traceparent", "W3C trace context", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
)
_WRITE_HEADERS = (
    _header(
        "Idempotency-Key",
        "1 to 200 visible ASCII characters; the same key is the same command",
        "6f9d2c1e",
        required=True,
        pattern=VISIBLE_ASCII,
        maxLength=200,
    ),
    _header("If-Match", "the version that the stream must be at", '"3"', pattern='^(W/)?"?[0-9]{1,18}"?$'),
    _header(
        "Daybook-Occurred-At",
        "when it happened (RFC 3339); needs the claim backdate",
        "2010-12-01T08:26:00Z",
        format="date-time",
    ),
    _TRACE,
)
_READ_HEADERS = (
    _header(
        "Daybook-After",
        "a receipt: wait up to 2 s until the view shows it",
        _RECEIPT,
        pattern=f"^({_PLACE}(, {_PLACE}){{0,99}})?$",
    ),
    _header("If-None-Match", "an ETag: 304 if nothing changed", '"3"'),
)


def shape_of(example: object) -> dict[str, Any]:
    """The JSON schema of whatever looks like the example; where that says null, anything may stand."""
    match example:
        case bool():
            return {"type": "boolean"}
        case int():
            return {"type": "integer"}
        case str():
            return {"type": "string"}
        case Mapping():
            fields = {name: shape_of(value) for name, value in example.items()}
            return {"type": "object", "properties": fields, "required": list(fields)}
        case [first, *_]:
            return {"type": "array", "items": shape_of(first)}
        case list():
            return {"type": "array"}
        case _:
            return {}


def _answer(
    description: str, example: Mapping[str, Any], headers: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    content = {JSON: {"schema": shape_of(example), "example": example}}
    return {"description": description, "headers": headers or {}, "content": content}


def writing(*, created: bool = False, **ids: str) -> dict[str, Any]:
    """Keywords of a route that writes. `ids` are examples of what its answer names."""
    written = {**_WRITTEN, **ids}
    answers: dict[int | str, Any] = {
        200: _answer("Accepted, or it was so already.", written, _DECIDED),
        202: _answer("Not decided yet: ask at Location.", _UNDECIDED, _SENT | _LOCATION | _RETRY_AFTER),
    }
    if created:
        answers[201] = _answer("Created.", written, _DECIDED | _LOCATION)
    problems = _problems(400, 401, 403, 404, 408, 409, 412, 413, 422, 500, 503)
    return {
        "status_code": 201 if created else 200,
        "responses": answers | problems,
        "openapi_extra": {"parameters": list(_WRITE_HEADERS)},
    }


def reading(
    example: Mapping[str, Any],
    *others: Mapping[str, Any],
    guarded: bool = True,
    dated: bool = True,
    also: str = "",
) -> dict[str, Any]:
    """Keywords of a route that reads. `others` are examples of what else it may answer. `guarded`: by a token;
    `dated`: it takes a receipt and an ETag; `also`: another media type, of plain text.
    """
    answers: dict[int | str, Any] = {200: _answer("As the view has it.", example, _ETAG)}
    content = answers[200]["content"]
    if others:
        content[JSON]["schema"] = {"anyOf": [shape_of(one) for one in (example, *others)]}
    if also:
        content[also] = {"schema": {"type": "string"}}
    if dated:
        answers[304] = {"description": _DESCRIPTION_OF[304], "headers": _ETAG}
    refused = (401, 403) if guarded else ()
    extra = {"openapi_extra": {"parameters": list(_READ_HEADERS)}} if dated else {}
    return {"responses": answers | _problems(400, *refused, 404, 422, 500, 503), **extra}


def feeling(well: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of a route that says how the process is: the same document with 200 and, when unwell, with 503."""
    return {"responses": {200: _answer("Well.", well), 503: _answer("Unwell.", well, _RETRY_AFTER)}}


def explaining(example: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of a route that answers from what never changes."""
    return {"responses": {200: _answer("What it means.", example)} | _problems(404, 422, 500)}


def notified(notice: type[BaseModel], example: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of a route that another system calls, and proves who it is by signing the body."""
    body = {"required": True, "content": {JSON: {"schema": _schema_of(notice), "example": example}}}
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
        "responses": _problems(401, 408, 413, 422, 500, 503),
        "openapi_extra": {"requestBody": body, "parameters": headers},
    }


def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """Whole, with no reference to elsewhere."""
    schema = model.model_json_schema(ref_template="{model}")
    parts = schema.pop("$defs", {})

    def whole(part: Any) -> Any:
        if isinstance(part, dict):
            return whole(parts[part["$ref"]]) if "$ref" in part else {k: whole(v) for k, v in part.items()}
        return part

    inlined: dict[str, Any] = whole(schema)
    return inlined


def _problems(*statuses: int) -> dict[int | str, Any]:
    content = {MEDIA_TYPE: {"schema": {"$ref": f"{SCHEMAS}Problem"}}}
    return {
        status: {
            "description": _DESCRIPTION_OF[status],
            "headers": _HEADERS_OF.get(status, {}),
            "content": content,
        }
        for status in statuses
    }


def describe(app: FastAPI) -> None:
    """Add to the app's own OpenAPI the one schema that no model of a body stands for, and what may follow on what.

    An operation is called as its function is, so that links can name it.
    """
    own = app.openapi
    for route in app.routes:
        if isinstance(route, APIRoute):
            route.operation_id = route.name

    def openapi() -> dict[str, Any]:
        document = own()
        document["components"]["schemas"]["Problem"] = dict(_PROBLEM)
        operations = dict(_operations(document))
        for operation in operations.values():
            for status, links in links_of(operation, operations).items():
                operation["responses"][status]["links"] = links
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for methods in document["paths"].values():
        for operation in methods.values():
            yield operation["operationId"], operation
