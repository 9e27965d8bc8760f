"""So many requests at once and no more; the next is told in our own words to come again."""

import asyncio
import json
from typing import Any

from starlette.types import Receive, Scope, Send

from api.limits import RequestLimit

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


async def asked(limit: RequestLimit) -> list[Any]:
    said: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        said.append(message)

    await limit(ASKED, receive, send)
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
