"""The verifier: no Kafka, no network, nothing of ours but this package's tree, notes, schemas and laws.

What it trusts is the sealer's public key, and a witness's if one is asked for. It goes through each tree once, leaf by
leaf, and stops at the first record that cannot be what was sealed.
"""

import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from ops.evidence.bundle import Bundle, Damaged, NotABundle, Question, Tree, between
from ops.evidence.checkpoint import BadSignature, Checkpoint, NotANote, PublicKey, Submission, Unsigned, split
from ops.evidence.datum_reader import Datum
from ops.evidence.laws import LawBroken, Shelf, StreamEnd
from ops.evidence.merkle import Frontier, ProofFailed, verify_consistency
from ops.evidence.values import RELEASED, Shapes, Unreadable, WrongSchema, digest_of

MANY_RECORDS = 20_000
"""From so many on the trees of a bundle are verified side by side."""

_NO_HASH = bytes(32)


class Bad(Exception):
    """The bundle is not what was sealed. `record` names the first bad record, empty where none can be named."""

    def __init__(self, record: str, reason: str) -> None:
        super().__init__(record, reason)
        self.record = record
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.record}: {self.reason}" if self.record else self.reason


class WrongKey(Exception):
    """Nothing in the bundle is signed by the key."""


@dataclass(frozen=True)
class TreeVerdict:
    """`size` records were sealed in this tree by the last checkpoint; `records` of them are here and true."""

    origin: str
    size: int
    records: int
    asked: int
    checkpoints: int
    cosigned_at: int
    ends: dict[str, int]
    """The last version of every stream that is here."""
    until: int | None
    """Of a period: when its last record here was recorded, if none behind the period shows that nothing followed."""


@dataclass(frozen=True)
class Verdict:
    question: Question
    trees: tuple[TreeVerdict, ...]

    @property
    def records(self) -> int:
        return sum(tree.records for tree in self.trees)


@dataclass(frozen=True)
class Trust:
    """Whom a verifier believes, and by which schemas it reads (`digest_of`): those released, and what it was given."""

    sealer: PublicKey
    witness: PublicKey | None = None
    schemas: frozenset[str] = RELEASED

    @classmethod
    def of(cls, sealer: PublicKey, witness: PublicKey | None = None, schemas: Iterable[Any] = ()) -> "Trust":
        """`schemas` of releases that this verifier does not know. Raises WrongSchema."""
        return cls(sealer, witness, RELEASED | {digest_of(schema) for schema in schemas})

    def check(self, schema: Any) -> None:
        """Raises WrongSchema."""
        if digest_of(schema) not in self.schemas:
            raise WrongSchema(f"{schema['name']} was never released so")


def verify(path: Path, trust: Trust, processes: int | None = None) -> Verdict:
    """What is true of the bundle. Raises Bad, WrongKey, NotABundle, OSError."""
    bundle = Bundle(path)
    try:
        return _verified(bundle, trust, processes or os.cpu_count() or 1)
    except Damaged as damaged:
        raise Bad("", str(damaged)) from damaged
    finally:
        bundle.close()


def _verified(bundle: Bundle, trust: Trust, processes: int) -> Verdict:
    manifest = bundle.manifest()
    _check_trees(manifest.question, manifest.trees)
    if surplus := bundle.surplus(len(manifest.trees)):
        raise Bad("", f"{', '.join(sorted(surplus))} has no business in a bundle")
    jobs = [(bundle.path, n, tree, manifest.question, trust) for n, tree in enumerate(manifest.trees)]
    if processes > 1 and len(jobs) > 1 and sum(tree.records for tree in manifest.trees) > MANY_RECORDS:
        with ProcessPoolExecutor(min(processes, len(jobs))) as pool:
            trees = tuple(pool.map(_verify_tree, *zip(*jobs, strict=True)))
    else:
        trees = tuple(_verify_tree(*job) for job in jobs)
    if manifest.question.kind != "period" and not any(tree.asked for tree in trees):
        raise Bad("", f"there is no record of {manifest.question}")
    if not bundle.is_whole:  # all that can be proved is well: the damage is where nothing is said
        raise Bad("", "the file is not as it was written: its digest is another")
    return Verdict(manifest.question, trees)


def _check_trees(question: Question, trees: tuple[Tree, ...]) -> None:
    if len({tree.origin for tree in trees}) != len(trees) or not trees:
        raise Bad("", "a bundle has each tree once, and one at least")
    if question.kind not in ("sku", "order", "period"):
        raise Bad("", f"nobody asks for a {question.kind}")


def _verify_tree(path: Path, number: int, told: Tree, question: Question, trust: Trust) -> TreeVerdict:
    """One tree: its signatures and its growth, then its records."""
    bundle = Bundle(path)
    try:
        checkpoints, cosigned_at = _checkpoints(bundle.checkpoints(number), told.origin, trust)
        with closing(bundle.proof(number)) as proof, closing(bundle.records(number)) as records:
            walk = _Walk(told, question, checkpoints, proof, _shapes(bundle, trust))
            for record in records:
                walk.take(record)
            walk.finish()
    except (NotABundle, Damaged) as damaged:
        raise Bad("", str(damaged)) from damaged
    finally:
        bundle.close()
    ends = {stream: end.version for stream, end in walk.streams.items()}
    size, until = checkpoints[-1].size, walk.until
    return TreeVerdict(
        told.origin, size, walk.records, walk.asked, len(checkpoints), cosigned_at, ends, until
    )


def _shapes(bundle: Bundle, trust: Trust) -> Shapes:
    schemas = bundle.schemas()
    try:
        for schema in schemas:
            trust.check(schema)
        return Shapes(schemas)
    except WrongSchema as wrong:
        raise Bad("", f"a schema of the bundle is forged, or of a later release: {wrong}") from wrong


def _checkpoints(text: str, origin: str, trust: Trust) -> tuple[list[Checkpoint], int]:
    """Signed, of this tree, each grown from the one before; and when the witness saw the last."""
    try:
        submissions = [Submission.parse(part) for part in split(text)]
        found = [Checkpoint.of(submission.note) for submission in submissions]
    except NotANote as error:
        raise Bad("", f"{origin}: a checkpoint cannot be read: {error}") from error
    if not found:
        raise Bad("", f"{origin}: there is no checkpoint")
    _check_signatures(submissions, trust.sealer)
    before = Checkpoint(origin, 0, _NO_HASH)
    for submission, checkpoint in zip(submissions, found, strict=True):
        _check_growth(before, checkpoint, submission)
        before = checkpoint
    if not origin.startswith(f"{trust.sealer.name}/"):
        raise Bad("", f"{origin} is no tree of {trust.sealer.name}")
    return found, _cosigned_at(submissions[-1], trust.witness) if trust.witness else 0


def _check_signatures(submissions: list[Submission], sealer: PublicKey) -> None:
    """WrongKey where none is by this key, Bad where some are, or where one is forged."""
    unsigned = 0
    for submission in submissions:
        try:
            submission.note.verify(sealer)
        except Unsigned:
            unsigned += 1
        except BadSignature as error:
            raise Bad("", f"checkpoint of {Checkpoint.of(submission.note).size} records: {error}") from error
    if unsigned == len(submissions):
        by = sorted(
            {f"{one.name} ({one.key_id.hex()})" for sub in submissions for one in sub.note.signatures}
        )
        raise WrongKey(
            f"no checkpoint is signed by {sealer.name} ({sealer.id.hex()}); they are by {', '.join(by)}"
        )
    if unsigned:
        raise Bad("", f"{unsigned} of {len(submissions)} checkpoints are not signed by {sealer.name}")


def _check_growth(before: Checkpoint, checkpoint: Checkpoint, submission: Submission) -> None:
    if checkpoint.origin != before.origin:
        raise Bad("", f"a checkpoint of {checkpoint.origin} stands where {before.origin} was promised")
    if checkpoint.size <= before.size or submission.old != before.size:
        raise Bad(
            "", f"{before.origin}: a checkpoint of {checkpoint.size} records follows one of {before.size}"
        )
    if before.size:
        try:
            verify_consistency(before.size, checkpoint.size, before.root, checkpoint.root, submission.proof)
        except ProofFailed as error:
            raise Bad(
                "",
                f"{before.origin}: the checkpoints of {before.size} and {checkpoint.size} records "
                f"are of two different histories: {error}",
            ) from error


def _cosigned_at(submission: Submission, witness: PublicKey) -> int:
    try:
        return submission.note.verify(witness)
    except (Unsigned, BadSignature) as error:
        raise Bad("", f"the last checkpoint has no word of the witness: {error}") from error


class _Place(NamedTuple):
    """A record, to be named."""

    meta: Datum
    leaf: int
    offset: int

    def __str__(self) -> str:
        return f"{self.meta['stream']}@{self.meta['version']} (leaf {self.leaf}, offset {self.offset})"


@dataclass
class _Walk:
    """From the first leaf of a tree to its last checkpoint; what is not here is a hash of the proof."""

    told: Tree
    question: Question
    checkpoints: list[Checkpoint]
    proof: Iterator[bytes]
    shapes: Shapes
    records: int = 0
    asked: int = 0
    streams: dict[str, StreamEnd] = field(default_factory=dict)
    tree: Frontier = field(default_factory=Frontier)
    _offset: int = -1
    _since_checkpoint: list[_Place] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._cuts = [checkpoint.size for checkpoint in self.checkpoints]
        self._roots = {checkpoint.size: checkpoint.root for checkpoint in self.checkpoints}
        self._next_cut = self._cuts[0]
        self._period = _Period(self.question) if self.question.kind == "period" else None

    @property
    def until(self) -> int | None:
        return self._period.until if self._period else None

    def take(self, record: dict[str, Any]) -> None:
        """The next record. Raises Bad."""
        leaf, offset, value = record["leaf"], record["offset"], record["value"]
        if leaf != self.tree.size or leaf == self._next_cut:
            self._reach(leaf, record)
        if offset <= self._offset or offset < leaf:
            raise Bad(self._named(record), "its offset is not behind that of the record before it")
        self._offset = offset
        if sha256(b"\x00" + value).digest() != record["hash"]:
            raise Bad(self._named(record), "its bytes are not those that were sealed")
        self.tree.append(record["hash"])
        self.records += 1
        try:
            name, event = self.shapes.read(value)
        except Unreadable as error:
            raise Bad(f"{self.told.origin}, leaf {leaf}", str(error)) from error
        place = _Place(event["meta"], leaf, offset)
        # The first and the last are named if the root is another than signed.
        self._since_checkpoint[1:] = [place]
        try:
            self._follow(name, event, event["meta"], value)
            self.asked += self._answers(leaf, event, event["meta"])
        except LawBroken as broken:
            raise Bad(str(place), str(broken)) from broken

    def finish(self) -> None:
        """Raises Bad where the whole is not what was sealed or asked."""
        self._reach(self._cuts[-1], None)
        self._check_root()
        if next(self.proof, None) is not None:
            raise Bad("", f"{self.told.origin}: the proof has more hashes than the tree has room for")
        if self._period:
            self._period.finish(self.told.origin, self.tree.size)
        if (self.records, self.asked) != (self.told.records, self.told.asked):
            raise Bad(
                "",
                f"{self.told.origin}: {self.records} records, {self.asked} of them asked for; "
                f"{self.told.records} and {self.told.asked} were promised",
            )

    def _reach(self, leaf: int, record: dict[str, Any] | None) -> None:
        """Fills the gap before a leaf from the proof; at each checkpoint the root must be the signed one."""
        if not self.tree.size <= leaf <= self._cuts[-1] or (record and leaf == self._cuts[-1]):
            raise Bad(
                self._named(record) if record else "",
                f"it stands as leaf {leaf}, between {self.tree.size} and {self._cuts[-1]}",
            )
        for level, _ in between(self.tree.size, leaf, self._cuts):
            self._pass_checkpoint()
            node = next(self.proof, b"")
            if len(node) != 32:
                raise Bad(
                    self._named(record) if record else "",
                    f"{self.told.origin}: the proof ends before leaf {leaf}",
                )
            self.tree.append_subtree(level, node)
        if record:
            self._pass_checkpoint()

    def _pass_checkpoint(self) -> None:
        if self.tree.size == self._next_cut:
            self._check_root()
            self._next_cut = self._cuts[min(bisect_right(self._cuts, self.tree.size), len(self._cuts) - 1)]
            self._since_checkpoint.clear()

    def _check_root(self) -> None:
        if self.tree.root() == self._roots[self.tree.size]:
            return
        signed = f"what the checkpoint of {self.tree.size} records signs"
        if not (found := self._since_checkpoint):
            raise Bad("", f"{self.told.origin}: the proof does not lead to {signed}")
        others = f", or a record up to {found[-1]}" if len(found) > 1 else ""
        raise Bad(str(found[0]), f"it{others}, or the proof between them is not {signed}")

    def _follow(self, name: str, event: Datum, meta: Datum, value: bytes) -> None:
        """Version, chain, clock, balances and laws of a stream. Raises LawBroken."""
        stream, version = meta["stream"], meta["version"]
        if stream != f"stock/{event['sku']}/{event['location']}":
            raise LawBroken(f"speaks of {event['sku']} at {event['location']}")
        end = self.streams.get(stream)
        if end is None:
            end = self.streams[stream] = self._begun(version, meta)
        elif version == end.version + 1:
            if meta["previous"] != end.digest:
                raise LawBroken("does not chain to the event before it")
        else:
            raise LawBroken(f"follows version {end.version}")
        if meta["recorded_at"] < end.recorded_at:
            raise LawBroken("was recorded before the event that it follows")
        end.shelf.fold(name, event)
        end.version, end.digest, end.recorded_at = version, sha256(value).digest(), meta["recorded_at"]

    def _begun(self, version: int, meta: Datum) -> StreamEnd:
        if version == 1:
            if meta["previous"] != _NO_HASH:
                raise LawBroken("chains to an event before the first")
            return StreamEnd(0, _NO_HASH, 0, Shelf.empty())
        if self.question.kind == "sku" or version < 1:
            raise LawBroken("is the first of its stream here, and not the first that was")
        if self.question.kind == "order":
            return StreamEnd(0, _NO_HASH, 0, Shelf.of_order(self.question.order))
        return StreamEnd(0, _NO_HASH, 0)

    def _answers(self, leaf: int, event: Datum, meta: Datum) -> bool:
        """Whether the record is what was asked for. Raises LawBroken for one that has no business here."""
        if self._period:
            return self._period.take(leaf, meta["recorded_at"])
        if self.question.kind == "order":
            return bool(event.get("order_id") == self.question.order)
        if event["sku"] != self.question.sku:
            raise LawBroken("is of another SKU than was asked for")
        return True

    def _named(self, record: dict[str, Any]) -> str:
        """A record that may be anything, by what it says of itself if it says anything."""
        try:
            _, event = self.shapes.read(record["value"])
        except Unreadable:
            return f"{self.told.origin}, leaf {record['leaf']}, offset {record['offset']}"
        return str(_Place(event["meta"], record["leaf"], record["offset"]))


@dataclass
class _Period:
    """That nothing of a period is missing: its records stand leaf by leaf, with one before and one behind them.

    A partition's writer never goes back in time, so what lies outside those two lies outside the period.
    """

    question: Question
    before: int = -1
    """The last leaf seen that was recorded before the period."""
    last: int = -1
    """The last leaf of the period so far."""
    behind: int = -1
    """The first leaf seen that was recorded after it."""
    _newest: int = 0

    @property
    def until(self) -> int | None:
        """When the last leaf was recorded; None where one behind the period shows that nothing of it followed."""
        return self._newest if self.behind < 0 else None

    def take(self, leaf: int, recorded_at: int) -> bool:
        """Whether the record is of the period. Raises LawBroken where a leaf is missing."""
        self._newest = recorded_at
        if recorded_at < self.question.begin:
            if self.last >= 0 or self.behind >= 0:
                raise LawBroken("was recorded before what stands before it")
            self.before = leaf
            return False
        if self.behind < 0 and leaf != max(self.before, self.last) + 1:
            raise LawBroken("does not follow the record before it: others of the period are missing")
        if recorded_at >= self.question.end:
            self.behind = leaf
            return False
        if self.behind >= 0:
            raise LawBroken("was recorded before what stands before it")
        self.last = leaf
        return True

    def finish(self, origin: str, size: int) -> None:
        if self.behind < 0 and max(self.before, self.last) != size - 1:
            raise Bad("", f"{origin}: records of the period are missing at its end")
