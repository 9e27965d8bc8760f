"""Healing one stream of a view: its rows are made anew from the log, in their place, while the projections run."""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from projections.building import Log
from projections.compare import Comparable, Expected
from projections.store import Folded
from projections.view import Batch, Fact, Offered, Partition, Poison, View, fold, offered
from schemas.topics import Topics

LOOKS = 5
"""So often the log is read on and the rows are compared, where a projection writes the same stream meanwhile."""


class Healable(Comparable, Protocol):
    """A store of views of which single rows can be read and made right."""

    async def live(self, view: Any) -> int: ...

    async def held(self, view: Any, generation: int, names: Sequence[str]) -> dict[str, bytes | None]:
        """What rows hold (None: there is none), by the names that `rows` gives them; raises StoreUnavailable."""

    async def overwrite(
        self, view: Any, generation: int, folded: Folded, held: Mapping[str, bytes | None]
    ) -> None:
        """Write what a fold of a stream's whole history says over the rows that still hold what they `held`."""


@dataclass(frozen=True, slots=True)
class Change:
    """A row that was wrong: what it held, and what the log says; None where there is no such row."""

    name: str
    was: bytes | None
    right: bytes | None


@dataclass(frozen=True)
class Healed:
    """`refused` are rows that the store did not let itself be corrected: then the view must be rebuilt.

    `poison` is the first record of the stream, if any, that the view cannot apply: it stands still there.
    """

    view: str
    stream: str
    version: int
    changes: tuple[Change, ...]
    refused: tuple[Change, ...]
    poison: Poison | None = None


@dataclass
class Truth:
    """What a stream's rows should be, folded event by event from the log."""

    store: Comparable
    view: View[Any]
    stream: str
    document: Any = None
    steps: list[tuple[Any, Fact]] = field(default_factory=list)
    rows: dict[str, Expected] = field(default_factory=dict)
    poison: Poison | None = None
    _read: dict[Partition, int] = field(default_factory=dict)

    @property
    def folded(self) -> Folded:
        """The whole history as one fold."""
        after = {} if self.document is None else {self.stream: self.document}
        return Folded({self.stream: None}, after, self.steps)

    def read_on(self, source: Log, partitions: Iterable[Partition], topics: Iterable[str]) -> None:
        """Blocking. Fold what the log holds by now, and was not read yet."""
        ends = source.ends(topics)
        for partition in partitions:
            start, end = self._read.get(partition, 0), ends[partition]
            for batch in source.batches(partition, start, end) if start < end else ():
                self._fold(batch)
                self._read[partition] = batch.next

    def wrong(self, held: Mapping[str, bytes | None]) -> Iterable[Change]:
        """Of these rows those that hold something else than they should; a forgotten one may be gone."""
        now = time.time_ns() // 1_000
        for name, was in held.items():
            right = self.rows[name]
            if was != right.content and not (was is None and (right.expires_at or now + 1) <= now):
                yield Change(name, was, right.content)

    def _fold(self, batch: Batch) -> None:
        facts, _ = offered(self.view, batch.records)
        for one in facts:
            if one.fact.stream == self.stream:
                self._step(one)

    def _step(self, one: Offered) -> None:
        before, documents = self.document, {} if self.document is None else {self.stream: self.document}
        poisons = fold(self.view, documents, [one])
        self.poison = self.poison or next(iter(poisons), None)
        self.document = documents.get(self.stream)
        if self.document is before:
            return
        # One by one: a mark that a later event took back is known only from the step that took it.
        self.steps.append((before, one.fact))
        step = Folded({self.stream: before}, {self.stream: self.document}, [(before, one.fact)])
        self.rows |= {row.name: row for row in self.store.rows_of(self.view, step)}


async def heal(view: View[Any], stream: str, store: Healable, source: Log, topics: Topics) -> Healed:
    """Make the rows of this stream what the log says. Raises StoreUnavailable."""
    truth = Truth(store, view, stream)
    where = _partitions_of(view, stream, topics), view.topics(topics)
    changes: dict[str, Change] = {}
    wrong: list[Change] = []
    await asyncio.to_thread(truth.read_on, source, *where)
    for looks_left in reversed(range(LOOKS)):
        generation = await store.live(view)
        held = await store.held(view, generation, list(truth.rows))
        # The log is read last: a row that a projection has just written can't be ahead of what we know.
        await asyncio.to_thread(truth.read_on, source, *where)
        wrong = list(truth.wrong(held))
        for one in wrong:
            changes[one.name] = Change(one.name, changes.get(one.name, one).was, one.right)
        if not wrong or not looks_left:
            break
        await store.overwrite(view, generation, truth.folded, {one.name: one.was for one in wrong})
    version = truth.document.version if truth.document is not None else 0
    return Healed(view.name, stream, version, tuple(changes.values()), tuple(wrong), truth.poison)


def _partitions_of(view: View[Any], stream: str, topics: Topics) -> list[Partition]:
    """Where the stream's facts can lie: one partition, or of decisions any."""
    key = stream.partition("/")[2]
    if view.kind == "stock":
        key = key.rpartition("/")[0]  # all locations of a SKU have one writer
    numbers = [topics.partition_of(key)] if view.source == "events" else range(topics.partitions)
    return [(topic, number) for topic in view.topics(topics) for number in numbers]
