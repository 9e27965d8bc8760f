"""A bundle of evidence: one ZIP file that says what was asked, and holds records, proofs, checkpoints and schemas.

    bundle.json                     what was asked, and what of each tree is here
    schemas/{fingerprint}.avsc      the schemas that the records were written with
    {tree}/checkpoints              signed checkpoints, oldest first, each with the proof that it grew from the one before
    {tree}/records.avro             an Avro file: leaf, offset, hash of the leaf, the Kafka value as it is
    {tree}/proof                    32 bytes for each subtree between the leaves that are here, from left to right

Records and proof together are the whole tree, up to the last checkpoint and at each one before it. The archive's comment
is the SHA-256 of all bytes before it: it finds accidents, while a forger makes a new one and is found by the proofs.
"""

import json
import os
import zipfile
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

from fastavro import parse_schema, reader, writer
from fastavro.schema import to_parsing_canonical_form

from ops.evidence.merkle import HASH_BYTES, Subtree, subtrees

FORMAT = "daybook evidence 1"
MANIFEST = "bundle.json"
SMALL_BYTES_MAX = 64 << 20
"""No part but the records and their proofs is larger."""

CHECKPOINTS_MAX = 128

_COMMENT = b"sha256:"
_COMMENT_BYTES = len(_COMMENT) + 64
_RECORD = parse_schema(
    {
        "type": "record",
        "name": "SealedRecord",
        "namespace": "daybook.evidence",
        "fields": [
            {"name": "leaf", "type": "long"},
            {"name": "offset", "type": "long"},
            {"name": "hash", "type": {"type": "fixed", "name": "LeafHash", "size": HASH_BYTES}},
            {"name": "value", "type": "bytes"},
        ],
    }
)
_AS_IT_SHOULD_BE = to_parsing_canonical_form(_RECORD)

Kind = Literal["sku", "order", "period"]
Told = TypeVar("Told", "Question", "Tree")


class NotABundle(Exception):
    """The file is no bundle, or only a part of one."""


class Damaged(Exception):
    """A part of the bundle cannot be read."""


@dataclass(frozen=True)
class Question:
    """What the bundle answers. Of a period: `begin` ≤ recorded_at < `end`, in microseconds."""

    kind: Kind
    sku: str = ""
    order: str = ""
    begin: int = 0
    end: int = 0

    def __str__(self) -> str:
        return {
            "sku": f"all that happened to {self.sku}",
            "order": f"what order {self.order} did to the stock",
            "period": f"all that was recorded from {_instant(self.begin)} to {_instant(self.end)}",
        }[self.kind]


@dataclass(frozen=True)
class Tree:
    """What is here of one tree: `records`, of which `asked` answer the question; the rest stands beside them."""

    origin: str
    records: int
    asked: int


@dataclass(frozen=True)
class Manifest:
    """`exported_at` is ISO 8601; it and the records' offsets are told, not proved."""

    question: Question
    exported_at: str
    trees: tuple[Tree, ...]


class BundleWriter:
    """Writes a bundle; it stands under its name when it is whole, and not before."""

    def __init__(self, file: IO[bytes]) -> None:
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1)

    def manifest(self, manifest: Manifest) -> None:
        self._zip.writestr(MANIFEST, json.dumps({"format": FORMAT, **asdict(manifest)}, indent=1) + "\n")

    def schema(self, fingerprint: str, schema: Any) -> None:
        self._zip.writestr(f"schemas/{fingerprint}.avsc", json.dumps(schema, indent=2) + "\n")

    def checkpoints(self, tree: int, submissions: Iterable[str]) -> None:
        self._zip.writestr(f"{tree}/checkpoints", "".join(submissions))

    def records(self, tree: int, records: Iterable[Mapping[str, Any]]) -> None:
        """Records of `leaf`, `offset`, `hash` and `value`, in order."""
        with self._zip.open(f"{tree}/records.avro", "w", force_zip64=True) as part:
            writer(part, _RECORD, records)

    def proof(self, tree: int, hashes: Iterable[bytes]) -> None:
        with self._zip.open(f"{tree}/proof", "w", force_zip64=True) as part:
            part.writelines(hashes)

    def abandon(self) -> None:
        """Lets go of a file that nobody will read, which may be on a full disk."""
        with suppress(OSError, ValueError):
            self._zip.close()

    def close(self) -> None:
        self._zip.comment = b" " * _COMMENT_BYTES
        self._zip.close()


@contextmanager
def written(path: Path) -> Iterator[BundleWriter]:
    """A draft beside `path`, which takes its name at the end; on any error nothing stays. Raises OSError."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    try:
        with draft.open("w+b") as file:
            bundle = BundleWriter(file)
            try:
                yield bundle
                bundle.close()
            except BaseException:  # also Ctrl-C
                bundle.abandon()
                raise
            seal_file(file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def seal_file(file: IO[bytes]) -> None:
    """Puts the digest of all bytes before the archive's comment into it."""
    end = file.seek(0, os.SEEK_END) - _COMMENT_BYTES
    digest = _digest(file, end)
    file.seek(end)
    file.write(digest)


class Bundle:
    """A bundle that is there. Nothing it says is believed: reading raises Damaged wherever a part cannot be read."""

    def __init__(self, path: Path) -> None:
        """Raises NotABundle, OSError."""
        self.path = path
        with path.open("rb") as file:
            self.is_whole = _is_as_written(file)
        try:
            self._zip = zipfile.ZipFile(path)
        except Exception as error:  # zipfile raises whatever the bytes make it trip over
            raise NotABundle(
                f"{path.name} is no bundle of evidence, or only a part of one: {error}"
            ) from error
        if MANIFEST not in self._zip.namelist():
            self._zip.close()
            raise NotABundle(f"{path.name} is a ZIP file and no bundle of evidence")

    def manifest(self) -> Manifest:
        """Raises Damaged, NotABundle for another format."""
        try:
            told = json.loads(self._small(MANIFEST))
            if told.pop("format") != FORMAT:
                raise NotABundle(f"{self.path.name} has another format than this verifier reads")
            trees = tuple(_typed(Tree("", 0, 0), tree) for tree in told["trees"])
            return Manifest(_typed(Question("sku"), told["question"]), str(told["exported_at"]), trees)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Damaged(f"{MANIFEST}: {type(error).__name__}: {error}") from error

    def surplus(self, trees: int) -> set[str]:
        """What has no business in a bundle of so many trees, or is there twice."""
        names = self._zip.namelist()
        parts = {
            f"{tree}/{part}" for tree in range(trees) for part in ("checkpoints", "records.avro", "proof")
        }
        schemas = {name for name in names if name.startswith("schemas/")}
        return (set(names) - parts - schemas - {MANIFEST}) | {one for one in names if names.count(one) > 1}

    def schemas(self) -> list[Any]:
        try:
            names = [name for name in self._zip.namelist() if name.startswith("schemas/")]
            return [json.loads(self._small(name)) for name in names]
        except ValueError as error:
            raise Damaged(f"schemas: {error}") from error

    def checkpoints(self, tree: int) -> str:
        try:
            return self._small(f"{tree}/checkpoints").decode()
        except UnicodeDecodeError as error:
            raise Damaged(f"{tree}/checkpoints: {error}") from error

    def records(self, tree: int) -> Generator[dict[str, Any], None, None]:
        """As they were written. Close it: it keeps the file open until its end."""
        name = f"{tree}/records.avro"
        try:
            with self._zip.open(name) as part:
                found = reader(part)
                assert to_parsing_canonical_form(found.writer_schema) == _AS_IT_SHOULD_BE, "another schema"
                yield from found  # type: ignore[misc]
        except GeneratorExit:
            raise
        except Exception as error:  # zlib, zipfile and fastavro raise whatever the bytes make them trip over
            raise Damaged(f"{name} cannot be read any further: {type(error).__name__}: {error}") from error

    def proof(self, tree: int) -> Generator[bytes, None, None]:
        """Its hashes; the last may be cut short. Close it, too."""
        name = f"{tree}/proof"
        try:
            with self._zip.open(name) as part:
                while found := part.read(HASH_BYTES):
                    yield found
        except GeneratorExit:
            raise
        except Exception as error:  # as above
            raise Damaged(f"{name} cannot be read any further: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        self._zip.close()

    def _small(self, name: str) -> bytes:
        try:
            with self._zip.open(name) as part:
                body = part.read(SMALL_BYTES_MAX + 1)
        except Exception as error:  # as above
            raise Damaged(f"{name} cannot be read: {type(error).__name__}: {error}") from error
        if len(body) > SMALL_BYTES_MAX:
            raise Damaged(f"{name} is larger than it can be")
        return body


def between(begin: int, end: int, cuts: Sequence[int]) -> Iterator[Subtree]:
    """The subtrees between two leaves, none of which reaches over one of the cuts: the sizes of the checkpoints."""
    for stop in [*(cut for cut in cuts if begin < cut < end), end]:
        yield from subtrees(begin, stop)
        begin = stop


def _typed(like: Told, fields: dict[str, Any]) -> Told:
    """One of these with other fields, each of the same type. Raises TypeError."""
    found = type(like)(**fields)
    for name, value in vars(like).items():
        if type(getattr(found, name)) is not type(value):
            raise TypeError(f"{name} is {getattr(found, name)!r}")
    return found


def _is_as_written(file: IO[bytes]) -> bool:
    """Whether the digest at the end is that of all bytes before it."""
    end = file.seek(0, os.SEEK_END) - _COMMENT_BYTES
    if end < 0:
        return False
    file.seek(end)
    told = file.read(_COMMENT_BYTES)
    return told == _digest(file, end)


def _digest(file: IO[bytes], end: int) -> bytes:
    file.seek(0)
    digest, left = sha256(), end
    while left and (block := file.read(min(left, 1 << 20))):
        digest.update(block)
        left -= len(block)
    return _COMMENT + digest.hexdigest().encode()


def _instant(micros: int) -> str:
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)).isoformat()
    except OverflowError:
        return f"{micros} µs"
