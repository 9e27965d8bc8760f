"""The batch engine: brings one generation of a view as far as the log, from wherever it stands."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from projections.compare import Comparable
from projections.generations import Generations
from projections.view import Batch, Partition, Poison, PositionMoved, View, ViewStore

ROUNDS = 3
"""So often a store may be emptied while it is filled."""

POISONS_MAX = 1_000
"""So many streams that stand still are named."""


class RebuildFailed(Exception):
    """The live generation kept running ahead of the next one, or a store kept moving; the message says which."""


class Rebuildable(ViewStore, Comparable, Generations, Protocol):
    """A store that can hold several generations of a view. All raise StoreUnavailable."""

    async def places(
        self, view: Any, generation: int, partitions: Iterable[Partition]
    ) -> dict[Partition, int]:
        """The next offset of a generation in each partition, 0 where nothing was applied."""

    async def held(self, view: Any, generation: int, names: list[str]) -> Mapping[str, bytes | None]:
        """What rows hold (None: there is none), by the names that `rows` gives them."""

    def undeclared(self, view: Any, name: str, content: bytes) -> bytes | None:
        """What a row holds beside what its view has declared to be new; None: that is all it holds."""


class Log(Protocol):
    """The daybook, read from wherever one likes."""

    def ends(self, topics: Iterable[str]) -> dict[Partition, int]:
        """Where each partition of these topics ends now."""

    def batches(self, partition: Partition, start: int, end: int) -> Iterator[Batch]:
        """All records from `start` on, up to `end`; the last batch's `next` is `end` or beyond."""


@dataclass
class Course:
    """How far a rebuild is, for whoever watches. Offsets, not records: the marks that transactions leave count too."""

    stage: str = "preparing"
    generation: int = 0
    rows: int = 0
    first: Mapping[Partition, int] = field(default_factory=dict)
    at: Mapping[Partition, int] = field(default_factory=dict)
    ends: Mapping[Partition, int] = field(default_factory=dict)
    _began: float = 0.0

    def building(self, at: Mapping[Partition, int], ends: Mapping[Partition, int]) -> None:
        """From now on `at` is looked at, which whoever builds changes as he goes."""
        if not self.ends:
            self.stage, self.first, self._began = "building", dict(at), time.monotonic()
        self.at, self.ends = at, ends

    @property
    def read(self) -> int:
        return sum(self.at.values())

    @property
    def total(self) -> int:
        return sum(self.ends.values())

    @property
    def resumed(self) -> int:
        """Where it went on, if somebody had begun before."""
        return sum(self.first.values())

    @property
    def per_s(self) -> float:
        """Of what was read since it began, or went on."""
        return (self.read - self.resumed) / max(time.monotonic() - self._began, 1e-9)

    @property
    def left_s(self) -> float | None:
        """None as long as nothing is known about it."""
        return max(0, self.total - self.read) / self.per_s if self.per_s > 0 else None


@dataclass
class Build:
    """One generation, filled. `store` is pinned to it. Killed anywhere, another one goes on from where the store says.

    `at` is where it stands: at `ends` or a little further, since batches are applied whole.
    """

    view: View[Any]
    topics: tuple[str, ...]
    store: Rebuildable
    source: Log
    course: Course
    records: int = 0
    poisons: dict[str, Poison] = field(default_factory=dict)
    ends: dict[Partition, int] = field(default_factory=dict)
    at: dict[Partition, int] = field(default_factory=dict)
    was_emptied: bool = False

    async def catch_up(self) -> None:
        """Apply what the log holds by now."""
        self.ends = await asyncio.to_thread(self.source.ends, self.topics)
        self.at = await self.store.positions(self.ends)
        self.course.building(self.at, self.ends)
        for partition, end in self.ends.items():
            for _ in range(ROUNDS):
                try:
                    await self._apply_until(partition, end)
                    break
                except PositionMoved:
                    self.was_emptied = True  # go on from where it says it is
            else:
                raise RebuildFailed(f"{self.store.name} does not keep its position in {partition}")

    async def _apply_until(self, partition: Partition, end: int) -> None:
        position = (await self.store.positions([partition]))[partition]
        batches = self.source.batches(partition, position, end) if position < end else iter(())
        upcoming = _next_of(batches)
        try:
            while batch := await upcoming:
                upcoming = _next_of(batches)  # is read and decoded while the store takes this one
                await self._apply(batch)
                self.at[partition] = batch.next
        finally:
            await asyncio.wait([upcoming])  # nobody else may read meanwhile

    async def _apply(self, batch: Batch) -> None:
        left = batch
        while poisons := await self.store.apply(left):
            left = left.without(poisons)
            for poison in poisons:
                if len(self.poisons) < POISONS_MAX:
                    self.poisons.setdefault(poison.stream, poison)
        self.records += len(batch.records)


def _next_of(batches: Iterator[Batch]) -> "asyncio.Task[Batch | None]":
    return asyncio.create_task(asyncio.to_thread(next, batches, None))
