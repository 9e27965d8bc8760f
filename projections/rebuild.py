"""The batch engine: builds the next generation of a view beside the live one from the log, compares, switches."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from projections.compare import Comparable, Difference, FoldOfLog, against_log, differences, digests_of
from projections.view import Batch, Partition, Poison, PositionMoved, Recorded, View, ViewStore
from schemas.codec import Decoded, UndecodableError

RECORDS_MAX = 2_000
ROUNDS = 3
"""So often the live generation is compared; what moves meanwhile does not differ twice in the same way."""

SWITCH_ATTEMPTS = 50
GRACE_S = 2.0
"""Readers may believe in the old generation for a second; it is dropped after that."""

log = structlog.get_logger()


class Rebuildable(ViewStore, Comparable, Protocol):
    """A store that can hold several generations of a view."""

    async def live(self, view: Any) -> int: ...

    async def next_generation(self, view: Any) -> int: ...

    async def switch(self, view: Any, generation: int, partitions: Iterable[Partition]) -> bool: ...

    async def drop(self, view: Any, generation: int) -> None: ...


class Log(Protocol):
    """The daybook, read from wherever one likes."""

    def ends(self, topics: Iterable[str]) -> dict[Partition, int]:
        """Where each partition of these topics ends now."""

    def batches(self, partition: Partition, start: int, end: int) -> Iterator[Batch]:
        """All records from `start` on, up to `end`; the last batch's `next` is `end` or beyond."""


@dataclass(frozen=True)
class Rebuilt:
    """`wrong` is where the new generation differs from the log (then it was not switched to), `mended` where
    the old one differed from the new: it was wrong. `poisons` are records that no view could apply.
    """

    view: str
    generation: int
    records: int
    poisons: tuple[Poison, ...]
    wrong: tuple[Difference, ...]
    mended: tuple[Difference, ...]

    @property
    def switched(self) -> bool:
        return not self.wrong


class RebuildFailed(Exception):
    """The live generation kept running ahead of the next one, or the store kept moving."""


async def rebuild(
    view: View[Any], topics: Iterable[str], of_generation: Callable[[int | None], Rebuildable], source: Log
) -> Rebuilt:
    """Build, compare, switch. `of_generation(n)` is the store pinned to a generation, None: the live one's.

    Served all the time; killed anywhere, it leaves the live generation as it was, and the next attempt takes a
    new number. Raises StoreUnavailable, RebuildFailed.
    """
    live_store = of_generation(None)
    old, generation = await live_store.live(view), await live_store.next_generation(view)
    build = _Build(view, tuple(topics), of_generation(generation), source, FoldOfLog(live_store, view))
    try:
        await build.catch_up()
        wrong = await against_log(build.should, generation, _now())
        if wrong:
            await live_store.drop(view, generation)
            return build.report(generation, wrong, set())
        mended = await _differing(build, live_store, old, generation)
        await _switch(build, live_store, generation)
        await asyncio.sleep(GRACE_S)
        for stale in range(old, generation):  # the old one, and what rebuilds that were killed left behind
            await live_store.drop(view, stale)
        return build.report(generation, set(), mended)
    finally:
        await build.store.close()
        await live_store.close()


@dataclass
class _Build:
    view: View[Any]
    topics: tuple[str, ...]
    store: Rebuildable
    source: Log
    should: FoldOfLog
    records: int = 0
    poisons: dict[str, Poison] = field(default_factory=dict)
    ends: dict[Partition, int] = field(default_factory=dict)
    _folded: dict[Partition, int] = field(default_factory=dict)

    async def catch_up(self) -> None:
        """Apply what the log holds by now."""
        self.ends = await asyncio.to_thread(self.source.ends, self.topics)
        for partition, end in self.ends.items():
            for _ in range(ROUNDS):
                with suppress(PositionMoved):  # emptied meanwhile: go on from where it says it is
                    await self._apply_until(partition, end)
                    break
            else:
                raise RebuildFailed(f"{self.store.name} does not keep its position in {partition}")

    async def _apply_until(self, partition: Partition, end: int) -> None:
        position = (await self.store.positions([partition]))[partition]
        batches = self.source.batches(partition, position, end) if position < end else iter(())
        while batch := await asyncio.to_thread(next, batches, None):
            left = batch
            while poisons := await self.store.apply(left):
                left = left.without(poisons)
                for poison in poisons:
                    self.poisons.setdefault(poison.stream, poison)
            self._fold(partition, batch)

    def _fold(self, partition: Partition, batch: Batch) -> None:
        """The fold beside the store reads each record once, also if the store was sent back."""
        if batch.next > self._folded.get(partition, 0):
            self._folded[partition] = batch.next
            self.should.add(batch.records)
            self.records += len(batch.records)

    def report(self, generation: int, wrong: set[Difference], mended: set[Difference]) -> Rebuilt:
        return Rebuilt(
            self.view.name,
            generation,
            self.records,
            tuple(self.poisons.values()),
            tuple(sorted(wrong)),
            tuple(sorted(mended)),
        )


async def _differing(build: _Build, live_store: Rebuildable, old: int, generation: int) -> set[Difference]:
    """Where the live generation differs from the next, in the same way in several rounds: one of them is always
    a little ahead while events come in.
    """
    found = await _differing_now(build, live_store, old, generation)
    for _ in range(ROUNDS - 1):
        if not found:
            break
        await asyncio.sleep(0.3)
        await build.catch_up()
        found &= await _differing_now(build, live_store, old, generation)
    return found


async def _differing_now(
    build: _Build, live_store: Rebuildable, old: int, generation: int
) -> set[Difference]:
    held = await digests_of(live_store, build.view, old)
    return differences(await digests_of(live_store, build.view, generation), held)


async def _switch(build: _Build, live_store: Rebuildable, generation: int) -> None:
    for _ in range(SWITCH_ATTEMPTS):
        await build.catch_up()
        if await live_store.switch(build.view, generation, build.ends):
            return
    raise RebuildFailed(f"the live generation of {build.view.name} kept ahead of the next one")


def _now() -> int:
    return time.time_ns() // 1_000


class KafkaLog:
    """The log as committed transactions left it. `decode` may learn schemas that it does not know yet."""

    def __init__(self, servers: str, decode: Callable[[bytes], Decoded[Any]]) -> None:
        self._decode = decode
        self._consumer = Consumer(
            {
                "bootstrap.servers": servers,
                "group.id": "daybook-rebuild",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
                "queued.max.messages.kbytes": 16_384,
                "fetch.wait.max.ms": 50,  # so soon a partition's end is told
            }
        )

    def ends(self, topics: Iterable[str]) -> dict[Partition, int]:
        """Where the last finished transaction ends, so that everything before it can be read."""
        listed = self._consumer.list_topics(timeout=10).topics
        return {
            (topic, number): self._consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10)[
                1
            ]
            for topic in topics
            for number in sorted(listed[topic].partitions)
        }

    def batches(self, partition: Partition, start: int, end: int) -> Iterator[Batch]:
        topic, number = partition
        self._consumer.assign([TopicPartition(topic, number, start)])
        position = start
        while position < end:
            messages = self._next_messages()
            read = _reached(messages, position)
            if read > position:
                records = [record for message in messages if (record := self._recorded(message))]
                yield Batch(topic, number, position, read, records)
                position = read
        self._consumer.unassign()

    def close(self) -> None:
        self._consumer.close()

    def _next_messages(self) -> list[Message]:
        """What is there; `consume` with a timeout would wait it out unless all that it may bring is there."""
        first = self._consumer.poll(0.5)
        return [] if first is None else [first, *self._consumer.consume(RECORDS_MAX - 1, timeout=0)]

    def _recorded(self, message: Message) -> Recorded | None:
        """None for the end of the partition, and for what nobody can read: its stream shows a gap then."""
        topic, number, offset, value = message.topic(), message.partition(), message.offset(), message.value()
        if message.error() or topic is None or number is None or offset is None:
            return None
        try:
            return Recorded(topic, number, offset, message.key(), self._decode(value or b""))
        except UndecodableError as error:
            log.warning("not readable", topic=topic, partition=number, offset=offset, error=str(error))
            return None


def _reached(messages: Iterable[Message], position: int) -> int:
    """The offset behind these; the end of the partition tells how far the markers behind the last record go."""
    for message in messages:
        error, offset = message.error(), message.offset()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:  # its only name
            raise KafkaException(error)
        if offset is not None:
            position = max(position, offset if error is not None else offset + 1)
    return position
