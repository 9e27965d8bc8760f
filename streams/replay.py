"""The log read again: events, rows or bytes between two points, beside the live system and without its groups."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from projections.view import Recorded
from schemas.avro import Schema
from schemas.codec import Codec, Decoded, UndecodableError, UnknownFingerprintError
from schemas.meta import DAY, CommandMeta
from schemas.topics import Topics, partition_of
from streams.kafka_clients import ANSWER_MAX_S, patiently, reader_config
from streams.schema_registry import LearningDecoder, SchemaRegistry
from streams.topic_admin import identity_of

SILENCE_MAX_S = 30.0
POLL_S = 0.25
PORTION_MAX = 2_000
CLOCK_SLACK = DAY
"""Kafka's index of times only says where to begin: so far may it differ from what a writer's clock said."""

Place: TypeAlias = tuple[str, int]
"""A topic and a partition of it."""

Clock = Literal["occurred_at", "recorded_at"]


class ReplayFailed(Exception):
    """The log could not be read as it was asked; the message says what and where."""


class Stored(NamedTuple):
    """A record as it stands in the log."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes


class Portion(NamedTuple):
    """Some records, of several partitions, and for each partition that moved the offset behind them."""

    records: Sequence[Stored]
    reached: Mapping[Place, int]


class Extent(NamedTuple):
    """The offsets that are there: from `low` up to, not including, `high`."""

    low: int
    high: int


class Log(Protocol):
    """What replay needs of Kafka."""

    def extents(self, topics: Iterable[str]) -> dict[Place, Extent]:
        """Where each partition begins and ends now; no open transaction is in it. Raises ReplayFailed."""

    def since(self, places: Iterable[Place], at_ms: int) -> dict[Place, int]:
        """Of each partition the first offset that Kafka took in at this time or later (milliseconds since 1970)."""

    def portions(
        self, starts: Mapping[Place, int], ends: Mapping[Place, int], *, follow: bool
    ) -> Iterator[Portion]:
        """Everything between, each partition in order; with `follow` on and on. Raises ReplayFailed."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Query:
    """Which records of these topics: all, unless narrowed.

    `types` are names of message classes, `key` is an id or a sku, the offsets count in every partition; `since` and
    `until` are microseconds since 1970 by the clock `by`: from, and up to, not including. What Kafka took in more
    than a day before `about` is passed over unread.
    """

    topics: tuple[str, ...]
    types: frozenset[str] = frozenset()
    key: str = ""
    first: int | None = None
    last: int | None = None
    since: int | None = None
    until: int | None = None
    by: Clock = "occurred_at"
    partition: int | None = None
    about: int | None = None

    def __repr__(self) -> str:
        """The same in every process, since what is kept of a reading is known again by it; a set has no order."""
        types = f"{{{', '.join(map(repr, sorted(self.types)))}}}" if self.types else ""
        fields = {name: repr(value) for name, value in vars(self).items()} | {"types": f"frozenset({types})"}
        return f"Query({', '.join(f'{name}={told}' for name, told in fields.items())})"

    @property
    def begins(self) -> int | None:
        """Where to begin reading, by Kafka's index of times; only what was recorded when is in its order."""
        return self.since if self.by == "recorded_at" and self.about is None else self.about

    @property
    def is_narrow(self) -> bool:
        """Whether not every record of a portion is meant."""
        return bool(self.key or self.types or self.first or self.last is not None)

    @property
    def is_timed(self) -> bool:
        return self.since is not None or self.until is not None

    def spans(self, offset: int) -> bool:
        """Who follows meets offsets that were not there when the reading began."""
        return offset >= (self.first or 0) and (self.last is None or offset < self.last)

    def covers(self, at: int) -> bool:
        return (self.since is None or at >= self.since) and (self.until is None or at < self.until)


@dataclass
class Replay:
    """One reading of the log, up to where it ends now. `positions` are the next offsets: who keeps them can go on
    there (`resume`), and gets what came in meanwhile.
    """

    log: Log
    query: Query
    codec: Codec = field(default_factory=Codec)
    schemas: Callable[[], dict[str, Schema]] = dict
    resume: Mapping[Place, int] = field(default_factory=dict)
    starts: Mapping[Place, int] = field(init=False)
    ends: Mapping[Place, int] = field(init=False)
    positions: dict[Place, int] = field(init=False)

    def __post_init__(self) -> None:
        self._extents = _holding(self.query, self.log.extents(self.query.topics))
        self.ends = {place: _at_most(self.query.last, one.high) for place, one in self._extents.items()}
        self._learning = LearningDecoder(self.codec, self.schemas)
        self.go_on(self.resume)

    def go_on(self, resume: Mapping[Place, int]) -> None:
        """Begin at these positions, and where there is none at the beginning. Raises ReplayFailed."""
        self.starts = self._starts(self._extents, resume)
        self.positions = dict(self.starts)

    def portions(self, *, follow: bool = False) -> Iterator[Sequence[Stored]]:
        """The records as they were written, by type and key, not by time. `positions` are behind what was handed out.

        Memory is bounded: librdkafka's 16 MB and one portion. Raises ReplayFailed.
        """
        for portion in self.log.portions(self.starts, self.ends, follow=follow):
            self.positions.update(portion.reached)
            if self.query.is_narrow:
                yield [record for record in portion.records if self._wants(record)]
            else:
                yield portion.records

    def events(self, *, follow: bool = False) -> Iterator[Recorded]:
        """The messages in today's shape, whatever shape they were written in; each partition in order. Whoever stops
        and resumes at `positions` gets some of them twice, and misses none. Raises ReplayFailed.
        """
        for portion in self.log.portions(self.starts, self.ends, follow=follow):
            for record in portion.records:
                if self._wants(record):
                    yield from self.told(record)
            self.positions.update(portion.reached)

    def told(self, record: Stored) -> Iterator[Recorded]:
        """A record's message, if it is of the time that is asked for. Raises ReplayFailed."""
        message = self.decode(record)
        if not self.query.is_timed or self.query.covers(self._at(message.meta)):
            yield Recorded(record.topic, record.partition, record.offset, record.key, message)

    def close(self) -> None:
        self.log.close()

    def decode(self, record: Stored) -> Decoded[Any]:
        """Raises ReplayFailed, which names the record."""
        try:
            return self._learning.decode(record.value)
        except UndecodableError as error:
            raise ReplayFailed(f"{_named(record)} cannot be read: {error}") from error

    def class_of(self, record: Stored) -> type:
        """The message class of a record, told by its first bytes. Raises ReplayFailed."""
        try:
            return self.codec.class_of(record.value)
        except UnknownFingerprintError:
            return type(self.decode(record).body)
        except UndecodableError as error:
            raise ReplayFailed(f"{_named(record)} cannot be read: {error}") from error

    def _at(self, meta: Any) -> int:
        at: list[int | None] = [getattr(meta, name) for name in clocks_of(type(meta), self.query.by)]
        return next(one for one in at if one is not None)

    @property
    def read(self) -> int:
        """Offsets, not records: the marks that transactions leave count too."""
        return sum(self.positions[place] - start for place, start in self.starts.items())

    @property
    def whole(self) -> int:
        return sum(max(0, self.ends[place] - start) for place, start in self.starts.items())

    def _wants(self, record: Stored) -> bool:
        if not self.query.spans(record.offset):
            return False
        if self.query.key and record.key != self.query.key.encode():
            return False
        return not self.query.types or self.class_of(record).__name__ in self.query.types

    def _starts(self, extents: Mapping[Place, Extent], resume: Mapping[Place, int]) -> dict[Place, int]:
        starts = {place: max(one.low, self.query.first or 0) for place, one in extents.items()}
        if self.query.begins is not None:
            seen = self.log.since(extents, (self.query.begins - CLOCK_SLACK) // 1_000)
            starts = {place: max(start, seen[place]) for place, start in starts.items()}
        for place, offset in resume.items():
            if place in starts:
                starts[place] = self._resumed(place, offset, extents[place])
        return {
            place: min(start, max(extents[place].low, self.ends[place])) for place, start in starts.items()
        }

    @staticmethod
    def _resumed(place: Place, offset: int, extent: Extent) -> int:
        if not extent.low <= offset <= extent.high:
            raise ReplayFailed(
                f"{place[0]}[{place[1]}] holds offsets {extent.low} to {extent.high}, and it should go on at"
                f" {offset}: this is not the log that was read before"
            )
        return offset


def replay(kafka: str, topics: Topics, query: Query, resume: Mapping[Place, int] | None = None) -> Replay:
    """A reading of the log on these servers, for programs and notebooks, which close it. Raises ReplayFailed."""
    return Replay(KafkaLog(kafka), query, Codec(), SchemaRegistry(kafka, topics).schemas, resume or {})


class KafkaLog:
    """The log as committed transactions left it. It assigns itself partitions, and is in no group."""

    def __init__(self, kafka: str) -> None:
        self._kafka = kafka
        self._consumer = Consumer(reader_config(kafka) | {"fetch.wait.max.ms": 50})

    def close(self) -> None:
        self._consumer.close()

    def identity(self, topics: Iterable[str]) -> str:
        """Other than before, when one of the topics was made anew or the cluster is another."""
        return identity_of(self._kafka, topics)

    def extents(self, topics: Iterable[str]) -> dict[Place, Extent]:
        return {place: self._extent(place) for topic in topics for place in self._places(topic)}

    def since(self, places: Iterable[Place], at_ms: int) -> dict[Place, int]:
        asked = [TopicPartition(*place, max(0, at_ms)) for place in places]
        found = self._consumer.offsets_for_times(asked, timeout=ANSWER_MAX_S)
        # Where nothing is as late, librdkafka says "the end" by a negative number.
        return {
            (one.topic, one.partition): one.offset
            if one.offset >= 0
            else self._extent((one.topic, one.partition)).high
            for one in found
        }

    def portions(
        self, starts: Mapping[Place, int], ends: Mapping[Place, int], *, follow: bool
    ) -> Iterator[Portion]:
        unread = {place for place in starts if follow or starts[place] < ends[place]}
        assigned = [TopicPartition(*place, starts[place]) for place in sorted(unread)]
        self._consumer.assign(assigned)
        self._consumer.resume(assigned)  # one that a reading before this paused is paused still
        while unread:
            portion = _portion(self._next_messages(patient=follow), unread, None if follow else ends)
            done = {place for place, at in portion.reached.items() if not follow and at >= ends[place]}
            self._consumer.pause([TopicPartition(*place) for place in done])
            unread -= done
            yield portion

    def _next_messages(self, *, patient: bool) -> list[Message]:
        """What is there, in short waits, so that Ctrl-C is heard."""
        gives_up_at = time.monotonic() + SILENCE_MAX_S
        while (first := self._consumer.poll(POLL_S)) is None:
            if not patient and time.monotonic() > gives_up_at:
                raise ReplayFailed(f"Kafka at {self._kafka} was silent for {SILENCE_MAX_S:.0f} s")
        return [first, *self._consumer.consume(PORTION_MAX - 1, 0)]

    def _places(self, topic: str) -> list[Place]:
        found = self._consumer.list_topics(topic, ANSWER_MAX_S).topics[topic]
        if found.error is not None:
            raise ReplayFailed(f"there is no topic {topic} on {self._kafka}: {found.error.str()}")
        return [(topic, number) for number in sorted(found.partitions)]

    def _extent(self, place: Place) -> Extent:
        ask = partial(self._consumer.get_watermark_offsets, TopicPartition(*place), ANSWER_MAX_S)
        return Extent(*patiently(ask))


def _portion(messages: Iterable[Message], unread: set[Place], ends: Mapping[Place, int] | None) -> Portion:
    """What of the messages lies before the ends. A partition's end is told by a message of its own, since the marks
    of transactions never arrive.
    """
    records: list[Stored] = []
    reached: dict[Place, int] = {}
    for message in messages:
        error, topic, number, offset = message.error(), message.topic(), message.partition(), message.offset()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:  # its only name
            raise KafkaException(error)
        if topic is None or number is None or offset is None or (topic, number) not in unread:
            continue
        place = topic, number
        if ends is not None and offset >= ends[place]:
            reached[place] = ends[place]
        elif error is not None:
            reached[place] = offset
        else:
            reached[place] = offset + 1
            records.append(Stored(topic, number, offset, message.key(), message.value() or b""))
    return Portion(records, reached)


def _holding(query: Query, extents: Mapping[Place, Extent]) -> dict[Place, Extent]:
    """The partitions in which there may be something: a key lives in one of each topic."""
    partitions = Counter(topic for topic, _ in extents)
    return {
        (topic, number): extent
        for (topic, number), extent in extents.items()
        if query.partition in (None, number)
        and (not query.key or number == partition_of(query.key, partitions[topic]))
    }


def clocks_of(meta: type, by: Clock) -> tuple[str, ...]:
    """The fields that say when: the first one that says anything. Few callers say of a command when it happened."""
    return ("occurred_at", "issued_at") if meta is CommandMeta else (by,)


def _at_most(bound: int | None, offset: int) -> int:
    return offset if bound is None else min(bound, offset)


def _named(record: Stored) -> str:
    return f"{record.topic}[{record.partition}] offset {record.offset}"
