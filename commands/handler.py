"""The one loop of the write side: receive commands, decide them, write everything in one transaction, merge."""

import itertools
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from commands.decider import Decider
from commands.journal import (
    Ends,
    Journal,
    JournalLostError,
    LogDamagedError,
    OutputKind,
    Partition,
    ReassignedError,
    Received,
    Store,
    Stored,
)
from commands.writer import Encoded, Staged, TooLargeError, Writer
from schemas.codec import Codec, Decoded
from schemas.meta import DAY, HOUR, SECOND, Micros
from schemas.topics import Topics

BATCH_MAX = 1_000
BATCH_BYTES = 200_000
ENVELOPE_BYTES = 300
"""So many bytes of commands beyond their envelopes (ids, times) are decided at once, or one command: a line of 9
bytes becomes an event of 450."""

WAIT_MAX_S = 0.25
"""The longest sleep: deadlines that an idle partition has are found so soon after they are due."""

TRIES_MAX = 5
"""How often one batch is decided again when its transaction came to nothing."""

KINDS: tuple[OutputKind, ...] = ("state", "decisions", "events")
RESTORE_CHUNK = 2_000
STATE_AGE_MAX = 12 * HOUR
"""A local copy that is older is made anew: tombstones live for a day in a compacted topic, no longer."""


@dataclass(slots=True)
class Turned:
    """What the loop did since it was asked last; read by the role's status."""

    transactions: int = 0
    partitions: int = 0
    commands: int = 0
    events: int = 0


class Handler:
    """Runs the deciders over whatever partitions the journal assigns; one thread, no I/O but through its ports."""

    def __init__(
        self,
        journal: Journal,
        store: Store,
        deciders: Mapping[str, Decider],
        codec: Codec,
        topics: Topics,
        clock: Callable[[], Micros],
        incarnation: str,
        decode: Callable[[bytes], Decoded[Any]] | None = None,
    ) -> None:
        self._journal = journal
        self._store = store
        self._deciders = deciders
        self._codec = codec
        self._decode = decode or codec.decode
        self._topics = topics
        self._clock = clock
        self._batch_ids: Iterator[str] = (f"{incarnation}-{n}" for n in itertools.count(1))
        self._writers: dict[Partition, Writer] = {}
        self._positions: dict[Partition, int] = {}
        self._backlog: list[Received] = []
        self.turned = Turned()

    @property
    def serving(self) -> Sequence[Partition]:
        """The partitions whose commands are being decided."""
        return tuple(self._writers)

    def turn(self) -> None:
        """Once around: at most one batch, at most one transaction."""
        try:
            wanted = max(1, BATCH_MAX - len(self._backlog))
            self._backlog += self._journal.receive(wanted, 0 if self._backlog else self._wait_s())
        except ReassignedError as reassigned:
            self._backlog = []
            self._serve_only(reassigned.partitions)
            return
        batch = self._take_batch()
        if batch or self._due():
            self._handle(batch)

    def _take_batch(self) -> list[Received]:
        """What comes first of what was received, up to the bound; the rest waits for the next turn."""
        sizes = itertools.accumulate(max(0, len(one.value or b"") - ENVELOPE_BYTES) for one in self._backlog)
        count = max(1, bisect_right(list(sizes), BATCH_BYTES))
        batch, self._backlog = self._backlog[:count], self._backlog[count:]
        return batch

    def _wait_s(self) -> float:
        due = min((writer.next_due for writer in self._writers.values()), default=None)
        if due is None:
            return WAIT_MAX_S
        return min(WAIT_MAX_S, max(0, due - self._clock()) / SECOND)

    def _due(self) -> bool:
        now = self._clock()
        return any(writer.next_due <= now for writer in self._writers.values())

    # One batch.

    def _handle(self, received: Sequence[Received]) -> None:
        for _ in range(TRIES_MAX):
            staged, encoded = self._decide(received)
            if not staged:
                self._reschedule()
                return
            outputs = [output for one in encoded for output in one.outputs]
            ends = self._journal.write(staged[0].batch_id, outputs, self._positions_after(staged))
            if ends is not None:
                self._merge(staged, encoded, ends)
                return
        raise JournalLostError(f"a batch came to nothing {TRIES_MAX} times")

    def _decide(self, received: Sequence[Received]) -> tuple[list[Staged], list[Encoded]]:
        batch_id = next(self._batch_ids)
        too_large: frozenset[str] = frozenset()
        while True:
            staged = self._stage(received, batch_id, too_large)
            try:
                return staged, self._encode(staged)
            except TooLargeError as error:
                if error.command_ids <= too_large:
                    raise
                too_large |= error.command_ids

    def _stage(self, received: Sequence[Received], batch_id: str, too_large: frozenset[str]) -> list[Staged]:
        now = self._clock()
        by_partition: dict[Partition, list[Received]] = defaultdict(list)
        for one in received:
            by_partition[one.partition].append(one)
        staged = [
            writer.stage(by_partition.get(partition, ()), now, batch_id, too_large)
            for partition, writer in self._writers.items()
            if partition in by_partition or writer.next_due <= now
        ]
        return [one for one in staged if not one.is_empty]

    def _encode(self, staged: Sequence[Staged]) -> list[Encoded]:
        size = sum(len(one.events) for one in staged)
        firsts = itertools.accumulate((len(one.events) for one in staged), initial=0)
        return [
            self._writers[one.partition].encode(one, first, size)
            for one, first in zip(staged, firsts, strict=False)
        ]

    def _positions_after(self, staged: Sequence[Staged]) -> dict[Partition, int]:
        return {
            one.partition: self._positions[one.partition] if one.next_offset is None else one.next_offset
            for one in staged
        }

    def _merge(self, staged: Sequence[Staged], encoded: Sequence[Encoded], ends: Ends) -> None:
        puts: dict[bytes, bytes | None] = {}
        for one, written in zip(staged, encoded, strict=True):
            writer = self._writers[one.partition]
            puts |= writer.merge(one, written, ends)
            identity, state = self._journal.identity(one.partition), ends["state", one.partition]
            puts |= _copied(identity, one.partition, one.now, state, writer.decisions_end)
        self._store.write(puts)
        self._positions |= self._positions_after(staged)
        self._reschedule()
        self.turned.transactions += 1
        self.turned.partitions += len(staged)
        self.turned.commands += sum(len(one.decided) for one in staged)
        self.turned.events += sum(len(one.events) for one in staged)

    def _reschedule(self) -> None:
        now = self._clock()
        for writer in self._writers.values():
            if writer.next_due <= now:
                writer.schedule()

    # Taking partitions over.

    def _serve_only(self, partitions: Sequence[Partition]) -> None:
        """Fence first, then look where the logs end.

        The other way round, a predecessor's last transaction could still come between, and we would decide on the
        state before it: a version twice.
        """
        self._writers.clear()
        self._positions = dict(self._journal.fence(partitions))
        self._writers = {partition: self._load(partition) for partition in partitions}
        self._journal.serve(self._positions)

    def _load(self, partition: Partition) -> Writer:
        decider = self._deciders[partition.aggregate]
        writer = Writer(partition, decider, self._codec, self._topics, self._store, self._decode)
        ends = self._ends(partition)
        copied = self._copied_up_to(partition)
        self._copy(writer.restore_state, "state", partition, copied["state"], ends["state"])
        self._copy(writer.restore_decisions, "decisions", partition, copied["decisions"], ends["decisions"])
        identity = self._journal.identity(partition)
        self._store.write(_copied(identity, partition, self._clock(), ends["state"], ends["decisions"]))
        tail = writer.resume(ends["events"], ends["decisions"])
        try:
            writer.check_tail(
                tail,
                self._journal.read("events", partition, tail.events, ends["events"]),
                self._journal.read("decisions", partition, tail.decisions, ends["decisions"]),
            )
        except LogDamagedError as error:
            if self._ends(partition) == ends:
                raise
            # We stood still meanwhile, and the partition has another writer.
            raise JournalLostError(f"{partition} was written while it was loaded: {error}") from error
        return writer

    def _ends(self, partition: Partition) -> Mapping[OutputKind, int]:
        return {kind: self._journal.ends(kind, partition) for kind in KINDS}

    def _copied_up_to(self, partition: Partition) -> Mapping[str, int]:
        """How far this machine's copy reaches; an unusable one is deleted."""
        value = self._store.get(_copied_key(partition))
        identity, at, state, decisions = value.decode().split(" ") if value else ("", "0", "0", "0")
        if identity == self._journal.identity(partition) and self._clock() - int(at) < STATE_AGE_MAX:
            return {"state": int(state), "decisions": int(decisions)}
        prefix = f"{partition}/".encode()
        self._store.delete_range(prefix, prefix[:-1] + b"0")  # "0" follows "/"
        since_ms = (self._clock() - DAY) // 1_000
        return {"state": 0, "decisions": self._journal.start_of("decisions", partition, since_ms)}

    def _copy(
        self,
        restore: Callable[[Stored], dict[bytes, bytes | None]],
        kind: OutputKind,
        partition: Partition,
        start: int,
        end: int,
    ) -> None:
        puts: dict[bytes, bytes | None] = {}
        for stored in self._journal.read(kind, partition, start, end):
            puts |= restore(stored)
            if len(puts) >= RESTORE_CHUNK:
                self._store.write(puts)
                puts = {}
        self._store.write(puts)


def _copied_key(partition: Partition) -> bytes:
    return f"{partition}/copied".encode()


def _copied(
    identity: str, partition: Partition, now: Micros, state: int, decisions: int
) -> dict[bytes, bytes | None]:
    """The note beside the copy that says how far it reaches: written in the same write as the records."""
    return {_copied_key(partition): f"{identity} {now} {state} {decisions}".encode()}
