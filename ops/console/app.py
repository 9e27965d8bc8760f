"""The console, wired: its pages, and what is said where there is none."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from confluent_kafka import KafkaException
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from api.limits import BodyLimit, RequestLimit
from api.security import Verifier
from ops.console import evidence, live, search, trade, visitors
from ops.console.archive import ArchiveBusy, LogTooLong
from ops.console.pages import HERE, page
from ops.console.sources import Sources
from ops.console.trade import NothingThere
from ops.console.visitors import ForeignForm, SignInNeeded, TurnedAway, ask_to_sign_in
from projections.cursor import BadCursor
from projections.view import StoreUnavailable
from streams.replay import ReplayFailed

REQUESTS_MAX = 64
FORM_BYTES_MAX = evidence.BUNDLE_BYTES_MAX + 64 * 1024

Life = Callable[[FastAPI], AbstractAsyncContextManager[None]]
Opened = Callable[[], AbstractAsyncContextManager[Sources]]


def create_app(opened: Opened, verifier: Verifier) -> FastAPI:
    """`opened` gives the sources for as long as the application lives."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        async with opened() as app.state.sources:
            yield

    app = FastAPI(
        title="Daybook's console", lifespan=life, docs_url=None, redoc_url=None, openapi_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )  # fmt: skip
    app.state.verifier = verifier
    for room in (visitors, search, trade, live, evidence):
        app.include_router(room.routes)
    app.mount(f"{visitors.HOME}/static", StaticFiles(directory=HERE / "static"))
    app.add_middleware(BodyLimit, bytes_max=FORM_BYTES_MAX)
    app.add_middleware(RequestLimit, at_once_max=REQUESTS_MAX)
    for error, tell in _TELLERS.items():
        app.add_exception_handler(error, tell)
    return app


def _trouble(request: Request, status: int, title: str, what: str, *advice: str) -> Response:
    return page(request, "trouble", status, title=title, what=what, advice=advice)


async def _tell_nothing(request: Request, nothing: NothingThere) -> Response:
    what = f"Daybook was asked for {nothing.what}, and has none."
    return _trouble(request, 404, "Nothing there", what, *nothing.advice)


async def _tell_http(request: Request, error: HTTPException) -> Response:
    if error.status_code == 404:
        return _trouble(request, 404, "No such page", f"The console has no page {request.url.path}.")
    return _trouble(request, error.status_code, "That did not work", str(error.detail))


async def _tell_malformed(request: Request, _: Exception) -> Response:
    what = "What was asked for can be nothing here: the address is not of its form."
    return _trouble(
        request, 404, "Nothing there", what, "Search for the id, the SKU or the customer instead."
    )


async def _tell_cursor(request: Request, _: Exception) -> Response:
    what = "The link to this page of the list is none of those that we gave out."
    return _trouble(request, 404, "No such page", what, "Begin at the latest entries.")


async def _tell_store_down(request: Request, _: StoreUnavailable) -> Response:
    what = "A store that this page is read from does not answer. Nothing is lost: the log has it all."
    return _trouble(
        request, 503, "A store is down", what, "Reload in a moment.", "`./daybook status` says more."
    )


async def _tell_log_away(request: Request, error: Exception) -> Response:
    what = "Kafka does not answer, or the log could not be read to its end."
    return _trouble(request, 503, "The log cannot be read", what, str(error), "`./daybook status` says more.")


async def _tell_too_long(request: Request, error: Exception) -> Response:
    what = f"{str(error).capitalize()}: it is long, or the machine is busy."
    return _trouble(
        request, 503, "Not found in time", what, "`./daybook show order/…` has all the time there is."
    )


async def _tell_busy(request: Request, error: Exception) -> Response:
    return _trouble(request, 503, "Busy", f"{str(error).capitalize()}.", "Reload in a moment.")


async def _tell_turned_away(request: Request, error: Exception) -> Response:
    return page(request, "sign_in", 403, next=visitors.HOME, word=str(error))


async def _tell_foreign(request: Request, error: Exception) -> Response:
    return _trouble(request, 403, "Not from here", str(error), "Open the console's own page and try again.")


async def _tell_broken(request: Request, _: Exception) -> Response:
    return _trouble(request, 500, "A mistake of ours", "Something went wrong here; the console's log has it.")


_TELLERS: dict[type[Exception], Any] = {
    NothingThere: _tell_nothing,
    SignInNeeded: ask_to_sign_in,
    TurnedAway: _tell_turned_away,
    ForeignForm: _tell_foreign,
    StoreUnavailable: _tell_store_down,
    LogTooLong: _tell_too_long,
    ArchiveBusy: _tell_busy,
    ReplayFailed: _tell_log_away,
    KafkaException: _tell_log_away,
    BadCursor: _tell_cursor,
    RequestValidationError: _tell_malformed,
    HTTPException: _tell_http,
    Exception: _tell_broken,
}
