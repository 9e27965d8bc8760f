"""The Faust app of a role: agents on channels that event sources fill, started and stopped in the right order."""

import asyncio
import logging
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable, Container, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faust
import structlog
import uvloop
from faust.app.base import BootStrategy
from mode import Service
from mode.types import ServiceT

from schemas import telemetry
from schemas.codec import Codec
from streams.dead_letters import DeadLetters
from streams.deliveries import Body, Delivery, settle
from streams.event_source import EventSource, Route
from streams.intake import Intake, expected_on, other_events
from streams.record_producer import RecordProducer
from streams.resumption import Positions
from streams.role_status import RoleStatus
from streams.schema_registry import LearningDecoder, SchemaRegistry
from streams.settings import StreamSettings
from streams.watchdog import Watchdog

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 1.0
TALKATIVE = ("faust", "mode", "cassandra.policies")
"""Libraries that tell of every step of their own."""

Close = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Feed:
    """A source, the body that its deliveries are settled with, and how many of them at once.

    `in_turn`: never two of one partition, and in their order; partitions do not wait for each other.
    """

    source: EventSource
    body: Body
    concurrency: int = 1
    in_turn: bool = False


@dataclass(frozen=True)
class Kit:
    """What every agent's process needs beside its own ports."""

    settings: StreamSettings
    codec: Codec
    registry: SchemaRegistry
    producer: RecordProducer
    letters: DeadLetters
    watchdog: Watchdog

    @classmethod
    def of(cls, settings: StreamSettings) -> "Kit":
        codec, producer = Codec(), RecordProducer(settings.kafka)
        letters = DeadLetters(settings.kafka, settings.topics, codec, producer)
        registry = SchemaRegistry(settings.kafka, settings.topics)
        return cls(settings, codec, registry, producer, letters, Watchdog())

    def source(
        self,
        name: str,
        topics: Iterable[str],
        positions: Positions | None = None,
        heard: Container[type] | None = None,
        pace_s: float = 0.0,
    ) -> EventSource:
        """The source of the consumer `name`; one group for each. It passes over events that are not `heard`, if told."""
        decoder = LearningDecoder(self.codec, self.registry.schemas)
        unheard = frozenset[bytes]() if heard is None else other_events(self.codec, heard)
        intake = Intake(decoder, expected_on(self.settings.topics), unheard)
        route = Route(name, self.settings.group(name), tuple(topics), self.settings.slot)
        return EventSource(
            self.settings.kafka, route, intake, self.letters, self.watchdog, positions, pace_s=pace_s
        )

    def open(self) -> None:
        """Schemas stand before the first record is written; what is parked is known before one is read."""
        self.watchdog.start()
        self.registry.publish(self.codec)
        self.letters.start()

    def close(self) -> None:
        self.letters.close()
        self.producer.close()
        self.watchdog.close()


@dataclass(frozen=True)
class Role:
    """A process of agents: its name in status and logs, its feeds, and what is closed after the last delivery."""

    name: str
    kit: Kit
    feeds: tuple[Feed, ...]
    closes: tuple[Close, ...] = field(default=())


class Pump(Service):
    """Starts the sources once the agents listen; stops them, finished and committed, before the agents stop."""

    def __init__(self, app: faust.App, role: Role) -> None:
        super().__init__()
        self._app = app
        self._role = role
        self._status = RoleStatus(role.name, role.kit.settings.run)
        self._fed = [(feed, _agent(app, feed)) for feed in role.feeds]

    async def on_start(self) -> None:
        # Without Kafka's consumer nobody else resumes it, and channels would deliver nothing, silently.
        self._app.flow_control.resume()
        await asyncio.to_thread(self._role.kit.open)
        for feed, deliver in self._fed:
            feed.source.start(deliver)

    @Service.task
    async def _look_after_sources(self) -> None:
        while not self.should_stop:
            self._role.kit.watchdog.turned("loop")
            failed = next((feed.source.failure for feed, _ in self._fed if feed.source.failure), None)
            if failed is not None:
                self._say("failing", str(failed))
                await self.crash(failed)
                return
            illness = next((feed.source.illness for feed, _ in self._fed if feed.source.illness), "")
            self._say("degraded" if illness else "ok", illness)
            await self.sleep(LOOK_EVERY_S)

    def _say(self, health: str, detail: str) -> None:
        lags = [feed.source.lag for feed, _ in self._fed]
        events, seconds = sum(lag.events for lag in lags), max((lag.seconds for lag in lags), default=0.0)
        self._status.write(health, detail, lag_events=events, lag_s=round(seconds, 1))  # type: ignore[arg-type]

    async def on_stop(self) -> None:
        await asyncio.gather(*(feed.source.stop() for feed, _ in self._fed))
        for close in self._role.closes:
            await close()
        await asyncio.to_thread(self._role.kit.close)


class _Boot(BootStrategy):
    """Agents, then the pump; Faust's own Kafka clients are left out. What starts last stops first."""

    pump: Pump

    def server(self) -> Iterable[ServiceT]:
        return [*self.agents(), self.pump]


def make_app(role: Role) -> faust.App:
    settings = role.kit.settings
    datadir = (settings.state or Path(tempfile.gettempdir()) / "daybook") / "faust"
    datadir.mkdir(parents=True, exist_ok=True)
    app = faust.App(
        f"{settings.topics.prefix}-{role.name}",
        broker=f"kafka://{settings.kafka}",
        datadir=str(datadir),
        web_enabled=False,
    )
    app.boot_strategy = _Boot(app)
    app.boot_strategy.pump = Pump(app, role)
    return app


def run(role: Role) -> None:
    """Runs until SIGTERM or SIGINT (exit status 0) or until a source fails (1)."""
    telemetry.configure(role.name)
    for library in TALKATIVE:
        logging.getLogger(library).setLevel(logging.WARNING)
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    worker = faust.Worker(
        make_app(role), loop=loop, redirect_stdouts=False, override_logging=False, quiet=True
    )
    worker.spinner = None
    worker.execute_from_commandline()


def _agent(app: faust.App, feed: Feed) -> Callable[[Delivery], Awaitable[object]]:
    """The agent of a feed; returns how it is delivered to."""
    channel: Any = app.channel()  # of deliveries, while Faust's types speak of its own events

    turns: defaultdict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def agent(deliveries: Any) -> None:
        async for delivery in deliveries:
            place = delivery.batch.topic, delivery.batch.partition
            async with turns[place] if feed.in_turn else nullcontext():
                await settle(delivery, feed.body)

    app.agent(channel, name=feed.source.route.consumer, concurrency=feed.concurrency)(agent)
    put: Callable[[Delivery], Awaitable[object]] = channel.put
    return put
