"""How large a request may be, and how many at once: what is over a limit is turned away before it is all here."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import OverloadedError, as_response

BODY_BYTES_MAX = 256 * 1024
REQUESTS_MAX = 4_096


class RequestLimit:
    """Pure ASGI middleware. It answers by itself, as nothing outside of it would (uvicorn's `limit_concurrency`
    answers in plain text, without Retry-After).
    """

    def __init__(self, app: ASGIApp, at_once_max: int = REQUESTS_MAX) -> None:
        self._app = app
        self._at_once_max = at_once_max
        self._at_once = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
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

    def __init__(self, app: ASGIApp, bytes_max: int = BODY_BYTES_MAX) -> None:
        self._app = app
        self._bytes_max = bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_body = scope["type"] == "http" and scope["method"] not in ("GET", "HEAD")
        await self._app(scope, self._limited(scope, receive) if has_body else receive, send)

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        size = 0
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")

        async def receive_within_limit() -> Message:
            nonlocal size
            if not declared.isdigit() or int(declared) > self._bytes_max:
                raise _too_large(self._bytes_max)
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._bytes_max:
                raise _too_large(self._bytes_max)
            return message

        return receive_within_limit


def _too_large(bytes_max: int) -> HTTPException:
    # FastAPI lets this class through where it reads a body, and takes any other for a parse error.
    return HTTPException(413, f"A body has at most {bytes_max} bytes.")
