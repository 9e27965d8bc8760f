"""A topic to write on, and an agent that listens to it: sources and their rules without Faust, on the real Kafka."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Producer

from projections.view import Batch, Partition, Poison, PositionMoved, StoreUnavailable
from schemas.cart import CartExpired, cart_stream
from schemas.codec import Codec
from schemas.letters import DeadLetter
from schemas.meta import NO_HASH, EventMeta, Micros, derived_id
from schemas.topics import Topics
from streams.dead_letters import DeadLetters
from streams.deliveries import Body, Delivery, settle
from streams.event_source import EventSource, Route
from streams.intake import Intake, expected_on
from streams.record_producer import RecordProducer
from streams.schema_registry import LearningDecoder, SchemaRegistry
from streams.topic_reader import read_to_end
from streams.watchdog import Watchdog

DEADLINE_S = 60.0
CODEC = Codec()


async def until(true: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
    """Waits for a condition; AssertionError when it has not come about in time."""
    end = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < end, "it did not come about in time"
        await asyncio.sleep(0.01)


def event(cart: str, version: int, traceparent: str = "00-1-2-00") -> tuple[bytes, list[tuple[str, bytes]]]:
    """Value and headers of the `version`-th event of a cart."""
    stream = cart_stream(cart)
    now = Micros(time.time_ns() // 1_000)
    id_ = derived_id(stream, str(version))
    meta = EventMeta(
        id_, stream, version, now, now, id_, id_, id_, "customer", "anna", id_, 0, 1, traceparent, NO_HASH
    )
    return CODEC.encode(CartExpired(cart), vars(meta)), [("stream", stream.encode())]


@dataclass(frozen=True)
class Pen:
    """Writes on `events.cart`, partition 0 unless told otherwise, in transactions as a worker does."""

    kafka: str
    topics: Topics

    @property
    def topic(self) -> str:
        return self.topics.events("cart")

    def write(self, *events: tuple[str, int], partition: int = 0, abort: bool = False) -> None:
        producer = Producer(
            {"bootstrap.servers": self.kafka, "transactional.id": f"{self.topics.prefix}-pen", "linger.ms": 0}
        )
        producer.init_transactions()
        producer.begin_transaction()
        for cart, version in events:
            value, headers = event(cart, version)
            producer.produce(self.topic, value, cart.encode(), partition, headers=headers)  # type: ignore[arg-type]
        if abort:
            producer.flush()
            producer.abort_transaction()
        else:
            producer.commit_transaction()

    def scribble(
        self, value: bytes | None, key: bytes | None = b"k", stream: bytes = b"", partition: int = 0
    ) -> None:
        """Write what no worker would."""
        producer = Producer({"bootstrap.servers": self.kafka, "message.max.bytes": 1_048_000})
        headers = [("stream", stream)] if stream else []
        producer.produce(self.topic, value, key, partition, headers=headers)  # type: ignore[arg-type]
        assert producer.flush(DEADLINE_S) == 0


@dataclass
class Shelf:
    """A store in memory that keeps what was applied and its position, as the real ones do."""

    at: dict[Partition, int] = field(default_factory=dict)
    applied: list[tuple[str, int]] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    down: bool = False
    batches: int = 0
    attempts: int = 0

    async def positions(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        if self.down:
            raise StoreUnavailable
        return {partition: self.at.get(partition, 0) for partition in partitions}

    async def apply(self, batch: Batch) -> Sequence[Poison]:
        self.attempts += 1
        if self.down:
            raise StoreUnavailable
        where = (batch.topic, batch.partition)
        if self.at.get(where, 0) != batch.expected:
            raise PositionMoved(self.at.get(where, 0))
        for record in batch.records:
            self.applied.append((record.message.body.cart_id, record.message.meta.version))
            self.offsets.append(record.offset)
        self.at[where] = batch.next
        self.batches += bool(batch.records)
        return []

    def versions(self, cart: str) -> list[int]:
        return [version for name, version in self.applied if name == cart]


@dataclass
class Listener:
    """A running source, and what it wrote."""

    source: EventSource
    letters: DeadLetters
    deliveries: list[Delivery]

    async def stop(self) -> None:
        await self.source.stop()


@dataclass(frozen=True)
class Listening:
    """Starts listeners on one set of topics."""

    kafka: str
    topics: Topics

    @asynccontextmanager
    async def to(
        self,
        body: Body,
        positions: Any = None,
        consumer: str = "views.test",
        settling: Callable[[Delivery, Body], Awaitable[None]] = settle,
        unheard: frozenset[bytes] = frozenset(),
        **options: Any,
    ) -> Any:
        """One agent, serial as Faust's is."""
        producer = RecordProducer(self.kafka)
        letters = DeadLetters(self.kafka, self.topics, CODEC, producer)
        await asyncio.to_thread(letters.start)
        registry = SchemaRegistry(self.kafka, self.topics)
        intake = Intake(LearningDecoder(Codec(), registry.schemas), expected_on(self.topics), unheard)
        route = Route(consumer, f"{self.topics.prefix}.{consumer}", [self.topics.events("cart")])
        source = EventSource(self.kafka, route, intake, letters, Watchdog(), positions, **options)
        queue: asyncio.Queue[Delivery] = asyncio.Queue()
        listener = Listener(source, letters, [])

        async def agent() -> None:
            while True:
                delivery = await queue.get()
                listener.deliveries.append(delivery)
                await settling(delivery, body)

        task = asyncio.create_task(agent())
        source.start(queue.put)
        try:
            yield listener
        finally:
            await source.stop()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            letters.close()
            producer.close()

    def letters(self) -> list[DeadLetter]:
        """All that is written in the dead-letters topic."""
        messages = read_to_end(self.kafka, self.topics.dead_letters)
        return [CODEC.decode(message.value() or b"").body for message in messages]
