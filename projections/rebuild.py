"""A view anew from the log: its next generation is built beside the live one, judged, and switched to in one step."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from projections.building import Build, Course, Log, Rebuildable, RebuildFailed
from projections.generations import Succession, begun, settled
from projections.scratch import Scratch
from projections.verdict import Judge, Verdict
from projections.view import Batch, Partition, Poison, Recorded, View
from schemas.codec import Decoded, UndecodableError

RECORDS_MAX = 2_000
SWITCH_ATTEMPTS = 50

log = structlog.get_logger()


@dataclass(frozen=True)
class Rebuilt:
    """`records` were read by this run, which went on at `resumed` (offsets of all partitions together; 0: at the start).
    `poisons` are records that the view cannot apply. `switched` is what the store knows since it is live; None where it
    is not.
    """

    view: str
    generation: int
    records: int
    poisons: tuple[Poison, ...]
    verdict: Verdict
    switched: Succession | None = None
    resumed: int = 0

    @property
    def is_live(self) -> bool:
        return self.switched is not None


@dataclass(frozen=True)
class Rebuilding:
    """One view's. `of_generation(n)` is the store pinned to a generation, None: the live one's.

    Readers are served all the time. Cancelled or killed anywhere, it leaves the live generation whole and the next one
    where it stands. All methods raise StoreUnavailable, KafkaException, RebuildFailed, and sqlite3.Error where the disk
    is full.
    """

    view: View[Any]
    topics: tuple[str, ...]
    of_generation: Callable[[int | None], Rebuildable]
    source: Log
    course: Course = field(default_factory=Course)

    async def rebuild(self, *, anew: bool = False, accept: str = "") -> Rebuilt:
        """Build, judge, switch. Goes on with what was built and did not go live, unless it shall be built `anew`."""
        async with self._live_store() as store:
            succession = await begun(store, self.view, anew=anew)
            async with self._build(succession.building) as build:
                await build.catch_up()
                shown, live = await self._shown(store, build)
                with closing(Scratch()) as scratch:
                    judge = Judge(build, succession.building, store, shown, live, scratch)
                    verdict = await judge.verdict()
                if not verdict.allows(accept):
                    return self._report(build, verdict)
                accepted = accept if verdict.spoilt else ""
                then = await self._switch(build, store, succession.building, succession, accepted)
                return self._report(build, verdict, then)

    async def bring_back(self) -> Rebuilt:
        """Switch to the generation that was live before, once it is as far as the log; the one it replaces is kept."""
        async with self._live_store() as store:
            succession = await settled(store, self.view)
            if not succession.previous:
                raise RebuildFailed(f"{self.view.name} has no generation that could be brought back")
            async with self._build(succession.previous) as build:
                await build.catch_up()
                if build.was_emptied:
                    raise RebuildFailed(f"{self.view.name} was emptied while it was brought back: rebuild it")
                then = await self._switch(build, store, succession.previous, succession)
                return self._report(build, Verdict("none"), then)

    async def _shown(self, store: Rebuildable, build: Build) -> tuple[View[Any], int]:
        """What readers are shown: the live generation of this version, or of the last one before it that holds any."""
        for version in range(self.view.version, 0, -1):
            view = replace(self.view, version=version)
            live = await store.live(view)
            if any((await store.places(view, live, build.ends)).values()):
                return view, live
        return self.view, await store.live(self.view)

    async def _switch(
        self, build: Build, store: Rebuildable, generation: int, known: Succession, accepted: str = ""
    ) -> Succession:
        live = await store.live(self.view)
        is_there = any((await store.places(self.view, live, build.ends)).values())
        for _ in range(SWITCH_ATTEMPTS):
            then = known.switched(live, accepted=accepted, keep=is_there)
            await build.catch_up()
            self.course.stage = "switching"
            if await store.switch(self.view, generation, build.ends, then):
                log.info("switched", view=self.view.name, live=generation, before=live, accepted=accepted)
                return then
        raise RebuildFailed(f"the live generation of {self.view.name} kept ahead of the next one")

    def _report(self, build: Build, verdict: Verdict, then: Succession | None = None) -> Rebuilt:
        course, poisons = self.course, tuple(build.poisons.values())
        name, generation = self.view.name, course.generation
        return Rebuilt(name, generation, build.records, poisons, verdict, then, course.resumed)

    @asynccontextmanager
    async def _live_store(self) -> AsyncIterator[Rebuildable]:
        store = self.of_generation(None)
        try:
            yield store
        finally:
            await store.close()

    @asynccontextmanager
    async def _build(self, generation: int) -> AsyncIterator[Build]:
        self.course.generation = generation
        store = self.of_generation(generation)
        try:
            yield Build(self.view, self.topics, store, self.source, self.course)
        finally:
            await store.close()


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
