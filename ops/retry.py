"""`./daybook retry STREAM`: has a parked stream's letters applied again, after the cause is gone."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import typer
from confluent_kafka import KafkaException

from ops.cli import brought_up, fail, say
from schemas.codec import Codec, UndecodableError
from schemas.letters import DeadLetter
from schemas.topics import Topics
from streams.dead_letters import ParkedStream, ParkedStreams, Parking, release
from streams.topic_reader import read_to_end

ANSWER_WITHIN_S = 15.0
LOOK_EVERY_S = 0.25
SAY_EVERY_S = 2.0
OTHERS_SHOWN = 10


def retry(
    stream: Annotated[str, typer.Argument(help="For example cart/7c0f… or stock/85123A/main.")] = "",
    *,
    consumer: Annotated[str, typer.Option(help="Only for this one, such as views.redis.")] = "",
    listed: Annotated[bool, typer.Option("--list", help="Show what is parked, and why.")] = False,
) -> None:
    """Apply the letters of a parked stream again, in order, after the cause is gone.

    A record that a consumer cannot apply parks its stream: it and what follows it there wait as dead letters. Exit 1
    if nothing is parked under that name, or if it is still parked afterwards.
    """
    if listed == bool(stream):
        fail("name a stream, or ask for the --list", 2)
    found = brought_up("retry")
    box = LetterBox(found.kafka, Topics(found.topic_prefix, found.partitions))
    try:
        if listed:
            _show(box)
        else:
            _release(box, stream, consumer)
    except KafkaException as error:
        fail(f"Kafka at {found.kafka}: {error}", 2)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _show(box: "LetterBox") -> None:
    for partition in range(box.topics.partitions):
        box.read(partition)
    for line in box.lines():
        typer.echo(line)


def _release(box: "LetterBox", stream: str, consumer: str) -> None:
    released = release(box.kafka, box.topics, stream, consumer or None)
    if not released:
        by = f" by {consumer}" if consumer else ""
        fail(f"{stream} is not parked{by}; ./daybook retry --list shows what is", 1)
    still = _await_answers(box, released)
    for parking in released:
        typer.echo(
            f"{parking[3]} for {parking[0]}: {still.get(parking, 'released, its letters are applied')}"
        )
    if still:
        raise typer.Exit(1)


def _await_answers(box: "LetterBox", asked: Sequence[Parking]) -> dict[Parking, str]:
    """What is still parked when all consumers have answered, or after 15 s, and why."""
    began = said = time.monotonic()
    while True:
        box.read()
        still = {parking: entry for parking in asked if (entry := box.parked.of(parking))}
        now = time.monotonic()
        if now - began > ANSWER_WITHIN_S or not any(entry.asked for entry in still.values()):
            return {parking: box.why(parking, entry) for parking, entry in still.items()}
        if now - said > SAY_EVERY_S:
            said = now
            waiting = sorted({parking[0] for parking, entry in still.items() if entry.asked})
            say(f"waiting for {', '.join(waiting)} ({now - began:.0f} s)")
        time.sleep(LOOK_EVERY_S)


@dataclass
class LetterBox:
    """The dead letters as they stand: what is parked, and why; the last of those that park nothing."""

    kafka: str
    topics: Topics
    parked: ParkedStreams = field(default_factory=ParkedStreams)
    _reasons: dict[Parking, str] = field(default_factory=dict)
    _others: deque[str] = field(default_factory=lambda: deque(maxlen=OTHERS_SHOWN))
    _others_count: int = 0
    _codec: Codec = field(default_factory=Codec)
    _next: dict[int, int] = field(default_factory=dict)

    def read(self, partition: int = 0) -> None:
        """Take in what was written since; raises KafkaException. What parks a stream lies in partition 0."""
        start = self._next.get(partition, 0)
        for message in read_to_end(self.kafka, self.topics.dead_letters, partition, start):
            offset = message.offset() or 0
            self._next[partition] = offset + 1
            try:
                letter = self._codec.decode(message.value() or b"").body
            except UndecodableError:
                continue  # anybody's garbage is no letter
            if isinstance(letter, DeadLetter):
                self._take(letter, offset)

    def _take(self, letter: DeadLetter, offset: int) -> None:
        self.parked.fold(letter, offset)
        parking = (letter.consumer, letter.topic, letter.partition, letter.stream)
        if self.parked.of(parking) is not None:
            self._reasons.setdefault(parking, letter.reason)
        elif letter.released:
            self._reasons.pop(parking, None)
        else:
            where = f"{letter.topic}[{letter.partition}]@{letter.offset}"
            self._others_count += 1
            self._others.append(f"  {letter.consumer} at {where}: {letter.stream} {letter.reason}")

    def why(self, parking: Parking, entry: ParkedStream) -> str:
        if entry.asked:
            return f"no answer in {ANSWER_WITHIN_S:.0f} s; it is heard when {parking[0]} runs (again)"
        return f"still parked from offset {entry.first} on; why it was: {self._reasons[parking]}"

    def lines(self) -> Iterator[str]:
        """Each parked stream with its reason and how to have it released, then the other letters."""
        for parking in sorted(self._reasons):
            consumer, topic, partition, stream = parking
            entry = self.parked.of(parking)
            assert entry is not None, "a reason is kept while its stream is parked"
            yield f"{stream} for {consumer}, from offset {entry.first} of {topic}[{partition}] on"
            yield f"  {self._reasons[parking]}"
            yield f"  ./daybook retry --consumer {consumer} {stream}"
        if not self._reasons:
            yield "nothing is parked"
        if self._others:
            yield f"letters that park nothing: {self._others_count:,}; the last of them:"
            yield from self._others
