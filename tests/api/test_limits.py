"""So many requests at once, so much of their bodies, for so long; the next is told in our own words to come again."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.limits import BodyLimit, RequestLimit
from api.problems import map_problems

ASKED: Scope = {"type": "http", "method": "GET", "path": "/v1/products/A", "headers": []}


class Room:
    """An application that holds every request until it is let go."""

    def __init__(self) -> None:
        self.inside = 0
        self.open = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.inside += 1
        try:
            await self.open.wait()
        finally:
            self.inside -= 1


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition, for some turns of the loop."""
    for _ in range(1_000):
        if holds():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not come about")


async def asked(limit: RequestLimit, path: str = "/v1/products/A") -> list[Any]:
    said: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        said.append(message)

    await limit({**ASKED, "path": path}, receive, send)
    return said


async def test_one_request_too_many_is_a_problem_with_retry_after() -> None:
    room = Room()
    limit = RequestLimit(room, at_once_max=2)
    running = [asyncio.create_task(asked(limit)) for _ in range(2)]
    await asyncio.sleep(0)
    start, body = await asked(limit)

    assert room.inside == 2
    headers = dict(start["headers"])
    assert (start["status"], headers[b"retry-after"]) == (503, b"1")
    assert headers[b"content-type"] == b"application/problem+json"
    assert json.loads(body["body"])["type"] == "/problems/overloaded"
    room.open.set()
    await asyncio.gather(*running)


async def test_a_place_is_free_again_however_its_request_ended() -> None:
    room = Room()
    limit = RequestLimit(room, at_once_max=1)
    gone = asyncio.create_task(asked(limit))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    room.open.set()

    assert await asked(limit) == []


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/v1/health"])
async def test_how_it_is_can_be_asked_when_every_place_is_taken(path: str) -> None:
    room = Room()
    limit = RequestLimit(room, at_once_max=0)
    asking = asyncio.create_task(asked(limit, path))
    await asyncio.sleep(0)

    assert room.inside == 1
    room.open.set()
    assert await asking == []


class Sender:
    """A caller whose body is these pieces, and who goes on to send or to wait after the last."""

    def __init__(self, *pieces: bytes, is_all: bool = True) -> None:
        self._pieces = list(pieces)
        self._is_all = is_all
        self._heard: list[Any] = []

    async def post(self, app: ASGIApp) -> None:
        await app({**ASKED, "method": "POST", "path": "/", "query_string": b""}, self._receive, self.hear)

    async def _receive(self) -> Any:
        if not self._pieces:
            await asyncio.Event().wait()
        piece = self._pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(self._pieces) or not self._is_all}

    async def hear(self, message: Any) -> None:
        self._heard.append(message)

    @property
    def told(self) -> tuple[int, str]:
        """The status, and the problem if it is one."""
        start, body = self._heard
        return start["status"], "" if start["status"] == 200 else json.loads(body["body"])["type"]

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        return dict(self._heard[0]["headers"])


def reading(room: Room, **limits: float) -> FastAPI:
    """An application that reads a body whole, and holds it until it is let go."""
    app = FastAPI(telemetry={"tracing": False, "metrics": False, "logs": False})

    @app.post("/")
    async def read(request: Request) -> int:
        size = len(await request.body())
        room.inside += 1
        await room.open.wait()
        return size

    app.add_middleware(BodyLimit, **limits)  # type: ignore[arg-type]  # it is called with the right ones
    map_problems(app)
    return app


async def test_a_body_that_trickles_is_given_up_and_its_line_closed() -> None:
    slow = Sender(b"{", is_all=False)
    await slow.post(reading(Room(), within_s=0.01))

    assert slow.told == (408, "/problems/body-too-slow")
    assert slow.headers[b"connection"] == b"close"


async def test_whoever_has_sent_the_whole_body_has_no_deadline_any_more() -> None:
    """Behind the body comes, some time, the caller's going away."""
    hung_up = {"type": "http.disconnect"}
    messages = [{"type": "http.request", "body": b"{}", "more_body": False}, hung_up]

    async def receive() -> Any:
        if messages[0] is hung_up:
            await asyncio.sleep(0)  # the loop looks at what is due
        return messages.pop(0)

    async def listen(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        assert await receive() is hung_up

    await BodyLimit(listen, within_s=0)({**ASKED, "method": "POST"}, receive, Sender().hear)


async def test_more_than_all_bodies_together_may_hold_is_turned_away_until_one_is_gone() -> None:
    room = Room()
    app = reading(room, all_bytes_max=100)
    first, second, third = Sender(b"x" * 40, b"x" * 20), Sender(b"x" * 60), Sender(b"x" * 60)
    held = asyncio.create_task(first.post(app))
    await until(lambda: room.inside == 1)
    await second.post(app)

    assert second.told == (503, "/problems/overloaded")
    assert second.headers[b"retry-after"] == b"1"
    room.open.set()
    await held
    await third.post(app)
    assert (first.told, third.told) == ((200, ""), (200, ""))
