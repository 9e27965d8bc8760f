"""Why a request failed, as RFC 9457 problems: what the API raises, and the one place that says it to the outside.

ProblemError
├── MalformedRequestError       400  a body that is no JSON, a header that cannot be read
├── IdempotencyKeyMissingError  400
├── ForeignReceiptError         400
├── UnauthorizedError           401
├── UntrustedWebhookError       401
├── ForbiddenError              403
├── NotFoundError               404
│   └── UnknownProductError
├── MethodNotAllowedError       405
├── BodyTooSlowError            408
├── BodyTooLargeError           413
├── InvalidRequestError         422  readable, but not allowed
│   ├── CommandReusedError
│   └── CommandTooLargeError         nothing was sent
├── UnavailableError            503  come again after a second
│   ├── NotReadyError                nothing was sent
│   ├── OverloadedError              nothing was sent
│   ├── OutcomeUnknownError          it was sent, perhaps
│   ├── KeysUnavailableError         nothing was sent
│   ├── ViewUnavailableError
│   └── ViewBehindError
└── RejectedError               as the kind of the rejection says
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar
from urllib.parse import quote

import orjson
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from api.personal_keys import KeysUnusable
from projections.cursor import BadCursor
from projections.receipt import ForeignReceipt, NotCaughtUp
from projections.view import StoreUnavailable
from schemas.decisions import Rejected
from schemas.instants import BadInstant

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1
ERRORS_SHOWN_MAX = 10

log = structlog.get_logger(__name__)


class ProblemError(Exception):
    """`detail` is for a person; `members` go out in the body beside it, `headers` beside the body."""

    status: ClassVar[int] = 500
    headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, detail: str, **members: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.members = members

    @property
    def name(self) -> str:
        return type(self).__name__.removesuffix("Error")


class MalformedRequestError(ProblemError):
    """The body is no JSON, or a header is not of its form."""

    status = 400


class IdempotencyKeyMissingError(ProblemError):
    """Every write needs an Idempotency-Key of 1 to 200 visible ASCII characters."""

    status = 400


class ForeignReceiptError(ProblemError):
    """Daybook-After names no stream that this document is made of, so there is nothing to wait for."""

    status = 400


class UnauthorizedError(ProblemError):
    """There is no bearer token, or it is not one of ours, or it has expired."""

    status = 401
    headers: ClassVar = {"WWW-Authenticate": "Bearer"}


class UntrustedWebhookError(ProblemError):
    """A webhook's signature is missing, forged, or older than 5 minutes. Nothing was sent."""

    status = 401
    headers: ClassVar = {"WWW-Authenticate": "Webhook-Signature"}


class ForbiddenError(ProblemError):
    """The token is good, but its role (or a claim it lacks) does not allow this."""

    status = 403


class NotFoundError(ProblemError):
    """There is no such thing, or it belongs to somebody else."""

    status = 404


class UnknownProductError(NotFoundError):
    """A SKU is not for sale: never published, or retired."""


class MethodNotAllowedError(ProblemError):
    """This path has other methods; Allow names them."""

    status = 405


class BodyTooSlowError(ProblemError):
    """The body was not here within 10 s. Nothing was sent."""

    status = 408
    headers: ClassVar = {"Connection": "close"}  # or the rest of it would be waited for


class BodyTooLargeError(ProblemError):
    """The body is over 256 KB."""

    status = 413


class InvalidRequestError(ProblemError):
    """The request can be read, but a field is unknown, missing, or out of its limits; `errors` names them."""

    status = 422


class CommandReusedError(InvalidRequestError):
    """The same Idempotency-Key was sent before with another body."""


class CommandTooLargeError(InvalidRequestError):
    """The command is larger than a record in Kafka may be. Nothing changed."""


class UnavailableError(ProblemError):
    """Not now; come again after Retry-After seconds."""

    status = 503
    headers: ClassVar = {"Retry-After": str(RETRY_AFTER_S)}


class NotReadyError(UnavailableError):
    """The API cannot send to Kafka, or not hear its answers yet. Nothing was sent."""


class OverloadedError(UnavailableError):
    """Too much is under way here. Nothing was sent."""


class OutcomeUnknownError(UnavailableError):
    """Kafka did not confirm the command: it has no effect or one. The same key may be sent again."""


class KeysUnavailableError(UnavailableError):
    """The keys of personal data cannot be used: nothing personal can be taken or shown. Nothing was sent."""


class ViewUnavailableError(UnavailableError):
    """The store of this view does not answer."""


class ViewBehindError(UnavailableError):
    """The view has not seen the write that Daybook-After names within 2 s; `missing` says of which streams."""


STATUS_OF_KIND: Mapping[str, int] = {
    "not_found": 404,
    "conflict": 409,
    "unprocessable": 422,
    "precondition": 412,
    "expired": 503,  # it came too late and had no effect; a new key may be tried at once
    "internal": 500,
}
MEANING_OF_KIND: Mapping[str, str] = {
    "not_found": "There is no such thing, or it belongs to somebody else.",
    "conflict": "The thing is in a state that does not allow this; nothing changed.",
    "unprocessable": "This can never be done as it was asked; nothing changed.",
    "precondition": "The stream is at another version than If-Match says; nothing changed.",
    "expired": "The command came later than 30 s after it was sent; it had no effect and will have none.",
    "internal": "A mistake of ours, which is written down as a dead letter; nothing changed.",
}


class RejectedError(ProblemError):
    """The writer rejected the command: it has no effect."""

    def __init__(self, rejection: Rejected, **members: object) -> None:
        super().__init__(rejection.detail, **members)
        self.rejection = rejection

    @property
    def name(self) -> str:
        return self.rejection.type


def slug_of(name: str) -> str:
    """CartIsEmpty → cart-is-empty."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


def title_of(slug: str) -> str:
    return slug.replace("-", " ").capitalize()


def status_of(error: ProblemError) -> int:
    if isinstance(error, RejectedError):
        return STATUS_OF_KIND.get(error.rejection.kind, 500)
    return error.status


def headers_of(error: ProblemError) -> Mapping[str, str]:
    return UnavailableError.headers if status_of(error) == 503 else error.headers


def as_response(request: Request, error: ProblemError) -> Response:
    return _written(request, error.name, status_of(error), error.detail, error.members, headers_of(error))


def _written(
    request: Request,
    name: str,
    status: int,
    detail: str,
    members: Mapping[str, object] = {},
    headers: Mapping[str, str] = {},
) -> Response:
    slug = slug_of(name)
    problem = {"type": f"/problems/{slug}", "title": title_of(slug), "status": status, "detail": detail}
    body = orjson.dumps({**problem, "instance": quote(request.scope["path"]), **members})
    echoed = {"Daybook-Command": str(members["command_id"])} if "command_id" in members else {}
    return Response(body, status, {**headers, **echoed}, MEDIA_TYPE)


async def tell_problem(request: Request, error: ProblemError) -> Response:
    return as_response(request, error)


async def tell_invalid(request: Request, error: RequestValidationError) -> Response:
    """A path that can name nothing is not found; what cannot be read is malformed; the rest is invalid."""
    errors = error.errors()
    where = {str(one["loc"][0]) for one in errors}
    if "path" in where:
        return as_response(request, NotFoundError("No such thing can exist: the path is not of its form."))
    if any(one["type"] == "json_invalid" for one in errors):
        return as_response(request, MalformedRequestError("The body is not JSON."))
    if isinstance(error.body, bytes) or _is_absent(errors):
        return as_response(
            request, MalformedRequestError("A body of Content-Type application/json is needed.")
        )
    return as_response(request, InvalidRequestError(_sentence(errors[0]), errors=list(_fields(errors))))


def _is_absent(errors: Any) -> bool:
    return any(one["type"] == "missing" and one["loc"] == ("body",) for one in errors)


def _fields(errors: Any) -> Iterator[dict[str, str]]:
    for one in errors[:ERRORS_SHOWN_MAX]:
        yield {"field": _place(one), "message": _message(one)}


def _place(one: Any) -> str:
    return ".".join(str(part) for part in one["loc"][1:]) or str(one["loc"][0])


def _sentence(one: Any) -> str:
    return f"{_place(one)}: {_message(one)}"


def _message(one: Any) -> str:
    """Without what pydantic says before the words of a validator of ours."""
    return str(one["msg"]).removeprefix("Value error, ")


_REFUSED_BY_FRAMEWORK: Mapping[int, type[ProblemError]] = {
    cls.status: cls
    for cls in (
        MalformedRequestError,
        NotFoundError,
        MethodNotAllowedError,
        BodyTooSlowError,
        BodyTooLargeError,
        OverloadedError,
    )
}


async def tell_http(request: Request, error: HTTPException) -> Response:
    """The framework's own refusals: unknown route, wrong method, a body too large, too slow or not readable."""
    cls = _REFUSED_BY_FRAMEWORK.get(error.status_code, MalformedRequestError)
    name, detail = cls.__name__.removesuffix("Error"), str(error.detail)
    headers = {**cls.headers, **(error.headers or {})}
    if error.status_code == MethodNotAllowedError.status:
        headers["Allow"] = ", ".join(sorted(_methods_here(request)))
    return _written(request, name, error.status_code, detail, headers=headers)


def _methods_here(request: Request) -> set[str]:
    """Of all routes with this path: the framework names those of the first one only."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    here = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return {method for route in here for method in route.methods or ()}


async def tell_broken(request: Request, _: Exception) -> Response:
    """A mistake of ours; the server logs it, and says no more to the outside."""
    return _written(request, "InternalError", 500, "Something went wrong here; the log has it.")


async def tell_store_down(request: Request, _: StoreUnavailable) -> Response:
    return as_response(request, ViewUnavailableError("The store of this view does not answer."))


async def tell_keys_unusable(request: Request, error: KeysUnusable) -> Response:
    log.error("keys_unusable", why=str(error))
    return as_response(request, KeysUnavailableError("The keys of personal data cannot be used."))


async def tell_behind(request: Request, error: NotCaughtUp) -> Response:
    missing = [str(position) for position in error.missing]
    text = f"The view has not got as far as {', '.join(missing)}."
    return as_response(request, ViewBehindError(text, missing=missing))


async def tell_foreign(request: Request, error: ForeignReceipt) -> Response:
    return as_response(request, ForeignReceiptError(f"Daybook-After: {error}."))


async def tell_bad_cursor(request: Request, _: BadCursor) -> Response:
    return as_response(request, MalformedRequestError("The cursor is none of those that we gave out."))


async def tell_bad_instant(request: Request, error: BadInstant) -> Response:
    return as_response(request, InvalidRequestError(f"{error}."))


_TELLERS: Mapping[type[Exception], Any] = {
    ProblemError: tell_problem,
    RequestValidationError: tell_invalid,
    HTTPException: tell_http,
    StoreUnavailable: tell_store_down,
    KeysUnusable: tell_keys_unusable,
    NotCaughtUp: tell_behind,
    ForeignReceipt: tell_foreign,
    BadCursor: tell_bad_cursor,
    BadInstant: tell_bad_instant,
    Exception: tell_broken,
}


def map_problems(app: FastAPI) -> None:
    for error, tell in _TELLERS.items():
        app.add_exception_handler(error, tell)


REJECTIONS: Mapping[str, str] = {
    "CartIsCheckedOut": "conflict",
    "CartIsClosed": "conflict",
    "CartIsEmpty": "conflict",
    "CommandExpired": "expired",
    "CommandRefused": "conflict",
    "CommandReused": "unprocessable",
    "CurrencyMismatch": "unprocessable",
    "InternalError": "internal",
    "OrderIsBeingShipped": "conflict",
    "OrderIsClosed": "conflict",
    "OrderIsNotConfirmed": "conflict",
    "PaymentHoldsTooLittle": "conflict",
    "PaymentIsCaptured": "conflict",
    "QuantityTooLarge": "unprocessable",
    "StockBelowEmptyShelf": "conflict",
    "TooManyLines": "unprocessable",
    "UnknownCart": "not_found",
    "UnknownCartItem": "not_found",
    "UnknownOrder": "not_found",
    "UnknownPayment": "not_found",
    "UnknownProduct": "not_found",
    "UnknownStockItem": "not_found",
    "VersionConflict": "precondition",
}
"""What a writer may answer, and the kind of each; a test holds it against the deciders' own list."""


def _own(cls: type[ProblemError] = ProblemError) -> Iterator[type[ProblemError]]:
    for sub in cls.__subclasses__():
        if sub is not RejectedError:
            yield sub
        yield from _own(sub)


def documented() -> Mapping[str, Mapping[str, object]]:
    """Every type of problem by its slug: status, title and what it means."""
    meanings = {name: (STATUS_OF_KIND[kind], MEANING_OF_KIND[kind]) for name, kind in REJECTIONS.items()}
    meanings |= {cls.__name__.removesuffix("Error"): (cls.status, cls.__doc__ or "") for cls in _own()}
    return {slug_of(name): _page(slug_of(name), *meaning) for name, meaning in meanings.items()}


def _page(slug: str, status: int, meaning: str) -> Mapping[str, object]:
    return {"type": f"/problems/{slug}", "title": title_of(slug), "status": status, "meaning": meaning}
