"""What a decider is: two pure functions and two small ones, over records that the worker keeps."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from commands.rejections import Rejection
from schemas.meta import Micros, event_id
from schemas.values import Position, RefusedLine

Command: TypeAlias = Any
Event: TypeAlias = Any
Record: TypeAlias = Any
"""Frozen dataclasses of `schemas`: the unions that each decider's own functions name precisely."""


class Snapshot(Protocol):
    """The state records of one partition as they stand before a command; reading them is all one can do."""

    def get(self, path: str) -> Record | None: ...


@dataclass(frozen=True, slots=True)
class Context:
    """What a decider may know beside the state and the command: the writer's clock, and who acts."""

    now: Micros
    command_id: str
    actor_kind: str
    actor_id: str

    def event_id(self, index: int) -> str:
        """The id that the `index`-th event of this command will have."""
        return event_id(self.command_id, index)


@dataclass(frozen=True, slots=True)
class Deadline:
    """At `at` the worker sends `command` to itself, if the record that set it still stands."""

    at: Micros
    command: Command


@dataclass(frozen=True, slots=True)
class Answer:
    """What the sender learns beside the outcome: a word, the lines refused, positions in other streams."""

    status: str = ""
    refused: tuple[RefusedLine, ...] = ()
    positions: tuple[Position, ...] = ()


Changes: TypeAlias = Mapping[str, Record | None]
"""Path → the record as it is from now on; None where it has come to its end."""


def no_answer(_state: Snapshot, _command: Command, _events: Sequence[Event]) -> Answer:
    return Answer()


def no_deadline(_path: str, _record: Record) -> Deadline | None:
    return None


def own_record(command: Command) -> Iterable[str]:
    return (command.stream,)


@dataclass(frozen=True)
class Decider:
    """`decide` says what happens, or why not (no events: it is already so); `evolve` what is true afterwards.

    A stream's own record lies under the stream's name; a decider may keep more records beside it (claims). Every
    event has a `stream`. `answer` sees the state after the events; `deadline` is asked whenever a record changes.
    `reads` names the paths that `decide` will look at, as far as the command tells: the worker gets those of a whole
    batch at once.
    """

    aggregate: str
    decide: Callable[[Snapshot, Command, Context], Sequence[Event] | Rejection]
    evolve: Callable[[Snapshot, Event], Changes]
    answer: Callable[[Snapshot, Command, Sequence[Event]], Answer] = no_answer
    deadline: Callable[[str, Record], Deadline | None] = no_deadline
    reads: Callable[[Command], Iterable[str]] = own_record


def of_one_record(
    aggregate: str,
    decide: Callable[[Record | None, Command, Context], Sequence[Event] | Rejection],
    evolve: Callable[[Record | None, Event], Record],
    answer: Callable[[Record | None, Command, Sequence[Event]], Answer] | None = None,
    deadline: Callable[[str, Record], Deadline | None] = no_deadline,
) -> Decider:
    """A decider whose whole state is the one record under its stream's name."""
    return Decider(
        aggregate,
        lambda state, command, context: decide(state.get(command.stream), command, context),
        lambda state, event: {event.stream: evolve(state.get(event.stream), event)},
        (lambda state, command, events: answer(state.get(command.stream), command, events))
        if answer
        else no_answer,
        deadline,
    )
