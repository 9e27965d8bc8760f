"""Kafka's clients as production code knows them, over the in-memory broker: consumer, transactional producer, admin."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from logging import Logger
from random import Random
from typing import Any, TypeAlias

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from ops.simulate.broker import Headers, Log, Member, Membership, Place, Watch, refused
from ops.simulate.clockwork import Clock, Condition, Event, Process, Thread, Waker, current
from ops.simulate.network import Network
from schemas.meta import SECOND
from streams.machine import Machine

Callback: TypeAlias = Callable[..., None]
TIRED_US = 1_000_000
"""A poll in which nothing comes may take so much longer than asked, as on a busy machine."""
EARLY_FLUSH = 0.1
LATE_FLUSH = 0.3
"""What was produced is on its way when offsets are sent, or only when the commit waits for it: it is the library's affair."""
WAIT_S = 5.0
PATIENT_S = 0.2


def machine_of(process: Process, network: Network, random: Random) -> Machine:
    """What a simulated process runs on."""
    clock = network.clock
    return Machine(
        consumer=partial(MemoryConsumer, network, process, random),  # type: ignore[arg-type]  # as much of it as we use
        producer=partial(MemoryProducer, network, process, random),  # type: ignore[arg-type]  # as above
        admin=partial(MemoryAdmin, network),  # type: ignore[arg-type]  # as above
        thread=Thread,
        event=Event,
        condition=Condition,
        monotonic=lambda: clock.now / SECOND,
        wall_time=lambda: process.wall_time() / SECOND,
        sleep=lambda seconds: clock.park_until(max(clock.now + seconds * SECOND, process.idle_until())),
        exit=process.die,
    )


@dataclass(slots=True)
class MemoryMessage:
    """As `confluent_kafka.Message`."""

    place: Place
    at: int
    k: bytes | None = None
    v: bytes | None = None
    h: Headers = ()
    written_at: int = 0
    failure: KafkaError | None = None

    def topic(self) -> str:
        return self.place[0]

    def partition(self) -> int:
        return self.place[1]

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes | None:
        return self.k

    def value(self) -> bytes | None:
        return self.v

    def headers(self) -> Headers:
        return self.h

    def timestamp(self) -> tuple[int, int]:
        return 1, self.written_at // 1_000

    def error(self) -> KafkaError | None:
        return self.failure


class MemoryConsumer:
    """As `confluent_kafka.Consumer`: a member of a group, or a reader that assigns itself partitions."""

    def __init__(self, network: Network, process: Process, random: Random, settings: dict[str, Any]) -> None:
        self._network = network
        self._broker = network.broker
        self._clock: Clock = network.clock
        self._process = process
        self._random = random
        self._group = settings["group.id"]
        self._instance: str = settings.get("group.instance.id", "")
        self._isolation: str = settings["isolation.level"]
        self._tells_ends = bool(settings.get("enable.partition.eof"))
        self._positions: dict[Place, int] = {}
        self._paused: set[Place] = set()
        self._told_end: dict[Place, int] = {}
        self._news: dict[Place, None] = {}
        """Where there may be more to see, in the order in which that was told."""
        self._watches: dict[Place, Watch] = {}
        self._member: Member | None = None
        self._owned: list[Place] = []
        self._topics: Sequence[str] = ()
        self._callbacks: dict[str, Callback] = {}
        self._wake: Waker | None = None
        self._lines: list[str] = []

    # The group.

    def subscribe(
        self, topics: Sequence[str], on_assign: Callback, on_revoke: Callback, on_lost: Callback
    ) -> None:
        self._topics = topics
        self._callbacks = {"assign": on_assign, "revoke": on_revoke, "lost": on_lost}

    def _join(self) -> None:
        process = self._process
        self._member = Member(
            f"{self._instance or process.name}/{self._broker.next_member()}",
            self._instance,
            self._topics,
            process,
            self._wake_up,
            self._clock.now,
        )
        self._broker.join(self._group, self._member)

    def _wake_up(self, after_us: float = 0) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            wake(after_us)

    def _follow_group(self) -> KafkaError | None:
        """Hear what the coordinator says; an error ends this consumer."""
        if not self._topics or self._network.weather.down_until > self._clock.now:
            return None
        if self._member is None:
            self._join()
        member = self._member
        assert member is not None
        group = self._broker.groups[self._group]
        if member.name not in group.members:
            return self._dropped()
        if group.rebalancing and not member.joined:
            self._tell("revoke")
            self._broker.rejoin(self._group, member.name)
        if member.assigned is not None:
            self._owned, member.assigned = member.assigned, None
            self._callbacks["assign"](self, [TopicPartition(*place) for place in self._owned])
        return None

    def _dropped(self) -> KafkaError | None:
        """The coordinator does not know this member any more: too silent, or its place was taken."""
        group = self._broker.groups[self._group]
        if self._instance and any(m.instance == self._instance for m in group.members.values()):
            return KafkaError(KafkaError.FENCED_INSTANCE_ID, "", fatal=True)
        self._tell("lost")
        self._join()
        return None

    def _tell(self, what: str) -> None:
        owned, self._owned = self._owned, []
        if owned:
            self._callbacks[what](self, [TopicPartition(*place) for place in owned])

    def consumer_group_metadata(self) -> Membership:
        member = self._member
        if member is None:
            return Membership(self._group, "", self._instance, -1)
        return Membership(self._group, member.name, self._instance, member.generation)

    # Reading.

    def poll(self, timeout: float) -> MemoryMessage | None:
        clock, deadline = self._clock, self._clock.now + timeout * SECOND
        if timeout >= PATIENT_S:
            deadline = max(deadline + self._random.random() * TIRED_US, self._process.idle_until())
        before = self._owned
        while True:
            failure, owned = self._follow_group(), self._owned
            if failure is not None:
                return MemoryMessage(("", 0), 0, failure=failure)
            if owned is not before:
                # Whoever polls is told of new partitions now, however idle the others are.
                deadline, before = min(deadline, clock.now + timeout * SECOND), owned
            found = self._take(1)
            if found:
                return found[0]
            if clock.now >= deadline:
                return None
            self._listen()
            clock.park(deadline - clock.now)

    def consume(self, num_messages: int, timeout: float) -> list[MemoryMessage]:
        assert timeout == 0, "with a timeout it would wait all of it out"
        return self._take(num_messages)

    def _listen(self) -> None:
        self._wake = current().waker()

    def _watch(self, place: Place) -> None:
        self._news[place] = None
        if self._wake is not None:
            self._wake_up(self._random.random() * self._network.longest_fetch_us())

    def _take(self, limit: int) -> list[MemoryMessage]:
        """Some of what is there, one partition after another, in an order that is not theirs."""
        if self._network.weather.down_until > self._clock.now:
            return []
        found: list[MemoryMessage] = []
        ready = [place for place in self._news if place not in self._paused and self._is_shown(place)]
        if len(ready) > 1:
            self._random.shuffle(ready)
        for place in ready:
            found += self._take_from(place, limit - len(found))
            if len(found) >= limit:
                break
        return found

    def _is_shown(self, place: Place) -> bool:
        return self._broker.logs[place].held_until <= self._clock.now

    def _take_from(self, place: Place, limit: int) -> list[MemoryMessage]:
        log, position = self._broker.logs[place], self._positions[place]
        end = log.end(self._isolation)
        found: list[MemoryMessage] = []
        while position < end and len(found) < limit:
            if self._sees(log, position):
                found.append(_message(place, position, log))
            position += 1
        self._positions[place] = position
        if position < end:
            return found
        if self._tells_ends and self._told_end.get(place) != position:
            if len(found) == limit:
                return found
            self._told_end[place] = position
            found.append(MemoryMessage(place, position, failure=KafkaError(KafkaError._PARTITION_EOF)))
        del self._news[place]
        return found

    def _sees(self, log: Log, offset: int) -> bool:
        entry = log.entries[offset]
        return entry.is_committed if self._isolation == "read_committed" else not entry.is_marker

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        for place, watch in self._watches.items():
            self._broker.logs[place].watchers[self._isolation].remove(watch)
        self._positions = {(one.topic, one.partition): one.offset for one in partitions}
        self._watches = {place: partial(self._watch, place) for place in self._positions}
        for place, watch in self._watches.items():
            self._broker.logs[place].watchers[self._isolation].append(watch)
        self._news = dict.fromkeys(self._positions)
        self._told_end.clear()  # but what was paused stays so, as librdkafka has it

    def unassign(self) -> None:
        self.assign([])

    def seek(self, partition: TopicPartition) -> None:
        place = (partition.topic, partition.partition)
        if place not in self._positions:
            raise refused(KafkaError._STATE)
        self._positions[place] = partition.offset
        self._told_end.pop(place, None)
        self._news[place] = None

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        self._paused |= {(one.topic, one.partition) for one in partitions}

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        self._paused -= {(one.topic, one.partition) for one in partitions}

    # Questions.

    def committed(self, partitions: Iterable[TopicPartition], timeout: float) -> list[TopicPartition]:
        """While a transaction is pending on one of them, a read_committed consumer waits, then times out."""
        places = [(one.topic, one.partition) for one in partitions]
        deadline = self._clock.now + timeout * SECOND
        stable = self._isolation == "read_committed"
        while True:
            try:
                found = self._call(
                    "committed", timeout, lambda: self._broker.committed(self._group, places, stable=stable)
                )
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNSTABLE_OFFSET_COMMIT:
                    raise
                if not self._wait_for_marker(deadline):
                    raise refused(KafkaError._TIMED_OUT) from error
            else:
                return [TopicPartition(*place, *found[place]) for place in places]

    def _wait_for_marker(self, deadline: float) -> bool:
        self._broker.wait_for_change(current().waker())
        self._clock.park(deadline - self._clock.now)
        return self._clock.now < deadline

    def commit(self, offsets: Iterable[TopicPartition], asynchronous: bool) -> None:  # noqa: FBT001  # its name there
        wanted = {(one.topic, one.partition): one.offset for one in offsets}
        membership = self.consumer_group_metadata()
        try:
            self._call("commit", WAIT_S, lambda: self._broker.commit(membership, wanted))
        except KafkaException:
            if not asynchronous:
                raise

    def get_watermark_offsets(
        self,
        partition: TopicPartition,
        timeout: float = WAIT_S,
        cached: bool = False,  # noqa: FBT001, FBT002  # as there
    ) -> tuple[int, int]:
        log = self._broker.logs[partition.topic, partition.partition]
        if cached:
            return 0, log.end(self._isolation)
        end: int = self._call("watermarks", timeout, lambda: log.end(self._isolation))
        return 0, end

    def offsets_for_times(self, partitions: Iterable[TopicPartition], timeout: float) -> list[TopicPartition]:
        return [self._call("times", timeout, partial(self._first_since, one)) for one in partitions]

    def _first_since(self, partition: TopicPartition) -> TopicPartition:
        log = self._broker.logs[partition.topic, partition.partition]
        found = (n for n, entry in enumerate(log.entries) if entry.at // 1_000 >= partition.offset)
        return TopicPartition(partition.topic, partition.partition, next(found, -1))

    def list_topics(self, timeout: float) -> Any:
        return self._call("topics", timeout, lambda: _Cluster)

    def close(self) -> None:
        """A static member leaves nothing behind but its silence."""
        if self._member is not None and not self._instance and self._process.alive:
            self._broker.leave(self._group, self._member.name)
        self.assign([])
        self._topics = ()

    def _call(self, api: str, timeout: float, ask: Callable[[], Any]) -> Any:
        return self._network.call(self._process, api, timeout, ask, self._lines)


def _message(place: Place, offset: int, log: Log) -> MemoryMessage:
    entry = log.entries[offset]
    return MemoryMessage(place, offset, entry.key, entry.value, entry.headers, entry.at)


class _Cluster:
    cluster_id = "memory"


class MemoryProducer:
    """As `confluent_kafka.Producer` with a transactional id. Its library's lines come in `poll`, in the caller's strand."""

    def __init__(
        self, network: Network, process: Process, random: Random, settings: dict[str, Any], logger: Logger
    ) -> None:
        self._network = network
        self._broker = network.broker
        self._process = process
        self._random = random
        self._name: str = settings["transactional.id"]
        self._logger = logger
        self._epoch = -1
        self._lines: list[str] = []
        self._queued: defaultdict[
            Place, list[tuple[tuple[bytes | None, bytes | None, Headers], Callback | None]]
        ]
        self._queued = defaultdict(list)
        self._told: list[tuple[Callback, MemoryMessage]] = []

    def init_transactions(self, timeout: float) -> None:
        self._epoch = self._call("init", timeout, lambda: self._broker.register(self._name))
        self._wait_for_markers(timeout)

    def begin_transaction(self) -> None: ...

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int,
        headers: Headers = (),
        on_delivery: Callback | None = None,
    ) -> None:
        self._queued[topic, partition].append(((key, value, headers), on_delivery))
        goes_at_once = self._network.next_mishap(self._process, "first record")
        if goes_at_once or self._random.random() < EARLY_FLUSH:
            self._flush()

    def poll(self, _timeout: float = 0) -> int:
        lines, self._lines = self._lines, []
        for line in lines:
            self._logger.info(line)
        told, self._told = self._told, []
        for callback, message in told:
            callback(None, message)
        return len(told)

    def send_offsets_to_transaction(
        self, offsets: Iterable[TopicPartition], membership: Membership, timeout: float
    ) -> None:
        lingers = self._network.next_mishap(self._process, "flush") or self._random.random() < LATE_FLUSH
        if not lingers:
            self._flush()
        wanted = {(one.topic, one.partition): (one.offset, one.metadata or "") for one in offsets}
        ask = partial(self._broker.send_offsets, self._name, self._epoch, membership, wanted)
        self._call("offsets", timeout, ask)

    def commit_transaction(self, timeout: float) -> None:
        self._flush()
        self._call("end", timeout, partial(self._broker.end, self._name, self._epoch, "committed"))

    def abort_transaction(self, timeout: float) -> None:
        self._queued.clear()
        self._call("end", timeout, partial(self._broker.end, self._name, self._epoch, "aborted"))

    def _flush(self) -> None:
        self._wait_for_markers(WAIT_S)
        queued, self._queued = self._queued, defaultdict(list)
        for place, records in queued.items():
            ask = partial(
                self._broker.produce, self._name, self._epoch, place, [record for record, _ in records]
            )
            first = self._call("produce", WAIT_S, ask) - len(records)
            for offset, (_, callback) in enumerate(records, first):
                if callback is not None:
                    self._told.append((callback, MemoryMessage(place, offset)))

    def _wait_for_markers(self, timeout: float) -> None:
        """Nothing new begins before the last transaction has ended everywhere."""
        clock = self._network.clock
        deadline = clock.now + timeout * SECOND
        while self._broker.is_ending(self._name):
            self._broker.wait_for_change(current().waker())
            if not clock.park(deadline - clock.now):
                raise refused(KafkaError._TIMED_OUT, retriable=True)

    def _call(self, api: str, timeout: float, ask: Callable[[], Any]) -> Any:
        return self._network.call(self._process, api, timeout, ask, self._lines)


class MemoryAdmin:
    """As much of `confluent_kafka.admin.AdminClient` as the journal asks."""

    def __init__(self, network: Network, _settings: dict[str, Any]) -> None:
        self._network = network

    def list_topics(self, timeout: float) -> type[_Cluster]:  # noqa: ARG002  # the shape of AdminClient
        return _Cluster

    def describe_topics(self, _topics: Any) -> dict[str, "_Described"]:
        return {name: _Described(name) for name in self._network.broker.partitions}


@dataclass(frozen=True)
class _Described:
    topic_id: str

    def result(self, timeout: float) -> "_Described":  # noqa: ARG002  # the shape of a future
        return self
