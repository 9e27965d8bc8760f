"""What happened, told event by event, as the records that a view's store would be given."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from projections.view import Batch, Partition, Poison, PositionMoved, Recorded, ViewStore
from schemas.codec import Decoded
from schemas.decisions import Decided, Decisions
from schemas.language import AGGREGATES
from schemas.meta import EventMeta, Micros, RecordMeta
from schemas.topics import Topics

TOPICS = Topics("story", 2)
AGGREGATE_OF = {event: aggregate.name for aggregate in AGGREGATES.values() for event in aggregate.events}
NOVEMBER = 1_290_000_000_000_000
"""2010-11-17, in micros."""


@dataclass
class Story:
    """Offsets have holes, as transaction markers leave them: each record is followed by one."""

    records: list[Recorded] = field(default_factory=list)
    now: int = NOVEMBER
    _versions: dict[str, int] = field(default_factory=dict)
    _ends: dict[Partition, int] = field(default_factory=dict)

    def tell(self, *events: Any, actor: str = "anna") -> "Story":
        for event in events:
            version = self._versions[event.stream] = self._versions.get(event.stream, 0) + 1
            topic = TOPICS.events(AGGREGATE_OF[type(event)])
            key = event.stream.split("/")[1]
            self._append(topic, key, Decoded(self._meta(event.stream, version, actor), event))
        return self

    def decide(self, *decided: Decided, aggregate: str = "cart") -> "Story":
        meta = RecordMeta(f"{aggregate}[0]", Micros(self.now), "batch")
        self._append(TOPICS.decisions(aggregate), "any", Decoded(meta, Decisions(b"", decided)))
        return self

    def _append(self, topic: str, key: str, message: Decoded[Any]) -> None:
        partition = TOPICS.partition_of(key)
        offset = self._ends.get((topic, partition), 0)
        self._ends[topic, partition] = offset + 2
        self.records.append(Recorded(topic, partition, offset, key.encode(), message))

    def _meta(self, stream: str, version: int, actor: str) -> EventMeta:
        at = Micros(self.now)
        self.now += 1_000
        cause = f"cause of {stream}@{version}"
        return EventMeta(
            event_id=f"{stream}@{version}",
            stream=stream,
            version=version,
            occurred_at=at,
            recorded_at=at,
            command_id=cause,
            correlation_id="correlation",
            causation_id=cause,
            actor_kind="merchant",
            actor_id=actor,
            batch_id="batch",
            batch_index=0,
            batch_size=1,
            traceparent="00-trace",
            previous=b"",
        )

    @property
    def messages(self) -> list[Decoded[Any]]:
        return [record.message for record in self.records]

    # As a log (`rebuild.Log`).

    def ends(self, topics: Iterable[str]) -> dict[Partition, int]:
        return {
            (topic, number): self._ends.get((topic, number), 0)
            for topic in topics
            for number in range(TOPICS.partitions)
        }

    def batches(self, partition: Partition, start: int, end: int, size: int = 7) -> Iterator[Batch]:
        ours = [r for r in self.records if (r.topic, r.partition) == partition and start <= r.offset < end]
        position = start
        for first in range(0, len(ours), size):
            records = ours[first : first + size]
            yield Batch(*partition, position, records[-1].offset + 2, records)
            position = records[-1].offset + 2


def folded(evolve: Any, story: Story) -> Any:
    """The document that these events, all of one stream, leave."""
    document = None
    for message in story.messages:
        document = evolve(document, message)
    return document


async def deliver(store: ViewStore, story: Story, size: int = 7) -> list[Poison]:
    """What a source does: from where the store stands to the end, going wherever it is sent."""
    poisons: list[Poison] = []
    for partition, end in story.ends(store.topics(TOPICS)).items():
        position = (await store.positions([partition]))[partition]
        for _ in range(10):
            try:
                for batch in story.batches(partition, position, end, size):
                    while found := await store.apply(batch):
                        poisons += found
                        batch = batch.without(found)  # noqa: PLW2901  # what is left of it
                break
            except PositionMoved as moved:
                position = moved.next
    return poisons
