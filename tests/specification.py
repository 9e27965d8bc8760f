"""Given / when / then for any decider: history in, one command, and what came of it."""

from collections.abc import Sequence
from typing import NamedTuple

from commands.decider import Answer, Command, Context, Decider, Event, Record
from commands.rejections import Rejection
from schemas.meta import Micros

COMMAND_ID = "11111111-1111-5111-8111-111111111111"


class Actor(NamedTuple):
    kind: str
    id: str


SHOP = Actor("merchant", "shop")
SAGA = Actor("saga", "checkout")
DEADLINE = Actor("deadline", "")


def customer(name: str) -> Actor:
    return Actor("customer", name)


class Given:
    """The records of one partition after `events`: a snapshot that a test may also look into."""

    def __init__(self, decider: Decider, *events: Event) -> None:
        self.decider = decider
        self.records: dict[str, Record] = {}
        for event in events:
            self.fold(event)

    def get(self, path: str) -> Record | None:
        return self.records.get(path)

    def fold(self, event: Event) -> None:
        """What the worker does with an event's changes: write each, and forget what has come to its end."""
        for path, record in self.decider.evolve(self, event).items():
            if record is None:
                self.records.pop(path, None)
            else:
                self.records[path] = record

    def when(
        self, command: Command, actor: Actor = SHOP, now: int = 0, command_id: str = COMMAND_ID
    ) -> "Outcome":
        """Decide, and fold what was decided into these records; so several `when`s may follow each other."""
        decided = self.decider.decide(self, command, Context(Micros(now), command_id, actor.kind, actor.id))
        if isinstance(decided, Rejection):
            return Outcome(self, (), decided, Answer())
        for event in decided:
            self.fold(event)
        return Outcome(self, tuple(decided), None, self.decider.answer(self, command, decided))


class Outcome:
    """What became of the command; `given` goes on from here."""

    def __init__(
        self, given: Given, events: Sequence[Event], rejection: Rejection | None, answer: Answer
    ) -> None:
        self.given = given
        self.events = tuple(events)
        self.rejection = rejection
        self.answer = answer

    def then(self, *events: Event) -> "Outcome":
        """Exactly these events, in this order."""
        assert self.rejection is None, self.rejection
        assert self.events == events, f"{self.events} instead of {events}"
        return self

    def then_nothing(self) -> "Outcome":
        """Accepted: it is already so."""
        return self.then()

    def then_rejected(self, rejection: type[Rejection]) -> "Outcome":
        assert type(self.rejection) is rejection, self.rejection or self.events
        return self

    def then_answers(self, answer: Answer) -> "Outcome":
        assert self.answer == answer, f"{self.answer} instead of {answer}"
        return self
