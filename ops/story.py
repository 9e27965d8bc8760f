"""The story of a stream: its state before and after each event, the commands behind them, and what else they caused."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from commands.decider import Record
from commands.registry import DECIDERS
from ops.instants import told
from projections.registry import CASSANDRA_VIEWS, REDIS_VIEWS
from projections.view import Recorded
from schemas.codec import HEADER_BYTES, Decoded
from schemas.language import AGGREGATES
from schemas.meta import CommandMeta, EventMeta
from schemas.topics import Topics
from streams.replay import Query, Replay

AGGREGATE_OF = {
    "product": "catalog",
    "cart": "cart",
    "order": "order",
    "stock": "inventory",
    "payment": "payment",
}
"""By the first word of a stream's name."""

STEPS_MAX = 100
REQUESTS_MAX = 3
"""Of so many requests the whole consequence is shown; a shelf has thousands."""

FACTS_MAX = 2_000
"""So many commands and events of one request are held."""

Event: TypeAlias = Decoded[EventMeta]
Command: TypeAlias = Decoded[CommandMeta]
ReplayOf: TypeAlias = Callable[[Query], Replay]


class NoStory(Exception):
    """There is nothing to show; the message says why."""


@dataclass(frozen=True)
class Step:
    """One event: the records that it changed, as they were before and as they are after it (None: there is none)."""

    event: Event
    before: Mapping[str, Record | None]
    after: Mapping[str, Record | None]


@dataclass
class Story:
    """A stream up to some point: its state there, and the last steps that led to it. `versions` counts all there are;
    `left_out` those behind the point that had happened by then too, but were recorded later.
    """

    stream: str
    state: dict[str, Record] = field(default_factory=dict)
    steps: deque[Step] = field(default_factory=lambda: deque(maxlen=STEPS_MAX))
    version: int = 0
    versions: int = 0
    left_out: int = 0
    first_at: int | None = None
    _is_told: bool = False

    @property
    def aggregate(self) -> str:
        return AGGREGATE_OF[self.stream.partition("/")[0]]

    def get(self, path: str) -> Record | None:
        """The records by path, as a decider sees them."""
        return self.state.get(path)

    def tell(self, event: Event, *, covered: bool) -> None:
        """The next event. The first one that is not covered ends the story: a state without it the writer never had."""
        self.versions += 1
        self.first_at = event.meta.occurred_at if self.first_at is None else self.first_at
        self._is_told = self._is_told or not covered
        if not self._is_told:
            self._fold(event)
        elif covered:
            self.left_out += 1

    def _fold(self, event: Event) -> None:
        """By the decider's own `evolve`: what is shown is what the writer would have."""
        changes = DECIDERS[self.aggregate].evolve(self, event.body)
        self.steps.append(Step(event, {path: self.state.get(path) for path in changes}, changes))
        for path, record in changes.items():
            if record is None:
                self.state.pop(path, None)
            else:
                self.state[path] = record
        self.version = event.meta.version


@dataclass(frozen=True)
class At:
    """How far to go: to a version, or up to the first event that happened after an instant (microseconds); to the
    end by default.
    """

    version: int | None = None
    instant: int | None = None

    def covers(self, meta: EventMeta) -> bool:
        if self.version is not None:
            return meta.version <= self.version
        return self.instant is None or meta.occurred_at <= self.instant


def story_of(replay_of: ReplayOf, topics: Topics, stream: str, at: At) -> Story:
    """Raises NoStory where the stream is unknown, or where there is nothing of it so early or so late."""
    story = Story(stream)
    for event in _history(replay_of, topics, stream):
        story.tell(event, covered=at.covers(event.meta))
    if not story.versions:
        raise NoStory(f"nothing is known of {stream}")
    if at.version is not None and at.version > story.versions:
        raise NoStory(f"{stream} has {story.versions} versions, and none is {at.version}")
    if not story.version:
        raise NoStory(f"{stream} begins later: its first event happened at {told(story.first_at or 0)}")
    return story


def _history(replay_of: ReplayOf, topics: Topics, stream: str) -> Iterator[Event]:
    kind, _, rest = stream.partition("/")
    if kind not in AGGREGATE_OF or not rest:
        raise NoStory(f"{stream} is no stream; streams are called {'/…, '.join(AGGREGATE_OF)}/…")
    query = Query((topics.events(AGGREGATE_OF[kind]),), key=rest.split("/")[0])
    for record in replay_of(query).events():
        if record.message.meta.stream == stream:
            yield record.message


def commands_behind(replay_of: ReplayOf, topics: Topics, story: Story) -> dict[str, Command]:
    """The commands behind the steps, by id. A deadline's are in no topic: the writer makes them itself."""
    wanted = {step.event.meta.command_id for step in story.steps}
    if not wanted:
        return {}
    key = story.stream.split("/")[1]
    first = min(step.event.meta.recorded_at for step in story.steps)
    topic = topics.commands(story.aggregate)
    # A command for many skus lies under the first of them: the partition is looked through, not the key.
    replay = replay_of(Query((topic,), partition=topics.partition_of(key), about=first))
    found = {}
    for record in _holding(replay, lambda value: _command_id(value) in wanted):
        found[record.message.meta.command_id] = record.message
    return found


def _command_id(value: bytes) -> str:
    """The first thing that a command says."""
    length = value[HEADER_BYTES] >> 1 if len(value) > HEADER_BYTES else 0
    return value[HEADER_BYTES + 1 : HEADER_BYTES + 1 + length].decode(errors="replace")


def _holding(replay: Replay, is_wanted: Callable[[bytes], bool]) -> Iterator[Recorded]:
    """What may be meant is seen in its bytes; only that is decoded."""
    for records in replay.portions():
        for record in records:
            if is_wanted(record.value):
                yield from replay.told(record)


@dataclass(frozen=True)
class Node:
    """A command with what it caused: its events, and of each event (or of the decision itself) further commands.

    `command` is None where the log has only its events: a deadline's, or one that retention has removed.
    """

    command_id: str
    command: Command | None
    events: tuple[tuple[Event, tuple["Node", ...]], ...]
    then: tuple["Node", ...]

    @property
    def at(self) -> int:
        if self.command is not None:
            return self.command.meta.issued_at
        return self.events[0][0].meta.recorded_at if self.events else 0


def requests_of(story: Story, last: int = STEPS_MAX) -> list[str]:
    """The correlation ids of the steps shown, in their order."""
    steps = list(story.steps)[-last:]
    return list(dict.fromkeys(step.event.meta.correlation_id for step in steps))


def tree_of(replay_of: ReplayOf, topics: Topics, correlation_id: str, about: int) -> list[Node]:
    """All that followed from one request, over all streams: its roots are what somebody outside asked for."""
    kinds = (topics.commands, topics.events)
    names = tuple(name(aggregate) for name in kinds for aggregate in AGGREGATES)
    wanted = correlation_id.encode()
    commands: dict[str, Command] = {}
    events: defaultdict[str, list[Event]] = defaultdict(list)
    for count, record in enumerate(
        _holding(replay_of(Query(names, about=about)), lambda value: wanted in value)
    ):
        meta = record.message.meta
        if count >= FACTS_MAX or meta.correlation_id != correlation_id:
            continue
        if isinstance(meta, CommandMeta):
            commands.setdefault(meta.command_id, record.message)
        else:
            events[meta.command_id].append(record.message)
    return _Causes(commands, events).roots()


class _Causes:
    """Who caused whom: a command names the event or the decision that it follows from."""

    def __init__(self, commands: Mapping[str, Command], events: Mapping[str, list[Event]]) -> None:
        self._commands = commands
        self._events = events
        self._caused: defaultdict[str, list[str]] = defaultdict(list)
        self._told: set[str] = set()
        known = commands.keys() | events.keys()
        causes = known | {event.meta.event_id for some in events.values() for event in some}
        self._first = [
            one for one in known if self._cause(one) in (one, None) or self._cause(one) not in causes
        ]
        for one in known - set(self._first):
            self._caused[self._cause(one) or ""].append(one)

    def roots(self) -> list[Node]:
        return sorted(map(self._node, self._first), key=lambda node: node.at)

    def _cause(self, command_id: str) -> str | None:
        if command_id in self._commands:
            return self._commands[command_id].meta.causation_id
        return self._events[command_id][0].meta.causation_id

    def _node(self, command_id: str) -> Node:
        events = sorted(self._events.get(command_id, ()), key=lambda event: event.meta.batch_index)
        told = tuple((event, self._after(event.meta.event_id)) for event in events)
        return Node(command_id, self._commands.get(command_id), told, self._after(command_id))

    def _after(self, cause: str) -> tuple[Node, ...]:
        """Each command once, whatever a damaged log says of its causes."""
        new = [one for one in self._caused.get(cause, ()) if one not in self._told]
        self._told.update(new)
        return tuple(sorted(map(self._node, new), key=lambda node: node.at))


def views_of(stream: str) -> list[str]:
    """The views that fold a stream's events, and where they are kept."""
    aggregate = AGGREGATE_OF[stream.partition("/")[0]]
    stores: Iterable[tuple[str, Iterable[Any]]] = (("Redis", REDIS_VIEWS), ("Cassandra", CASSANDRA_VIEWS))
    return [
        f"{view.name} ({store})"
        for store, views in stores
        for view in views
        if view.source == "events" and aggregate in view.aggregates
    ]
