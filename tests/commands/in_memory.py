"""A journal and a store in memory, for tests of the handler: the same ports, no Kafka, no disk."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from commands.decider import Decider
from commands.handler import Handler
from commands.journal import (
    Ends,
    Output,
    OutputKind,
    Partition,
    Piece,
    Place,
    ReassignedError,
    Received,
    Stored,
)
from commands.registry import DECIDERS
from ops.faults.shop import command_meta
from ops.simulate.stores import Disk
from schemas.codec import MARKER, Codec, Decoded
from schemas.decisions import Decided
from schemas.meta import SECOND, Micros
from schemas.topics import Topics

CODEC = Codec()
TOPICS = Topics("test", 2)


SENT_BYTES_MAX = 1_000_000
"""librdkafka's bound of what it sends at once, also of one record with its key and headers."""


def size_of(output: Output) -> int:
    headers = sum(len(name) + len(text) for name, text in output.headers)
    return len(output.key or b"") + len(output.value or b"") + headers


class MemoryJournal:
    """Implements `commands.journal.Journal`: everything is written at once, or nothing when `fails` says so."""

    def __init__(self) -> None:
        self.inbox: list[Received] = []
        self.logs: dict[Place, list[Output]] = defaultdict(list)
        self.positions: dict[Partition, int] = {}
        self.reassign: Sequence[Partition] | None = None
        self.fails = 0
        self.held: set[Place] = set()
        self._reading: dict[Place, int] = {}
        self._next: dict[Partition, int] = defaultdict(int)

    def send(self, aggregate: str, value: bytes | None, key: str | bytes | None, number: int) -> None:
        partition = Partition(aggregate, number)
        offset = self._next[partition]
        self._next[partition] += 1
        self.inbox.append(Received(partition, offset, key.encode() if isinstance(key, str) else key, value))

    def receive(self, limit: int, wait_s: float) -> Sequence[Received]:
        if self.reassign is not None:
            partitions, self.reassign = self.reassign, None
            raise ReassignedError(partitions)
        taken, self.inbox = self.inbox[:limit], self.inbox[limit:]
        return taken

    def fence(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        return {p: self.positions.get(p, 0) for p in partitions}

    def ends(self, kind: OutputKind, partition: Partition) -> int:
        return len(self.logs[kind, partition])

    def read_from(self, starts: Mapping[Place, int]) -> None:
        self._reading = dict(starts)

    def read_on(self, wait_s: float) -> Piece:
        """All that is there, but of the places that are `held`."""
        records: list[tuple[Place, Stored]] = []
        for place, start in self._reading.items():
            if place not in self.held:
                for offset, output in enumerate(self.logs[place][start:], start):
                    records.append((place, Stored(offset, output.key, output.value)))
                self._reading[place] = len(self.logs[place])
        return Piece(records, {place: offset + 1 for place, (offset, _, _) in records})

    def start_of(self, kind: OutputKind, partition: Partition, since_ms: int) -> int:
        return 0

    def identity(self, partition: Partition) -> str:
        return "memory"

    def serve(self, positions: Mapping[Partition, int]) -> None:
        pass

    def write(
        self, batch_id: str, outputs: Sequence[Output], positions: Mapping[Partition, int]
    ) -> Ends | None:
        if self.fails:
            self.fails -= 1
            return None
        assert all(size_of(output) <= SENT_BYTES_MAX for output in outputs), "Kafka refuses such a record"
        for output in outputs:
            self.logs[output.kind, output.partition].append(output)
        self.positions |= positions
        return {place: len(log) for place, log in self.logs.items() if log}


class Desk:
    """One handler over all aggregates, with a clock that only the test moves."""

    def __init__(
        self,
        journal: MemoryJournal | None = None,
        store: Disk | None = None,
        deciders: Mapping[str, Decider] = DECIDERS,
    ) -> None:
        self._deciders = deciders
        self.journal = journal or MemoryJournal()
        self.store = store or Disk()
        self.now = Micros(1_700_000_000 * SECOND)
        self.restart()

    def restart(self, store: Disk | None = None, until: Callable[[], bool] | None = None) -> None:
        """A new process: on the same disk, or on the given one; it has loaded everything, or so much."""
        self.store = store or self.store
        self.handler = Handler(
            self.journal, self.store, self._deciders, CODEC, TOPICS, lambda: self.now, f"life-{id(self)}"
        )
        self.journal.reassign = [Partition(a, n) for a in DECIDERS for n in range(TOPICS.partitions)]
        self.handler.turn()
        while not (until() if until else not self.handler.awaited):
            self.handler.turn()

    def send(self, aggregate: str, body: Any, command_id: str, **meta: Any) -> None:
        key = body.stream.split("/")[1]
        value = CODEC.encode(body, self.meta(body, command_id) | meta)
        self.journal.send(aggregate, value, key, TOPICS.partition_of(key))

    def meta(self, body: Any, command_id: str) -> dict[str, Any]:
        return command_meta(body, command_id, issued_at=self.now, not_after=self.now + 30 * SECOND)

    def ask(self, aggregate: str, body: Any, command_id: str, **meta: Any) -> Decided:
        """Send a command, turn the loop, and hear what became of it."""
        self.send(aggregate, body, command_id, **meta)
        before = len(self.decided())
        while len(self.decided()) == before:
            self.handler.turn()
        return self.decided()[-1]

    def decided(self) -> list[Decided]:
        return [
            one
            for (kind, _), log in self.journal.logs.items()
            if kind == "decisions"
            for output in log
            if (output.value or b"").startswith(MARKER)
            for one in self._decode(output).body.decided
        ]

    def events(self) -> list[Decoded[Any]]:
        logs = [log for (kind, _), log in self.journal.logs.items() if kind == "events"]
        return [self._decode(output) for log in logs for output in log]

    def letters(self) -> list[Any]:
        logs = [log for (kind, _), log in self.journal.logs.items() if kind == "dead-letters"]
        return [self._decode(output).body for log in logs for output in log]

    def _decode(self, output: Output) -> Decoded[Any]:
        assert output.value is not None
        return CODEC.decode(output.value)
