"""Logs in memory, for what reads them again: the records of a shop, or any others, with the holes that markers leave."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

from schemas.codec import Codec
from schemas.language import AGGREGATES
from schemas.meta import NO_HASH, CommandMeta
from schemas.payment import PaymentRequested, RecordProviderResult
from schemas.topics import Topics
from streams.replay import Extent, Place, Portion, Query, Replay, Stored
from tests.in_memory_shop import Shop

TOPICS = Topics("t", 2)
CODEC = Codec()
KINDS = ("product", "cart", "order", "stock", "payment")
AGGREGATE_OF = dict(zip(KINDS, ("catalog", "cart", "order", "inventory", "payment"), strict=True))


@dataclass
class WrittenLog:
    """A `streams.replay.Log`; behind each record stands a marker, as behind a transaction of one."""

    records: list[Stored] = field(default_factory=list)
    size: int = 5
    since_ms: list[int] = field(default_factory=list)
    _ends: defaultdict[Place, int] = field(default_factory=lambda: defaultdict(int))

    def write(self, topic: str, key: str, *values: bytes) -> None:
        place = topic, TOPICS.partition_of(key)
        for value in values:
            self.records.append(Stored(*place, self._ends[place], key.encode(), value))
            self._ends[place] += 2

    def extents(self, topics: Iterable[str]) -> dict[Place, Extent]:
        return {
            (topic, number): Extent(0, self._ends[topic, number])
            for topic in topics
            for number in range(TOPICS.partitions)
        }

    def since(self, places: Iterable[Place], at_ms: int) -> dict[Place, int]:
        self.since_ms.append(at_ms)
        return dict.fromkeys(places, 0)

    def portions(
        self, starts: Mapping[Place, int], ends: Mapping[Place, int], *, follow: bool
    ) -> Iterator[Portion]:
        if follow:  # up to what came in meanwhile; the real one would wait there for more
            ends = {place: self._ends[place] for place in starts}
        ours = [
            one for one in self.records if one[:2] in starts and starts[one[:2]] <= one.offset < ends[one[:2]]
        ]
        for first in range(0, len(ours), self.size):
            some = ours[first : first + self.size]
            yield Portion(some, {one[:2]: one.offset + 1 for one in some})
        yield Portion([], dict(ends))

    def close(self) -> None:
        pass

    def replay(self, query: Query, codec: Codec = CODEC, **more: Any) -> Replay:
        return Replay(self, query, codec, **more)


class RecordingShop(Shop):
    """A shop whose commands are remembered as they come: those that the topics would hold."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any, CommandMeta]] = []
        super().__init__()

    def _decide(self, aggregate: str, key: str, body: Any, meta: CommandMeta) -> None:
        if isinstance(body, RecordProviderResult):
            meta = self._because_of_its_request(body, meta)
        if meta.actor_kind != "deadline":
            self.asked.append((aggregate, key, body, meta))
        super()._decide(aggregate, key, body, meta)

    def _because_of_its_request(self, body: RecordProviderResult, meta: CommandMeta) -> CommandMeta:
        """As the real payment agent says it; the shop in memory has no need to."""
        asked = [
            e
            for e in self.history("payment")
            if isinstance(e.body, PaymentRequested) and e.body.key == body.key
        ]
        cause = asked[-1].meta
        return replace(meta, correlation_id=cause.correlation_id, causation_id=cause.event_id)


def log_of(shop: Shop) -> WrittenLog:
    """What the shop's writers would have left in Kafka: its events in their order, and its commands."""
    log = WrittenLog()
    hashes: dict[str, bytes] = {}
    for aggregate in AGGREGATES:
        for event in shop.history(aggregate):
            stream = event.meta.stream
            meta = replace(event.meta, previous=hashes.get(stream, NO_HASH), batch_id=event.meta.event_id)
            value = CODEC.encode(event.body, vars(meta))
            hashes[stream] = sha256(value).digest()
            log.write(TOPICS.events(aggregate), stream.split("/")[1], value)
    for aggregate, key, body, meta in getattr(shop, "asked", ()):
        log.write(TOPICS.commands(aggregate), key, CODEC.encode(body, vars(meta)))
    return log
