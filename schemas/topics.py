"""Topics: their names, their settings, and which partition an aggregate lives in."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from schemas.language import AGGREGATES

DAY_MS = 24 * 3600 * 1000
DECISIONS_RETENTION_MS = 7 * DAY_MS
RECORD_BYTES_MAX = 900_000
"""No record of ours is larger; Kafka's own limit (1 MB) leaves room for its headers."""

STREAM_NAME_MAX = 512
"""Bytes. A record of a stream with a longer name is none of ours."""

LETTER_KEY_MAX = 1_000
LETTER_VALUE_MAX = RECORD_BYTES_MAX - 100_000
"""Bytes. So much of a record stands in its dead letter, which leaves room for the rest; the whole lies where it says."""

REASON_CHARS_MAX = 1_000

_FOR_EVER = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
_SAFE = {"unclean.leader.election.enable": "false"}
_SETTINGS: Mapping[str, Mapping[str, str]] = {
    "events": _FOR_EVER | _SAFE,
    "commands": _FOR_EVER | _SAFE | {"message.timestamp.type": "LogAppendTime"},
    # The broker's clock: a writer whose own is wrong must not make its dedupe window expire.
    "decisions": _SAFE
    | {"cleanup.policy": "delete", "retention.ms": str(DECISIONS_RETENTION_MS), "retention.bytes": "-1"}
    | {"message.timestamp.type": "LogAppendTime"},
    "state": _SAFE | {"cleanup.policy": "compact"},
}


@dataclass(frozen=True)
class Topics:
    """The names under one prefix, with `partitions` for each of the aggregates' topics (fixed at creation)."""

    prefix: str = "daybook"
    partitions: int = 2

    def commands(self, aggregate: str) -> str:
        return f"{self.prefix}.commands.{aggregate}"

    def events(self, aggregate: str) -> str:
        return f"{self.prefix}.events.{aggregate}"

    def state(self, aggregate: str) -> str:
        return f"{self.prefix}.state.{aggregate}"

    def decisions(self, aggregate: str) -> str:
        return f"{self.prefix}.decisions.{aggregate}"

    @property
    def schemas(self) -> str:
        return f"{self.prefix}.schemas"

    @property
    def dead_letters(self) -> str:
        return f"{self.prefix}.dead-letters"

    @property
    def checkpoints(self) -> str:
        """What the sealer signed, and witnesses beside it."""
        return f"{self.prefix}.checkpoints"

    def partition_of(self, key: str) -> int:
        """Where the aggregate with this id (of a stock item or a product: its sku) lives, in every topic."""
        return partition_of(key, self.partitions)

    def wanted(self) -> Iterable["TopicSpec"]:
        """Every topic with the settings it must have."""
        for aggregate in AGGREGATES:
            for kind, settings in _SETTINGS.items():
                yield TopicSpec(f"{self.prefix}.{kind}.{aggregate}", self.partitions, settings)
        yield TopicSpec(self.schemas, 1, {"cleanup.policy": "compact"} | _SAFE)
        yield TopicSpec(self.dead_letters, self.partitions, _FOR_EVER | _SAFE)
        yield TopicSpec(self.checkpoints, 1, _FOR_EVER | _SAFE)


@dataclass(frozen=True)
class TopicSpec:
    name: str
    partitions: int
    settings: Mapping[str, str]


@lru_cache(maxsize=8_192)
def partition_of(key: str, partitions: int) -> int:
    """The partition that Kafka's Java clients (and `murmur2_random` in librdkafka) choose for this key."""
    return (murmur2(key.encode()) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """Kafka's hash of a key: unsigned 32 bits."""
    length = len(data)
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ length
    for i in range(0, length - length % 4, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    tail = data[length - length % 4 :]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15
