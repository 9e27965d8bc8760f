"""An order's story over all streams: cart, order, stock and payment, as one row of events, each with what caused it."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Any

from ops.console.words import sentence, spoken
from ops.story import AGGREGATE_OF, Event, NoStory, ReplayOf
from schemas.cart import cart_stream
from schemas.decisions import Decided
from schemas.language import AGGREGATES
from schemas.meta import CommandMeta, EventMeta, RecordMeta
from schemas.order import OrderPlaced, order_stream
from schemas.payment import payment_stream
from schemas.topics import Topics
from streams.replay import Query

SHOWN_MAX = 1_000
"""So many events are told at most: a page has an end."""


@dataclass(frozen=True)
class Cause:
    """Why: in words, and the place on the page of the event that is meant, if it is there."""

    told: str
    place: str = ""


@dataclass(frozen=True)
class Entry:
    """One event; its times are microseconds since 1970."""

    occurred_at: int
    recorded_at: int
    stream: str
    version: int
    type: str
    told: str
    actor: str
    cause: Cause
    command_id: str

    @property
    def place(self) -> str:
        return f"{self.stream}@{self.version}"

    @property
    def kind(self) -> str:
        return self.stream.partition("/")[0]

    @property
    def key(self) -> str:
        return self.stream.split("/")[1]


@dataclass(frozen=True)
class Timeline:
    """In the order in which it happened; `is_cut` if the log has more than are here."""

    entries: Sequence[Entry]
    is_cut: bool = False

    @property
    def kinds(self) -> list[str]:
        return [kind for kind in AGGREGATE_OF if any(entry.kind == kind for entry in self.entries)]


def order_timeline(replay_of: ReplayOf, topics: Topics, order_id: str) -> Timeline:
    """Raises NoStory where the log has no such order, and whatever reading raises."""
    order = _of_stream(replay_of, topics, order_stream(order_id))
    if not order:
        raise NoStory(f"the log has no order {order_id}")
    since = order[0].meta.recorded_at
    carts = {event.body.cart_id for event in order if isinstance(event.body, OrderPlaced)}
    payments = {paid for event in order if (paid := getattr(event.body, "payment_id", ""))}
    return told(
        [
            *(event for cart in sorted(carts) for event in _of_stream(replay_of, topics, cart_stream(cart))),
            *order,
            *_stock_for(replay_of, topics, order_id, since),
            *(
                e
                for paid in sorted(payments)
                for e in _of_stream(replay_of, topics, payment_stream(paid), since)
            ),
        ]
    )


def _of_stream(replay_of: ReplayOf, topics: Topics, stream: str, since: int | None = None) -> list[Event]:
    kind, _, key = stream.partition("/")
    query = Query((topics.events(AGGREGATE_OF[kind]),), key=key, about=since)
    found = (record.message for record in replay_of(query).events())
    return _few(event for event in found if event.meta.stream == stream)


def _stock_for(replay_of: ReplayOf, topics: Topics, order_id: str, since: int) -> list[Event]:
    query = Query((topics.events(AGGREGATE_OF["stock"]),), about=since)
    found = _saying(replay_of, query, order_id)
    return _few(event for event in found if getattr(event.body, "order_id", "") == order_id)


def _saying(replay_of: ReplayOf, query: Query, word: str) -> Iterator[Any]:
    """The messages that hold these bytes: what may be meant is seen before it is decoded."""
    replay, wanted = replay_of(query), word.encode()
    for records in replay.portions():
        for record in records:
            if wanted in record.value:
                yield from (one.message for one in replay.told(record))


def _few(events: Iterable[Event]) -> list[Event]:
    """The first so many, and one that tells of others; the log is read to its end all the same."""
    return [event for count, event in enumerate(events) if count <= SHOWN_MAX]


def told(events: Sequence[Event]) -> Timeline:
    """Events of any streams as one row."""
    causes = _Causes(events)
    entries = [causes.entry(event) for event in islice(causes.ordered(), SHOWN_MAX)]
    return Timeline(entries, len(events) > SHOWN_MAX)


class _Causes:
    """Who caused whom among these events: each is by a command, which names what it follows from."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._by_event = {event.meta.event_id: event for event in sorted(events, key=_place)}
        self._events = list(self._by_event.values())
        self._by_command: dict[str, Event] = {}
        for event in self._events:
            self._by_command.setdefault(event.meta.command_id, event)

    def ordered(self) -> Iterator[Event]:
        """Each after its cause and after what stands before it in its stream; else by when it was recorded."""
        waits_for, awaited = self._waiting()
        ready = [(_place(event), event) for event in self._events if not waits_for[event.meta.event_id]]
        left = dict.fromkeys(self._by_event)
        heapify(ready)
        while left:
            if not ready:  # a damaged log may go in a circle: it is entered where it was written first
                first = self._by_event[next(iter(left))]
                ready.append((_place(first), first))
            _, event = heappop(ready)
            if event.meta.event_id not in left:
                continue
            del left[event.meta.event_id]
            yield event
            for later in awaited[event.meta.event_id]:
                waits_for[later.meta.event_id] -= 1
                if not waits_for[later.meta.event_id]:
                    heappush(ready, (_place(later), later))

    def _waiting(self) -> tuple[Counter[str], Mapping[str, list[Event]]]:
        """For how many events each waits, and who waits for it."""
        waits_for: Counter[str] = Counter()
        awaited: defaultdict[str, list[Event]] = defaultdict(list)
        last_of: dict[str, Event] = {}
        for event in sorted(self._events, key=lambda one: one.meta.version):
            for before in (last_of.get(event.meta.stream), self._before(event.meta)):
                if before is not None:
                    waits_for[event.meta.event_id] += 1
                    awaited[before.meta.event_id].append(event)
            last_of[event.meta.stream] = event
        return waits_for, awaited

    def entry(self, event: Event) -> Entry:
        meta = event.meta
        return Entry(
            meta.occurred_at,
            meta.recorded_at,
            meta.stream,
            meta.version,
            type(event.body).__name__,
            sentence(event.body),
            "deadline" if meta.actor_kind == "deadline" else f"{meta.actor_kind} {meta.actor_id}".strip(),
            self._cause(meta),
            meta.command_id,
        )

    def _cause(self, meta: EventMeta) -> Cause:
        if before := self._before(meta):
            return Cause(spoken(type(before.body).__name__), f"{before.meta.stream}@{before.meta.version}")
        if meta.actor_kind == "deadline":
            return Cause("when its time had come")
        if meta.causation_id in ("", meta.command_id):
            return Cause("on request")
        return Cause("after something outside this story")

    def _before(self, meta: EventMeta) -> Event | None:
        """The event that caused it, or the first one of the command whose decision did."""
        if meta.causation_id in ("", meta.command_id, meta.event_id):
            return None
        return self._by_event.get(meta.causation_id) or self._by_command.get(meta.causation_id)


def _place(event: Event) -> tuple[int, str, int, str]:
    meta = event.meta
    return meta.recorded_at, meta.stream, meta.version, meta.event_id


@dataclass(frozen=True)
class Fate:
    """All that the log says of a command: how it was asked, what was decided, what happened."""

    asked: Any
    asked_meta: CommandMeta | None
    decided: Decided | None
    timeline: Timeline

    @property
    def is_known(self) -> bool:
        return bool(self.asked_meta or self.decided or self.timeline.entries)

    @property
    def type(self) -> str:
        return type(self.asked).__name__ if self.asked is not None else getattr(self.decided, "type", "")


def fate_of(replay_of: ReplayOf, topics: Topics, command_id: str) -> Fate:
    """Goes through the whole log. Raises whatever reading raises."""
    kinds = (topics.commands, topics.decisions, topics.events)
    names = tuple(name(aggregate) for name in kinds for aggregate in AGGREGATES)
    asked: Any = None
    decided: Decided | None = None
    events: list[Event] = []
    for message in _saying(replay_of, Query(names), command_id):
        match message.meta:
            case CommandMeta(command_id=one) if one == command_id:
                asked = asked or message
            case RecordMeta():
                decided = decided or next(
                    (one for one in message.body.decided if one.command_id == command_id), None
                )
            case EventMeta(command_id=one) if one == command_id:
                events.append(message)
            case _:
                pass
    return Fate(asked and asked.body, asked and asked.meta, decided, told(_few(events)))
