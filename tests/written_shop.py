"""The shop in memory behind the real command worker: its records are bytes, and it may die between two of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from commands.decider import Command, Decider
from commands.journal import Output, OutputKind, Partition
from commands.registry import DECIDERS
from ops.simulate.stores import Disk
from schemas.codec import Decoded
from schemas.decisions import Decided
from schemas.letters import DeadLetter  # noqa: TC001  # as in every other room, imported where it is named
from schemas.meta import HOUR, CommandMeta, EventMeta, Micros
from schemas.position import POSITION_PATH
from streams import saga
from streams.asked import Asked
from tests.commands.in_memory import CODEC, TOPICS, Desk
from tests.in_memory_shop import Place, React, Shop, Source

PATIENCE = 12 * HOUR


class Written(NamedTuple):
    """A record of a topic of events or decisions, as it stands there."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    message: Decoded[Any]


class WrittenShop(Shop):
    """Versions, hashes, the dedupe window and the deadlines are the writer's own; `log` is what it wrote, in order."""

    def __init__(self, react: React = saga.react, deciders: Mapping[str, Decider] = DECIDERS) -> None:
        super().__init__(react, deciders)
        self.topics = TOPICS
        self.desk = Desk(deciders=deciders)
        self.log: list[Written] = []
        self.commands: list[Asked] = []
        self.dead: list[DeadLetter] = []
        self._committed: Mapping[Source, int] = {}
        self._published: Counter[tuple[OutputKind, Partition]] = Counter()

    # What processes do.

    def decide_some(self, place: Place, count: int) -> None:
        """The commands that wait first, in one batch."""
        self.waiting[place], batch = self.waiting[place][count:], self.waiting[place][:count]
        self.commands += batch
        for asked in batch:
            self._send(asked)
        self._turn()

    def ask_again(self, asked: Asked) -> None:
        """The record of a command that was decided comes once more: its sender had not heard that it arrived."""
        self._send(asked)
        self._turn()

    def in_time(self) -> Sequence[Asked]:
        """The commands that somebody may still ask again."""
        return [asked for asked in self.commands if asked.meta.not_after >= self.now]

    def commit(self) -> None:
        """What was read is never read again."""
        self._committed = dict(self.read)

    def rewind(self, source: Source, steps: int) -> None:
        super().rewind(source, steps)
        self.read[source] = max(self.read[source], self._committed.get(source, 0))

    def write_in_vain(self, times: int) -> None:
        """The next transactions come to nothing."""
        self.desk.journal.fails = times

    def restart(self, *, on_a_new_machine: bool) -> None:
        """The worker dies and begins anew, on the disk it had or on an empty one."""
        self.desk.now = self.now
        self.desk.restart(Disk() if on_a_new_machine else None)
        self._publish()

    def pass_time(self, pause: int) -> None:
        until = Micros(self.now + pause)
        due, tried = self.next_due(), -1
        while tried != due <= until:
            self.now = Micros(max(self.now, due))
            self._turn()
            due, tried = self.next_due(), due
        self.now = until

    def next_due(self, *, but: str = "") -> int:
        """When the first deadline is due; of one aggregate it may be left out."""
        return self.desk.store.next_due(p for p in self.desk.handler.serving if p.aggregate != but)

    # The writer, with a log.

    def _decide(self, aggregate: str, key: str, body: Command, meta: CommandMeta) -> None:
        asked = Asked(aggregate, key, body, meta)
        self.commands.append(asked)
        self._send(asked)
        self._turn()

    def _send(self, asked: Asked) -> None:
        value = CODEC.encode(asked.body, vars(asked.meta))
        number = self.topics.partition_of(asked.key)
        self.desk.journal.send(asked.aggregate, value, asked.key, number)

    def _meta(self, body: Any, command_id: str, kind: str, actor: str) -> CommandMeta:
        """It may wait in a queue before it is decided."""
        return replace(super()._meta(body, command_id, kind, actor), not_after=Micros(self.now + PATIENCE))

    def _turn(self) -> None:
        self.desk.now = self.now
        self.desk.handler.turn()
        self._publish()

    def _publish(self) -> None:
        """What was written since is there for everybody to read."""
        for place, outputs in self.desk.journal.logs.items():
            for offset, output in enumerate(outputs[self._published[place] :], self._published[place]):
                self._tell(offset, output)
            self._published[place] = len(outputs)

    def _tell(self, offset: int, output: Output) -> None:
        message = None if output.value is None else CODEC.decode(output.value)
        aggregate, number = output.partition
        if output.kind == "state":
            self._tell_state((output.key or b"").decode(), message)
        elif message is not None and output.kind == "dead-letters":
            self.dead.append(message.body)
        elif message is not None and output.value is not None:
            made = [message] if output.kind == "events" else message.body.decided
            self.facts[output.kind, aggregate, number] += made
            topic = f"{self.topics.prefix}.{output.kind}.{aggregate}"
            self.log.append(Written(topic, number, offset, output.key, output.value, message))

    def _tell_state(self, path: str, message: Decoded[Any] | None) -> None:
        if message is None:
            self.records.pop(path, None)
        elif path != POSITION_PATH:
            self.records[path] = message.body

    # What happened.

    def events(self) -> Sequence[Decoded[EventMeta]]:
        return [one.message for one in self.log if ".events." in one.topic]

    def decisions(self) -> Sequence[Decided]:
        return [one for w in self.log if ".decisions." in w.topic for one in w.message.body.decided]
