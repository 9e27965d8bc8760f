"""The one way in which a batch gets into a store: check the position, fold, write the documents, then the position."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from projections.view import (
    Batch,
    Fact,
    Offered,
    Partition,
    Poison,
    PositionMoved,
    View,
    fold,
    offered,
)
from schemas.topics import Topics

V = TypeVar("V", bound=View[Any])

CACHE_WEIGHT = 6_000
"""Documents kept in memory per view, by weight: about 2.5 MB."""


@dataclass(frozen=True, slots=True)
class Stand:
    """Which generation of a view is live, and its next offset in one partition."""

    generation: int
    next: int


@dataclass(frozen=True, slots=True)
class Folded:
    """What a batch makes of a view's documents: as they were in the store (None: not there) and as they are now.

    `steps` are, for views that write a row per fact, each document before its fact.
    """

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    steps: Sequence[tuple[Any, Fact]]


class FoldingStore(ABC, Generic[V]):
    """A store of views. Documents go first (each by its version, so twice is once), then the position by
    compare-and-set: a crash between the two repeats what was written, and a stale writer loses both.

    `pinned` is the generation to write, whatever is live: a rebuild's.
    """

    name: str
    pace_s = 0.0

    def __init__(self, views: Sequence[V], pinned: int | None = None) -> None:
        self.views = tuple(views)
        self._pinned = pinned
        self._caches = {view.title: Cache() for view in views}
        self._left_at: dict[Partition, int] = {}

    def topics(self, topics: Topics) -> list[str]:
        return [topic for view in self.views for topic in view.topics(topics)]

    async def positions(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The next offset of each partition (0: nothing was applied); raises StoreUnavailable."""
        return {
            (topic, number): (await self._stand(self._view_of(topic), topic, number)).next
            for topic, number in partitions
        }

    async def apply(self, batch: Batch) -> list[Poison]:
        """As `view.ViewStore` says."""
        view = self._view_of(batch.topic)
        stand = await self._stand(view, batch.topic, batch.partition)
        cache = self._cache_of(view, stand.generation)
        here = batch.topic, batch.partition
        moved = stand.next != batch.expected
        if moved or stand.next != self._left_at.get(here, stand.next):
            cache.clear()  # flushed or restored meanwhile, even if the source knew it before us
        self._left_at[here] = stand.next
        if moved:
            raise PositionMoved(stand.next)
        facts, poisons = offered(view, batch.records)
        folded, unfolded = await self._fold(view, stand.generation, cache, facts)
        if folded.after:
            await self._write(view, stand.generation, folded)
        if poisons or unfolded:
            # The position stays: who named the poison comes back with the rest once the letters are written.
            return sorted([*poisons, *unfolded], key=lambda poison: poison.offset)
        if batch.next != batch.expected:
            await self._advance_or_forget(view, stand.generation, batch)
        # Only now: a batch that failed half-way must find the documents as they were before it.
        cache.keep(folded.after, view)
        self._left_at[here] = batch.next
        return []

    async def _fold(
        self, view: V, generation: int, cache: "Cache", facts: Sequence[Offered]
    ) -> tuple[Folded, list[Poison]]:
        before = cache.get({one.fact.stream for one in facts})
        missed = [stream for stream, document in before.items() if document is None]
        if missed:
            before |= await self._load(view, generation, missed)
        documents = {stream: document for stream, document in before.items() if document is not None}
        steps: list[tuple[Any, Fact]] = []
        step = (lambda document, fact: steps.append((document, fact))) if self._wants_steps(view) else None
        poisons = fold(view, documents, facts, step)
        after = {stream: now for stream, now in documents.items() if now is not before[stream]}
        return Folded(before, after, steps), poisons

    async def _advance_or_forget(self, view: V, generation: int, batch: Batch) -> None:
        stand = await self._advance(view, generation, batch)
        if stand != Stand(generation, batch.next):
            self._caches[view.title].clear()
            raise PositionMoved(stand.next)

    def _cache_of(self, view: V, generation: int) -> "Cache":
        cache = self._caches[view.title]
        if cache.generation != generation:
            cache.clear()
            cache.generation = generation
        return cache

    def _view_of(self, topic: str) -> V:
        for view in self.views:
            if view.reads(topic):
                return view
        raise LookupError(f"no view of {self.name} reads {topic}")

    def _wants_steps(self, view: V) -> bool:  # noqa: ARG002  # a store that writes a row per fact says so
        return False

    @abstractmethod
    async def _stand(self, view: V, topic: str, partition: int) -> Stand: ...

    @abstractmethod
    async def _load(self, view: V, generation: int, streams: Sequence[str]) -> dict[str, Any]:
        """The documents of these streams, None where there is none."""

    @abstractmethod
    async def _write(self, view: V, generation: int, folded: Folded) -> None:
        """Write what changed, unless the store has something newer."""

    @abstractmethod
    async def _advance(self, view: V, generation: int, batch: Batch) -> Stand:
        """Compare-and-set the position; returns where the store stands now, whether it worked or not."""


@dataclass
class Cache:
    """The documents used last, of one generation."""

    generation: int = 0
    limit: int = CACHE_WEIGHT
    _weight: int = 0
    _documents: "OrderedDict[str, tuple[Any, int]]" = field(default_factory=OrderedDict)

    def get(self, streams: Iterable[str]) -> dict[str, Any]:
        return {stream: self._get(stream) for stream in streams}

    def _get(self, stream: str) -> Any | None:
        try:
            self._documents.move_to_end(stream)
        except KeyError:
            return None
        return self._documents[stream][0]

    def keep(self, documents: Mapping[str, Any], view: View[Any]) -> None:
        for stream, document in documents.items():
            self._drop(stream)
            weight = view.weigh(document)
            self._documents[stream] = (document, weight)
            self._weight += weight
        while self._weight > self.limit:
            self._drop(next(iter(self._documents)))

    def _drop(self, stream: str) -> None:
        _, weight = self._documents.pop(stream, (None, 0))
        self._weight -= weight

    def clear(self) -> None:
        self._documents.clear()
        self._weight = 0
