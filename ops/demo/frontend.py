"""A frontend's way to talk to Daybook: a write is sent until its outcome is known, a read shows what its caller has written."""

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import aiohttp
import orjson
from yarl import URL

GIVE_UP_S = 60.0
"""A write or read that Daybook cannot answer for so long is given up."""

ATTEMPT_S = 15.0
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
CONNECTIONS = 128
SAMPLE_EVERY = 20
"""Of so many writes one is followed by a read at once, to see how soon it shows."""


class RefusedError(Exception):
    """Daybook said no: `kind` is the last part of the problem's type (`cart-is-empty`)."""

    def __init__(self, status: int, kind: str, detail: str) -> None:
        super().__init__(f"{status} {kind}: {detail}")
        self.status = status
        self.kind = kind


class UnansweredError(Exception):
    """Daybook could not say, however often it was asked."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an accepted write was answered: its document, and the receipt that a read may show."""

    document: dict[str, Any]
    receipt: str


@dataclass(frozen=True, slots=True)
class Write:
    """One write as its sender means it, sent again under the same key until it is answered.

    `seen_at` is the path where its effect shows, if somebody may look; `occurred_at` is for tokens that may backdate.
    """

    method: str
    path: str
    key: str
    token: str
    seen_at: str = ""
    body: object = None
    occurred_at: datetime | None = None

    @property
    def headers(self) -> dict[str, str]:
        headers = {"Authorization": f"Bearer {self.token}", "Idempotency-Key": self.key}
        if self.body is not None:
            headers["Content-Type"] = "application/json"
        if self.occurred_at is not None:
            headers["Daybook-Occurred-At"] = self.occurred_at.isoformat()
        return headers


@dataclass(slots=True)
class Samples:
    """What was measured, in milliseconds, and the latest position of each stream that was acknowledged."""

    command_ms: list[float] = field(default_factory=list)
    freshness_ms: list[float] = field(default_factory=list)
    acknowledged: dict[str, int] = field(default_factory=dict)

    def acknowledge(self, positions: list[str]) -> None:
        for position in positions:
            stream, _, version = position.rpartition("@")
            self.acknowledged[stream] = max(int(version), self.acknowledged.get(stream, 0))


class Frontend:
    """One session over HTTP, and what it measured."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self.samples = Samples()
        self._session = session
        self._base = f"http://{address}/v1"
        self._writes = 0

    async def write(self, write: Write) -> Answer:
        """What became of it. Raises RefusedError, UnansweredError."""
        began = time.monotonic()
        for pause_s in _pauses():
            if answer := await self._sent(write):
                break
            await asyncio.sleep(pause_s)
        else:
            raise UnansweredError(f"{write.method} {write.path}")
        answered = time.monotonic()
        self.samples.command_ms.append((answered - began) * 1_000)
        self.samples.acknowledge(answer.document["positions"])
        await self._sample_freshness(write, answer, answered)
        return answer

    async def read(self, path: str, token: str = "", after: str = "") -> dict[str, Any]:
        """The document, showing at least what the receipt `after` names. Raises RefusedError, UnansweredError."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if after:
            headers["Daybook-After"] = after
        for pause_s in _pauses():
            if answer := await self._exchange("GET", path, headers, None):
                return answer.document
            await asyncio.sleep(pause_s)
        raise UnansweredError(f"GET {path}")

    async def _sent(self, write: Write) -> Answer | None:
        """None where its outcome is not known yet: to be sent again."""
        body = None if write.body is None else orjson.dumps(write.body)
        answer = await self._exchange(write.method, write.path, write.headers, body)
        if answer and answer.document.get("outcome") == "undecided":
            await self._await_decision(answer.document["command_id"], write.token)
            return None
        return answer

    async def _await_decision(self, command_id: str, token: str) -> None:
        """Returns when it is decided, or after a while; sent again, the write is then answered as at first."""
        for pause_s in _pauses():
            await asyncio.sleep(pause_s)
            try:
                await self.read(f"/commands/{command_id}", token)
            except RefusedError as refused:
                if refused.status != 404:
                    raise
            else:
                return

    async def _exchange(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None
    ) -> Answer | None:
        """One request. None where it should be tried again: no connection, no answer, or a 503."""
        try:
            async with self._session.request(
                method, URL(self._base + path, encoded=True), headers=headers, data=body
            ) as response:
                document = orjson.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError):
            return None
        if response.status == 503:
            return None
        if response.status >= 400:
            kind = str(document.get("type", "")).rpartition("/")[2]
            raise RefusedError(response.status, kind, str(document.get("detail", "")))
        return Answer(document, response.headers.get("Daybook-Receipt", ""))

    async def _sample_freshness(self, write: Write, answer: Answer, answered: float) -> None:
        self._writes += 1
        if write.seen_at and self._writes % SAMPLE_EVERY == 0:
            path = write.seen_at.format(**answer.document) if "{" in write.seen_at else write.seen_at
            await self.read(path, write.token, answer.receipt)
            self.samples.freshness_ms.append((time.monotonic() - answered) * 1_000)


def open_session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONNECTIONS),
        timeout=aiohttp.ClientTimeout(total=ATTEMPT_S),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


def _pauses() -> Iterator[float]:
    """Growing pauses, none the same as anybody else's, until it is time to give up."""
    gives_up_at = time.monotonic() + GIVE_UP_S
    pause_s = FIRST_PAUSE_S
    while time.monotonic() < gives_up_at:
        yield pause_s * random.uniform(0.5, 1.0)  # noqa: S311  # spreads load, keeps no secret
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
