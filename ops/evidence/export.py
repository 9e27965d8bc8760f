"""Making a bundle: the log is read twice, once to find what was asked and build the trees, once to copy it.

It reads what anybody can read, events and checkpoints, and believes neither: a tree that does not have the signed roots
is no evidence, and is not exported as such.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer

from ops.evidence.assembly import Part
from ops.evidence.bundle import CHECKPOINTS_MAX, Manifest, Question, Tree, written
from ops.evidence.checkpoint import BadSignature, Checkpoint, NotANote, Note, PublicKey, Unsigned, origin_of
from ops.evidence.datum_reader import Datum
from ops.evidence.log import Record, checkpoints_in, open_consumer, partitions_of, records_of
from ops.evidence.merkle import leaf_hash
from ops.evidence.tree_file import TreeFile
from ops.evidence.values import HEADER_BYTES, LAYOUTS, Shapes, Unreadable, WrongSchema
from schemas.avro import AVSC, released_files
from schemas.topics import Topics

ASK_AGAIN_S = 1.0
KEPT_CHECKPOINTS = 4_096

Progress = Callable[[str], None]


class NotExported(Exception):
    """No bundle was made; the message says why."""


class Unsealed(NotExported):
    """What was asked for is in the log, and not (all of it) under a checkpoint yet."""


class LogContradictsSeal(NotExported):
    """The log is not what was sealed."""


@dataclass(frozen=True)
class Place:
    """Where everything of one Daybook's evidence is: its Kafka, its topics, and the sealer's public key."""

    kafka: str
    topics: Topics
    sealer: PublicKey

    def origin(self, partition: int) -> str:
        return origin_of(self.sealer.name, self.topics.events("inventory"), partition)


@dataclass
class Sealed:
    """The checkpoints of one origin, by size, thinned out when there are very many; each with all its signatures."""

    notes: dict[int, Note] = field(default_factory=dict)

    def add(self, note: Note) -> None:
        size = Checkpoint.of(note).size
        known = self.notes.get(size)
        if known is not None and known.text == note.text:
            ours = {(one.name, one.key_id) for one in known.signatures}
            fresh = [one for one in note.signatures if (one.name, one.key_id) not in ours]
            note = Note(known.text, (*known.signatures, *fresh))
        self.notes[size] = note
        if len(self.notes) > KEPT_CHECKPOINTS:
            self.notes = self.upto(max(self.notes), KEPT_CHECKPOINTS // 2)

    @property
    def size(self) -> int:
        """How many records are sealed."""
        return max(self.notes, default=0)

    def upto(self, size: int, most: int = CHECKPOINTS_MAX) -> dict[int, Note]:
        """The first, the last, and some between, evenly."""
        sizes = sorted(one for one in self.notes if one <= size)
        step = max(1, -(-(len(sizes) - 1) // (most - 1)))
        return {one: self.notes[one] for one in [*sizes[:-1:step], *sizes[-1:]]}


def export_bundle(
    question: Question, place: Place, path: Path, wait_s: float, *, sealed_only: bool = False, say: Progress
) -> Manifest:
    """Writes the bundle to `path`. What is not sealed yet is waited for, `wait_s` at most; then, `sealed_only`, left out.

    Raises NotExported, LogNotReadError, OSError; then there is no file under that name that was not there before.
    """
    with ExitStack() as ends:
        consumer = ends.enter_context(open_consumer(place.kafka))
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="daybook-evidence-")))
        shapes, schemas = _schemas(consumer, place.topics)
        scans = []
        for partition in _partitions(consumer, question, place):
            say(f"reading {place.topics.events('inventory')}[{partition}]")
            tree = ends.enter_context(closing(TreeFile(folder / str(partition), 0)))
            scans.append(Scan(place, partition, tree, Choice(question, shapes)))
            scans[-1].read(consumer)
        if not any(scan.choice.asked for scan in scans):
            raise NotExported(f"the log has nothing of {question}")
        sealed = _await_sealed(consumer, place, scans, wait_s, say)
        if not sealed_only:
            _check_sealed(scans, sealed, wait_s)
        parts = {scan: scan.part(consumer, found) for scan in scans if (found := sealed[scan.partition]).size}
        if not any(part.wanted for part in parts.values()):
            raise Unsealed(f"nothing of {question} is sealed yet")
        return _written(consumer, question, parts, schemas, path)


def _partitions(consumer: Consumer, question: Question, place: Place) -> Sequence[int]:
    if question.kind == "sku":
        return [place.topics.partition_of(question.sku)]
    return partitions_of(consumer, place.topics.events("inventory"))


class Scan:
    """One partition, read from its start: its tree, and which of its records are wanted."""

    def __init__(self, place: Place, partition: int, tree: TreeFile, choice: "Choice") -> None:
        self.partition = partition
        self.topic = place.topics.events("inventory")
        self.origin = place.origin(partition)
        self.tree = tree
        self.choice = choice
        self._next = 0

    def read(self, consumer: Consumer, upto: int | None = None) -> None:
        """To the end of what is committed by now, or to a number of records."""
        for record in records_of(consumer, self.topic, self.partition, self._next):
            if self.tree.size == upto:
                return
            self.choice.look(self.tree.size, record)
            self.tree.append([leaf_hash(record.value)])
            self._next = record.offset + 1

    def part(self, consumer: Consumer, sealed: "Sealed") -> Part:
        """What goes into the bundle. Raises LogContradictsSeal unless the log has the signed roots."""
        if self.tree.size < sealed.size:  # more was written, and sealed, after we had read to the end
            self.read(consumer, sealed.size)
        if self.tree.size < sealed.size:
            raise LogContradictsSeal(
                f"{self.origin}: {sealed.size:,} records were sealed, {self.tree.size:,} are there"
            )
        notes = sealed.upto(sealed.size)
        for size, note in notes.items():
            if self.tree.root(size) != Checkpoint.of(note).root:
                raise LogContradictsSeal(
                    f"{self.origin}: its first {size:,} records are not those that were sealed"
                )
        return Part(self.origin, self.tree, notes, self.choice.wanted(sealed.size))


class Choice:
    """Which records answer the question, and which have to stand beside them.

    Of an order, and of a period, a stream begins with the record before the first that was asked for, so that its
    movement can be seen, and goes on without a gap to the last; and a period comes with the records right before and
    behind it, so that nothing of it can be missing.
    """

    def __init__(self, question: Question, shapes: Shapes) -> None:
        self.asked = 0
        self.needed = 0
        """So many records have to be sealed for all that was asked to be."""
        self._question = question
        self._shapes = shapes
        self._sku = question.sku.encode()
        self._last: dict[str, int] = {}
        self._between: dict[str, list[int]] = {}
        self._wanted: set[int] = set()
        self._before = -1
        self._behind: int | None = None

    def look(self, leaf: int, record: Record) -> None:
        """The next record of the partition."""
        if self._question.kind == "sku":
            if record.key == self._sku:
                self._take(leaf)
            return
        with suppress(Unreadable):
            _, event = self._shapes.read(record.value)
            stream = event["meta"]["stream"]
            if not self._is_asked(event):
                self._pass_by(leaf, event, stream)
            elif self._question.kind == "order":
                self._take(leaf, self._last.get(stream, -1), *self._between.get(stream, ()))
                self._between[stream] = []
            else:
                self._take(leaf, self._last.get(stream, -1), self._before)
            self._last[stream] = leaf

    def wanted(self, size: int) -> list[int]:
        """The leaves among the first `size`; a period that goes on to their end shows the last of them."""
        ends_later = self._behind is None or self._behind >= size
        shown = {size - 1} if self._question.kind == "period" and ends_later else set[int]()
        return sorted(leaf for leaf in self._wanted | shown if 0 <= leaf < size)

    def answers(self, record: Record) -> bool:
        """Whether a record that is wanted is one that was asked for."""
        if self._question.kind == "sku":
            return True
        with suppress(Unreadable):
            _, event = self._shapes.read(record.value)
            return self._is_asked(event)
        return False

    def _is_asked(self, event: Datum) -> bool:
        if self._question.kind == "order":
            return bool(event.get("order_id") == self._question.order)
        return bool(self._question.begin <= event["meta"]["recorded_at"] < self._question.end)

    def _pass_by(self, leaf: int, event: Datum, stream: str) -> None:
        if self._question.kind == "order":
            if stream in self._between:  # wanted if the order comes back to this stream
                self._between[stream].append(leaf)
        elif self._behind is None and event["meta"]["recorded_at"] < self._question.begin:
            self._before = leaf
        elif self._behind is None:
            self._behind = leaf
            self._wanted.update((self._before, leaf))
            self.needed = leaf + 1

    def _take(self, leaf: int, *beside: int) -> None:
        self._wanted.update((leaf, *beside))
        self.asked += 1
        self.needed = leaf + 1


def _await_sealed(
    consumer: Consumer, place: Place, scans: Sequence[Scan], wait_s: float, say: Progress
) -> dict[int, Sealed]:
    """The checkpoints, when they cover all that was asked for, or the time is over."""
    found, position, gives_up_at = {scan.partition: Sealed() for scan in scans}, 0, time.monotonic() + wait_s
    while True:
        position = _gather(consumer, place, found, position)
        missing = {scan.partition: scan.choice.needed - found[scan.partition].size for scan in scans}
        behind = sum(max(0, one) for one in missing.values())
        if not behind or time.monotonic() > gives_up_at:
            return found
        say(f"{behind:,} records are not sealed yet; waiting")
        time.sleep(ASK_AGAIN_S)


def _gather(consumer: Consumer, place: Place, found: Mapping[int, Sealed], start: int) -> int:
    """Adds what was published since; the offset to go on from."""
    by_origin = {place.origin(partition): sealed for partition, sealed in found.items()}
    for one in checkpoints_in(consumer, place.topics.checkpoints, start):
        start = one.offset + 1
        with suppress(NotANote, Unsigned, BadSignature):
            one.note.verify(place.sealer)
            if sealed := by_origin.get(Checkpoint.of(one.note).origin):
                sealed.add(one.note)
    return start


def _check_sealed(scans: Sequence[Scan], sealed: Mapping[int, Sealed], wait_s: float) -> None:
    for scan in scans:
        size, needed = sealed[scan.partition].size, scan.choice.needed
        if needed > size:
            raise Unsealed(
                f"{scan.origin} is sealed up to {size:,} records, {needed:,} are needed, and no checkpoint came in "
                f"{wait_s:.0f} s: does the sealer run? --sealed-only exports what is sealed"
            )


def _written(
    consumer: Consumer,
    question: Question,
    parts: Mapping[Scan, Part],
    schemas: Mapping[bytes, Any],
    path: Path,
) -> Manifest:
    used, trees = set[bytes](), list[Tree]()
    with written(path) as bundle:
        for number, (scan, part) in enumerate(parts.items()):
            asked = 0

            def records(scan: Scan = scan, part: Part = part) -> Iterator[dict[str, Any]]:
                nonlocal asked
                for leaf, record in _wanted(consumer, scan, part):
                    used.add(record.value[:HEADER_BYTES])
                    asked += scan.choice.answers(record)
                    yield part.record(leaf, record.offset, record.value)

            bundle.checkpoints(number, part.checkpoints())
            bundle.records(number, records())
            bundle.proof(number, part.proof())
            trees.append(Tree(part.origin, len(part.wanted), asked))
        for header in sorted(used & schemas.keys()):
            bundle.schema(header[2:].hex(), schemas[header])
        manifest = Manifest(question, datetime.now(UTC).isoformat(timespec="seconds"), tuple(trees))
        bundle.manifest(manifest)
    return manifest


def _wanted(consumer: Consumer, scan: Scan, part: Part) -> Iterator[tuple[int, Record]]:
    """The records of the part, read once more from the log. Raises LogContradictsSeal if they changed meanwhile."""
    wanted = iter(part.wanted)
    leaf = next(wanted, None)
    for number, record in enumerate(records_of(consumer, scan.topic, scan.partition)):
        if leaf is None:
            return
        if number == leaf:
            if leaf_hash(record.value) != part.tree.node(0, leaf):
                raise LogContradictsSeal(f"{scan.origin}: record {leaf} changed while it was exported")
            yield leaf, record
            leaf = next(wanted, None)


def _schemas(consumer: Consumer, topics: Topics) -> tuple[Shapes, dict[bytes, Any]]:
    """Those of stock events: what writers published, and what this code and its releases know; JSON by header."""
    shapes, found = Shapes([]), dict[bytes, Any]()
    published = (record.value for record in records_of(consumer, topics.schemas, 0))
    ours = (path.read_bytes() for path in (*sorted(AVSC.glob("*.avsc")), *released_files().values()))
    for text in (*published, *ours):
        with suppress(ValueError, WrongSchema, KeyError, TypeError):
            schema = json.loads(text)
            if schema["name"] in LAYOUTS:
                found[shapes.learn(schema)] = schema
    return shapes, found
