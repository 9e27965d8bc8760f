"""Dead letters: what a consumer could not apply, with the reason, and the streams that wait because of it.

A poison record parks its stream for its consumer: it and all later records of that stream become letters, in order,
until somebody releases the stream. The topic alone says what is parked: everybody folds it, from 0 at the start and
as it grows afterwards. It holds letters and notes (`released`): that a release was asked for, that it failed, and up to
which offset letters have been applied again.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer

from schemas.codec import Codec, UndecodableError
from schemas.letters import DeadLetter
from schemas.meta import Micros, RecordMeta, derived_id
from schemas.topics import LETTER_KEY_MAX, LETTER_VALUE_MAX, REASON_CHARS_MAX, STREAM_NAME_MAX, Topics
from streams.kafka_clients import producer_config
from streams.record_producer import Outgoing, RecordProducer
from streams.topic_reader import read_to_end, reader_of

log = structlog.get_logger(__name__)

WRITERS = "commands"
"""Whose letters park nothing: a command that could not be decided has been answered, and nobody decides it again."""

RELEASE_ASKED = "release asked"
RELEASE_FAILED = "release failed"
RELEASED = "released"
PARKED = "parked behind an earlier letter of its stream"
WAITING_BYTES = 20_000_000
"""About so many bytes of letters are held at once while a stream is released."""

PARKED_MAX = 100_000
TAIL_POLL_S = 0.5
RELEASE_TIMEOUT_S = 30.0

Parking: TypeAlias = tuple[str, str, int, str]
"""Consumer, topic, partition, stream. A forged record on another topic parks nothing of the stream's own."""


@dataclass(frozen=True, slots=True)
class ParkedStream:
    """Letters from offset `first` to `last` wait; the first lies at `since` in the dead-letters topic, once it is
    written.
    """

    first: int
    last: int
    since: int | None
    asked: bool = False


class ParkedStreams:
    """The fold of the dead-letters topic; safe from any thread."""

    def __init__(self) -> None:
        self._parked: dict[Parking, ParkedStream] = {}
        self._lock = threading.Condition()

    def __len__(self) -> int:
        return len(self._parked)

    def fold(self, letter: DeadLetter, at: int) -> None:
        """What one record, at offset `at` of the dead-letters topic, says."""
        if not letter.stream or letter.consumer == WRITERS:
            return
        parking = (letter.consumer, letter.topic, letter.partition, letter.stream)
        with self._lock:
            if not letter.released:
                self._park(parking, letter.offset, at)
            elif letter.reason == RELEASED:
                self._unpark(parking, letter.offset)
            elif parking in self._parked:
                self._parked[parking] = replace(self._parked[parking], asked=letter.reason == RELEASE_ASKED)
            self._lock.notify_all()

    def park(self, parking: Parking, offset: int) -> None:
        """Known to this process before its letter is written."""
        with self._lock:
            self._park(parking, offset, at=None)

    def covers(self, parking: Parking, offset: int) -> bool:
        """Whether the record at `offset` has to wait; what stands before the first letter has not."""
        parked = self._parked.get(parking)
        return parked is not None and offset >= parked.first

    def of(self, parking: Parking) -> ParkedStream | None:
        return self._parked.get(parking)

    def wait_for(self, parking: Parking, true: Callable[["ParkedStream | None"], bool]) -> bool:
        """Blocks (30 s at most) until the topic has said something about a parked stream."""
        with self._lock:
            return self._lock.wait_for(lambda: true(self._parked.get(parking)), RELEASE_TIMEOUT_S)

    def asked(self, consumer: str) -> list[Parking]:
        """What somebody wants released."""
        if not self._parked:
            return []
        with self._lock:
            return [p for p, parked in self._parked.items() if parked.asked and p[0] == consumer]

    def named(self, stream: str, consumer: str | None) -> list[Parking]:
        with self._lock:
            return [p for p in self._parked if p[3] == stream and consumer in (None, p[0])]

    def _park(self, parking: Parking, offset: int, at: int | None) -> None:
        old = self._parked.get(parking)
        if old is not None:
            since = at if old.since is None else old.since
            first, last = min(old.first, offset), max(old.last, offset)
            self._parked[parking] = replace(old, first=first, last=last, since=since)
        elif len(self._parked) < PARKED_MAX:
            self._parked[parking] = ParkedStream(offset, offset, at)
        else:
            raise TooManyParkedError(f"more than {PARKED_MAX} streams are parked")

    def _unpark(self, parking: Parking, applied: int) -> None:
        old = self._parked.get(parking)
        if old is None:
            return
        if applied >= old.last:
            del self._parked[parking]
        else:
            self._parked[parking] = replace(old, first=max(old.first, applied + 1))


class TooManyParkedError(RuntimeError):
    """So much poison is no accident of single records: somebody has to look."""


class DeadLetters:
    """Writes letters, and follows the topic in a thread of its own so that what is parked is known."""

    def __init__(self, kafka: str, topics: Topics, codec: Codec, producer: RecordProducer) -> None:
        self.parked = ParkedStreams()
        self._kafka = kafka
        self._topic = topics.dead_letters
        self._codec = codec
        self._producer = producer
        self._next = 0
        self._closing = threading.Event()
        self._tail = threading.Thread(target=self._follow, name="dead-letters", daemon=True)

    def start(self) -> None:
        """Folds the topic to its end, then follows it; raises KafkaException when Kafka does not answer."""
        for message in read_to_end(self._kafka, self._topic):
            self._fold(message)
        self._tail.start()

    def close(self) -> None:
        self._closing.set()
        if self._tail.is_alive():
            self._tail.join(5)

    async def write(self, letters: Sequence[DeadLetter]) -> None:
        """Returns when they are acknowledged; raises NotDelivered."""
        fitting = [_fitting(letter) for letter in letters]
        for letter in fitting:
            log.warning(
                "dead letter", consumer=letter.consumer, topic=letter.topic, partition=letter.partition,
                offset=letter.offset, stream=letter.stream, reason=letter.reason, released=letter.released,
            )  # fmt: skip
        await self._producer.send([_outgoing(self._codec, self._topic, letter) for letter in fitting])

    def waiting(self, parking: Parking, count: int) -> list[DeadLetter]:
        """The first letters that wait, in their stream's order and whole: `count`, or fewer that are large.

        Reads the topic from the first of them on, each time anew, so not on a loop.
        """
        parked = self.parked.of(parking)
        if parked is None:
            return []
        letters = (
            letter
            for letter in self._letters(parked.since or 0)
            if _parking_of(letter) == parking and letter.offset >= parked.first and not letter.released
        )
        return [self._whole(letter) for letter in first_of(letters, count)]

    def _whole(self, letter: DeadLetter) -> DeadLetter:
        """A letter that was cut gets its record's bytes back, from where the record lies, if it still does."""
        if len(letter.value) < LETTER_VALUE_MAX and len(letter.key) < LETTER_KEY_MAX:
            return letter
        try:
            found = next(read_to_end(self._kafka, letter.topic, letter.partition, letter.offset), None)
        except KafkaException as error:
            if error.args[0].code() != KafkaError._AUTO_OFFSET_RESET:  # its public name
                raise
            return letter  # the topic begins behind it by now
        if found is None or found.offset() != letter.offset:
            return letter
        return replace(letter, key=found.key() or b"", value=found.value() or b"")

    def _letters(self, offset: int) -> Iterable[DeadLetter]:
        for message in read_to_end(self._kafka, self._topic, offset=offset):
            letter = _letter_in(self._codec, message)
            if letter is not None:
                yield letter

    def _fold(self, message: Message) -> None:
        letter = _letter_in(self._codec, message)
        offset = message.offset() or 0
        if letter is not None:
            self.parked.fold(letter, offset)
        self._next = offset + 1

    def _follow(self) -> None:
        while not self._closing.is_set():
            try:
                with reader_of(self._kafka, self._topic, offset=self._next) as consumer:
                    self._follow_with(consumer)
            except KafkaException as error:
                log.warning("dead letters cannot be followed", error=str(error))
                self._closing.wait(1)

    def _follow_with(self, consumer: Consumer) -> None:
        while not self._closing.is_set():
            message = consumer.poll(TAIL_POLL_S)
            if message is not None and message.error() is None:
                self._fold(message)


def first_of(letters: Iterable[DeadLetter], count: int, bytes_max: int = WAITING_BYTES) -> list[DeadLetter]:
    """The `count` letters with the lowest offsets, in their order, or as many as have `bytes_max` (at least one).

    However many there are, no more than these are held. Of two about one record the later counts.
    """
    held: dict[int, DeadLetter] = {}
    size, end = 0, math.inf
    for letter in letters:
        if letter.offset >= end:
            continue
        earlier = held.get(letter.offset)
        size += len(letter.value) - (len(earlier.value) if earlier else 0)
        held[letter.offset] = letter
        while len(held) > count or (len(held) > 1 and size > bytes_max):
            # None may overtake one that finds no place, although it is small enough itself.
            end = max(held)
            size -= len(held.pop(end).value)
    return [held[offset] for offset in sorted(held)]


def letter_key(letter: DeadLetter) -> bytes:
    return f"{letter.consumer}/{letter.topic}/{letter.partition}/{letter.offset}".encode()


def release(kafka: str, topics: Topics, stream: str, consumer: str | None = None) -> list[Parking]:
    """Asks for the release of a stream, of one consumer or of all that parked it; returns what was parked.

    The consumers apply its letters again in order as soon as they read the wish, also after a restart. Raises
    KafkaException when Kafka does not answer.
    """
    codec, parked = Codec(), ParkedStreams()
    for message in read_to_end(kafka, topics.dead_letters):
        letter = _letter_in(codec, message)
        if letter is not None:
            parked.fold(letter, message.offset() or 0)
    found = parked.named(stream, consumer)
    wishes = [note(parking, entry.first, RELEASE_ASKED) for parking in found if (entry := parked.of(parking))]
    _produce(kafka, [_outgoing(codec, topics.dead_letters, wish) for wish in wishes])
    return found


def note(parking: Parking, offset: int, reason: str) -> DeadLetter:
    """A note about a parked stream: RELEASE_ASKED, RELEASE_FAILED, or RELEASED up to this offset of its topic."""
    consumer, topic, partition, stream = parking
    return DeadLetter(consumer, topic, partition, offset, stream, reason, b"", b"", released=True)


def _parking_of(letter: DeadLetter) -> Parking:
    return (letter.consumer, letter.topic, letter.partition, letter.stream)


def _letter_in(codec: Codec, message: Message) -> DeadLetter | None:
    """Anybody's garbage in the dead-letters topic is no letter, and stops nobody."""
    try:
        body = codec.decode(message.value() or b"").body
    except UndecodableError:
        return None
    return body if isinstance(body, DeadLetter) and len(body.stream) <= STREAM_NAME_MAX else None


def _fitting(letter: DeadLetter) -> DeadLetter:
    """The letter with each part cut to its bound, so that there is one of whatever Kafka took."""
    reason = letter.reason[:REASON_CHARS_MAX]
    if len(letter.value) > LETTER_VALUE_MAX:
        # The whole record stays where it is: events are kept for ever, and the letter says where.
        reason += f" (the letter holds the first {LETTER_VALUE_MAX} of {len(letter.value)} bytes)"
    return replace(
        letter,
        stream=letter.stream.encode()[:STREAM_NAME_MAX].decode(errors="ignore"),
        reason=reason,
        key=letter.key[:LETTER_KEY_MAX],
        value=letter.value[:LETTER_VALUE_MAX],
    )


def _outgoing(codec: Codec, topic: str, letter: DeadLetter) -> Outgoing:
    key = letter_key(letter)
    meta = RecordMeta(letter.stream, Micros(time.time_ns() // 1_000), derived_id(key.decode()))
    headers = {"type": b"DeadLetter", "stream": letter.stream.encode()}
    return Outgoing(topic, 0, key, codec.encode(letter, vars(meta)), headers)


def _produce(kafka: str, records: Sequence[Outgoing]) -> None:
    producer = Producer(producer_config(kafka))
    for record in records:
        producer.produce(record.topic, record.value, record.key, record.partition)
    if producer.flush(RELEASE_TIMEOUT_S):
        raise KafkaException("Kafka did not acknowledge the wish to release")
