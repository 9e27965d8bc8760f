"""What a consumer makes of records: messages that it may apply, and letters about those that it may not."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from confluent_kafka import Message

from projections.view import Recorded
from schemas.codec import HEADER_BYTES, MARKER, Codec, Decoded, UndecodableError
from schemas.decisions import Decisions
from schemas.language import AGGREGATES
from schemas.letters import DeadLetter
from schemas.topics import RECORD_BYTES_MAX, STREAM_NAME_MAX, Topics
from streams.dead_letters import PARKED, ParkedStreams


class Decoder(Protocol):
    def decode(self, value: bytes) -> Decoded[Any]:
        """Raises UndecodableError."""


class UnfitError(Exception):
    """This record can never be applied as it is; the text says why."""


@dataclass(frozen=True)
class Expected:
    """What one topic holds: these classes, with or without a key."""

    bodies: frozenset[type]
    keyed: bool


def expected_on(topics: Topics) -> Mapping[str, Expected]:
    """What may stand on each topic that agents read."""
    events = {topics.events(a.name): Expected(frozenset(a.events), keyed=True) for a in AGGREGATES.values()}
    decided = Expected(frozenset({Decisions}), keyed=False)
    return events | {topics.decisions(name): decided for name in AGGREGATES}


def other_events(codec: Codec, heard: Container[type]) -> frozenset[bytes]:
    """How the values of events begin that are none of those `heard` (as today's code writes them)."""
    others = {cls.__name__ for a in AGGREGATES.values() for cls in a.events if cls not in heard}
    return frozenset(MARKER + print_ for print_, schema in codec.schemas() if schema["name"] in others)


class Intake:
    """Reads records of the topics in `expected`; values that begin as one of `unheard` are nothing to it."""

    def __init__(
        self, decoder: Decoder, expected: Mapping[str, Expected], unheard: frozenset[bytes] = frozenset()
    ) -> None:
        self._decoder = decoder
        self._expected = expected
        self._unheard = unheard

    def passes_over(self, value: bytes | None) -> bool:
        return value is not None and value[:HEADER_BYTES] in self._unheard

    def read(self, topic: str, key: bytes | None, value: bytes | None) -> Decoded[Any]:
        """Raises UnfitError; KafkaException where the question for an unknown schema is not answered."""
        expected = self._expected[topic]
        wrong = _what_is_wrong(value, key, expected)
        if wrong or value is None:
            raise UnfitError(wrong)
        try:
            decoded = self._decoder.decode(value)
        except UndecodableError as error:
            raise UnfitError(str(error)) from error
        if type(decoded.body) not in expected.bodies:
            raise UnfitError(f"{type(decoded.body).__name__} does not belong on {topic}")
        if len(decoded.meta.stream.encode()) > STREAM_NAME_MAX:
            raise UnfitError(f"the name of its stream has more than {STREAM_NAME_MAX} bytes")
        return decoded


def _what_is_wrong(value: bytes | None, key: bytes | None, expected: Expected) -> str:
    if value is None:
        return "no value"
    if len(value) > RECORD_BYTES_MAX:
        return f"{len(value)} bytes are more than {RECORD_BYTES_MAX}"
    if expected.keyed and not _as_text(key or b""):
        return "no key" if not key else "the key is not UTF-8"
    return ""


def _as_text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return ""


def stream_in_headers(message: Message) -> str:
    """The header `stream`, or nothing where it is absent, no UTF-8, or longer than any stream's name."""
    headers = message.headers() or []
    for name, value in headers.items() if isinstance(headers, dict) else headers:
        if name == "stream" and isinstance(value, bytes) and len(value) <= STREAM_NAME_MAX:
            return _as_text(value)
    return ""


@dataclass(frozen=True, slots=True)
class Sorted:
    """Messages of one partition: what may be applied, letters about the others, and the bytes by offset."""

    records: list[Recorded] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    values: dict[int, bytes] = field(default_factory=dict)


class Sorter:
    """Sorts for one consumer: poison parks its stream, and what belongs to a parked stream waits as a letter."""

    def __init__(self, consumer: str, intake: Intake, parked: ParkedStreams) -> None:
        self._consumer = consumer
        self._intake = intake
        self._parked = parked

    def sort(self, messages: Sequence[Message]) -> Sorted:
        """Raises KafkaException where an unknown schema could not be looked up; then sort the same ones again."""
        piles = Sorted()
        for message in messages:
            self._put(message, piles)
        return piles

    def again(self, letters: Sequence[DeadLetter]) -> Sorted:
        """Letters of one stream, in order, up to the first that still cannot be applied (it is a letter anew)."""
        piles = Sorted()
        for letter in letters:
            try:
                decoded = self._intake.read(letter.topic, letter.key, letter.value)
            except UnfitError as unfit:
                piles.letters.append(replace(letter, reason=str(unfit)))
                break
            piles.records.append(Recorded(letter.topic, letter.partition, letter.offset, letter.key, decoded))
            piles.values[letter.offset] = letter.value
        return piles

    def waits(self, topic: str, partition: int, stream: str, offset: int) -> bool:
        """Whether the record belongs to a parked stream."""
        return bool(self._parked) and self._parked.covers((self._consumer, topic, partition, stream), offset)

    def _put(self, message: Message, piles: Sorted) -> None:
        key, value = message.key(), message.value()
        if self._intake.passes_over(value):
            return
        topic, partition, offset = message.topic() or "", message.partition() or 0, message.offset() or 0
        try:
            decoded = self._intake.read(topic, key, value)
        except UnfitError as unfit:
            stream, reason = stream_in_headers(message), str(unfit)
            if stream:
                self._parked.park((self._consumer, topic, partition, stream), offset)
        else:
            stream, reason = decoded.meta.stream, PARKED
            if not self.waits(topic, partition, stream, offset):
                piles.records.append(Recorded(topic, partition, offset, key, decoded))
                piles.values[offset] = value or b""
                return
        where = (self._consumer, topic, partition, offset)
        piles.letters.append(DeadLetter(*where, stream, reason, key or b"", value or b"", released=False))
