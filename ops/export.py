"""The export: events as Parquet, a directory for each class of them, which grows by what is new and is always whole.

What counts is `manifest.json`: which files belong to it, and where in the log the next export goes on. It is replaced
in one step, after its files are on the disk; a file that it does not name is a leftover, and goes.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import pyarrow.parquet as pq

from schemas.decisions import Decisions
from schemas.language import AGGREGATES
from schemas.topics import Topics
from streams.columns import Columns, arrow_schema
from streams.replay import Place, Query, Replay, Stored

SEGMENT_RECORDS = 500_000
"""After so many records everything is on the disk and counts; what is killed later loses only what came after."""

FILES_MAX = 24
"""So many files of one class are merged into one."""

MANIFEST = "manifest.json"
LOCK = ".lock"
DRAFT = ".part"
FEW_VALUES = (
    "topic",
    "stream",
    "actor_kind",
    "actor_id",
    "batch_id",
    "sku",
    "location",
    "currency",
    "owner",
    "reason",
)
"""Columns that say the same again and again; ids would only fill a dictionary that is thrown away."""

Progress = Callable[[int], None]
"""Told how many events are in the export by now."""
Watch = Callable[[Replay], Progress]


class ExportFailed(Exception):
    """Nothing was added to the export; the message says why."""


@dataclass(frozen=True)
class Manifest:
    """`log` tells one Kafka's topics from another's, `shapes` one release's columns from another's; `next` are
    offsets by "topic[partition]", `files` paths below the directory by class; `wanted` is what was asked for.
    """

    log: str
    shapes: str
    wanted: str
    next: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, list[str]] = field(default_factory=dict)
    records: int = 0
    segments: int = 0

    @property
    def positions(self) -> dict[Place, int]:
        return {_place(name): offset for name, offset in self.next.items()}

    def continues(self, other: "Manifest") -> bool:
        return (self.log, self.shapes, self.wanted) == (other.log, other.shapes, other.wanted)


def events_of(topics: Topics) -> Query:
    """All events there are."""
    return Query(tuple(topics.events(aggregate) for aggregate in AGGREGATES))


def export(
    directory: Path, blank: Manifest, replay_from: Callable[[Mapping[Place, int]], Replay], watch: Watch
) -> Manifest:
    """Add what is new; the manifest as it is then. `blank` says of what log, release and question it should be.

    Raises ExportFailed, ReplayFailed; the export is whole whatever happens.
    """
    try:
        found = begin(directory, blank)
        reading = replay_from(found.positions)
        return _export(reading, directory, found, watch(reading))
    except OSError as error:
        # Arrow says in its own way that the disk is full.
        full = error.errno == errno.ENOSPC or "No space left" in str(error)
        why = "no space is left; what it held before is whole" if full else str(error.strerror or error)
        raise ExportFailed(f"{directory}: {why}") from error


def begin(directory: Path, blank: Manifest) -> Manifest:
    """The manifest that is there, without leftovers; a blank one in an empty directory. Raises ExportFailed."""
    directory.mkdir(parents=True, exist_ok=True)
    found = read_manifest(directory)
    if found is None:
        if {each.name for each in directory.iterdir()} - {LOCK, f"{MANIFEST}{DRAFT}"}:
            raise ExportFailed(f"{directory} is not empty and holds no export; name another")
        _write_manifest(directory, blank)  # whatever is left behind from now on is ours
        return blank
    if not found.continues(blank):
        raise ExportFailed(
            f"{directory} holds another export (of another log, of another release, or asked for otherwise);"
            " name another directory, or delete it"
        )
    _sweep(directory, found)
    return found


def read_manifest(directory: Path) -> Manifest | None:
    """Raises ExportFailed where there is one that nobody can read."""
    try:
        return Manifest(**json.loads((directory / MANIFEST).read_text("utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise ExportFailed(f"{directory / MANIFEST} is damaged: {error}; delete the directory") from error


@contextmanager
def locked(directory: Path, *, alone: bool) -> Iterator[bool]:
    """Whether we have the directory: `alone` to write (not waited for), or with other readers (waited for)."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
        except BlockingIOError:
            yield False
        else:
            yield True


def shapes(query: Query) -> str:
    """Of the columns that today's code writes of these topics: another release may write others."""
    told = "".join(f"{message.__name__} {arrow_schema(message)}" for message in messages_of(query))
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def messages_of(query: Query) -> list[type]:
    """The message classes that may stand in these topics."""
    kinds = {tuple(topic.rsplit(".", 2)[-2:]) for topic in query.topics}
    found: list[type] = [Decisions] if any(kind == "decisions" for kind, _ in kinds) else []
    for kind, name in sorted(kinds):
        found += getattr(AGGREGATES[name], kind, ())
    return found


def _export(reading: Replay, directory: Path, found: Manifest, progress: Progress) -> Manifest:
    portions, waiting = reading.portions(), Columns(reading)
    ended = False
    while not ended:
        with _Segment(directory, found.segments + 1) as segment:
            ended = _fill(segment, portions, waiting, found.records, progress)
            segment.write(waiting.rest())
        found = _committed(directory, found, segment, reading.positions)
    return found


def _fill(
    segment: "_Segment",
    portions: Iterator[Sequence[Stored]],
    waiting: Columns,
    before: int,
    progress: Progress,
) -> bool:
    """Whether the log ended before the segment was full."""
    for records in portions:
        waiting.add(records)
        segment.write(waiting.ready())
        progress(before + segment.records)
        if segment.records >= SEGMENT_RECORDS:
            return False
    return True


@dataclass
class _Segment:
    """The files of one step: finished together, or gone together. A thread encodes and compresses one batch, which
    needs no interpreter, while the next one is read.
    """

    directory: Path
    number: int
    records: int = 0
    _writers: dict[type, Any] = field(default_factory=dict)
    _hand: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "parquet"))
    _under_way: Future[None] | None = None

    def write(self, batches: Iterator[tuple[type, Any]]) -> None:
        """Raises what the batch before the last ones came to."""
        for message, batch in batches:
            if batch.num_rows:
                self._await_hand()
                self._under_way = self._hand.submit(self._writer(message).write_batch, batch)
                self.records += batch.num_rows

    @property
    def files(self) -> dict[str, str]:
        return {message.__name__: self._name(message) for message in self._writers}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._hand.shutdown()
            self._forget_drafts()

    def _await_hand(self) -> None:
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def _finish(self) -> None:
        self._await_hand()
        for message, writer in self._writers.items():
            writer.close()
            _flush(self._draft(message))
        for message in self._writers:
            self._draft(message).replace(self.directory / self._name(message))

    def _forget_drafts(self) -> None:
        for message, writer in self._writers.items():
            with suppress(Exception):  # the disk may be full: closing would write
                writer.close()
            self._draft(message).unlink(missing_ok=True)

    def _writer(self, message: type) -> Any:
        if message not in self._writers:
            draft = self._draft(message)
            draft.parent.mkdir(exist_ok=True)
            self._writers[message] = parquet_writer(draft, arrow_schema(message))
        return self._writers[message]

    def _name(self, message: type) -> str:
        return f"{message.__name__}/{self.number:06}.parquet"

    def _draft(self, message: type) -> Path:
        return self.directory / f"{self._name(message)}{DRAFT}"


def parquet_writer(path: Path, schema: Any) -> Any:
    few = [name for name in schema.names if name in FEW_VALUES]
    return pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=few)


def _committed(
    directory: Path, found: Manifest, segment: _Segment, positions: Mapping[Place, int]
) -> Manifest:
    files = {name: [*found.files.get(name, [])] for name in (*found.files, *segment.files)}
    for name, path in segment.files.items():
        files[name].append(path)
    done = replace(
        found,
        next={**found.next} | {f"{topic}[{number}]": offset for (topic, number), offset in positions.items()},
        files=files,
        records=found.records + segment.records,
        segments=segment.number if segment.records else found.segments,
    )
    if segment.records:
        done = _merged(directory, done)
    _write_manifest(directory, done)
    _sweep(directory, done)
    return done


def _merged(directory: Path, found: Manifest) -> Manifest:
    """The same with one file where there were many; the old ones are swept when the manifest names the new."""
    files = dict(found.files)
    for name, paths in found.files.items():
        if len(paths) > FILES_MAX:
            whole = f"{name}/{found.segments:06}-merged.parquet"
            _merge([directory / path for path in paths], directory / whole)
            files[name] = [whole]
    return replace(found, files=files)


def _merge(parts: list[Path], whole: Path) -> None:
    draft = whole.with_name(f"{whole.name}{DRAFT}")
    with parquet_writer(draft, pq.read_schema(parts[0])) as writer:
        for part in parts:
            for batch in pq.ParquetFile(part).iter_batches(batch_size=65_536):
                writer.write_batch(batch)
    _flush(draft)
    draft.replace(whole)


def _write_manifest(directory: Path, manifest: Manifest) -> None:
    draft = directory / f"{MANIFEST}{DRAFT}"
    draft.write_text(json.dumps(asdict(manifest), indent=1), "utf-8")
    _flush(draft)
    draft.replace(directory / MANIFEST)


def _sweep(directory: Path, manifest: Manifest) -> None:
    """Remove what a killed or merged export left behind; what else lies there has no number for a name."""
    named = {directory / path for paths in manifest.files.values() for path in paths}
    for file in directory.glob(f"*/{'[0-9]' * 6}*.parquet*"):
        if file not in named:
            file.unlink()


def delete(directory: Path) -> None:
    """An export that can be made again: the manifest goes last, and the lock stays for whoever holds it."""
    for each in directory.iterdir():
        if each.is_dir():
            shutil.rmtree(each)
    (directory / MANIFEST).unlink()


def remove_empty(directory: Path) -> None:
    """Take away an export that holds nothing, unless somebody else goes on with it."""
    with locked(directory, alone=True) as is_ours:
        if is_ours:
            (directory / MANIFEST).unlink()
            (directory / LOCK).unlink()
            with suppress(OSError):  # what else lies there is not ours
                directory.rmdir()


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _place(name: str) -> Place:
    topic, _, number = name.rpartition("[")
    return topic, int(number.removesuffix("]"))
