"""The desk: where the tokens that misbehave do so, around one durable answer."""

import asyncio
from collections.abc import Awaitable, Callable

from ops.payment_sandbox.group_commit import GroupCommit
from ops.payment_sandbox.laws import Answer, Ask, Token
from ops.payment_sandbox.ledger import Ledger
from ops.payment_sandbox.webhooks import Mode, Sender

TOLD_STATUSES = frozenset({201, 402})


class ClosingError(Exception):
    """The sandbox is going down; nothing was done."""


class Desk:
    """Serves asks; all durations are seconds. Without a `sender` nobody hears of anything unasked."""

    def __init__(
        self, ledger: Ledger, queue_limit: int, slow_s: float, hang_s: float, sender: Sender | None = None
    ) -> None:
        self._ledger = ledger
        self._commit = GroupCommit(ledger, queue_limit)
        self._slow_s = slow_s
        self._hang_s = hang_s
        self._sender = sender
        self._closing = asyncio.Event()

    def open(self) -> None:
        """Begin to serve the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._commit.start()
        if self._sender:
            self._sender.start()

    def close_soon(self) -> None:
        """End every pause now; safe in a signal handler."""
        self._loop.call_soon_threadsafe(self._closing.set)

    async def close(self) -> None:
        """Finish what waits and let go of the ledger."""
        await self._commit.stop()
        if self._sender:
            await self._sender.stop()
        self._ledger.close()

    def alive(self) -> bool:
        """Whether asks are being served."""
        return self._commit.alive()

    async def serve(self, ask: Ask, client_left: Callable[[], Awaitable[object]]) -> Answer:
        """The durable answer to `ask`, in the time its token takes.

        Raises ClosingError, OverloadedError, or `sqlite3.Error`; after each of them nothing was done.
        """
        await self._dawdle_before(ask)
        answer = await self._commit.answer(ask)
        await self._tell(ask, answer)
        if ask.token == Token.TIMEOUT_AFTER_SUCCESS and not answer.replayed:
            await self._pause(self._hang_s, client_left())
        return answer

    async def _tell(self, ask: Ask, answer: Answer) -> None:
        if self._sender is None or answer.replayed:
            return
        self._sender.wake()
        if Mode.BEFORE_RESPONSE in self._sender.modes and answer.status in TOLD_STATUSES:
            await self._pause(self._hang_s, self._sender.until_heard(ask.key))

    async def _dawdle_before(self, ask: Ask) -> None:
        # The effect comes after the delay: late facts, long after the caller gave up, are the point.
        # What is known already is answered at once, or a caller less patient than we are slow never hears.
        if ask.token != Token.SLOW or await asyncio.to_thread(self._ledger.knows, ask.key):
            return
        await self._pause(self._slow_s)
        if self._closing.is_set():
            raise ClosingError

    async def _pause(self, seconds: float, *ends: Awaitable[object]) -> None:
        """Wait `seconds`, or until the sandbox closes or one of `ends` comes."""
        awaited = [asyncio.ensure_future(end) for end in (self._closing.wait(), *ends)]
        try:
            await asyncio.wait(awaited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for future in awaited:
                future.cancel()
