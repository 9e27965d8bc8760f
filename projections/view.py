"""What a view is: documents folded from streams by a pure function, and a position kept beside them."""

from collections.abc import Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

import orjson

from schemas.codec import Decoded
from schemas.topics import Topics

Partition: TypeAlias = tuple[str, int]
"""Topic and number."""

# What is made for every record is a NamedTuple: a frozen dataclass takes three times as long to make.


class Recorded(NamedTuple):
    """A decoded record, and where in the log it stands."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    message: Decoded[Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive records of one partition.

    `expected` is where the previous batch ended, `next` the offset behind this one (transaction markers leave
    holes, so neither follows from the records). A batch without records and with `next == expected` only checks
    the position: a source sends one now and then where nothing comes, so that a flushed store heals there too.
    Records below `expected` are welcome (a parked stream that was released): versions tell what is new.
    """

    topic: str
    partition: int
    expected: int
    next: int
    records: Sequence[Recorded]

    def without(self, poisons: "Iterable[Poison]") -> "Batch":
        """The same way, without the records named as poison."""
        named = {poison.offset for poison in poisons}
        return replace(self, records=[record for record in self.records if record.offset not in named])


@dataclass(frozen=True, slots=True)
class Poison:
    """The record at `offset` was not applied, and `stream` must not go on without it.

    Every record that a batch left out is named, in order: also those behind the first one of their stream.
    """

    stream: str
    offset: int
    reason: str


class Document(Protocol):
    """What a view knows of one stream, as of `version` (1 is the stream's first event)."""

    @property
    def version(self) -> int: ...


D = TypeVar("D", bound=Document)


class Fact(NamedTuple):
    """What a view folds: an event (`Decoded[EventMeta]`) or a decision, as the `version`-th of its stream."""

    stream: str
    version: int
    what: Any


def event_in(message: Decoded[Any]) -> Iterable[Fact]:
    """The one fact that an event's record is."""
    return (Fact(message.meta.stream, message.meta.version, message),)


@dataclass(frozen=True)
class View(Generic[D]):
    """A read model: one document for each stream `kind/…`, folded by the pure function `evolve(document, fact)`.

    It reads the topics `source` of its `aggregates`; in one store a topic feeds one view. Raise `version` when the
    shape or `evolve` changes: the new code then builds documents of its own beside those of the old; `declared` names
    the fields, columns, indexes and tables in which they may differ from those of the version before. `weigh` is roughly
    how many 400 bytes a document takes in memory.
    """

    name: str
    version: int
    kind: str
    aggregates: tuple[str, ...]
    evolve: Callable[[D | None, Any], D]
    source: Literal["events", "decisions"] = "events"
    facts: Callable[[Decoded[Any]], Iterable[Fact]] = event_in
    weigh: Callable[[D], int] = lambda _document: 1
    declared: frozenset[str] = frozenset()

    @property
    def title(self) -> str:
        """The name under which its generations and positions are kept."""
        return f"{self.name}_v{self.version}"

    def topics(self, topics: Topics) -> list[str]:
        name = topics.events if self.source == "events" else topics.decisions
        return [name(aggregate) for aggregate in self.aggregates]

    def reads(self, topic: str) -> bool:
        source, aggregate = topic.split(".")[-2:]
        return source == self.source and aggregate in self.aggregates


def topics_of(views: Iterable[View[Any]], topics: Topics) -> list[str]:
    """The topics that some views read."""
    return [topic for view in views for topic in view.topics(topics)]


class UnexpectedFact(Exception):
    """No history of this kind of stream contains such a fact at this place."""


def existing(document: D | None) -> D:
    """The document that an event presupposes; the first event of a stream is the one that creates it."""
    if document is None:
        raise UnexpectedFact("the stream does not begin with its creation")
    return document


Step: TypeAlias = Callable[[Any, Fact], None]


class Offered(NamedTuple):
    """A fact, and the offset of the record that says it."""

    offset: int
    fact: Fact


def offered(view: View[Any], records: Iterable[Recorded]) -> tuple[list[Offered], list[Poison]]:
    """The facts in records; poison is what is no fact of this view's streams at all."""
    facts: list[Offered] = []
    poisons: list[Poison] = []
    for record in records:
        try:
            facts += [Offered(record.offset, fact) for fact in _facts_of(view, record.message)]
        except Exception as error:  # noqa: BLE001  # whatever lies on the topic, the partition goes on
            stream = getattr(record.message.meta, "stream", "")
            poisons.append(Poison(stream, record.offset, f"{type(error).__name__}: {error}"))
    return facts, poisons


def _facts_of(view: View[Any], message: Decoded[Any]) -> list[Fact]:
    facts = list(view.facts(message))
    for fact in facts:
        if not fact.stream.startswith(view.kind + "/"):
            raise UnexpectedFact(f"{fact.stream} is no {view.kind}")
    return facts


def fold(
    view: View[D], documents: MutableMapping[str, D], facts: Iterable[Offered], step: Step | None = None
) -> list[Poison]:
    """Fold facts into `documents`, by stream; `step(document before, fact)` hears of each that is new.

    What a document has seen is passed over. A gap in the versions, or a fact that `evolve` does not understand,
    is poison, and so is all that follows it in its stream.
    """
    poisons: list[Poison] = []
    parked: set[str] = set()
    for one in facts:
        fact = one.fact
        before = documents.get(fact.stream)
        seen = before.version if before is not None else 0
        if fact.version <= seen:
            continue
        if fact.stream in parked:
            poisons.append(Poison(fact.stream, one.offset, "it follows one that was not applied"))
            continue
        try:
            _no_gap(seen, fact.version)
            documents[fact.stream] = view.evolve(before, fact.what)
        except Exception as error:  # noqa: BLE001  # evolve is pure: what it trips over is the fact
            parked.add(fact.stream)
            poisons.append(Poison(fact.stream, one.offset, f"{type(error).__name__}: {error}"))
        else:
            if step is not None:
                step(before, fact)
    return poisons


def _no_gap(seen: int, version: int) -> None:
    if version != seen + 1:
        raise UnexpectedFact(f"version {version} follows {seen}")


@dataclass(frozen=True, slots=True)
class Served:
    """JSON as it was stored, ready to be sent; `version` is the stream's, 0 for pages made of many."""

    body: bytes
    version: int = 0

    @property
    def etag(self) -> str:
        return f'"{self.version}"'

    def document(self) -> dict[str, Any]:
        parsed: dict[str, Any] = orjson.loads(self.body)
        return parsed


class StoreUnavailable(Exception):  # it is no error of ours: the same batch may be applied again
    """The store does not answer, or has no room: try the same batch again later."""


class PositionMoved(Exception):  # as above: it says where to go on
    """The store stands elsewhere than the source believed (flushed, restored, switched): read from `next` on."""

    def __init__(self, next: int) -> None:  # noqa: A002  # the word of `Batch`
        super().__init__(f"the store's next offset is {next}")
        self.next = next


class ViewStore(Protocol):
    """Where views and their positions live; one source and one consumer group feed each projection of it."""

    @property
    def name(self) -> str: ...

    def topics(self, topics: Topics) -> list[str]:
        """The topics of all its views."""

    async def positions(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The next offset of each partition, 0 where nothing was applied; raises StoreUnavailable."""

    async def apply(self, batch: Batch) -> list[Poison]:
        """Write what the records say, and the position.

        What is poison is named instead, and the position stays: apply the batch again without it. Raises StoreUnavailable (nothing is lost: apply the same batch again) or PositionMoved (go there).
        """

    async def close(self) -> None: ...
