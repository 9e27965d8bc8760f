"""One thread, one connection, one commit for everybody who waits.

A durable commit costs an fsync, whatever it carries. So the thread takes what has queued up while
the disk was busy with the previous commit, does it all in one transaction, and only then answers.
"""

import asyncio
import queue
from dataclasses import dataclass
from threading import Thread

from ops.payment_sandbox.laws import Answer, Ask
from ops.payment_sandbox.ledger import Ledger

LARGEST_COMMIT = 256


class OverloadedError(Exception):
    """As many requests wait as may wait; nothing was done for this one."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    ask: Ask
    answer: asyncio.Future[Answer]


class GroupCommit:
    """Serializes the asks of one event loop into the ledger; at most `capacity` of them wait."""

    def __init__(self, ledger: Ledger, capacity: int) -> None:
        self._ledger = ledger
        self._queue: queue.Queue[_Waiting | None] = queue.Queue(capacity)  # None: no more will come
        self._thread = Thread(target=self._run, name="group-commit", daemon=True)

    def start(self) -> None:
        """Begin to serve the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Finish what waits, then end the thread. Nobody may ask any more."""
        await asyncio.to_thread(self._queue.put, None)
        await asyncio.to_thread(self._thread.join)

    def alive(self) -> bool:
        """Whether asks are being served."""
        return self._thread.is_alive()

    async def answer(self, ask: Ask) -> Answer:
        """The durable answer to `ask`; raises OverloadedError, or `sqlite3.Error` when it was not stored."""
        waiting = _Waiting(ask, self._loop.create_future())
        try:
            self._queue.put_nowait(waiting)
        except queue.Full:
            raise OverloadedError from None
        return await waiting.answer

    def _run(self) -> None:
        more = True
        while more:
            batch = self._gather()
            more = None not in batch
            self._commit([waiting for waiting in batch if waiting is not None])

    def _gather(self) -> list[_Waiting | None]:
        batch = [self._queue.get()]
        while len(batch) < LARGEST_COMMIT and not self._queue.empty():
            batch.append(self._queue.get_nowait())  # never empty: nobody else takes
        return batch

    def _commit(self, batch: list[_Waiting]) -> None:
        if not batch:
            return
        try:
            answers = self._ledger.answer_all([waiting.ask for waiting in batch])
        except Exception as error:  # noqa: BLE001  whatever it was, those who wait must hear of it
            self._loop.call_soon_threadsafe(_fail, batch, error)
        else:
            self._loop.call_soon_threadsafe(_resolve, batch, answers)


def _resolve(batch: list[_Waiting], answers: list[Answer]) -> None:
    for waiting, answer in zip(batch, answers, strict=True):
        if not waiting.answer.done():  # cancelled: its request is gone, its effect is not
            waiting.answer.set_result(answer)


def _fail(batch: list[_Waiting], error: Exception) -> None:
    for waiting in batch:
        if not waiting.answer.done():
            waiting.answer.set_exception(error)
