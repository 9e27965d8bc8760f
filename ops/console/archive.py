"""The log, as far as a page may ask it: by few readers at once, each within a deadline."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import TypeVar

from ops.story import ReplayOf
from schemas.avro import Schema
from schemas.codec import Codec
from streams.replay import Extent, Log, Place, Portion, Query, Replay, ReplayFailed

PATIENCE_S = 20.0
READERS_MAX = 2

T = TypeVar("T")


class LogTooLong(ReplayFailed):
    """The log could not be gone through in time."""


class ArchiveBusy(Exception):
    """As many read the log as may."""


@dataclass(frozen=True)
class Archive:
    """`opened` gives a log of one's own, `schemas` those that writers published."""

    opened: Callable[[], Log]
    schemas: Callable[[], dict[str, Schema]]
    patience_s: float = PATIENCE_S
    _readers: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(READERS_MAX))

    async def ask(self, question: Callable[[ReplayOf], T]) -> T:
        """What `question` finds in the log. Raises ArchiveBusy, LogTooLong, ReplayFailed, KafkaException, NoStory.

        A reader that nobody waits for any more goes on until its deadline, and counts until then.
        """
        if self._readers.locked():
            raise ArchiveBusy(f"{READERS_MAX} others are reading the log at the moment")
        await self._readers.acquire()
        reading = asyncio.create_task(asyncio.to_thread(self._asked, question))
        reading.add_done_callback(self._let_go)
        return await asyncio.shield(reading)

    def _asked(self, question: Callable[[ReplayOf], T]) -> T:
        with closing(_Hurried(self.opened(), self.patience_s)) as log:
            return question(lambda query: _replay(log, query, self.schemas))

    def _let_go(self, reading: "asyncio.Task[T]") -> None:
        self._readers.release()
        if not reading.cancelled():
            reading.exception()  # if the visitor has gone, nobody else asks for it


def _replay(log: Log, query: Query, schemas: Callable[[], dict[str, Schema]]) -> Replay:
    return Replay(log, query, Codec(), schemas)


class _Hurried:
    """A log that is read until a deadline, counted over all readings."""

    def __init__(self, log: Log, patience_s: float) -> None:
        self._log = log
        self._patience_s = patience_s
        self._until = time.monotonic() + patience_s

    def extents(self, topics: Iterable[str]) -> dict[Place, Extent]:
        return self._log.extents(topics)

    def since(self, places: Iterable[Place], at_ms: int) -> dict[Place, int]:
        return self._log.since(places, at_ms)

    def portions(
        self, starts: Mapping[Place, int], ends: Mapping[Place, int], *, follow: bool
    ) -> Iterator[Portion]:
        for portion in self._log.portions(starts, ends, follow=follow):
            yield portion
            if time.monotonic() > self._until:
                raise LogTooLong(f"the log could not be gone through within {self._patience_s:.0f} s")

    def close(self) -> None:
        self._log.close()
