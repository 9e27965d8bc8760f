"""The event source: committed records of some topics, in batches, from Kafka to one agent, and acknowledgements back.

One thread owns the consumer and reads, sorts and decodes; the agent's loop applies. Between the two stands a bounded
number of deliveries. Acknowledged offsets are committed in order per partition; a source that feeds a store resumes
where the store says, and commits only so that lag can be seen.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TypeAlias

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from projections.view import Batch, Partition, Poison
from schemas.letters import DeadLetter
from streams.cursor import Cursor, Flight
from streams.dead_letters import PARKED, RELEASE_FAILED, RELEASED, DeadLetters, Parking, note
from streams.deliveries import Delivery, stream_of
from streams.intake import Intake, Sorted, Sorter
from streams.kafka_clients import group_config
from streams.machine import MACHINE, Machine
from streams.resumption import FromKafka, FromStore, Positions, Resumption
from streams.watchdog import Watchdog

log = structlog.get_logger(__name__)

Deliver: TypeAlias = Callable[[Delivery], Awaitable[object]]
Replayed: TypeAlias = Future[Sequence[Poison] | None]
"""What became of letters applied again; None where the partition was revoked or rewound meanwhile."""

MESSAGES_MAX = 1_000
MESSAGES_FOR_STORE_MAX = 2_000
"""So many are read at once: the more of one stream come together, the fewer documents are written of it."""

FLIGHTS_MAX = 8
POLL_S = 0.25
TURN_S = 1.0
SOON_S = 0.02
COMMIT_EVERY_S = 1.0
CHECK_EVERY_S = 5.0
COUNT_EVERY_S = 1.0
FINISH_S = 5.0
STOP_S = 10.0
RELEASE_CHUNK = 500


class HistoryLostError(RuntimeError):
    """The log does not hold the position where this consumer must go on: a topic was made anew, or cut."""


@dataclass(frozen=True)
class Route:
    """Who reads what: `consumer` names it in letters and status, `group` is its consumer group."""

    consumer: str
    group: str
    topics: Sequence[str]
    slot: str = ""


@dataclass(frozen=True)
class Lag:
    """`events` are offsets not applied yet, `seconds` the age of the oldest record that is being applied."""

    events: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Sent(Delivery):
    """A delivery of this source; with `replayed` it carries letters of a stream that is being released."""

    cursor: Cursor
    generation: int
    flight: Flight
    replayed: Replayed | None = None

    def answer(self, poisons: Sequence[Poison] | None) -> None:
        if self.replayed is not None and not self.replayed.done():
            self.replayed.set_result(poisons)


class EventSource:
    """The `Handler` of its deliveries. `positions` asks the store where to resume; without it Kafka's own are used.

    `pace_s`: turns of a store begin so far apart, the first after a pause at once; what lies far behind is read without
    one. `isolation` is there for the test that shows what `read_uncommitted` would let through.
    """

    def __init__(
        self,
        kafka: str,
        route: Route,
        intake: Intake,
        letters: DeadLetters,
        watchdog: Watchdog,
        positions: Positions | None = None,
        *,
        pace_s: float = 0.0,
        flights_max: int = FLIGHTS_MAX,
        isolation: str = "read_committed",
        machine: Machine = MACHINE,
    ) -> None:
        self._machine = machine
        self.route = route
        self.failure: Exception | None = None
        self.illness = ""
        self.lag = Lag(0, 0.0)
        self._config = group_config(kafka, route.group, route.slot) | {"isolation.level": isolation}
        self._sorter = Sorter(route.consumer, intake, letters.parked)
        self._letters = letters
        self._watchdog = watchdog
        self._positions = positions
        self._messages_max = MESSAGES_MAX if positions is None else MESSAGES_FOR_STORE_MAX
        self._pace_s = pace_s
        self._flights_max = flights_max
        self._cursors: dict[Partition, Cursor] = {}
        self._replays: list[Sent] = []
        self._epoch = 0
        self._in_flight = 0
        self._counted_at = self._committed_at = self._read_at = 0.0
        self._is_behind = False
        # Guards cursors and counters, and tells of every change: the loop's thread acknowledges, ours reads.
        self._changed = machine.condition()
        self._stopping = machine.event()
        self._thread = machine.thread(target=self._run, name=f"source {route.consumer}", daemon=True)

    # What the loop calls.

    def start(self, deliver: Deliver) -> None:
        """Must be called in the loop that `deliver` belongs to."""
        self._loop, self._deliver = asyncio.get_running_loop(), deliver
        self._thread.start()

    async def stop(self) -> None:
        """No more deliveries; those under way are finished first (10 s at most), then committed."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, STOP_S + FINISH_S)

    def is_current(self, delivery: Delivery) -> bool:
        sent = _sent(delivery)
        return sent.cursor.live and sent.generation == sent.cursor.generation

    def turned(self) -> None:
        self._watchdog.turned(f"{self.route.consumer} agent")

    def unwell(self, reason: str) -> None:
        self.illness = reason

    def settled(self, delivery: Delivery, poisons: Sequence[Poison]) -> None:
        batch, sent = delivery.batch, _sent(delivery)
        for poison in poisons:
            parking = (self.route.consumer, batch.topic, batch.partition, poison.stream)
            self._letters.parked.park(parking, poison.offset)
        with self._changed:
            if self.is_current(sent):
                sent.cursor.land(sent.flight)
            self._landed()
        sent.answer(poisons)

    def moved(self, delivery: Delivery, position: int) -> None:
        """The store stands at `position`: go there; what was delivered since is stale."""
        sent = _sent(delivery)
        with self._changed:
            if self.is_current(sent):
                sent.cursor.rewind(position)
            self._landed()
        sent.answer(None)

    def dropped(self, delivery: Delivery) -> None:
        with self._changed:
            self._landed()
        _sent(delivery).answer(None)

    def broken(self, delivery: Delivery, error: Exception) -> None:
        self._fail(error)
        self.dropped(delivery)

    def without_parked(self, delivery: Delivery) -> Delivery:
        if _sent(delivery).replayed is not None or not self._letters.parked:
            return delivery
        batch = delivery.batch
        waiting = {
            record.offset: delivery.letter(stream_of(record), record.offset, PARKED)
            for record in batch.records
            if self._sorter.waits(batch.topic, batch.partition, stream_of(record), record.offset)
        }
        rest = [record for record in batch.records if record.offset not in waiting]
        letters = [*delivery.letters, *waiting.values()]
        return replace(delivery, batch=replace(batch, records=rest), letters=letters)

    async def write(self, letters: Sequence[DeadLetter]) -> None:
        await self._letters.write(letters)

    def _landed(self) -> None:
        self._in_flight -= 1
        if self._in_flight == 0:
            self._watchdog.rests(f"{self.route.consumer} agent")
        self._changed.notify_all()

    # The thread: one turn after another.

    def _run(self) -> None:
        self._consumer: Consumer = self._machine.consumer(self._config)
        self._resumption = self._make_resumption()
        self._consumer.subscribe(
            list(self.route.topics),
            on_assign=lambda _, partitions: self._assigned(partitions),
            on_revoke=lambda _, partitions: self._revoked(partitions),
            on_lost=lambda _, partitions: self._forget(partitions),
        )
        with self._watchdog.working(f"{self.route.consumer} source"):
            try:
                while not self._stopping.is_set():
                    self._turn()
                self._finish(list(self._cursors.values()), STOP_S)
            except Exception as error:
                log.exception("the source ends", consumer=self.route.consumer)
                self._fail(error)
            finally:
                self._consumer.close()

    def _make_resumption(self) -> Resumption:
        if self._positions is None:
            return FromKafka(self._consumer)
        return FromStore(self._positions, self._loop)

    def _fail(self, error: Exception) -> None:
        self.failure = self.failure or error
        self._stopping.set()

    def _turn(self) -> None:
        self._watchdog.turned(f"{self.route.consumer} source")
        self._go_on_where_found()
        self._seek_the_misplaced()
        if self._may_read():
            for sent in self._read():
                self._hand_over(sent)
        else:
            self._poll_without_reading()
        self._release()
        self._check_positions()
        self._commit(asynchronous=True)
        self._count_lag()

    # Reading.

    def _may_read(self) -> bool:
        """A store is written in turns: what comes meanwhile waits in Kafka's queue, so that batches grow with load."""
        if self._positions is None:
            return True
        with self._changed:
            self._changed.wait_for(lambda: not self._in_flight or self._stopping.is_set(), TURN_S)
            if self._in_flight:
                return False
        early_s = 0.0 if self._is_behind else self._read_at + self._pace_s - self._machine.monotonic()
        return early_s <= 0 or not self._stopping.wait(early_s)

    def _read(self) -> list[Sent]:
        """One delivery for each partition of which something came; waits 0.25 s where nothing does."""
        epoch = self._epoch
        first = self._consumer.poll(POLL_S if self._cursors and not self._held() else SOON_S)
        if first is None:
            return []
        self._read_at = self._machine.monotonic()
        messages = [first, *self._consumer.consume(self._messages_max - 1, 0)]
        self._is_behind = len(messages) == self._messages_max
        if epoch != self._epoch:
            # A rebalance came in between: nobody knows any more which assignment these were read for.
            for cursor in self._cursors.values():
                cursor.misplaced = True
            return []
        readings = [self._sort(partition, some) for partition, some in self._by_partition(messages).items()]
        return [sent for sent in readings if sent is not None]

    def _held(self) -> bool:
        return any(cursor.held for cursor in self._cursors.values())

    def _by_partition(self, messages: Iterable[Message]) -> dict[Partition, list[Message]]:
        found: dict[Partition, list[Message]] = defaultdict(list)
        for message in messages:
            error = message.error()
            if error is None:
                found[_partition_of(message)].append(message)
            else:
                self._hear(error, message)
        return found

    def _hear(self, error: KafkaError, message: Message) -> None:
        cursor = self._cursors.get(_partition_of(message))
        if error.fatal() or error.code() == KafkaError._FATAL:
            raise KafkaException(error)
        if error.code() == KafkaError._AUTO_OFFSET_RESET:  # its public name
            self._history_lost(cursor, message)
        elif error.code() != KafkaError._PARTITION_EOF:  # its public name
            log.warning("kafka", consumer=self.route.consumer, error=str(error))
        elif cursor is not None:
            cursor.end = message.offset() or 0

    def _history_lost(self, cursor: Cursor | None, message: Message) -> None:
        where = f"{message.topic()}[{message.partition()}]@{message.offset()}"
        if self._positions is not None or cursor is None:
            raise HistoryLostError(
                f"{self.route.consumer} must go on at {where}, which the log does not hold"
            )
        # Answers are kept for days only; what an order misses of them, its reminders ask for again.
        log.error("history lost: on with the oldest record", consumer=self.route.consumer, position=where)
        low, _ = self._consumer.get_watermark_offsets(TopicPartition(*cursor.partition), timeout=STOP_S)
        with self._changed:
            cursor.rewind(low)

    def _sort(self, partition: Partition, messages: Sequence[Message]) -> Sent | None:
        cursor = self._cursors.get(partition)
        if cursor is None:
            return None
        if cursor.misplaced or cursor.held:
            cursor.misplaced = True
            return None
        try:
            piles = self._sorter.sort(messages)
        except KafkaException as error:
            # Kafka did not say what an unknown schema is: the same messages are read again.
            log.warning("schemas cannot be read", consumer=self.route.consumer, error=str(error))
            self._stopping.wait(POLL_S)
            cursor.misplaced = True
            return None
        return self._sent(cursor, piles, messages[-1], messages[0].timestamp()[1] / 1_000)

    def _sent(self, cursor: Cursor, piles: Sorted, last: Message, written_at: float) -> Sent | None:
        with self._changed:
            if cursor.misplaced:  # rewound by the agent while these were being decoded
                return None
            expected, cursor.next = cursor.next, (last.offset() or 0) + 1
            batch = Batch(*cursor.partition, expected=expected, next=cursor.next, records=piles.records)
            return self._delivery(cursor, batch, piles, written_at)

    def _delivery(
        self,
        cursor: Cursor,
        batch: Batch,
        piles: Sorted,
        written_at: float = 0.0,
        replayed: Replayed | None = None,
    ) -> Sent:
        flight = Flight(batch.next, written_at or self._machine.wall_time())
        return Sent(
            batch,
            piles.letters,
            piles.values,
            self.route.consumer,
            self,
            cursor,
            cursor.generation,
            flight,
            replayed,
        )

    # Handing over, with a bound.

    def _hand_over(self, sent: Sent) -> None:
        """Waits for a place; meanwhile the consumer stays a member of its group and reads nothing."""
        if self._passed_over(sent):
            return
        while not self._taken_off(sent):
            if self._stopping.is_set() or not self.is_current(sent):
                sent.answer(None)
                return
            self._poll_without_reading()
        asyncio.run_coroutine_threadsafe(_awaited(self._deliver(sent)), self._loop)

    def _passed_over(self, sent: Sent) -> bool:
        """Where no store's position has to move, a batch of which nothing is left needs no agent."""
        if self._positions is not None or sent.batch.records or sent.letters or sent.replayed is not None:
            return False
        with self._changed:
            if self.is_current(sent):
                sent.cursor.take_off(sent.flight)
                sent.cursor.land(sent.flight)
        return True

    def _taken_off(self, sent: Sent) -> bool:
        def no_need_to_wait() -> bool:
            return self._in_flight < self._flights_max or self._stopping.is_set() or not self.is_current(sent)

        with self._changed:
            self._changed.wait_for(no_need_to_wait, POLL_S)
            if self._in_flight >= self._flights_max or self._stopping.is_set() or not self.is_current(sent):
                return False
            sent.cursor.take_off(sent.flight)
            sent.cursor.checked_at = self._machine.monotonic()
            self._in_flight += 1
            if self._in_flight == 1:
                self.turned()
            return True

    def _poll_without_reading(self) -> None:
        self._watchdog.turned(f"{self.route.consumer} source")
        self._consumer.pause([TopicPartition(*partition) for partition in self._cursors])
        message = self._consumer.poll(0)
        # What is no message is heard all the same: the end of a partition is told once.
        for partition in self._by_partition([] if message is None else [message]):
            if partition in self._cursors:
                self._cursors[partition].misplaced = True
        self._consumer.resume([TopicPartition(*p) for p, cursor in self._cursors.items() if not cursor.held])

    # Assignment and position.

    def _assigned(self, partitions: list[TopicPartition]) -> None:
        """Read nothing before the positions are known; they are asked for outside this callback."""
        self._epoch += 1
        self._consumer.assign([])
        self._resumption.begin([(partition.topic, partition.partition) for partition in partitions])

    def _go_on_where_found(self) -> None:
        positions = self._resumption.found()
        if positions is not None:
            now = self._machine.monotonic()
            self._cursors = {partition: Cursor.at(partition, at, now) for partition, at in positions.items()}
            self._consumer.assign([TopicPartition(*partition, at) for partition, at in positions.items()])
            # One that was paused when it was taken from us comes back paused, and nobody would ever resume it.
            self._consumer.resume([TopicPartition(*partition) for partition in positions])
            said = {f"{topic}[{number}]": at for (topic, number), at in positions.items()}
            log.info("reading", consumer=self.route.consumer, positions=said)

    def _revoked(self, partitions: list[TopicPartition]) -> None:
        """What is under way is finished and committed before another member may begin."""
        cursors = [self._cursors.get((p.topic, p.partition)) for p in partitions]
        self._finish([cursor for cursor in cursors if cursor is not None], FINISH_S)
        self._forget(partitions)

    def _forget(self, partitions: Iterable[TopicPartition]) -> None:
        """Somebody else's now: nothing to wait for, nothing to commit."""
        self._epoch += 1
        self._resumption.end()
        with self._changed:
            for partition in partitions:
                cursor = self._cursors.pop((partition.topic, partition.partition), None)
                if cursor is not None:
                    cursor.live = False
            self._changed.notify_all()
        self._consumer.unassign()

    def _finish(self, cursors: Sequence[Cursor], timeout_s: float) -> None:
        with self._changed:
            done = self._changed.wait_for(lambda: not any(cursor.flights for cursor in cursors), timeout_s)
        if not done:
            log.warning("not finished in time: it will be delivered again", consumer=self.route.consumer)
        self._commit(asynchronous=False)

    def _seek_the_misplaced(self) -> None:
        for cursor in self._cursors.values():
            if cursor.misplaced and not cursor.held:
                with self._changed:
                    position, cursor.misplaced = cursor.next, False
                self._seek(cursor, position)

    def _seek(self, cursor: Cursor, position: int) -> None:
        try:
            self._consumer.seek(TopicPartition(*cursor.partition, position))
            self._consumer.resume([TopicPartition(*cursor.partition)])
        except KafkaException as error:  # it is not fetching yet: in the next turn
            log.warning("cannot seek", consumer=self.route.consumer, error=str(error))
            cursor.misplaced = True

    # What is due now and then.

    def _check_positions(self) -> None:
        """Where nothing comes, an empty batch finds out whether the store still stands where it stood."""
        if self._positions is None:
            return
        now = self._machine.monotonic()
        for cursor in list(self._cursors.values()):
            if now - cursor.checked_at >= CHECK_EVERY_S and not (
                cursor.flights or cursor.held or cursor.misplaced
            ):
                self._hand_over(self._here(cursor, Sorted()))

    def _here(self, cursor: Cursor, piles: Sorted, replayed: Replayed | None = None) -> Sent:
        """A delivery that leaves the position where it is."""
        batch = Batch(*cursor.partition, expected=cursor.next, next=cursor.next, records=piles.records)
        return self._delivery(cursor, batch, piles, replayed=replayed)

    def _commit(self, *, asynchronous: bool) -> None:
        now = self._machine.monotonic()
        if asynchronous and now - self._committed_at < COMMIT_EVERY_S:
            return
        with self._changed:
            moved = [cursor for cursor in self._cursors.values() if cursor.acked != cursor.committed]
            offsets = [TopicPartition(*cursor.partition, cursor.acked) for cursor in moved]
            for cursor in moved:
                cursor.committed = cursor.acked
        if offsets:
            self._committed_at = now
            self._send_commit(offsets, asynchronous=asynchronous)

    def _send_commit(self, offsets: list[TopicPartition], *, asynchronous: bool) -> None:
        try:
            if asynchronous:
                self._consumer.commit(offsets=offsets, asynchronous=True)
            else:
                self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:  # it will be delivered again, which changes nothing
            log.warning("cannot commit", consumer=self.route.consumer, error=str(error))

    def _count_lag(self) -> None:
        now = self._machine.monotonic()
        if now - self._counted_at < COUNT_EVERY_S:
            return
        self._counted_at = now
        with self._changed:
            oldest = [at for cursor in self._cursors.values() if (at := cursor.oldest())]
            events = sum(cursor.lag(self._high(cursor.partition)) for cursor in self._cursors.values())
        self.lag = Lag(events, max(0.0, self._machine.wall_time() - min(oldest)) if oldest else 0.0)

    def _high(self, partition: Partition) -> int:
        _, high = self._consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)
        return int(high)

    # Releasing parked streams.

    def _release(self) -> None:
        """A partition with a stream to be released is held until its letters have been applied again."""
        for parking in self._letters.parked.asked(self.route.consumer):
            cursor = self._cursors.get((parking[1], parking[2]))
            if cursor is not None and not cursor.held:
                cursor.held = True
                self._consumer.pause([TopicPartition(*cursor.partition)])
                asyncio.run_coroutine_threadsafe(self._apply_letters(cursor, parking), self._loop)
        with self._changed:
            replays, self._replays = self._replays, []
        for sent in replays:
            self._hand_over(sent)

    async def _apply_letters(self, cursor: Cursor, parking: Parking) -> None:
        try:
            await asyncio.to_thread(self._wait_until_landed, cursor)
            while cursor.live and await self._apply_some_letters(cursor, parking):
                pass
        except Exception:
            log.exception("cannot release", consumer=self.route.consumer, stream=parking[3])
            await asyncio.sleep(1)
        finally:
            cursor.misplaced, cursor.held = True, False

    def _wait_until_landed(self, cursor: Cursor) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not (cursor.flights and cursor.live), STOP_S)

    async def _apply_some_letters(self, cursor: Cursor, parking: Parking) -> bool:
        """Whether there is more to apply. What still cannot be applied keeps the stream parked."""
        parked = self._letters.parked
        letters = await asyncio.to_thread(self._letters.waiting, parking, RELEASE_CHUNK)
        if not letters:
            return False
        piles = await asyncio.to_thread(self._sorter.again, letters)
        poisons = await self._replay(cursor, piles)
        if poisons is None:
            return False
        failed = [letter.offset for letter in piles.letters] + [poison.offset for poison in poisons]
        applied = min(failed) - 1 if failed else letters[-1].offset
        notes = [note(parking, applied, RELEASED)]
        if failed:
            notes.append(note(parking, min(failed), RELEASE_FAILED))
        await self.write(notes)
        await asyncio.to_thread(
            parked.wait_for,
            parking,
            lambda entry: entry is None or (entry.first > applied and not (failed and entry.asked)),
        )
        return not failed and parked.of(parking) is not None

    async def _replay(self, cursor: Cursor, piles: Sorted) -> Sequence[Poison] | None:
        replayed: Replayed = Future()
        with self._changed:
            self._replays.append(self._here(cursor, piles, replayed))
        return await asyncio.wrap_future(replayed)


async def _awaited(awaitable: Awaitable[object]) -> None:
    await awaitable


def _sent(delivery: Delivery) -> Sent:
    assert isinstance(delivery, Sent), "a source is asked about its own deliveries only"
    return delivery


def _partition_of(message: Message) -> Partition:
    return message.topic() or "", message.partition() or 0
