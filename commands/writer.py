"""The one writer of a partition: decides its commands against its records, and says what is to be written."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from commands.cache import Cache
from commands.decider import Answer, Command, Context, Deadline, Decider, Event, Record
from commands.journal import Ends, LogDamagedError, Output, OutputKind, Partition, Received, Store, Stored
from commands.rejections import (
    CommandExpired,
    CommandReused,
    InternalError,
    NotFound,
    Rejection,
    VersionConflict,
)
from commands.window import Window, ids_of, is_command_id
from schemas.codec import Codec, Decoded, UndecodableError
from schemas.decisions import ALREADY, Decided, Decisions
from schemas.language import AGGREGATES
from schemas.letters import DeadLetter
from schemas.meta import NO_HASH, SECOND, CommandMeta, EventMeta, Micros, RecordMeta, derived_id
from schemas.position import POSITION_PATH, WriterPosition
from schemas.topics import (
    LETTER_KEY_MAX,
    LETTER_VALUE_MAX,
    REASON_CHARS_MAX,
    RECORD_BYTES_MAX,
    STREAM_NAME_MAX,
    Topics,
)
from schemas.values import Position

CACHE_BYTES = 50_000
"""Encoded size of the records that a writer keeps decoded, per generation of its cache."""

DECISIONS_BYTES = 400_000
"""About so large may a decisions record become before the next one is begun."""

UNFIT: Mapping[OutputKind, tuple[type[Exception], ...]] = {
    "state": (UndecodableError, UnicodeDecodeError, OverflowError),
    "decisions": (UndecodableError, LookupError, ValueError),
}
"""What reading a stranger's record may raise; anything else is a fault of ours."""

UNFIT_MAX = 1_000
UNFIT_VALUE_BYTES = 4_000
"""So much is kept of what restoring finds: all of it waits in memory, and is lettered in one transaction."""

TEXT_CHARS_MAX = 1_000
"""An outcome repeats what the command says of itself, so no text in a command's meta may be longer."""

RETRY_AFTER = 60 * SECOND
"""A deadline whose command failed for a fault of ours is tried again after so long."""

DUE_MAX = 200
"""Deadlines that one batch takes on."""

NEVER = Micros(1 << 62)
FAULT = "a fault of ours; it has no effect, and somebody is told"
NO_TRACE = ""


class Kept(NamedTuple):
    """A state record with the version and hash of its stream when it was last written."""

    record: Record
    version: int
    hash: bytes


@dataclass(slots=True)
class Head:
    """The end of a stream: the version and hash of its last event."""

    version: int
    hash: bytes


class Unfit(NamedTuple):
    """A record, or a deadline's command (offset -1), that becomes a dead letter; `topic` is where it lies."""

    topic: str
    offset: int
    key: bytes
    value: bytes
    stream: str
    reason: str


class Asked(NamedTuple):
    """A command in hand. `offset` is -1 where a deadline sent it."""

    meta: CommandMeta
    body: Command
    offset: int = -1
    due_key: bytes = b""


@dataclass(frozen=True, slots=True)
class Staged:
    """What one batch means for one partition, not yet written."""

    partition: Partition
    batch_id: str
    now: Micros
    events: list[tuple[Event, dict[str, Any]]]
    decided: list[Decided]
    repeated: list[Decided]
    changed: dict[str, Record | None]
    stream_of: dict[str, str]
    heads: dict[str, Head]
    letters: list[Unfit]
    done_due: list[bytes]
    failed_due: list[bytes]
    next_offset: int | None

    @property
    def is_empty(self) -> bool:
        return (
            not (self.decided or self.repeated or self.letters or self.done_due) and self.next_offset is None
        )


@dataclass(frozen=True, slots=True)
class Encoded:
    """The same as records; `kept` are the state records' values by path, `decisions` the values with their ids."""

    outputs: list[Output]
    kept: dict[str, bytes | None]
    decisions: list[tuple[bytes, bytes]]
    position: bytes


class TooLargeError(Exception):
    """These commands would write a record that Kafka refuses."""

    def __init__(self, command_ids: Iterable[str]) -> None:
        self.command_ids = frozenset(command_ids)
        super().__init__(", ".join(self.command_ids))


class Writer:
    """Holds the state of one partition: records in `store`, the window, the deadlines, the clock."""

    def __init__(
        self,
        partition: Partition,
        decider: Decider,
        codec: Codec,
        topics: Topics,
        store: Store,
        decode: Callable[[bytes], Decoded[CommandMeta]],
    ) -> None:
        self.partition = partition
        self._decider = decider
        self._codec = codec
        self._decode = decode
        self._topics = topics
        self._store = store
        self._prefix = f"{partition}/".encode()
        self._window = Window(self._prefix, store, codec)
        self._cache: Cache[Kept] = Cache(CACHE_BYTES)
        self._absent: set[str] = set()
        self._commands = AGGREGATES[partition.aggregate].commands
        self._clock = Micros(0)
        self._unfit: list[Unfit] = []
        """What was found in the topics while restoring, and is none of ours: lettered with the next batch."""
        self._paused: dict[bytes, Micros] = {}
        """Deadlines whose command failed for a fault of ours, and when each is tried again."""
        self._ends = (0, 0)
        """The next offsets of events and decisions."""
        self.next_due = NEVER

    # Deciding.

    def stage(
        self,
        received: Sequence[Received],
        clock: Micros,
        batch_id: str,
        too_large: frozenset[str] = frozenset(),
    ) -> Staged:
        """Decide a batch and whatever is due. Nothing of this writer changes until `merge`."""
        now = max(self._clock, clock)
        self._absent.clear()
        batch = _Batch(self, self._decider, batch_id, now, too_large)
        asked: list[Asked] = []
        for one in received:
            command = self._read(one)
            if isinstance(command, str):
                batch.letters.append(self._unfit_command(one, command))
            else:
                asked.append(command)
        asked += self._due(now)
        known = self._window.find([command.meta.command_id for command in asked], now) if asked else {}
        self._fetch(asked)
        for command in asked:
            batch.take(command, known)
        return batch.staged(received[-1].offset + 1 if received else None)

    def _read(self, received: Received) -> Asked | str:
        """The command in a record, or why it is none."""
        if received.value is None or received.key is None:
            return "a command has a key and a value"
        try:
            decoded = self._decode(received.value)
            return self._wrong(decoded.meta, decoded.body) or Asked(
                decoded.meta, decoded.body, received.offset
            )
        except UndecodableError as error:
            return str(error)
        except LookupError:
            return "it has no lines"

    def _wrong(self, meta: CommandMeta, body: Command) -> str:
        if type(body) not in self._commands:
            return f"{type(body).__name__} is no command of {self.partition.aggregate}"
        if not is_command_id(meta.command_id):
            return f"{meta.command_id!r} is no command id"
        if too_long := _too_long_in(meta):
            return f"its {too_long} is longer than any of ours"
        if meta.stream != body.stream:
            return f"meta says {meta.stream}, the command {body.stream}"
        for key in _keys_of(body):
            if len(key) > STREAM_NAME_MAX:
                return f"a key of {len(key)} characters is none of ours"
            if self._topics.partition_of(key) != self.partition.number:
                return f"{key} does not live in partition {self.partition.number}"
        return ""

    @property
    def commands_topic(self) -> str:
        return self._topics.commands(self.partition.aggregate)

    def _unfit_command(self, received: Received, reason: str) -> Unfit:
        return Unfit(
            self.commands_topic, received.offset, received.key or b"", received.value or b"", "", reason
        )

    def found_unfit(self) -> list[Unfit]:
        """What restoring found and nobody has lettered yet."""
        return list(self._unfit)

    def _due(self, now: Micros) -> Iterable[Asked]:
        if self.next_due > now:
            return
        start, end = self._due_key(Micros(0), ""), self._due_key(now, "\x7f")
        for key, _ in self._store.scan(start, end, DUE_MAX + len(self._paused)):
            if self._paused.get(key, now) > now:
                continue
            at, path = self._read_due_key(key)
            deadline = self._deadline(path)
            if deadline is None or deadline.at != at:
                # Its record has changed meanwhile; whatever it waits for now has a key of its own.
                yield Asked(_deadline_meta(path, at, ""), None, due_key=key)
            else:
                meta = _deadline_meta(path, at, deadline.command.stream)
                yield Asked(meta, deadline.command, due_key=key)

    def _deadline(self, path: str) -> Deadline | None:
        kept = self.kept(path)
        return self._decider.deadline(path, kept.record) if kept else None

    # Records.

    def kept(self, path: str) -> Kept | None:
        """The record at a path as it was last merged."""
        kept = self._cache.get(path)
        if kept is None and path not in self._absent:
            kept = self._found(path, self._store.get(self._record_key(path)))
        return kept

    def _fetch(self, asked: Iterable[Asked]) -> None:
        """Ask the store once for all that a batch is known to look at."""
        reads = self._decider.reads
        paths = {path for one in asked if one.body is not None for path in reads(one.body)}
        missing = [path for path in paths if self._cache.get(path) is None]
        for path, value in zip(missing, self._store.get_many([*map(self._record_key, missing)]), strict=True):
            self._found(path, value)

    def _found(self, path: str, value: bytes | None) -> Kept | None:
        if value is None:
            # A new claim is asked for again in its batch, for its deadline.
            self._absent.add(path)
            return None
        decoded: Decoded[RecordMeta] = self._codec.decode(value)
        kept = Kept(decoded.body, decoded.version, decoded.hash)
        self._cache.put(path, kept, len(value))
        return kept

    # Writing.

    def encode(self, staged: Staged, first_index: int, batch_size: int) -> Encoded:
        """The records of a batch. Raises TooLargeError before anything is written."""
        outputs = [self._event(staged, n, first_index, batch_size) for n in range(len(staged.events))]
        kept: dict[str, bytes | None] = {}
        meta = {"recorded_at": staged.now, "batch_id": staged.batch_id}
        for path, record in staged.changed.items():
            stream = staged.stream_of[path]
            head = staged.heads[stream]
            value = record and self._codec.encode(record, meta | {"stream": stream}, head.version, head.hash)
            kept[path] = value
            headers = _headers(record, stream, head.version) if record else ()
            outputs.append(Output("state", self.partition, path.encode(), value, headers))
        decisions = [*self._decisions(staged)]
        outputs += [Output("decisions", self.partition, None, value, ()) for value, _ in decisions]
        tail = WriterPosition(*self._ends, len(staged.events), len(decisions))
        position = self._codec.encode(tail, self._partition_meta(staged))
        outputs.append(Output("state", self.partition, POSITION_PATH.encode(), position, ()))
        outputs += [self._letter(staged, unfit) for unfit in staged.letters]
        self._check_sizes(staged, outputs)
        return Encoded(outputs, kept, decisions, position)

    def _event(self, staged: Staged, index: int, first_index: int, batch_size: int) -> Output:
        event, meta = staged.events[index]
        head = staged.heads[meta["stream"]]
        meta |= {"batch_index": first_index + index, "batch_size": batch_size, "previous": head.hash}
        value = self._codec.encode(event, meta)
        head.hash = hashlib.sha256(value).digest()
        trace = ("traceparent", meta["traceparent"].encode())
        headers = (*_headers(event, meta["stream"], meta["version"]), trace)
        return Output("events", self.partition, meta["stream"].split("/")[1].encode(), value, headers)

    def _decisions(self, staged: Staged) -> Iterable[tuple[bytes, bytes]]:
        """One record, or a few where hundreds of refused lines would make it too large; each with its ids."""
        meta = self._partition_meta(staged)
        for part in _parts(staged.decided):
            ids = ids_of(part)
            yield self._codec.encode(Decisions(ids, tuple(part)), meta), ids
        for part in _parts(staged.repeated):
            yield self._codec.encode(Decisions(b"", tuple(part)), meta), b""

    def _letter(self, staged: Staged, unfit: Unfit) -> Output:
        key = unfit.key[:LETTER_KEY_MAX]
        value = unfit.value[:LETTER_VALUE_MAX]
        where = ("commands", unfit.topic, self.partition.number, unfit.offset)
        reason = unfit.reason[:REASON_CHARS_MAX]
        letter = DeadLetter(*where, unfit.stream, reason, key, value, released=False)
        name = unfit.offset if unfit.offset >= 0 else unfit.stream
        letter_key = f"commands/{unfit.topic}/{self.partition.number}/{name}".encode()
        return Output(
            "dead-letters",
            self.partition,
            letter_key,
            self._codec.encode(letter, self._partition_meta(staged)),
            (),
        )

    def _partition_meta(self, staged: Staged) -> dict[str, Any]:
        return {"stream": str(self.partition), "recorded_at": staged.now, "batch_id": staged.batch_id}

    def _check_sizes(self, staged: Staged, outputs: Sequence[Output]) -> None:
        large = [o for o in outputs if len(o.value or b"") + len(o.key or b"") > RECORD_BYTES_MAX]
        if not large:
            return
        streams = {_stream_of_output(o, staged) for o in large if o.kind in ("events", "state")}
        blamed = {m["command_id"] for _, m in staged.events if m["stream"] in streams}
        for output in large:
            if output.kind == "decisions" and output.value is not None:
                blamed |= {one.command_id for one in self._codec.decode(output.value).body.decided}
        raise TooLargeError(blamed)

    # After the commit.

    def merge(self, staged: Staged, encoded: Encoded, ends: Ends) -> dict[bytes, bytes | None]:
        """What this machine's disk must say now that the batch stands in the log."""
        puts: dict[bytes, bytes | None] = dict.fromkeys(staged.done_due)
        for path, value in encoded.kept.items():
            puts |= self._keep(path, staged.changed[path], value, staged.heads[staged.stream_of[path]])
        for key in staged.done_due:
            self._paused.pop(key, None)
        self._paused.update(dict.fromkeys(staged.failed_due, Micros(staged.now + RETRY_AFTER)))
        self._unfit.clear()
        puts[self._prefix + b"~"] = encoded.position
        events_end, decisions_end = self._ends
        events_end = ends.get(("events", self.partition), events_end)
        decisions_end = ends.get(("decisions", self.partition), decisions_end)
        for offset, (value, ids) in enumerate(encoded.decisions, decisions_end - len(encoded.decisions)):
            puts |= self._window.put(offset, value, ids, staged.now)
        self._clock = staged.now
        self._ends = (events_end, decisions_end)
        self._window.forget(staged.now)
        return puts

    @property
    def decisions_end(self) -> int:
        """Where the partition's decisions ended last: a batch need not write any (a stale deadline, a letter)."""
        return self._ends[1]

    def _keep(
        self, path: str, record: Record | None, value: bytes | None, head: Head
    ) -> dict[bytes, bytes | None]:
        puts: dict[bytes, bytes | None] = {self._record_key(path): value}
        before = self._deadline(path)
        after = self._decider.deadline(path, record) if record is not None else None
        if before != after:
            if before:
                puts[self._due_key(before.at, path)] = None
            if after:
                puts[self._due_key(after.at, path)] = b""
                self.next_due = min(self.next_due, after.at)
        self._absent.discard(path)
        if record is None or value is None:
            self._cache.drop(path)
        else:
            self._cache.put(path, Kept(record, head.version, head.hash), len(value))
        return puts

    def schedule(self) -> None:
        """Find out when the next deadline is due."""
        waiting = self._store.scan(
            self._due_key(Micros(0), ""), self._due_key(NEVER, ""), 1 + len(self._paused)
        )
        first = next((self._read_due_key(key)[0] for key, _ in waiting if key not in self._paused), NEVER)
        self.next_due = min([first, *self._paused.values()])

    # Restoring.

    def restore(self, kind: OutputKind, stored: Stored) -> dict[bytes, bytes | None]:
        """What a record of state or decisions means for this machine's disk; a stranger's means nothing."""
        try:
            return self._restored(stored) if kind == "state" else self._window.restore(stored)
        except UNFIT[kind] as error:
            self._note_unfit(kind, stored, str(error))
            return {}

    def _restored(self, stored: Stored) -> dict[bytes, bytes | None]:
        path = (stored.key or b"").decode()
        if path == POSITION_PATH:
            self._expect(stored, (WriterPosition,))
            return {self._prefix + b"~": stored.value}
        puts: dict[bytes, bytes | None] = {self._record_key(path): stored.value}
        if stored.value is not None:
            record = self._expect(stored, AGGREGATES[self.partition.aggregate].states).body
            deadline = self._decider.deadline(path, record)
            if deadline:
                puts[self._due_key(deadline.at, path)] = b""
        return puts

    def _expect(self, stored: Stored, classes: tuple[type, ...]) -> Decoded[Any]:
        decoded: Decoded[Any] = self._codec.decode(stored.value or b"")
        if not isinstance(decoded.body, classes):
            raise UndecodableError(f"{type(decoded.body).__name__} does not belong there")
        return decoded

    def _note_unfit(self, kind: str, stored: Stored, reason: str) -> None:
        """The beginnings of so many: a flood of strangers' records must not fill the memory; all lie where they lie."""
        if len(self._unfit) < UNFIT_MAX:
            topic = f"{self._topics.prefix}.{kind}.{self.partition.aggregate}"
            key, value = (stored.key or b"")[:LETTER_KEY_MAX], (stored.value or b"")[:UNFIT_VALUE_BYTES]
            self._unfit.append(Unfit(topic, stored.offset, key, value, "", reason[:REASON_CHARS_MAX]))

    def resume(self, events_end: int, decisions_end: int) -> "Tail":
        """Take up the clock; `events_end` and `decisions_end` are where the next batch will be written.

        Returns the tail of the log, which must be checked against the state.
        """
        self._ends = (events_end, decisions_end)
        value = self._store.get(self._prefix + b"~")
        self.schedule()
        if value is None:
            return Tail(self, WriterPosition(0, 0, 0, 0))
        decoded: Decoded[RecordMeta] = self._codec.decode(value)
        self._clock = decoded.meta.recorded_at
        return Tail(self, decoded.body)

    def fit_event(self, stored: Stored) -> EventMeta | None:
        """What an event says of itself; None, and noted, if it is none of ours."""
        try:
            meta: EventMeta = self._expect(stored, AGGREGATES[self.partition.aggregate].events).meta
        except UndecodableError as error:
            self._note_unfit("events", stored, str(error))
            return None
        return meta

    def _record_key(self, path: str) -> bytes:
        return self._prefix + b"s" + path.encode()

    def _due_key(self, at: Micros, path: str) -> bytes:
        return self._prefix + b"t" + at.to_bytes(8, "big") + path.encode()

    def _read_due_key(self, key: bytes) -> tuple[Micros, str]:
        rest = key[len(self._prefix) + 1 :]
        return Micros(int.from_bytes(rest[:8], "big")), rest[8:].decode()


class Tail:
    """The log from where the last batch began: compared with what the state knows of it."""

    def __init__(self, writer: Writer, at: WriterPosition) -> None:
        self.starts: dict[OutputKind, int] = {"events": at.events, "decisions": at.decisions}
        self._writer = writer
        self._missing: dict[OutputKind, int] = {
            "events": at.events_written,
            "decisions": at.decisions_written,
        }
        self._last: dict[str, tuple[int, bytes]] = {}

    def take(self, kind: OutputKind, stored: Stored) -> None:
        """A record of events or decisions, in order."""
        if kind == "events":
            meta = self._writer.fit_event(stored)
            if meta is None:
                return
            self._last[meta.stream] = (meta.version, hashlib.sha256(stored.value or b"").digest())
        self._missing[kind] -= 1

    def check(self) -> None:
        """Raises LogDamagedError where a topic lost its end: then somebody was told what is no longer true."""
        for kind, missing in self._missing.items():
            if missing > 0:
                self._damaged(
                    f"{kind} lack {missing} of the records written from offset {self.starts[kind]} on"
                )
        for stream, (version, hash_) in self._last.items():
            kept = self._writer.kept(stream)
            if kept is None or (kept.version, kept.hash) != (version, hash_):
                stands = f"version {kept.version}" if kept else "nothing"
                self._damaged(f"the log has {stream}@{version}, the state topic has {stands}")

    def _damaged(self, what: str) -> None:
        raise LogDamagedError(
            f"{self._writer.partition}: {what}: what was acknowledged is lost; "
            "see docs/operations.md before anything is written"
        )


class _Batch:
    """One batch of one partition while it is decided: an overlay over the writer's records."""

    def __init__(
        self, writer: Writer, decider: Decider, batch_id: str, now: Micros, too_large: frozenset[str]
    ) -> None:
        self._writer = writer
        self._decider = decider
        self._batch_id = batch_id
        self._now = now
        self._too_large = too_large
        self._changed: dict[str, Record | None] = {}
        self._stream_of: dict[str, str] = {}
        self._heads: dict[str, Head] = {}
        self._events: list[tuple[Event, dict[str, Any]]] = []
        self._decided: dict[str, Decided] = {}
        self._repeated: list[Decided] = []
        self._done_due: list[bytes] = []
        self._trial: dict[str, Record | None] = {}
        self._failed_due: list[bytes] = []
        self.letters: list[Unfit] = writer.found_unfit()

    # The snapshot that a decider sees: this command's own changes, this batch's, then what was merged.

    def get(self, path: str) -> Record | None:
        if path in self._trial:
            return self._trial[path]
        if path in self._changed:
            return self._changed[path]
        kept = self._writer.kept(path)
        return kept.record if kept else None

    def take(self, asked: Asked, known: Mapping[str, Decided]) -> None:
        if asked.due_key and asked.body is None:
            self._done_due.append(asked.due_key)
            return
        first = self._decided.get(asked.meta.command_id) or known.get(asked.meta.command_id)
        if first is not None:
            self._repeat(asked, first)
        else:
            self._decide(asked)
        if asked.due_key and asked.due_key not in self._failed_due:
            self._done_due.append(asked.due_key)

    def _repeat(self, asked: Asked, first: Decided) -> None:
        """The first outcome again, for whoever asks now; another body under the same id is refused."""
        if asked.meta.fingerprint != first.fingerprint:
            rejection = CommandReused("this Idempotency-Key was used before, with another request")
            self._repeated.append(self._outcome(asked, rejection, Answer()))
        elif asked.meta.command_id in self._too_large:
            # It just fitted with the first caller's `reply_to`, and does not with this one's.
            self._repeated.append(self._outcome(asked, InternalError(FAULT), Answer()))
        else:
            self._repeated.append(_readdressed(first, asked.meta))

    def _decide(self, asked: Asked) -> None:
        meta = asked.meta
        if meta.not_after < self._now:
            # Not into the window: the same id, sent again in time, is still to be decided.
            late = CommandExpired("it came too late to have an effect; it may be sent again")
            self._repeated.append(self._outcome(asked, late, Answer()))
        elif meta.command_id in self._too_large:
            self._fail(asked, f"a record of it would be larger than {RECORD_BYTES_MAX} bytes")
        else:
            try:
                self._try(asked)
            except Exception as error:  # noqa: BLE001  # a decider's bug must not stop the partition
                self._trial = {}
                self._fail(asked, f"{type(error).__name__}: {error}")

    def _try(self, asked: Asked) -> None:
        meta = asked.meta
        context = Context(self._now, meta.command_id, meta.actor_kind, meta.actor_id)
        self._trial = {}
        events = self._decider.decide(self, asked.body, context)
        if isinstance(events, Rejection) or not self._is_expected(meta):
            self._note(asked, self._rejection(meta, events))
            return
        streams = self._evolve(events)
        answer = self._decider.answer(self, asked.body, events)
        self._record(asked, events, context)
        self._changed.update(self._trial)
        self._stream_of.update(streams)
        self._trial = {}
        self._decided[meta.command_id] = self._outcome(asked, None, answer, events)

    def _is_expected(self, meta: CommandMeta) -> bool:
        return meta.expected_version is None or meta.expected_version == self._head(meta.stream).version

    def _rejection(self, meta: CommandMeta, decided: Sequence[Event] | Rejection) -> Rejection:
        """Whose a stream is comes before how far it is: nobody learns of another's by guessing versions."""
        if isinstance(decided, NotFound) or (isinstance(decided, Rejection) and self._is_expected(meta)):
            return decided
        return VersionConflict(f"{meta.stream} is at version {self._head(meta.stream).version}")

    def _evolve(self, events: Sequence[Event]) -> dict[str, str]:
        """Fold the events into the trial; returns the stream of each record that they touched."""
        streams: dict[str, str] = {}
        for event in events:
            changes = self._decider.evolve(self, event)
            self._trial.update(changes)
            stream = event.stream
            for path in changes:
                streams[path] = stream
            if stream not in streams:
                # The stream's own record carries its version and hash, so it is written with every event.
                record = self._trial[stream] = self.get(stream)
                streams[stream] = stream
                assert record is not None, f"{stream} has an event and no record"
        return streams

    def _record(self, asked: Asked, events: Sequence[Event], context: Context) -> None:
        meta = asked.meta
        for index, event in enumerate(events):
            stream = event.stream
            head = self._head(stream)
            head.version += 1
            self._events.append(
                (
                    event,
                    {
                        "event_id": context.event_id(index),
                        "stream": stream,
                        "version": head.version,
                        "occurred_at": self._now if meta.occurred_at is None else meta.occurred_at,
                        "recorded_at": self._now,
                        "command_id": meta.command_id,
                        "correlation_id": meta.correlation_id,
                        "causation_id": meta.causation_id,
                        "actor_kind": meta.actor_kind,
                        "actor_id": meta.actor_id,
                        "batch_id": self._batch_id,
                        "traceparent": meta.traceparent,
                    },
                )
            )

    def _head(self, stream: str) -> Head:
        head = self._heads.get(stream)
        if head is None:
            kept = self._writer.kept(stream)
            head = self._heads[stream] = Head(kept.version, kept.hash) if kept else Head(0, NO_HASH)
        return head

    def _note(self, asked: Asked, rejection: Rejection) -> None:
        self._decided[asked.meta.command_id] = self._outcome(asked, rejection, Answer())

    def _fail(self, asked: Asked, why: str) -> None:
        reason = f"{type(asked.body).__name__} {asked.meta.command_id}: {why}"[:REASON_CHARS_MAX]
        topic = self._writer.commands_topic
        self.letters.append(Unfit(topic, asked.offset, b"", b"", asked.meta.stream, reason))
        if asked.due_key:
            # Nobody waits for a deadline's outcome: it is not written down, so that it can be tried again.
            self._failed_due.append(asked.due_key)
        else:
            self._note(asked, InternalError(FAULT))

    def _outcome(
        self, asked: Asked, rejection: Rejection | None, answer: Answer, events: Sequence[Event] = ()
    ) -> Decided:
        meta, body = asked.meta, asked.body
        streams = dict.fromkeys([meta.stream, *[event.stream for event in events]])
        positions = [Position(s, version) for s in streams if (version := self._head(s).version)]
        accepted = "refused" if answer.refused else "accepted"
        return Decided(
            meta.command_id,
            type(body).__name__,
            meta.stream,
            tuple([line.line for line in getattr(body, "lines", ()) if hasattr(line, "line")]),
            getattr(body, "attempt", 0),
            meta.reply_to,
            meta.fingerprint,
            "rejected" if rejection else accepted,
            answer.status or ("" if events or rejection else ALREADY),
            answer.refused,
            rejection.as_rejected() if rejection else None,
            (*positions, *answer.positions),
            meta.correlation_id,
            meta.traceparent,
            meta.occurred_at,
            self._now,
            ""
            if meta.actor_kind in ("saga", "deadline", "provider")
            else f"{meta.actor_kind}/{meta.actor_id}",
        )

    def staged(self, next_offset: int | None) -> Staged:
        return Staged(
            self._writer.partition,
            self._batch_id,
            self._now,
            self._events,
            list(self._decided.values()),
            self._repeated,
            self._changed,
            self._stream_of,
            self._heads,
            self.letters,
            self._done_due,
            self._failed_due,
            next_offset,
        )


def _readdressed(first: Decided, meta: CommandMeta) -> Decided:
    again = object.__new__(Decided)
    again.__dict__.update(first.__dict__, reply_to=meta.reply_to)
    return again


def _parts(decided: Sequence[Decided]) -> Iterable[list[Decided]]:
    """An outcome that is large by itself gets a record of its own, so that nobody else is blamed for its size."""
    part: list[Decided] = []
    size = 0
    for one in decided:
        needed = _size_of(one)
        if part and size + needed > DECISIONS_BYTES:
            yield part
            part, size = [], 0
        part.append(one)
        size += needed
    if part:
        yield part


def _size_of(one: Decided) -> int:
    """About how many bytes it takes; a character may take four."""
    refused = sum([40 + 4 * len(line.sku) for line in one.refused])
    positions = sum([10 + 4 * len(position.stream) for position in one.positions])
    return 500 + 4 * len(one.lines) + refused + positions


def _headers(message: object, stream: str, version: int) -> tuple[tuple[str, bytes], ...]:
    return (
        ("type", type(message).__name__.encode()),
        ("stream", stream.encode()),
        ("version", b"%d" % version),
    )


def _keys_of(command: Command) -> Iterable[str]:
    """The ids or skus by which a command's streams are partitioned."""
    kind, key = command.stream.split("/", 2)[:2]
    others = [line.sku for line in getattr(command, "lines", ())] if kind == "stock" else []
    return {key, *others}


def _too_long_in(meta: CommandMeta) -> str:
    """The name of a field that is longer than any of ours, or nothing."""
    if len(meta.stream.encode()) > STREAM_NAME_MAX:
        return "stream"
    for name, value in vars(meta).items():
        if isinstance(value, str) and len(value) > TEXT_CHARS_MAX:
            return name
    return ""


def _stream_of_output(output: Output, staged: Staged) -> str:
    if output.kind == "state":
        assert output.key is not None
        return staged.stream_of[output.key.decode()]
    return dict(output.headers)["stream"].decode()


def _deadline_meta(path: str, at: Micros, stream: str) -> CommandMeta:
    command_id = derived_id(path, str(at))
    return CommandMeta(
        command_id,
        stream,
        NO_TRACE,
        at,
        NEVER,
        None,
        None,
        None,
        command_id,
        command_id,
        "deadline",
        path,
        "",
    )
