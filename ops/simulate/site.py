"""The simulated site: every process of Daybook, run from its production code on virtual time, and a supervisor."""

import asyncio
from asyncio import events
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import TypeAlias

from confluent_kafka import KafkaException

from commands.handler import Handler
from commands.journal import JournalLostError, LogDamagedError
from commands.registry import DECIDERS
from ops.simulate.broker import CLEANUP_INTERVAL, Broker, Place
from ops.simulate.clients import machine_of
from ops.simulate.clockwork import Clock, Ended, Process, current
from ops.simulate.event_loop import VirtualLoop
from ops.simulate.network import Network
from ops.simulate.provider import SimulatedProvider
from ops.simulate.stores import Disk, MemoryViews, Shelf
from ops.simulate.wire import CODEC, DECODER, MemoryLetters, MemoryRecordProducer, notice
from projections.registry import PROJECTIONS
from schemas.meta import SECOND
from schemas.topics import Topics
from streams import failpoints
from streams.command_producer import CommandProducer
from streams.deliveries import Body, Delivery, settle
from streams.event_source import EventSource, Route
from streams.failpoints import Effect, FailpointError
from streams.intake import Intake, expected_on, other_events
from streams.kafka_journal import KafkaJournal, Slot
from streams.payment_agent import BATCHES_MAX as PAYMENT_BATCHES
from streams.payment_agent import CALLS_MAX, PaymentPorts, settle_payments
from streams.payments import ProviderAnswer, ProviderRequest
from streams.projection_agents import PARTITIONS_MAX
from streams.saga import HEARD
from streams.saga_agents import BATCHES_MAX, LISTENED_TO, SagaPorts, advance_checkouts
from streams.watchdog import Watchdog

SLOTS = 2
AGENTS = ("sagas", "payments", "projections")
ROLES = (*(f"commands-{slot}" for slot in range(SLOTS)), *AGENTS)
RESTART_S = 2.0
BUSY_TURN = 10 * SECOND
QUIET_TURN = 60 * SECOND
LOOK_EVERY_S = 5.0
UNHEARD = other_events(CODEC, HEARD)
FLIGHTS_MAX = 1_000
"""More deliveries than a source ever has under way: nobody waits for a place in a queue."""


Armed: TypeAlias = str | int | Callable[[Process], None]


@dataclass
class Role:
    """A role's latest process, and how often it was started."""

    process: Process
    starts: int = 0
    restarts: bool = True


@dataclass
class Site:
    """Everything that a run is made of. `random` decides all that happens after the plan was made."""

    random: Random
    clock: Clock = field(default_factory=Clock)
    topics: Topics = field(default_factory=lambda: Topics("sim", 2))

    def __post_init__(self) -> None:
        self.broker = Broker(self.clock, self.random, self.topics)
        self.network = Network(self.broker, self.random)
        self.provider = SimulatedProvider(self.random, self._hear_provider)
        self.shelves = {"redis": Shelf(), "cassandra": Shelf()}
        self.disks: defaultdict[int, list[tuple[Disk, Process]]] = defaultdict(list)
        self.roles: dict[str, Role] = {}
        self.others: list[Process] = []
        """Zombies, and second processes of a role."""
        self.armed: defaultdict[str, dict[str, list[Armed]]] = defaultdict(dict)
        """By failpoint and role, what happens when it is passed next: kill, raise, freeze so long, or this."""
        self.healed = False
        self.poison: list[tuple[Place, int]] = []
        """Where somebody wrote what is none of ours."""
        self.damaged: list[str] = []
        self.failures: list[str] = []
        self.gone: defaultdict[str, int] = defaultdict(int)
        """How often processes ended by themselves, by reason."""
        failpoints.enable(self)

    def start(self) -> None:
        for name in ROLES:
            self.launch(name)

    def heal(self) -> None:
        """All is well from now on, and what is not running is started by the supervisor."""
        self.healed = True
        self.network.heal()
        self.armed.clear()
        self.provider.mood, self.provider.is_silent = "well", False
        self.broker.cleanup_interval = CLEANUP_INTERVAL
        self.broker.late_markers.clear()
        for shelf in self.shelves.values():
            shelf.is_down = False
            shelf.late.clear()
        for log in self.broker.logs.values():
            log.held_until = 0
            log.tell("read_committed", "read_uncommitted")
        for role in self.roles.values():
            role.restarts = True
            role.process.thaws_at = self.clock.now
            role.process.clock_error = 0
            if not role.process.alive:
                self._restart(role.process)
        for other in self.others:
            self.retire(other)

    def close(self) -> None:
        """Every process ends: nothing of a run is left to the next."""
        for process in [*self.others, *(role.process for role in self.roles.values())]:
            process.kill()

    # The supervisor.

    def arm(self, role: str, name: str, *effects: Armed) -> None:
        """The next processes of this role that pass this failpoint meet with these, one after another."""
        self.armed[name].setdefault(role, []).extend(effects)

    def launch(self, name: str) -> Process:
        """A process of this role; an earlier one that still lives goes on beside it."""
        role = self.roles.get(name)
        if role is not None and role.process.alive:
            self.others.append(role.process)
        process = Process(self.clock, name)
        if role is None:
            self.roles[name] = Role(process)
        else:
            role.process = process
        self.roles[name].starts += 1
        if name.startswith("commands-"):
            self.network.hamper(0)
        slot = int(name.rpartition("-")[2]) if name.startswith("commands-") else -1
        if slot >= 0:
            process.spawn(partial(self._guarded, process, partial(self._work, slot, process)))
        else:
            self._launch_agents(name, process)
        return process

    def kill(self, name: str) -> None:
        process = self.roles[name].process
        process.kill()
        self.ended(process, "killed")

    def freeze(self, process: Process, pause: int) -> None:
        """Nothing of it runs for so many microseconds."""
        process.freeze(pause)
        if process.name.startswith("commands-"):
            self.network.hamper(pause)

    def retire(self, process: Process) -> None:
        """One of two processes of a role ends, if it has not already."""
        if process.alive:
            process.kill()

    def ended(self, process: Process, why: str) -> None:
        """Called from outside its strands, or from the last one of them."""
        self.gone[why] += 1
        if process.name.startswith("commands-"):
            self.network.hamper(0)
        role = self.roles[process.name]
        if role.process is process:
            self.clock.after(self.random.uniform(0.05, RESTART_S) * SECOND, None, self._restart, process)

    def _restart(self, process: Process) -> None:
        role = self.roles[process.name]
        if role.process is process and role.restarts:
            self.launch(process.name)

    def _guarded(self, process: Process, run: Callable[[], object]) -> None:
        why = "ended"
        try:
            run()
        except (JournalLostError, KafkaException) as error:
            why = type(error).__name__
        except LogDamagedError as error:
            self.damaged.append(str(error))
            why = "damaged"
        except Ended:
            why = "exited" if process.alive else "died"
            if not process.alive:
                return
        except Exception as error:  # noqa: BLE001  # a process that crashes is started again; the run is judged by it
            why = f"{type(error).__name__}: {error}"
            self.failures.append(f"{process.name} crashed: {why}")
        process.alive = False
        self.clock.at(self.clock.now, None, process.kill)
        self.ended(process, why)

    # Failpoints: `streams.failpoints` asks what must happen where the running process is.

    def hit(self, name: str) -> Effect | None:
        if not self.armed[name]:
            return None
        process = current().process
        armed = self.armed[name].get(process.name)
        if not armed:
            return None
        effect = armed.pop(0)
        if effect == "raise":
            return "raise"
        if effect == "kill":
            self.clock.at(self.clock.now, None, self.ended, process, f"killed at {name}")
            process.die()
        if isinstance(effect, int):
            self.freeze(process, effect)
        elif not isinstance(effect, str):
            effect(process)
        # A task freezes in the middle of its loop's turn; meanwhile other processes' loops run in this thread.
        loop = events._get_running_loop()  # noqa: SLF001  # as every loop does
        events._set_running_loop(None)  # noqa: SLF001  # as every loop does
        self.clock.park(0)
        events._set_running_loop(loop)  # noqa: SLF001  # as every loop does
        return None

    # Command workers.

    def _work(self, slot: int, process: Process) -> None:
        machine = machine_of(process, self.network, self.random)
        journal = KafkaJournal(Slot("memory", self.topics, slot), machine)
        name = f"{slot}-{self.roles[process.name].starts}"
        disk = self._disk(slot, process)
        handler = Handler(
            journal, disk, DECIDERS, CODEC, self.topics, process.wall_time, name, DECODER.decode
        )
        process.idle_until = lambda: min(
            self._idle_until(), disk.next_due(handler.serving) - process.clock_error
        )
        while True:
            handler.turn()

    def _disk(self, slot: int, process: Process) -> Disk:
        """The first that no other process holds: a frozen one keeps its lock."""
        disks = self.disks[slot]
        for number, (disk, holder) in enumerate(disks):
            if not holder.alive:
                disks[number] = (disk, process)
                return disk
        disks.append((Disk(), process))
        return disks[-1][0]

    # Agents: as the roles' own modules wire them, without Faust's channels.

    def _idle_until(self) -> int:
        """Idle turns are most of a quiet time, and nothing happens in them: some are left out."""
        return self.clock.now + (QUIET_TURN if self.healed else BUSY_TURN)

    def _launch_agents(self, name: str, process: Process) -> None:
        process.idle_until = self._idle_until
        loop = VirtualLoop(process)
        wire = {"sagas": self._wire_sagas, "payments": self._wire_payments, "projections": self._wire_views}[
            name
        ]
        loop.call_soon(wire, process, loop)

    def _commands_of(self, process: Process) -> CommandProducer:
        producer = MemoryRecordProducer(process, self.network, self.random)
        return CommandProducer(producer, CODEC, self.topics)  # type: ignore[arg-type]  # it sends as the real one does

    def _wire_sagas(self, process: Process, loop: VirtualLoop) -> None:
        ports = SagaPorts(self._commands_of(process), self.topics)
        heard = [topic(name) for name in LISTENED_TO for topic in (self.topics.events, self.topics.decisions)]
        self._feed(
            process, loop, "sagas", heard, partial(advance_checkouts, ports=ports), concurrency=BATCHES_MAX
        )

    def _wire_payments(self, process: Process, loop: VirtualLoop) -> None:
        ports = PaymentPorts(self.provider, self._commands_of(process), asyncio.Semaphore(CALLS_MAX))
        body = partial(settle_payments, ports=ports)
        self._feed(
            process, loop, "payments", [self.topics.events("payment")], body, concurrency=PAYMENT_BATCHES
        )

    def _wire_views(self, process: Process, loop: VirtualLoop) -> None:
        for one in PROJECTIONS:
            store = MemoryViews(one.store, self.shelves[one.store], one.views, self.clock, self.random)
            self._feed(
                process, loop, f"views.{one.name}", one.topics(self.topics), store.apply,
                store=store, pace_s=one.pace_s, concurrency=PARTITIONS_MAX, in_turn=True,
            )  # fmt: skip

    def _feed(
        self,
        process: Process,
        loop: VirtualLoop,
        consumer: str,
        topics: Sequence[str],
        body: Body,
        *,
        store: MemoryViews | None = None,
        pace_s: float = 0.0,
        concurrency: int,
        in_turn: bool = False,
    ) -> None:
        """One source and its agent: so many deliveries at once, and those of one partition in turn if asked for."""
        letters = MemoryLetters(process, self.network, self.topics, self.random)
        source = ViewSource(
            "memory",
            Route(consumer, f"{self.topics.prefix}.{consumer}", tuple(topics)),
            Intake(DECODER, expected_on(self.topics), UNHEARD if consumer == "sagas" else frozenset()),
            letters,  # type: ignore[arg-type]  # it parks and writes as the real ones do
            Watchdog(bark=process.die),
            None if store is None else store.positions,
            flights_max=FLIGHTS_MAX,
            pace_s=pace_s,
            machine=machine_of(process, self.network, self.random),
        )
        source.store = store
        source.start(_agent(body, concurrency, in_turn=in_turn))
        self._look_after(process, loop, source)

    def _look_after(self, process: Process, loop: VirtualLoop, source: EventSource) -> None:
        """A source that failed ends its process, as the pump of `faust_app` does."""
        if source.failure is not None or loop.failures:
            told = source.failure or loop.failures[0].get("exception")
            if not isinstance(told, KafkaException | FailpointError):
                self.failures.append(f"{process.name} crashed: {type(told).__name__}: {told}")
            process.kill()
            self.ended(process, f"{source.route.consumer}: {type(told).__name__}")
            return
        self.clock.after(LOOK_EVERY_S * SECOND, process, self._look_after, process, loop, source)

    def _hear_provider(self, request: ProviderRequest, answer: ProviderAnswer) -> None:
        """A webhook for all that the provider did: once or twice, now or much later, in any order."""
        place, record = notice(self.topics, self.clock.now, request, answer, self.random)
        for _ in range(self.random.choice((0, 1, 1, 2))):
            pause = self.random.choice((0.05, 0.5, 5.0, 30.0)) * self.random.random()
            self.clock.after(pause * SECOND, None, self.broker.append, place, [record])


class ViewSource(EventSource):
    """Looks seldom where its store stands, unless that has lost something: other looks find nothing, and cost."""

    store: MemoryViews | None = None
    _looked_at = 0

    def _check_positions(self) -> None:
        if self.store is not None and self.store.is_worth_a_look(self._looked_at):
            self._looked_at = self.store.clock.now
            super()._check_positions()


def _agent(body: Body, concurrency: int, *, in_turn: bool) -> Callable[[Delivery], Awaitable[object]]:
    turns: defaultdict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)
    places = asyncio.Semaphore(concurrency)

    async def deliver(delivery: Delivery) -> None:
        # The source does not wait for it: there is a task for each delivery.
        async with places:
            if in_turn:
                async with turns[delivery.batch.topic, delivery.batch.partition]:
                    await settle(delivery, body)
            else:
                await settle(delivery, body)

    return deliver
