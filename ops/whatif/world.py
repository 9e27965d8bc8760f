"""A whole Daybook in memory, on the trade's own clock: deciders, sagas, deadlines and a payment provider."""

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple, TypeAlias

from commands.decider import Answer, Context, Deadline, Decider, Event, Record
from commands.registry import DECIDERS
from commands.rejections import Rejection
from schemas.codec import Decoded
from schemas.decisions import Decided
from schemas.meta import NO_HASH, CommandMeta, EventMeta, Micros, derived_id
from schemas.payment import PaymentRequested, PaymentRequestRepeated, RecordProviderResult
from schemas.topics import Topics
from streams import saga
from streams.asked import Asked, Fact, SagaCommandRejected

DECLINED = "tok_declined"


class Promise(NamedTuple):
    """What the provider will answer, and after how many microseconds."""

    outcome: str = "succeeded"
    code: str = ""
    after: int = 0


React: TypeAlias = Callable[[Fact, Topics], Iterable[Asked | SagaCommandRejected]]
Provider: TypeAlias = Callable[[PaymentRequested], Promise]


def prompt_provider(request: PaymentRequested) -> Promise:
    """Answers at once, and declines the card that is made for it."""
    return Promise("declined", "declined") if request.token == DECLINED else Promise()


@dataclass(frozen=True)
class Rules:
    """What decides: today's code, unless another is put in its place.

    A decider of a candidate may look at the records of all aggregates: here they are all in one place.
    """

    deciders: Mapping[str, Decider] = field(default_factory=lambda: DECIDERS)
    react: React = saga.react
    provider: Provider = prompt_provider


@dataclass(order=True)
class _Due:
    """Something that happens later; those of one instant in the order in which they were thought of."""

    at: int
    number: int
    happen: Callable[[], None] = field(compare=False)


class World:
    """Everything that follows from a command happens at once, save what takes time: deadlines and the provider."""

    def __init__(self, rules: Rules, topics: Topics, hear: Callable[[Event, EventMeta], None]) -> None:
        self.rules = rules
        self.now = Micros(0)
        self.records: dict[str, Record] = {}
        self._topics = topics
        self._hear = hear
        self._waiting: deque[Asked | Fact] = deque()
        self._due: list[_Due] = []
        self._numbers = count()
        self._deadlines: dict[str, Deadline] = {}
        self._versions: dict[str, int] = {}
        self._answers: dict[str, Promise | None] = {}

    def get(self, path: str) -> Record | None:
        """The records, as a decider sees them."""
        return self.records.get(path)

    def ask(self, asked: Asked) -> None:
        """Somebody outside asks; all that follows at once has followed when this returns."""
        self._waiting.append(asked)
        self._settle()
        self.advance(self.now)

    def advance(self, until: int) -> None:
        """Let time pass: what is due by then happens when it is due."""
        while self._due and self._due[0].at <= until:
            due = heapq.heappop(self._due)
            self.now = Micros(max(self.now, due.at))
            due.happen()
            self._settle()
        self.now = Micros(max(self.now, until))

    def _settle(self) -> None:
        while self._waiting:
            one = self._waiting.popleft()
            if isinstance(one, Asked):
                self._decide(one)
            else:
                self._tell(one)

    def _tell(self, fact: Fact) -> None:
        """To the sagas, and a request for money to the provider."""
        made = self.rules.react(fact, self._topics)
        self._waiting += [one for one in made if isinstance(one, Asked)]
        if isinstance(fact, Decoded) and isinstance(fact.body, PaymentRequested):
            self._ask_provider(fact)

    # The writer.

    def _decide(self, asked: Asked) -> None:
        decider, meta = self.rules.deciders[asked.aggregate], asked.meta
        context = Context(self.now, meta.command_id, meta.actor_kind, meta.actor_id)
        events = decider.decide(self, asked.body, context)
        if isinstance(events, Rejection):
            self._waiting.append(_decided(asked, Answer(), events, self.now))
            return
        for index, event in enumerate(events):
            for path, record in decider.evolve(self, event).items():
                self._keep(asked.aggregate, path, record)
            told = self._recorded(event, meta, context.event_id(index))
            self._hear(event, told.meta)
            self._waiting.append(told)
        self._waiting.append(_decided(asked, decider.answer(self, asked.body, events), None, self.now))

    def _keep(self, aggregate: str, path: str, record: Record | None) -> None:
        self._deadlines.pop(path, None)
        if record is None:
            self.records.pop(path, None)
            return
        self.records[path] = record
        deadline = self.rules.deciders[aggregate].deadline(path, record)
        if deadline is not None:
            self._deadlines[path] = deadline
            self._later(deadline.at, lambda: self._meet(aggregate, path, deadline))

    def _meet(self, aggregate: str, path: str, deadline: Deadline) -> None:
        """A deadline, unless what it waited for has changed meanwhile."""
        if self._deadlines.get(path) is deadline:
            del self._deadlines[path]
            id_ = derived_id(path, str(deadline.at))
            asked = _asked(aggregate, deadline.command, id_, id_, id_, "deadline", path, self.now)
            self._waiting.append(asked)

    def _later(self, at: int, happen: Callable[[], None]) -> None:
        heapq.heappush(self._due, _Due(at, next(self._numbers), happen))

    def _recorded(self, event: Event, meta: CommandMeta, event_id: str) -> Decoded[EventMeta]:
        stream = event.stream
        version = self._versions[stream] = self._versions.get(stream, 0) + 1
        whose = (meta.command_id, meta.correlation_id, meta.causation_id, meta.actor_kind, meta.actor_id)
        return Decoded(
            EventMeta(event_id, stream, version, self.now, self.now, *whose, "", 0, 1, "", NO_HASH), event
        )

    # The provider.

    def _ask_provider(self, request: Decoded[EventMeta]) -> None:
        """Once for each key: who asks again while the answer is under way, waits for it."""
        body: PaymentRequested = request.body
        if body.key in self._answers:
            promise = self._answers[body.key]
            if promise is None:
                return
            promise = promise._replace(after=0)
        else:
            promise = self.rules.provider(body)
        self._answers[body.key] = None
        self._later(self.now + promise.after, lambda: self._answer(request, promise))

    def _answer(self, request: Decoded[EventMeta], promise: Promise) -> None:
        body, meta = request.body, request.meta
        self._answers[body.key] = promise
        reference = derived_id(body.key) if promise.outcome == "succeeded" else ""
        told = RecordProviderResult(
            body.payment_id, _verb_of(body), body.key, promise.outcome, reference, promise.code, None
        )
        id_ = derived_id(meta.event_id, "answer")
        self._waiting.append(
            _asked("payment", told, id_, meta.correlation_id, meta.event_id, "provider", "", self.now)
        )


def _asked(
    aggregate: str,
    body: Any,
    id_: str,
    correlation_id: str,
    causation_id: str,
    kind: str,
    who: str,
    now: Micros,
) -> Asked:
    meta = CommandMeta(
        id_, body.stream, "", now, now, now, None, None, correlation_id, causation_id, kind, who, ""
    )
    return Asked(aggregate, body.stream.split("/")[1], body, meta)


def _decided(asked: Asked, answer: Answer, rejection: Rejection | None, now: Micros) -> Decided:
    meta, body = asked.meta, asked.body
    numbers = tuple(line.line for line in getattr(body, "lines", ()) if hasattr(line, "line"))
    return Decided(
        command_id=meta.command_id,
        type=type(body).__name__,
        stream=meta.stream,
        lines=numbers,
        attempt=getattr(body, "attempt", 0),
        reply_to=meta.reply_to,
        fingerprint="",
        outcome="rejected" if rejection else "refused" if answer.refused else "accepted",
        status=answer.status,
        refused=answer.refused,
        rejection=rejection.as_rejected() if rejection else None,
        positions=answer.positions,
        correlation_id=meta.correlation_id,
        traceparent="",
        occurred_at=now,
        recorded_at=now,
    )


def _verb_of(request: PaymentRequested) -> str:
    if isinstance(request, PaymentRequestRepeated):
        return request.verb
    return type(request).__name__.removeprefix("Payment").removesuffix("Requested").lower()
