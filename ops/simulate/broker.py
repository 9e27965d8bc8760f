"""Kafka in memory: logs with transactions, markers and the last stable offset; transactional ids; consumer groups.

It answers what a broker answers, at once; what the network does to questions and answers is `network`'s affair.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal, TypeAlias

from confluent_kafka import KafkaError, KafkaException

from ops.simulate.clockwork import Clock, Process, Waker
from schemas.meta import SECOND, Micros
from schemas.topics import Topics

Place: TypeAlias = tuple[str, int]
"""A topic and the number of a partition."""
Watch: TypeAlias = Callable[[], None]
Headers: TypeAlias = Sequence[tuple[str, bytes]]

TRANSACTION_TIMEOUT = 5 * SECOND
CLEANUP_INTERVAL = 1 * SECOND
CLEANUP_INTERVAL_BY_DEFAULT = 10 * SECOND
"""How often a coordinator looks for transactions that are open for too long: as our brokers are told, and as others do."""
LOOK_EVERY = 1 * SECOND
SESSION_TIMEOUT = 6 * SECOND
HEARTBEAT_INTERVAL = 1_500_000
MARKER_DELAY = 2_000
MARKER_DELAY_RARELY = 1_500_000
RARELY = 0.04
"""A marker is written so many microseconds after the decision at most; now and then one takes much longer."""


def refused(
    code: int, *, fatal: bool = False, retriable: bool = False, abort: bool = False
) -> KafkaException:
    return KafkaException(KafkaError(code, "", fatal=fatal, retriable=retriable, txn_requires_abort=abort))


@dataclass(slots=True, eq=False)
class Transaction:
    """`places` are the partitions that it wrote to, `offsets` what it will commit: (offset, metadata) by group, place."""

    owner: str
    epoch: int
    began_at: Micros
    state: Literal["open", "committed", "aborted"] = "open"
    places: set[Place] = field(default_factory=set)
    offsets: dict[tuple[str, Place], tuple[int, str]] = field(default_factory=dict)
    unmarked: int = 0
    """Markers that are still to be written: until then nobody sees how it ended."""


@dataclass(slots=True)
class Entry:
    """What stands at one offset. `order` counts over all partitions; a marker is a hole for every reader."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    at: Micros
    order: int
    transaction: Transaction | None = None
    is_marker: bool = False

    @property
    def is_committed(self) -> bool:
        return not self.is_marker and (self.transaction is None or self.transaction.state == "committed")


class Log:
    """One partition."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.pending: dict[int, int] = {}
        """First offset of each transaction without its marker here, by the identity of the transaction."""
        self.watchers: dict[str, list[Watch]] = {"read_committed": [], "read_uncommitted": []}
        """Who is told when there is more to see, by isolation level."""
        self.held_until = 0
        """Nobody is shown anything before then: its fetches are on their way."""

    @property
    def high(self) -> int:
        return len(self.entries)

    @property
    def stable(self) -> int:
        return min(self.pending.values()) if self.pending else len(self.entries)

    def end(self, isolation: str) -> int:
        return self.stable if self.pending and isolation == "read_committed" else len(self.entries)

    def tell(self, *isolations: str) -> None:
        for isolation in isolations:
            for watch in self.watchers[isolation]:
                watch()


@dataclass
class Registered:
    """A transactional id."""

    epoch: int = -1
    current: Transaction | None = None
    last: Literal["", "committed", "aborted"] = ""
    ending: Transaction | None = None
    """Decided, and its markers are not all written."""


@dataclass(eq=False)
class Member:
    """A consumer in a group: while its process lives and is not frozen, it sends heartbeats."""

    name: str
    instance: str
    topics: Sequence[str]
    process: Process
    wake: Callable[[], None]
    seen_at: Micros
    generation: int = -1
    joined: bool = False
    """It has come to the rebalance under way."""
    revoked: bool = True
    assigned: list[Place] | None = None
    """Not yet taken up."""


class Group:
    """A consumer group: eager range assignment, static members, and the offsets that were committed."""

    def __init__(self) -> None:
        self.generation = 0
        self.rebalancing = False
        self.members: dict[str, Member] = {}
        self.offsets: dict[Place, tuple[int, str]] = {}
        self.pending: defaultdict[Place, list[Transaction]] = defaultdict(list)
        self.assignment: dict[str, list[Place]] = {}


class Broker:
    """One broker: all logs, the transaction coordinator and the group coordinator."""

    def __init__(self, clock: Clock, random: Random, topics: Topics) -> None:
        self.clock = clock
        self.topics = topics
        self.partitions = {spec.name: spec.partitions for spec in topics.wanted()}
        self.logs: dict[Place, Log] = {
            (name, number): Log() for name, count in self.partitions.items() for number in range(count)
        }
        self.ids: defaultdict[str, Registered] = defaultdict(Registered)
        self.groups: defaultdict[str, Group] = defaultdict(Group)
        self.changed_at = clock.now
        self.aborted = 0
        self.awaited: defaultdict[str, list[tuple[Micros, int]]] = defaultdict(list)
        """By transactional id, from when to when a marker was late: its producer begins nothing new meanwhile."""
        self.cleanup_interval = CLEANUP_INTERVAL
        self.late_markers: defaultdict[str, int] = defaultdict(int)
        """Of so many transactions of this id the markers come late, wherever no offsets stand."""
        self._cleaned_at = clock.now
        self._random = random
        self._count = 0
        self._members = 0
        self._waiting: list[Waker] = []
        clock.after(LOOK_EVERY, None, self._look_after)

    # Logs.

    def append(
        self,
        place: Place,
        records: Iterable[tuple[bytes | None, bytes | None, Headers]],
        transaction: Transaction | None = None,
    ) -> int:
        """Returns the offset behind the last record."""
        log = self.logs[place]
        for key, value, headers in records:
            self._count += 1
            log.entries.append(Entry(key, value, headers, self.clock.now, self._count, transaction))
        self.changed_at = self.clock.now
        if transaction is None:
            log.tell("read_committed")
        log.tell("read_uncommitted")
        return log.high

    def committed_entries(self, topic: str) -> Iterable[tuple[int, int, Entry]]:
        """Partition, offset and entry of all that a read_committed reader will ever be shown."""
        for number in range(self.partitions[topic]):
            log = self.logs[topic, number]
            for offset in range(log.stable):
                if log.entries[offset].is_committed:
                    yield number, offset, log.entries[offset]

    # Transactions, in the first version of the protocol: a request names an id and an epoch, and no transaction.

    def register(self, name: str) -> int:
        """A new producer of this id: its predecessors are fenced, their transaction is aborted."""
        registered = self.ids[name]
        registered.epoch += 1
        if registered.current is not None:
            self._end(registered, "aborted")
        registered.last = ""
        return registered.epoch

    def is_ending(self, name: str) -> bool:
        """Whether the markers of its last transaction are still to be written."""
        ending = self.ids[name].ending
        return ending is not None and ending.unmarked > 0

    def _check_epoch(self, name: str, epoch: int) -> Registered:
        registered = self.ids[name]
        if epoch != registered.epoch:
            raise refused(KafkaError._FENCED, fatal=True)
        return registered

    def _open(self, name: str, epoch: int) -> Transaction:
        registered = self._check_epoch(name, epoch)
        if registered.current is None:
            registered.current = Transaction(name, epoch, self.clock.now)
        return registered.current

    def produce(
        self,
        name: str,
        epoch: int,
        place: Place,
        records: Iterable[tuple[bytes | None, bytes | None, Headers]],
    ) -> int:
        """Opens a transaction where none is open. Returns the offset behind the last record."""
        transaction = self._open(name, epoch)
        log = self.logs[place]
        transaction.places.add(place)
        log.pending.setdefault(id(transaction), log.high)
        return self.append(place, records, transaction)

    def send_offsets(
        self, name: str, epoch: int, member: "Membership", offsets: Mapping[Place, tuple[int, str]]
    ) -> None:
        transaction, group = self._open(name, epoch), member.group
        self._check_membership(member)
        for place, offset in offsets.items():
            if (group, place) not in transaction.offsets:
                self.groups[group].pending[place].append(transaction)
            transaction.offsets[group, place] = offset

    def end(self, name: str, epoch: int, outcome: Literal["committed", "aborted"]) -> None:
        """Ends whatever transaction is open now: a request that was late ends the next one."""
        registered = self._check_epoch(name, epoch)
        if registered.current is None:
            if registered.last not in ("", outcome):
                raise refused(KafkaError.INVALID_TXN_STATE, fatal=True)
            return
        self._end(registered, outcome)

    def _end(self, registered: Registered, outcome: Literal["committed", "aborted"]) -> None:
        transaction = registered.current
        assert transaction is not None
        registered.current, registered.last, registered.ending = None, outcome, transaction
        transaction.state = outcome
        self.aborted += outcome == "aborted"
        groups = sorted({group for group, _ in transaction.offsets})
        transaction.unmarked = len(transaction.places) + len(groups)
        late = self.late_markers[transaction.owner] > 0
        self.late_markers[transaction.owner] -= late
        for place in sorted(transaction.places):
            self.clock.after(self._marker_delay(transaction, late=late), None, self._mark, place, transaction)
        for group in groups:
            self.clock.after(self._marker_delay(transaction), None, self._mark_offsets, group, transaction)

    def _marker_delay(self, transaction: Transaction, *, late: bool = False) -> int:
        late = self._random.random() < RARELY or late
        delay = int(self._random.random() * (MARKER_DELAY_RARELY if late else MARKER_DELAY))
        if late:
            self.awaited[transaction.owner].append((self.clock.now, self.clock.now + delay))
        return delay

    def _mark(self, place: Place, transaction: Transaction) -> None:
        log = self.logs[place]
        log.pending.pop(id(transaction), None)
        self._count += 1
        log.entries.append(Entry(None, None, (), self.clock.now, self._count, transaction, is_marker=True))
        log.tell("read_committed", "read_uncommitted")
        self._marked(transaction)

    def _mark_offsets(self, group_name: str, transaction: Transaction) -> None:
        group = self.groups[group_name]
        for (name, place), offset in transaction.offsets.items():
            if name == group_name:
                group.pending[place].remove(transaction)
                if transaction.state == "committed":
                    group.offsets[place] = offset
        self._marked(transaction)

    def _marked(self, transaction: Transaction) -> None:
        transaction.unmarked -= 1
        waiting, self._waiting = self._waiting, []
        for wake in waiting:
            wake()

    def wait_for_change(self, wake: Waker) -> None:
        """Call it when the next marker is written."""
        self._waiting.append(wake)

    def _look_after(self) -> None:
        """What the coordinators do by themselves: abort what is open for too long, drop members that are silent."""
        if self.clock.now - self._cleaned_at >= self.cleanup_interval:
            self._cleaned_at = self.clock.now
            self._give_up_transactions()
        for group in self.groups.values():
            self._drop_silent(group)
        self.clock.after(LOOK_EVERY, None, self._look_after)

    def be_patient(self) -> None:
        """Look for transactions that are open for too long as seldom as brokers do that nobody told otherwise."""
        self.cleanup_interval, self._cleaned_at = CLEANUP_INTERVAL_BY_DEFAULT, self.clock.now

    def _give_up_transactions(self) -> None:
        for registered in self.ids.values():
            current = registered.current
            if current is not None and self.clock.now - current.began_at > TRANSACTION_TIMEOUT:
                registered.epoch += 1
                self._end(registered, "aborted")

    # Groups.

    def committed(
        self, group_name: str, places: Iterable[Place], *, stable: bool
    ) -> dict[Place, tuple[int, str]]:
        """(-1001, "") where nothing was committed. With `stable`, refused while a transaction is pending on them."""
        group = self.groups[group_name]
        wanted = list(places)
        if stable and any(group.pending[place] for place in wanted):
            raise refused(KafkaError.UNSTABLE_OFFSET_COMMIT, retriable=True)
        return {place: group.offsets.get(place, (-1001, "")) for place in wanted}

    def commit(self, member: "Membership", offsets: Mapping[Place, int]) -> None:
        self._check_membership(member)
        for place, offset in offsets.items():
            self.groups[member.group].offsets[place] = (offset, "")

    def _check_membership(self, member: "Membership") -> None:
        group = self.groups[member.group]
        known = group.members.get(member.name)
        if known is None or group.generation != member.generation:
            code = KafkaError.FENCED_INSTANCE_ID if member.instance else KafkaError.UNKNOWN_MEMBER_ID
            raise refused(code if known is None else KafkaError.ILLEGAL_GENERATION, abort=True)

    def join(self, group_name: str, member: Member) -> None:
        """A member that was not there. A static one takes its predecessor's place, who is fenced."""
        group = self.groups[group_name]
        old = next(
            (m for m in group.members.values() if member.instance and m.instance == member.instance), None
        )
        if old is not None:
            del group.members[old.name]
            group.members[member.name] = member
            if not group.rebalancing:
                member.generation = group.generation
                member.assigned = group.assignment[member.name] = group.assignment.pop(old.name, [])
                member.joined = True
                member.wake()
                return
        group.members[member.name] = member
        member.joined = True
        self._rebalance(group)

    def next_member(self) -> int:
        """A number that no other member has."""
        self._members += 1
        return self._members

    def leave(self, group_name: str, name: str) -> None:
        group = self.groups[group_name]
        if group.members.pop(name, None) is not None:
            self._rebalance(group)

    def rejoin(self, group_name: str, name: str) -> None:
        """A member that has let go of its partitions comes to the rebalance."""
        group = self.groups[group_name]
        group.members[name].joined = True
        self._complete(group)

    def _rebalance(self, group: Group) -> None:
        if not group.rebalancing:
            group.rebalancing = True
            for member in group.members.values():
                member.joined = member.joined and member.generation == -1
        for member in group.members.values():
            member.wake()
        self._complete(group)

    def _complete(self, group: Group) -> None:
        """Only when all have come is it decided who gets what."""
        if not group.rebalancing or not all(member.joined for member in group.members.values()):
            return
        group.rebalancing = False
        group.generation += 1
        group.assignment = self._range(list(group.members.values()))
        for member in group.members.values():
            member.generation = group.generation
            member.assigned = group.assignment[member.name]
            member.wake()

    def _range(self, members: Sequence[Member]) -> dict[str, list[Place]]:
        """Topic by topic, consecutive partitions to members in the order of their names."""
        given: dict[str, list[Place]] = {member.name: [] for member in members}
        for topic in sorted({topic for member in members for topic in member.topics}):
            readers = sorted(
                (member for member in members if topic in member.topics), key=lambda m: (m.instance, m.name)
            )
            count = self.partitions[topic]
            for number in range(count):
                given[readers[number * len(readers) // count].name].append((topic, number))
        return given

    def _drop_silent(self, group: Group) -> None:
        now = self.clock.now
        silent: list[Member] = []
        for member in group.members.values():
            if member.process.alive and member.process.thaws_at <= now:
                # Heartbeats come from a thread of the client's own, whatever the process is busy with.
                member.seen_at = now
            elif now - member.seen_at > SESSION_TIMEOUT:
                silent.append(member)
        for member in silent:
            del group.members[member.name]
            self._rebalance(group)


@dataclass(frozen=True)
class Membership:
    """What a consumer believes of itself; offsets are committed in this name."""

    group: str
    name: str
    instance: str
    generation: int
