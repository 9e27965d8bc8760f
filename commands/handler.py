"""The one loop of the write side: receive commands, decide them, write everything in one transaction, merge."""

import itertools
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from commands.decider import Decider
from commands.journal import Ends, Journal, JournalLostError, Partition, ReassignedError, Received, Store
from commands.loading import Loading, copied_note
from commands.writer import Encoded, Staged, TooLargeError, Writer
from schemas.codec import Codec, Decoded
from schemas.meta import SECOND, Micros
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
        self._loading = Loading(journal, store, clock)
        self.turned = Turned()

    @property
    def serving(self) -> Sequence[Partition]:
        """The partitions whose commands are being decided."""
        return tuple(self._writers)

    @property
    def awaited(self) -> Sequence[Partition]:
        """The partitions that are ours, and not served yet: their state is being loaded."""
        return self._loading.awaited

    def turn(self) -> None:
        """Once around: at most one batch, at most one transaction, and a piece of what is being loaded."""
        try:
            wanted = max(1, BATCH_MAX - len(self._backlog))
            self._backlog += self._journal.receive(wanted, self._wait_s())
        except ReassignedError as reassigned:
            self._take_over(reassigned.partitions)
            return
        batch = self._take_batch()
        if batch or self._due():
            self._handle(batch)
        if self.awaited and (ready := self._loading.go_on()):
            self._serve_too(ready)

    def _take_batch(self) -> list[Received]:
        """What comes first of what was received, up to the bound; the rest waits for the next turn."""
        sizes = itertools.accumulate(max(0, len(one.value or b"") - ENVELOPE_BYTES) for one in self._backlog)
        count = max(1, bisect_right(list(sizes), BATCH_BYTES))
        batch, self._backlog = self._backlog[:count], self._backlog[count:]
        return batch

    def _wait_s(self) -> float:
        if self._backlog or self.awaited:
            return 0
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
            puts |= copied_note(identity, one.partition, one.now, state, writer.decisions_end)
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

    def _take_over(self, partitions: Sequence[Partition]) -> None:
        """Fence first, then look where the logs end.

        The other way round, a predecessor's last transaction could still come between, and we would decide on the
        state before it: a version twice.
        """
        self._backlog = []
        self._writers.clear()
        self._positions = dict(self._journal.fence(partitions))
        self._loading.begin([self._new_writer(partition) for partition in partitions])

    def _new_writer(self, partition: Partition) -> Writer:
        decider = self._deciders[partition.aggregate]
        return Writer(partition, decider, self._codec, self._topics, self._store, self._decode)

    def _serve_too(self, ready: Sequence[Writer]) -> None:
        """What is received begins anew, so what was received and waits is dropped."""
        self._backlog = []
        self._writers |= {writer.partition: writer for writer in ready}
        self._journal.serve({partition: self._positions[partition] for partition in self._writers})
