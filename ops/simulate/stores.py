"""Stores in memory: the worker's local disk, and the ledgers that views are written to."""

import asyncio
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Any, TypeAlias

import orjson

from commands.journal import Partition as Writers
from ops.simulate.clockwork import Clock
from projections.cassandra_store import CassandraView
from projections.redis_store import RedisStore, RedisView
from projections.store import Folded, FoldingStore, Stand
from projections.view import Batch, Partition, StoreUnavailable, View
from schemas.meta import SECOND

APPLY_S = 0.02
NOTICEABLE = 0.25
"""So many of a store's answers let others go first; the rest are there at once."""
A_WHILE = 60 * SECOND
NEVER = 1 << 62
RowName: TypeAlias = tuple[str, str]
"""A view's title, and the name of a row of it."""


class Disk:
    """Implements `commands.journal.Store`: ordered keys; what a worker's machine keeps over restarts."""

    def __init__(self) -> None:
        self.pairs: dict[bytes, bytes] = {}
        self._keys: list[bytes] = []

    def get(self, key: bytes) -> bytes | None:
        return self.pairs.get(key)

    def get_many(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        return [self.pairs.get(key) for key in keys]

    def write(self, puts: Mapping[bytes, bytes | None]) -> None:
        for key, value in puts.items():
            if value is None:
                self._delete(key)
            else:
                if key not in self.pairs:
                    insort(self._keys, key)
                self.pairs[key] = value

    def delete_range(self, start: bytes, end: bytes) -> None:
        first, behind = bisect_left(self._keys, start), bisect_left(self._keys, end)
        for key in self._keys[first:behind]:
            del self.pairs[key]
        del self._keys[first:behind]

    def scan(self, start: bytes, end: bytes, limit: int) -> Sequence[tuple[bytes, bytes]]:
        first = bisect_left(self._keys, start)
        behind = min(bisect_left(self._keys, end), first + limit)
        return [(key, self.pairs[key]) for key in self._keys[first:behind]]

    def next_due(self, partitions: Iterable[Writers]) -> int:
        """When the first deadline of these partitions is due, as the writer keeps them."""
        first = NEVER
        for partition in partitions:
            due = f"{partition}/t".encode()
            at = bisect_left(self._keys, due)
            if at < len(self._keys) and self._keys[at].startswith(due):
                first = min(first, int.from_bytes(self._keys[at][len(due) : len(due) + 8], "big"))
        return first

    def _delete(self, key: bytes) -> None:
        if self.pairs.pop(key, None) is not None:
            del self._keys[bisect_left(self._keys, key)]


@dataclass(frozen=True, slots=True)
class Held:
    """What a row holds (None: nothing any more), as of `version` of its stream."""

    version: int
    content: bytes | None


@dataclass
class Shelf:
    """One server of views: it outlives the processes that write to it."""

    rows: dict[RowName, Held] = field(default_factory=dict)
    documents: dict[RowName, tuple[int, Any]] = field(default_factory=dict)
    positions: dict[tuple[str, Partition], int] = field(default_factory=dict)
    generation: int = 1
    """What is written belongs to the one that was live then; only the live one is kept."""
    begun: int = 1
    """How many generations have begun."""
    restarts: int = 0
    """What is on its way to a server that is restarted never arrives."""
    is_down: bool = False
    lost_at: int = 0
    """When it last lost something."""
    late: list[int] = field(default_factory=list)
    """The next writes are given up by who asked for them, and arrive after so many microseconds all the same."""

    def lose(self, now: int) -> None:
        """Everything, positions included, while it goes on running."""
        self.begun += 1
        self._become(Shelf(generation=self.begun), now)

    def copy(self) -> "Shelf":
        return Shelf(dict(self.rows), dict(self.documents), dict(self.positions), self.generation)

    def restore(self, old: "Shelf", now: int) -> None:
        """As it was some time ago, started anew."""
        self.restarts += 1
        self._become(old, now)

    def _become(self, old: "Shelf", now: int) -> None:
        self.lost_at = now
        self.generation = old.generation
        self.rows, self.documents, self.positions = dict(old.rows), dict(old.documents), dict(old.positions)


def rows_of(view: View[Any], folded: Folded) -> Iterable[tuple[str, Held]]:
    """What a fold writes beside the documents: marks of a Redis view, rows of a Cassandra view."""
    if isinstance(view, RedisView):
        for stream, after in folded.after.items():
            for mark in view.marks(folded.before[stream], after):
                score = None if mark.score is None else repr(float(mark.score)).encode()
                yield f"{mark.index} {mark.member}", Held(after.version, score)
    else:
        assert isinstance(view, CassandraView)
        for row in view.rows(folded):
            key = len(row.insert.key)
            name = f"{row.insert.table}.{row.insert.columns[0]} {orjson.dumps(row.values[:key]).decode()}"
            yield name, Held(row.version, orjson.dumps(row.values[key:]))


def stored(view: View[Any], document: Any) -> Any:
    """A document as its store keeps it: JSON, or the columns of its own row."""
    if isinstance(view, RedisView):
        return view.dump(document)
    assert isinstance(view, CassandraView)
    insert = view.inserts[0]
    own = next(row for row in view.rows(Folded({}, {"": document}, ())) if row.insert is insert)
    return dict(zip((*insert.key, *insert.columns), own.values, strict=True))


class MemoryViews(FoldingStore[View[Any]]):
    """The production fold over a shelf in memory. Only a newer version replaces a row, as in the real stores."""

    def __init__(
        self, name: str, shelf: Shelf, views: Sequence[View[Any]], clock: Clock, random: Random
    ) -> None:
        super().__init__(views)
        self.clock = clock
        self.name = name
        self.checks_as_it_writes = name == RedisStore.name
        self._shelf = shelf
        self._random = random

    def _wants_steps(self, view: View[Any]) -> bool:
        return isinstance(view, CassandraView) and view.row_per_fact

    def is_worth_a_look(self, last: int) -> bool:
        """Whether it may stand elsewhere than it is believed to, if somebody looked `last` then."""
        return self.clock.now < self._shelf.lost_at + A_WHILE or self.clock.now >= last + A_WHILE

    async def _answer(self) -> None:
        if self._random.random() < NOTICEABLE:
            await asyncio.sleep(self._random.random() * APPLY_S)
        if self._shelf.is_down:
            raise StoreUnavailable(f"{self.name} is down")

    async def _stand(self, view: View[Any], topic: str, partition: int) -> Stand:
        await self._answer()
        return self._stand_now(view, topic, partition)

    def _stand_now(self, view: View[Any], topic: str, partition: int) -> Stand:
        return Stand(self._shelf.generation, self._shelf.positions.get((view.title, (topic, partition)), 0))

    async def _load(self, view: View[Any], generation: int, streams: Sequence[str]) -> dict[str, Any]:
        await self._answer()
        if generation != self._shelf.generation:
            return dict.fromkeys(streams)
        found = {stream: self._shelf.documents.get((view.title, stream)) for stream in streams}
        return {stream: held and self._loaded(view, held[1]) for stream, held in found.items()}

    def _loaded(self, view: View[Any], kept: Any) -> Any:
        return view.load(dict(kept) if isinstance(kept, dict) else kept)  # type: ignore[attr-defined]  # both kinds have it

    async def _put(self, view: View[Any], batch: Batch, folded: Folded, then: Stand) -> Stand:
        if self._shelf.late and folded.after:
            late: Callable[[], object] = partial(self._write, view, then.generation, folded)
            if self.checks_as_it_writes:
                late = partial(self._write_here, view, batch, folded, then)
            self.clock.after(self._shelf.late.pop(0), None, self._arrive, self._shelf.restarts, late)
            raise StoreUnavailable(f"{self.name} did not answer")
        if self.checks_as_it_writes:
            await self._answer()
            stand = self._write_here(view, batch, folded, then)
        else:
            stand = await self._write_in_steps(view, batch, folded, then)
        await self._answer()
        return stand

    async def _write_in_steps(self, view: View[Any], batch: Batch, folded: Folded, then: Stand) -> Stand:
        """Rows first, each for itself, and the position last: a process that dies in between has written some of it."""
        restarts = self._shelf.restarts
        self._put_rows(view, then.generation, folded)
        await self._answer()
        if self._shelf.restarts != restarts:
            raise StoreUnavailable(f"{self.name} was restarted")
        self._put_documents(view, then.generation, folded)
        await self._answer()
        return self._write_here(view, batch, Folded({}, {}, ()), then)

    def _write_here(self, view: View[Any], batch: Batch, folded: Folded, then: Stand) -> Stand:
        """All of it and the position at once, if the store still stands where the batch begins."""
        if self._stand_now(view, batch.topic, batch.partition) == replace(then, next=batch.expected):
            self._write(view, then.generation, folded)
            self._shelf.positions[view.title, (batch.topic, batch.partition)] = then.next
        return self._stand_now(view, batch.topic, batch.partition)

    def _write(self, view: View[Any], generation: int, folded: Folded) -> None:
        self._put_rows(view, generation, folded)
        self._put_documents(view, generation, folded)

    def _arrive(self, restarts: int, write: Callable[[], object]) -> None:
        if self._shelf.restarts == restarts:
            write()

    def _put_rows(self, view: View[Any], generation: int, folded: Folded) -> None:
        if generation == self._shelf.generation:
            for name, held in rows_of(view, folded):
                self._put_row(view, name, held)

    def _put_documents(self, view: View[Any], generation: int, folded: Folded) -> None:
        if generation != self._shelf.generation:
            return
        for stream, document in folded.after.items():
            held_document = self._shelf.documents.get((view.title, stream))
            if held_document is None or self.is_newer(document.version, held_document[0]):
                self._shelf.documents[view.title, stream] = (document.version, stored(view, document))

    def _put_row(self, view: View[Any], name: str, held: Held) -> None:
        old = self._shelf.rows.get((view.title, name))
        if old is None or self.is_newer(held.version, old.version):
            self._shelf.rows[view.title, name] = held

    @staticmethod
    def is_newer(version: int, held: int) -> bool:
        return version > held

    async def close(self) -> None:
        """There is nothing to close."""
