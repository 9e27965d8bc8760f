"""Compares the read models with the auditor's own fold, and never takes what is merely late for what is wrong.

A row differs for good if, before and after a cut that both the auditor and the view have passed, the same is held and the
same expected: what the store held before the cut cannot be newer than the cut, and what it holds after it cannot be
older; nor can what we expect. Whatever moved meanwhile is looked at again.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, Protocol

import structlog

from ops.audit.desk import Place
from ops.audit.kept import Drift, KeptBreaches
from ops.audit.mirror import Mirror
from ops.audit.tables import KeptBooks, KeptTable
from projections.compare import digest
from projections.heal import Healable
from projections.view import Partition
from schemas.topics import Topics

SAMPLE_EVERY_S = 5.0
SAMPLE_ROWS = 8
SWEEP_EVERY_S = 10.0
SWEEP_ROWS = 256
"""So many rows of each view are swept at once: an idle Daybook's sweep must cost next to nothing."""

LOOKS = 4
CUT_WITHIN_S = 30.0
LOOK_AGAIN_S = 0.1

log = structlog.get_logger(__name__)


class PositionedStore(Healable, Protocol):
    """A store that tells how far it has come."""

    async def positions(self, partitions: Iterable[Partition]) -> dict[Partition, int]: ...

    async def close(self) -> None: ...


class Progress(Protocol):
    """How far the auditor has read (`Follower`)."""

    behind: dict[Place, int]

    def ends(self, places: Iterable[Place] | None = None) -> dict[Place, int]: ...

    def has_reached(self, ends: Mapping[Place, int]) -> bool: ...


class Suspect(NamedTuple):
    """What a row of a generation holds, and what it should, as digests; empty where there is nothing."""

    generation: int
    held: bytes
    expected: bytes


@dataclass
class Comparison:
    """One view, compared by sample and by sweep. All its methods raise StoreUnavailable."""

    mirror: Mirror
    store: PositionedStore
    topics: Topics
    progress: Progress
    books: KeptBooks
    breaches: KeptBreaches
    compared: int = 0
    sweeps: int = 0

    def __post_init__(self) -> None:
        self._view = self.mirror.view
        self._seen: KeptTable[tuple[int]] = self.books.table(f"seen-{self._view.title}")
        self._sweep: KeptTable[tuple[int]] = self.books.table("sweeps")

    async def sample(self, draw: random.Random) -> None:
        """Some of the rows that changed last, and those that were wrong when they were last looked at."""
        recent = draw.sample(list(self.mirror.recent), min(SAMPLE_ROWS, len(self.mirror.recent)))
        self.mirror.recent.clear()
        wrong = [drift.name for drift in self.breaches.drifts() if drift.view == self._view.name]
        await self.look_at([*dict.fromkeys((*recent, *wrong[:SAMPLE_ROWS]))])

    async def sweep(self, pause: Callable[[], Awaitable[None]]) -> None:
        """Every row of the store, then every row that there should be and was not seen; `pause` after each piece."""
        (number,) = self._sweep.get(self._view.title) or (0,)
        number += 1
        generation, piece = await self.store.live(self._view), dict[str, bytes]()
        async for name, content in self.store.rows(self._view, generation):
            piece[name] = content
            if len(piece) == SWEEP_ROWS:
                await self._sweep_piece(number, generation, piece)
                piece = {}
                await pause()
        await self._sweep_piece(number, generation, piece)
        await self._look_for_missing(number, pause)
        self._sweep[self._view.title] = (number,)
        self.books.commit()
        self.sweeps += 1

    async def look_at(self, names: list[str]) -> None:
        if names:
            generation = await self.store.live(self._view)
            held = await self.store.held(self._view, generation, names)
            await self._confirm(self._differing(generation, held))

    async def _sweep_piece(self, number: int, generation: int, piece: Mapping[str, bytes]) -> None:
        for name in piece:
            self._seen[name] = (number,)
        self.books.commit()
        await self._confirm(self._differing(generation, piece))

    async def _look_for_missing(self, number: int, pause: Callable[[], Awaitable[None]]) -> None:
        start = ""
        while names := list(islice(self.mirror.names_from(start), SWEEP_ROWS)):
            self._forget_expired(names)
            await self.look_at([name for name in names if self._seen.peek(name) != (number,)])
            start = names[-1] + "\0"
            await pause()

    def _forget_expired(self, names: Iterable[str]) -> None:
        now = time.time_ns() // 1_000
        for name in names:
            row = self.mirror.row(name)
            if row is not None and 0 < row.expires_at < now:
                self.mirror.forget(name)
                self._seen.pop(name)
        self.books.commit()

    def _differing(self, generation: int, held: Mapping[str, bytes | None]) -> dict[str, Suspect]:
        self.compared += len(held)
        found = {}
        for name, content in held.items():
            row, is_there = self.mirror.row(name), content is not None
            there = digest(content) if content is not None else b""
            expected = row.digest if row is not None else b""
            if there == expected:
                self.breaches.mended(self._view.name, name)
            elif not (row is not None and self._is_excused(row.stream, row.expires_at, is_there=is_there)):
                found[name] = Suspect(generation, there, expected)
        return found

    def _is_excused(self, stream: str, expires_at: int, *, is_there: bool) -> bool:
        forgotten = not is_there and 0 < expires_at <= time.time_ns() // 1_000
        return forgotten or self.mirror.is_stuck(stream)

    async def _confirm(self, suspects: dict[str, Suspect]) -> None:
        for _ in range(LOOKS):
            if not suspects or not await self._pass_a_cut():
                return
            generation = await self.store.live(self._view)
            now = self._differing(generation, await self.store.held(self._view, generation, list(suspects)))
            for name, suspect in now.items():
                if suspects.get(name) == suspect:
                    self._report(name, suspect)
            suspects = {name: one for name, one in now.items() if suspects.get(name) != one}

    async def _pass_a_cut(self) -> bool:
        """Whether both have come as far as the log went just now; the view may stand still."""
        deadline = time.monotonic() + CUT_WITHIN_S
        places = [
            (topic, n) for topic in self._view.topics(self.topics) for n in range(self.topics.partitions)
        ]
        ends = await asyncio.to_thread(self.progress.ends, places)
        while not self.progress.has_reached(ends):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(LOOK_AGAIN_S)
        # Markers follow the last record, which a store need not have seen.
        wanted = {place: self.progress.behind[place] for place in places}
        while True:
            at = await self.store.positions(wanted)
            if all(at[place] >= end for place, end in wanted.items()):
                return True
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(LOOK_AGAIN_S)

    def _report(self, name: str, suspect: Suspect) -> None:
        kind = "missing" if not suspect.held else "extra" if not suspect.expected else "differs"
        row = self.mirror.row(name)
        stream, version = (row.stream, row.version) if row is not None else ("", 0)
        self.breaches.drifted(Drift(self._view.name, name, kind, stream, version))
