"""Law 8, and half of law 6: no version is missing or doubled, no byte was changed, no transaction is torn."""

from dataclasses import dataclass
from hashlib import sha256

from ops.audit.desk import Desk
from ops.audit.wire import Record

_NO_HASH = bytes(32)


@dataclass(slots=True)
class End:
    """Where a stream ends so far, and who asked for its last event."""

    version: int
    digest: bytes
    partition: int
    command_id: str = ""
    correlation_id: str = ""


class Chains:
    """Follows every stream from its first event: version by version, hash by hash, in one partition."""

    def __init__(self, desk: Desk) -> None:
        self._breaches = desk.breaches
        self._streams = desk.books.table("streams", End)

    def end_of(self, stream: str) -> End | None:
        """None for a stream never seen."""
        return self._streams.get(stream)

    def version_of(self, stream: str) -> int:
        """The last version seen; 0 for a stream never seen."""
        end = self._streams.get(stream)
        return end.version if end else 0

    def follow(self, partition: int, meta: Record, value: bytes) -> None:
        stream, version = meta["stream"], meta["version"]
        end = self._streams.get(stream)
        if end is None:
            end = self._streams[stream] = End(0, _NO_HASH, partition)
        if version != end.version + 1:
            self._breaches.add("8", f"{stream}@{version} follows @{end.version}", meta)
        elif meta["previous"] != end.digest:
            self._breaches.add("8", f"{stream}@{version} does not chain to the event before it", meta)
        if partition != end.partition:
            self._breaches.add("8", f"{stream} is in partitions {end.partition} and {partition}", meta)
        end.version, end.digest = version, sha256(value).digest()
        end.command_id, end.correlation_id = meta["command_id"], meta["correlation_id"]


@dataclass(slots=True)
class _Batch:
    """A transaction of `size` events, first seen before the cut `opened`; bit n of `seen` stands for event n."""

    size: int
    opened: int
    seen: int = 0


class Batches:
    """Collects each transaction's events, from whatever partitions, until it is whole; only open ones are kept."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._open = desk.books.table("batches", _Batch)

    def collect(self, meta: Record) -> None:
        batch_id, index, size = meta["batch_id"], meta["batch_index"], meta["batch_size"]
        batch = self._open.get(batch_id)
        if batch is None:
            batch = self._open[batch_id] = _Batch(size, self._desk.cut)
        if not 0 <= index < size or size != batch.size or batch.seen >> index & 1:
            what = f"batch {batch_id} has event {index} of {size} twice, or counts wrongly"
            self._desk.breaches.add("6", what, meta)
            return
        batch.seen |= 1 << index
        if batch.seen == (1 << size) - 1:
            self._open.pop(batch_id, None)

    def judge(self, cut: int) -> None:
        """What was opened before this cut should be whole."""
        for batch_id in self._open:
            batch = self._open.get(batch_id)
            if batch is not None and batch.opened < cut:
                self._open.pop(batch_id, None)
                what = f"batch {batch_id} is torn: {batch.seen.bit_count()} of {batch.size} events"
                self._desk.breaches.add("6", what)
