"""How large a request may be, how long it may take to come, and how many at once: the rest is turned away before it is
all here.
"""

import asyncio
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import OverloadedError, as_response

BODY_BYTES_MAX = 256 * 1024
BODIES_BYTES_MAX = 32 * 1024 * 1024
"""Of all bodies that are here at a time: they are read before anybody has said who he is."""
BODY_WITHIN_S = 10.0
REQUESTS_MAX = 4_096
HEALTH = ("/health", "/v1/health")
"""Told also when every place is taken: a supervisor must not take a busy process for a dead one."""


class RequestLimit:
    """Pure ASGI middleware. It answers by itself, as nothing outside of it would (uvicorn's `limit_concurrency`
    answers in plain text, without Retry-After).
    """

    def __init__(self, app: ASGIApp, at_once_max: int = REQUESTS_MAX) -> None:
        self._app = app
        self._at_once_max = at_once_max
        self._at_once = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(HEALTH):
            await self._app(scope, receive, send)
        elif self._at_once >= self._at_once_max:
            error = OverloadedError(f"{self._at_once} requests are being answered; this one was not begun.")
            await as_response(Request(scope), error)(scope, receive, send)
        else:
            await self._counted(scope, receive, send)

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._at_once += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._at_once -= 1


class BodyLimit:
    """Pure ASGI middleware. It raises where the body is read, so that the answer is a problem like any other
    (the framework's own `max_body_size` answers in plain text).
    """

    def __init__(
        self,
        app: ASGIApp,
        bytes_max: int = BODY_BYTES_MAX,
        all_bytes_max: int = BODIES_BYTES_MAX,
        within_s: float = BODY_WITHIN_S,
    ) -> None:
        self._app = app
        self._bytes_max = bytes_max
        self._all_bytes_max = all_bytes_max
        self._within_s = within_s
        self._all_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        body = _Body(receive, asyncio.get_running_loop().time() + self._within_s)
        try:
            await self._app(scope, self._limited(scope, body), send)
        finally:
            self._all_bytes -= body.size

    def _limited(self, scope: Scope, body: "_Body") -> Receive:
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")

        async def receive_within_limits() -> Message:
            if not declared.isdigit() or int(declared) > self._bytes_max:
                raise _too_large(self._bytes_max)
            message = await body.next()
            self._all_bytes += len(message.get("body", b""))
            if body.size > self._bytes_max:
                raise _too_large(self._bytes_max)
            if self._all_bytes > self._all_bytes_max:
                raise _refused(HTTPStatus.SERVICE_UNAVAILABLE, "Too much is being sent; nothing was begun.")
            return message

        return receive_within_limits


class _Body:
    """What has come of one body, and until when (of the loop's clock) the rest may come."""

    def __init__(self, receive: Receive, due: float) -> None:
        self._receive = receive
        self._due = due
        self._is_whole = False
        self.size = 0

    async def next(self) -> Message:
        """After the whole body there is only the caller's going away to wait for, for as long as it takes."""
        if self._is_whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._due):
                message = await self._receive()
        except TimeoutError:
            raise _refused(HTTPStatus.REQUEST_TIMEOUT, "The body did not come in time.") from None
        self._is_whole = not message.get("more_body", False)
        self.size += len(message.get("body", b""))
        return message


def _too_large(bytes_max: int) -> HTTPException:
    return _refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A body has at most {bytes_max} bytes.")


def _refused(status: HTTPStatus, why: str) -> HTTPException:
    # FastAPI lets this class through where it reads a body, and takes any other for a parse error.
    return HTTPException(status, why)
