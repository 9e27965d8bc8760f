"""Law 8, and half of law 6: no version is missing or doubled, no byte was changed, no transaction is torn."""

from dataclasses import dataclass
from hashlib import sha256

from ops.audit.breaches import Breaches
from ops.audit.wire import Record

_NO_HASH = bytes(32)


@dataclass(slots=True)
class _End:
    """Where a stream ends so far."""

    version: int
    digest: bytes
    partition: int


class Chains:
    """Follows every stream from its first event: version by version, hash by hash, in one partition."""

    def __init__(self, breaches: Breaches) -> None:
        self._breaches = breaches
        self._streams: dict[str, _End] = {}

    def version_of(self, stream: str) -> int:
        """The last version seen; 0 for a stream never seen."""
        end = self._streams.get(stream)
        return end.version if end else 0

    def follow(self, partition: int, meta: Record, value: bytes) -> None:
        stream, version = meta["stream"], meta["version"]
        end = self._streams.get(stream)
        if end is None:
            end = self._streams[stream] = _End(0, _NO_HASH, partition)
        if version != end.version + 1:
            self._breaches.add("8", f"{stream}@{version} follows @{end.version}")
        elif meta["previous"] != end.digest:
            self._breaches.add("8", f"{stream}@{version} does not chain to the event before it")
        if partition != end.partition:
            self._breaches.add("8", f"{stream} is in partitions {end.partition} and {partition}")
        end.version, end.digest = version, sha256(value).digest()


@dataclass(slots=True)
class _Batch:
    """A transaction of `size` events; bit n of `seen` stands for event n."""

    size: int
    seen: int = 0


class Batches:
    """Collects each transaction's events, from whatever partitions, until it is whole; only open ones are kept."""

    def __init__(self, breaches: Breaches) -> None:
        self._breaches = breaches
        self._open: dict[str, _Batch] = {}

    def collect(self, meta: Record) -> None:
        batch_id, index, size = meta["batch_id"], meta["batch_index"], meta["batch_size"]
        batch = self._open.get(batch_id)
        if batch is None:
            batch = self._open[batch_id] = _Batch(size)
        if not 0 <= index < size or size != batch.size or batch.seen >> index & 1:
            self._breaches.add("6", f"batch {batch_id} has event {index} of {size} twice, or counts wrongly")
            return
        batch.seen |= 1 << index
        if batch.seen == (1 << size) - 1:
            del self._open[batch_id]

    def finish(self) -> None:
        for batch_id, batch in self._open.items():
            self._breaches.add(
                "6", f"batch {batch_id} is torn: {batch.seen.bit_count()} of {batch.size} events"
            )
