"""The sandbox over HTTP: routes, the shapes they take, and problems."""

import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from ops.payment_sandbox.desk import ClosingError, Desk
from ops.payment_sandbox.group_commit import OverloadedError
from ops.payment_sandbox.laws import Answer, Ask, Token, Verb, problem
from ops.payment_sandbox.ledger import Ledger
from ops.payment_sandbox.webhooks import Sender

LARGEST_BODY_BYTES = 16_384
RETRY_AFTER_S = 1

Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/-]{1,128}$")]
Amount = Annotated[int, Field(gt=0, le=10**12, description="minor units of the currency")]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="ISO 4217")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Authorization(_Body):
    """Hold `amount` of somebody's money for a payment."""

    payment_id: Identifier
    order_id: Identifier
    amount: Amount
    currency: Currency
    token: Annotated[Token, Field(strict=False)]  # JSON has no enums


class Movement(_Body):
    """Take from an authorization, or give back from a capture."""

    amount: Amount


class Void(_Body):
    """Let go of an authorization."""


@dataclass(frozen=True)
class Teller:
    """One request at the desk: its idempotency key, and how it is answered."""

    request: Request
    key: str

    async def ask(self, verb: Verb, body: _Body, reference: str = "") -> Response:
        """Answer `body`, which names the fields of an `Ask`, once for ever under this key."""
        desk: Desk = self.request.app.state.desk
        fingerprint = sha256(f"{self.request.url.path}\n{body.model_dump_json()}".encode()).digest()
        ask = Ask(self.key, fingerprint, verb, reference, **body.model_dump())
        return as_response(await desk.serve(ask, self._client_left))

    async def _client_left(self) -> None:
        while (await self.request.receive())["type"] != "http.disconnect":
            pass


def teller(
    request: Request, key: Annotated[str, Header(alias="Idempotency-Key", pattern=r"^[\x21-\x7e]{1,128}$")]
) -> Teller:
    """The teller for a request that has an idempotency key."""
    return Teller(request, key)


AtDesk = Annotated[Teller, Depends(teller)]
routes = APIRouter(max_body_size=LARGEST_BODY_BYTES)


@routes.post("/v1/authorizations", status_code=201)
async def authorize(at_desk: AtDesk, body: Authorization) -> Response:
    """Authorize an amount."""
    return await at_desk.ask(Verb.AUTHORIZATION, body)


@routes.post("/v1/authorizations/{authorization_id}/captures", status_code=201)
async def capture(at_desk: AtDesk, authorization_id: str, body: Movement) -> Response:
    """Capture from an authorization, at most what it still holds."""
    return await at_desk.ask(Verb.CAPTURE, body, authorization_id)


@routes.post("/v1/authorizations/{authorization_id}/voids", status_code=201)
async def void(at_desk: AtDesk, authorization_id: str, body: Void) -> Response:
    """Void an authorization from which nothing was captured."""
    return await at_desk.ask(Verb.VOID, body, authorization_id)


@routes.post("/v1/captures/{capture_id}/refunds", status_code=201)
async def refund(at_desk: AtDesk, capture_id: str, body: Movement) -> Response:
    """Refund from a capture, at most what is left of it."""
    return await at_desk.ask(Verb.REFUND, body, capture_id)


@routes.get("/v1/ledger")
def list_ledger(
    request: Request,
    cursor: Annotated[int, Query(ge=0, le=2**63 - 1, description="the last seq already read")] = 0,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> dict[str, Any]:
    """Ledger rows in order; `next_cursor` is null on the last page."""
    ledger: Ledger = request.app.state.ledger
    rows = ledger.page(cursor, limit + 1)
    more = len(rows) > limit
    return {"rows": rows[:limit], "next_cursor": rows[limit - 1]["seq"] if more else None}


@routes.get("/v1/notices")
async def count_notices(request: Request) -> dict[str, Any]:
    """How many webhooks wait to be heard, and how those of this process were answered; empty where none are sent."""
    sender: Sender | None = request.app.state.sender
    return sender.account() if sender else {"waiting": 0, "answers": {}}


@routes.get("/health")
async def health(request: Request) -> Response:
    """200 while the ledger is being written, else 503."""
    desk: Desk = request.app.state.desk
    if desk.alive():
        return Response('{"status": "ok"}', media_type="application/json")
    return as_response(problem(503, "not_writing", "The thread that writes the ledger has ended."))


def as_response(answer: Answer) -> Response:
    """`answer` on the wire; whoever finds the sandbox unable is told when to come again."""
    kind = "application/json" if answer.status < 400 else "application/problem+json"
    headers = {"Idempotent-Replayed": "true"} if answer.replayed else {}
    if answer.status == 503:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    return Response(answer.body, answer.status, headers, kind)


# What the desk can raise: nothing was done, and the same key may be sent again.
UNABLE: dict[type[Exception], tuple[str, str]] = {
    OverloadedError: ("overloaded", "Too many requests are waiting."),
    ClosingError: ("closing", "The sandbox is going down."),
    sqlite3.Error: ("ledger_unavailable", "The ledger could not be written."),
}


async def tell_unable(_: Request, error: Exception) -> Response:
    """503 for each of `UNABLE`."""
    code, detail = next(said for kind, said in UNABLE.items() if isinstance(error, kind))
    return as_response(problem(503, code, detail))


async def tell_invalid(_: Request, error: RequestValidationError) -> Response:
    """400 for what cannot be read, 422 for what reads but is not allowed."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing" and first["loc"][0] == "header":
        return as_response(problem(400, "idempotency_key_missing", "Every POST needs an Idempotency-Key."))
    if first["type"] == "json_invalid":
        return as_response(problem(400, "malformed", "The body is not JSON."))
    return as_response(problem(422, "invalid", f"{place}: {first['msg']}"))


async def tell_http(_: Request, error: HTTPException) -> Response:
    """The framework's own refusals (unknown route, wrong method, body too large) as problems."""
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    return as_response(problem(error.status_code, code, str(error.detail)))


async def tell_broken(_: Request, error: Exception) -> Response:
    """500 for a mistake of ours; the framework logs it."""
    return as_response(problem(500, "internal", type(error).__name__))


TELL: dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]] = {
    **dict.fromkeys(UNABLE, tell_unable),
    RequestValidationError: tell_invalid,
    HTTPException: tell_http,
    Exception: tell_broken,
}


def create_app(ledger: Ledger, desk: Desk, sender: Sender | None = None) -> FastAPI:
    """The sandbox's application; the desk opens with the app's life and closes at its end."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        desk.open()
        yield
        await desk.close()

    app = FastAPI(title="Daybook's payment sandbox", lifespan=life, exception_handlers=TELL)
    app.state.ledger, app.state.desk, app.state.sender = ledger, desk, sender
    app.include_router(routes)
    return app
