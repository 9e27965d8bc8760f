"""Signed webhooks, after the Standard Webhooks specification: each notice is sent until somebody answers 2xx.

With at most `AT_ONCE_MAX` under way, and a pause that doubles up to a minute. The modes make it misbehave as
real providers and their impostors do.
"""

import asyncio
import base64
import hmac
import os
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

import aiohttp

from ops.payment_sandbox.notices import Notice, Outbox

AT_ONCE_MAX = 16
TIMEOUT_S = 5.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 60.0
STALE_BY_S = 600
HELD_BACK_S = 1.0
PREFIX = "whsec_"


class Mode(StrEnum):
    """How the sender misbehaves."""

    DUPLICATE = "duplicate"  # tells everything twice
    REORDERED = "reordered"  # tells of an authorization a second late, so that its capture overtakes it
    BEFORE_RESPONSE = "before_response"  # tells first, and answers the request only when it was heard
    FORGED = "forged"  # sends a lie before each notice, signed with another's secret
    STALE = "stale"  # sends each notice ten minutes old, rightly signed, before it sends it fresh


@dataclass(frozen=True, slots=True)
class Envelope:
    """One request to come; `kind` is "true" for the one whose answer counts, else the mode it comes from."""

    kind: str
    headers: Mapping[str, str]
    body: bytes


def sign(secrets: Sequence[bytes], event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers, signed with every secret: while one replaces another, both are known somewhere."""
    content = f"{event_id}.{timestamp}.".encode() + body
    digests = (hmac.new(secret, content, sha256).digest() for secret in secrets)
    signatures = (f"v1,{base64.b64encode(digest).decode()}" for digest in digests)
    named = {"webhook-id": event_id, "webhook-timestamp": str(timestamp)}
    return named | {"webhook-signature": " ".join(signatures), "content-type": "application/json"}


def read_secrets(path: Path) -> list[bytes]:
    """One `whsec_…` on each line; none where there is no file. ValueError where a line is none."""
    try:
        lines = path.read_text("ascii").split()
    except FileNotFoundError:
        return []
    return [base64.b64decode(line.removeprefix(PREFIX), validate=True) for line in lines]


def envelopes(
    notice: Notice, secrets: Sequence[bytes], modes: frozenset[Mode], now: int
) -> Sequence[Envelope]:
    """What is sent for a notice, in this order; the last one is true."""
    body, found = notice.body.encode(), []
    if Mode.FORGED in modes:
        lie = body.replace(b'"amount": ', b'"amount": 9')
        found.append(Envelope("forged", sign([os.urandom(24)], f"{notice.event_id}f", now, lie), lie))
    if Mode.STALE in modes:
        found.append(Envelope("stale", sign(secrets, notice.event_id, now - STALE_BY_S, body), body))
    true = Envelope("true", sign(secrets, notice.event_id, now, body), body)
    return [*found, *([true] * (2 if Mode.DUPLICATE in modes else 1))]


@dataclass(frozen=True)
class Route:
    """Where the webhooks go, where the secrets lie, and how the sender misbehaves."""

    target: str
    secrets: Path
    modes: frozenset[Mode] = frozenset()


class Sender:
    """Sends from the outbox, in the loop in which it was started, until it is stopped; a new process goes on."""

    def __init__(self, outbox: Outbox, route: Route) -> None:
        self.modes = route.modes
        self._outbox = outbox
        self._route = route
        self._news = asyncio.Event()
        self._settled = asyncio.Event()
        self._answers: Counter[tuple[str, str]] = Counter()

    def start(self) -> None:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(TIMEOUT_S),
            connector=aiohttp.TCPConnector(limit=AT_ONCE_MAX),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """What is under way is given up, and sent again by the next process."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self._session.close()
        self._outbox.close()

    def wake(self) -> None:
        """There may be something new to tell."""
        self._news.set()

    async def until_heard(self, key: str) -> None:
        """Returns when what was asked under `key` has been heard."""
        while self._outbox.holds(key):
            await self._settled.wait()

    def account(self) -> dict[str, object]:
        """How many notices wait, and what this process was answered, by kind and status."""
        answers: dict[str, dict[str, int]] = {}
        for (kind, status), count in sorted(self._answers.items()):
            answers.setdefault(kind, {})[status] = count
        return {"waiting": self._outbox.waiting(), "answers": answers}

    async def _run(self) -> None:
        while True:
            self._news.clear()
            try:
                busy = await self._send_due()
            except (
                sqlite3.Error,
                OSError,
                ValueError,
            ) as error:  # the table is locked, the secrets unreadable
                print(f"webhooks wait: {type(error).__name__}", file=sys.stderr, flush=True)
                await asyncio.sleep(FIRST_PAUSE_S)
                continue
            if not busy:
                await self._rest()

    async def _send_due(self) -> bool:
        """Whether there was anything to send."""
        notices = self._outbox.due(time.time(), AT_ONCE_MAX)
        if not notices:
            return False
        secrets = read_secrets(self._route.secrets)
        heard = await asyncio.gather(*(self._tell(notice, secrets) for notice in notices))
        done = [notice.seq for notice, was_heard in zip(notices, heard, strict=True) if was_heard]
        again = [
            (time.time() + self._pause_after(notice), notice.seq)
            for notice, was_heard in zip(notices, heard, strict=True)
            if not was_heard
        ]
        self._outbox.settle(done, again)
        self._settled.set()
        self._settled = asyncio.Event()
        return True

    async def _rest(self) -> None:
        """Until there is news, or the next notice is due."""
        due_at = self._outbox.next_due()
        pause_s = None if due_at is None else max(0.0, due_at - time.time())
        with suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), pause_s)

    async def _tell(self, notice: Notice, secrets: Sequence[bytes]) -> bool:
        """Whether it was heard. Without a secret nothing can be signed, so nothing is told."""
        if not secrets or self._is_held_back(notice):
            return False
        heard = False
        for envelope in envelopes(notice, secrets, self.modes, int(time.time())):
            status = await self._post(envelope)
            self._answers[envelope.kind, status] += 1
            heard = envelope.kind == "true" and status.startswith("2")
        return heard

    def _is_held_back(self, notice: Notice) -> bool:
        is_first = notice.tries == 0 and notice.body.startswith('{"type": "authorization.')
        return Mode.REORDERED in self.modes and is_first

    def _pause_after(self, notice: Notice) -> float:
        if self._is_held_back(notice):
            return HELD_BACK_S
        return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(notice.tries, 16))

    async def _post(self, envelope: Envelope) -> str:
        """The status of the answer, or the name of what came instead of one."""
        try:
            async with self._session.post(
                self._route.target, data=envelope.body, headers=envelope.headers, allow_redirects=False
            ) as response:
                return str(response.status)
        except (TimeoutError, aiohttp.ClientError) as error:
            return type(error).__name__
