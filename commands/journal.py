"""The journal: all that the handler needs of Kafka, and nothing more."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

OutputKind = Literal["events", "state", "decisions", "dead-letters"]


class Partition(NamedTuple):
    """One partition of one aggregate: of its commands, and of all that is decided from them."""

    aggregate: str
    number: int

    def __str__(self) -> str:
        return f"{self.aggregate}/{self.number}"


class Received(NamedTuple):
    """A record of the commands topic, as bytes."""

    partition: Partition
    offset: int
    key: bytes | None
    value: bytes | None


class Output(NamedTuple):
    """A record to be written into the same partition of one of the aggregate's other topics."""

    kind: OutputKind
    partition: Partition
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


class Stored(NamedTuple):
    """A record as it stands in a topic."""

    offset: int
    key: bytes | None
    value: bytes | None


Place = tuple[OutputKind, Partition]
"""One partition of one of an aggregate's topics."""

Ends = Mapping[Place, int]
"""For each topic partition that was written: the offset after the last record."""


class Piece(NamedTuple):
    """Some of what is read: records, in order in each place, and up to which offset each place has been read now."""

    records: Sequence[tuple[Place, Stored]]
    reached: Mapping[Place, int]


class ReassignedError(Exception):
    """The group gave this worker other partitions: drop the batch in hand and load what is to be served."""

    def __init__(self, partitions: Sequence[Partition]) -> None:
        super().__init__(", ".join(map(str, partitions)) or "none")
        self.partitions = partitions


class JournalLostError(Exception):
    """This process may not write any more (it was fenced) or cannot know what it wrote: it must end."""


class LogDamagedError(Exception):
    """The log lacks what was acknowledged; the message names it. A person must decide."""


class Journal(Protocol):
    """One consumer and one transactional producer. Every method may raise JournalLostError."""

    def receive(self, limit: int, wait_s: float) -> Sequence[Received]:
        """Up to `limit` commands of the served partitions; raises ReassignedError."""
        ...

    def fence(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """Where to go on in the commands. Returns only when no predecessor's transaction is pending there."""
        ...

    def ends(self, kind: OutputKind, partition: Partition) -> int:
        """The high watermark: the offset after all that any producer wrote, committed or not."""
        ...

    def read_from(self, starts: Mapping[Place, int]) -> None:
        """Read these places from these offsets on, side by side, and no other."""
        ...

    def read_on(self, wait_s: float) -> Piece:
        """The next committed records; waits only where there are none, for so long."""
        ...

    def start_of(self, kind: OutputKind, partition: Partition, since_ms: int) -> int:
        """The first offset whose record is not older than `since_ms` (milliseconds since 1970)."""
        ...

    def identity(self, partition: Partition) -> str:
        """Changes when the topics behind `partition` are others than before (made anew, or another cluster)."""
        ...

    def serve(self, positions: Mapping[Partition, int]) -> None:
        """Receive from these partitions, from these offsets on, and from no other."""
        ...

    def write(
        self, batch_id: str, outputs: Sequence[Output], positions: Mapping[Partition, int]
    ) -> Ends | None:
        """Write all outputs and the positions in the commands (the next offsets), or nothing.

        None: nothing was written, and the same batch may be decided again.
        """
        ...


class Store(Protocol):
    """The local copy of the state: ordered keys and values on this machine's disk; writes are atomic."""

    def get(self, key: bytes) -> bytes | None: ...

    def get_many(self, keys: Sequence[bytes]) -> Sequence[bytes | None]: ...

    def write(self, puts: Mapping[bytes, bytes | None]) -> None:
        """All of it or nothing; None deletes."""
        ...

    def delete_range(self, start: bytes, end: bytes) -> None:
        """All keys from `start` up to, without, `end`."""
        ...

    def scan(self, start: bytes, end: bytes, limit: int) -> Sequence[tuple[bytes, bytes]]:
        """The first `limit` pairs from `start` up to, without, `end`."""
        ...
