"""One connection to Redis that all callers share: requests go out together, answers come back in order.

redis-py spends 40 µs on a command in a pipeline, most of it on a timeout of its own for each answer; this spends 2.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import hiredis

from projections.view import StoreUnavailable

Command: TypeAlias = tuple[str | bytes | int | float, ...]

WAITING_MAX = 20_000
"""So many commands may wait for their answers; more are refused."""


class UnknownScript(Exception):
    """The server does not know a script (any more): load it, and ask again."""


@dataclass(slots=True)
class _Asked:
    """A request of `count` commands, and the answers it has got so far."""

    count: int
    done: asyncio.Future[list[Any]]
    answers: list[Any] = field(default_factory=list)


class _Wire(asyncio.Protocol):
    """The bytes of one connection. What is asked within one turn of the loop is sent in one piece."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = hiredis.Reader()
        self._asked: deque[_Asked] = deque()
        self._unsent: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self.lost = asyncio.Event()
        self.waiting = 0

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, commands: Sequence[Command]) -> asyncio.Future[list[Any]]:
        asked = _Asked(len(commands), self._loop.create_future())
        self._asked.append(asked)
        self.waiting += asked.count
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.extend(hiredis.pack_command(command) for command in commands)  # type: ignore[arg-type]  # its types know tuples of one only
        return asked.done

    def _send(self) -> None:
        if self._transport is not None:
            self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A stream is what was opened; uvloop's transports are of no class of asyncio's, so no isinstance here.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed(data)
        while (answer := self._parser.gets()) is not False:
            asked = self._asked[0]
            asked.answers.append(answer)
            self.waiting -= 1
            if len(asked.answers) == asked.count:
                self._asked.popleft()
                if not asked.done.done():  # its caller may have gone
                    asked.done.set_result(asked.answers)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        for asked in self._asked:
            if not asked.done.done():
                asked.done.set_exception(ConnectionResetError(f"redis closed the connection: {exc}"))
        self._asked.clear()

    async def close(self) -> None:
        """Whatever still waits for an answer fails."""
        if self._transport is not None:
            self._transport.abort()
            await self.lost.wait()


class RedisConnection:
    """Opened when first needed, and again after it broke. All that is asked through it may be asked twice."""

    def __init__(self, address: str, timeout_s: float) -> None:
        host, _, port = address.rpartition(":")
        self._host, self._port, self._timeout_s = host, int(port), timeout_s
        self._wire: _Wire | None = None
        self._opening = asyncio.Lock()

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """The answers, in order. Raises StoreUnavailable, also if a single one of them is an error (loading, out of
        memory), and UnknownScript; the others have then been carried out all the same.
        """
        if not commands:
            return []
        try:
            async with asyncio.timeout(self._timeout_s):
                answers = await self._answers(commands)
        except TimeoutError as error:
            await self.close()  # the answer may still come, and would be taken for the next one's
            raise StoreUnavailable(f"redis did not answer within {self._timeout_s} s") from error
        except OSError as error:
            raise StoreUnavailable(f"redis: {error}") from error
        for answer in answers:
            if isinstance(answer, hiredis.ReplyError):
                raise _error_of(str(answer))
        return answers

    async def close(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            await wire.close()

    async def _answers(self, commands: Sequence[Command]) -> list[Any]:
        was_open = self._wire is not None
        try:
            return await (await self._opened()).ask(commands)
        except ConnectionError:
            if not was_open:
                raise
            return await (await self._opened()).ask(commands)  # the server was restarted since we last asked

    async def _opened(self) -> _Wire:
        async with self._opening:
            if self._wire is None or not self._wire.is_open:
                loop = asyncio.get_running_loop()
                _, self._wire = await loop.create_connection(_Wire, self._host, self._port)
        if self._wire.waiting > WAITING_MAX:
            raise StoreUnavailable(f"redis: {self._wire.waiting} commands wait for an answer")
        return self._wire


def _error_of(message: str) -> Exception:
    if message.startswith("NOSCRIPT"):
        return UnknownScript(message)
    return StoreUnavailable(f"redis: {message}")
