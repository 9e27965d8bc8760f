"""Does a store hold exactly what the log says? Key by key, row by row; missing and extra rows are errors."""

from collections.abc import AsyncIterator, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal, NamedTuple, Protocol

from projections.store import Folded
from projections.view import Fact, Recorded, View, fold, offered


class Expected(NamedTuple):
    """A row that a fold should have left: its name, what it holds (None: there is none), when it may go (micros)."""

    name: str
    content: bytes | None
    expires_at: int | None = None


class Comparable(Protocol):
    """What a store of views tells about itself, so that it can be compared."""

    def rows(self, view: Any, generation: int) -> AsyncIterator[tuple[str, bytes]]:
        """Every row of a generation, by name; raises StoreUnavailable."""

    def rows_of(self, view: Any, folded: Folded) -> Iterable[Expected]:
        """The rows that this fold should have left."""


@dataclass(frozen=True, order=True)
class Difference:
    """`held` is the digest of what the store holds under that name; empty where it is missing."""

    name: str
    kind: Literal["missing", "extra", "differs"]
    held: bytes


@dataclass
class FoldOfLog:
    """What a view should be, folded by the view's own `evolve`; of its rows digests are kept.

    It grows with the view: in memory, unless it is given other places to keep things in.
    """

    store: Comparable
    view: View[Any]
    digests: MutableMapping[str, bytes] = field(default_factory=dict)
    expiries: MutableMapping[str, int] = field(default_factory=dict)
    documents: MutableMapping[str, Any] = field(default_factory=dict)

    def add(self, records: Iterable[Recorded]) -> None:
        """Fold further records, in the order of each partition. Poison is left out, as in a store."""
        facts, _ = offered(self.view, records)
        before = {stream: self.documents.get(stream) for stream in {one.fact.stream for one in facts}}
        documents = {stream: document for stream, document in before.items() if document is not None}
        steps: list[tuple[Any, Fact]] = []
        fold(self.view, documents, facts, lambda document, fact: steps.append((document, fact)))
        after = {stream: now for stream, now in documents.items() if now is not before[stream]}
        self.documents.update(after)
        for row in self.store.rows_of(self.view, Folded(before, after, steps)):
            self._expect(row)

    def _expect(self, row: Expected) -> None:
        if row.content is None:
            self.digests.pop(row.name, None)
            return
        self.digests[row.name] = digest(row.content)
        if row.expires_at is not None:
            self.expiries[row.name] = row.expires_at


def digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()


async def digests_of(store: Comparable, view: View[Any], generation: int) -> dict[str, bytes]:
    """What a generation holds, as digests by name."""
    return {name: digest(content) async for name, content in store.rows(view, generation)}


def differences(should: Mapping[str, bytes], held: Mapping[str, bytes]) -> set[Difference]:
    """Where two sets of digests differ; `held` is the one that is judged."""
    missing = {Difference(name, "missing", b"") for name in should.keys() - held.keys()}
    extra = {Difference(name, "extra", held[name]) for name in held.keys() - should.keys()}
    differing = {
        Difference(name, "differs", held[name])
        for name in should.keys() & held.keys()
        if should[name] != held[name]
    }
    return missing | extra | differing


async def against_log(fold_of_log: FoldOfLog, generation: int, now: int) -> set[Difference]:
    """Where a generation of the store differs from the log; a row that has expired by `now` (micros, taken
    afterwards) may be missing.
    """
    held = await digests_of(fold_of_log.store, fold_of_log.view, generation)
    found = differences(fold_of_log.digests, held)
    return {
        one
        for one in found
        if not (one.kind == "missing" and fold_of_log.expiries.get(one.name, now + 1) <= now)
    }
