"""The one way in which a batch gets into a store: fold it, and write documents and position where the store still stands."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
    topics_of,
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
    """A store of views. Documents go in each by its version, so twice is once, and the position goes with them or after
    them, if it is still the one that the batch begins at: a crash in between repeats what was written, and of two
    writers the stale one loses.

    `pinned` is the generation to write, whatever is live: a rebuild's. `checks_as_it_writes`: a batch that does not
    begin where the store stands writes nothing there, so it need not be asked before.
    """

    name: str
    checks_as_it_writes = False

    def __init__(self, views: Sequence[V], pinned: int | None = None) -> None:
        self.views = tuple(views)
        self._pinned = pinned
        self._caches = {view.title: Cache() for view in views}
        self._left_at: dict[Partition, Stand] = {}

    def topics(self, topics: Topics) -> list[str]:
        return topics_of(self.views, topics)

    async def positions(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The next offset of each partition (0: nothing was applied); raises StoreUnavailable.

        Who asks has not read them up to now: what we remember of them somebody else may have written on meanwhile.
        """
        found: dict[Partition, int] = {}
        for topic, number in partitions:
            view = self._view_of(topic)
            self._left_at.pop((topic, number), None)
            self._caches[view.title].clear()
            found[topic, number] = (await self._stand(view, topic, number)).next
        return found

    async def apply(self, batch: Batch) -> list[Poison]:
        """As `view.ViewStore` says."""
        view, here = self._view_of(batch.topic), (batch.topic, batch.partition)
        stand = await self._stand_before(view, batch)
        cache = self._cache_of(view, stand.generation)
        if stand.next != batch.expected:
            cache.clear()  # it was emptied, or restored
            raise PositionMoved(stand.next)
        facts, named = offered(view, batch.records)
        folded, unfolded = await self._fold(view, stand.generation, cache, facts)
        poisons = sorted([*named, *unfolded], key=lambda poison: poison.offset)
        # With poison the position stays: who named it comes back with the rest once the letters are written.
        then = replace(stand, next=batch.expected if poisons else batch.next)
        found = await self._put(view, batch, folded, then)
        if found != then:
            cache.clear()
            self._left_at.pop(here, None)
            raise PositionMoved(found.next)
        if self.checks_as_it_writes:
            self._left_at[here] = then
        # Only now: a batch that failed half-way must find the documents as they were before it. And only what the position
        # speaks for: the store may lose the rest, and stand where it stood.
        if then.next != batch.expected:
            cache.keep(folded.after, view)
        else:
            cache.forget(folded.after)
        return poisons

    async def _stand_before(self, view: V, batch: Batch) -> Stand:
        """Where we left the store, if it checks that as it writes; else where it says that it stands."""
        here = batch.topic, batch.partition
        left = self._left_at.get(here)
        if left is not None and left.next == batch.expected:
            return left
        return await self._stand(view, *here)

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
    async def _put(self, view: V, batch: Batch, folded: Folded, then: Stand) -> Stand:
        """Write what changed, unless the store has something newer, and make `then` the position.

        Returns where the store stands now: elsewhere than at `then`, the batch is to be read again from there. At `then`
        all is well, even if it was an attempt before this one that brought it there: what a batch makes is the same.
        """


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

    def forget(self, streams: Iterable[str]) -> None:
        for stream in streams:
            self._drop(stream)

    def _drop(self, stream: str) -> None:
        _, weight = self._documents.pop(stream, (None, 0))
        self._weight -= weight

    def clear(self) -> None:
        self._documents.clear()
        self._weight = 0
