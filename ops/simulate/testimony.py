"""What the log says, read once by a reader that shares no code with the writers."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ops.audit.wire import AvscReader, Record, UnreadableError
from ops.simulate.broker import Broker, Place

Poison: TypeAlias = set[tuple[Place, int]]


class _Reader(AvscReader):
    """Remembers what it has read in this run: several checkers look at the same bytes."""

    def __init__(self) -> None:
        super().__init__()
        self._read: dict[bytes, tuple[str, Record]] = {}

    def read(self, value: bytes) -> tuple[str, Record]:
        found = self._read.get(value)
        if found is None:
            found = self._read[value] = super().read(value)
        return found

    def forget(self) -> None:
        self._read.clear()


READER = _Reader()


@dataclass(frozen=True, slots=True)
class Said:
    """One committed record; `order` counts over the whole broker, so that it tells what came first."""

    topic: str
    partition: int
    offset: int
    order: int
    name: str
    record: Record
    value: bytes

    @property
    def meta(self) -> Record:
        meta: Record = self.record["meta"]
        return meta


@dataclass
class Testimony:
    """Records by kind of topic; `unreadable` are those that are none of ours and were not put there by a fault."""

    events: list[Said] = field(default_factory=list)
    decisions: list[Said] = field(default_factory=list)
    commands: list[Said] = field(default_factory=list)
    state: list[Said] = field(default_factory=list)
    letters: list[Said] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def named(self, *names: str) -> Iterator[Said]:
        return (said for said in self.events if said.name in names)

    def by_order(self, *names: str) -> Mapping[str, list[Said]]:
        """Events of these names, by the order that they speak of."""
        found: defaultdict[str, list[Said]] = defaultdict(list)
        for said in self.named(*names):
            found[said.record["order_id"]].append(said)
        return found

    def decided(self) -> Iterator[Any]:
        return (one for said in self.decisions for one in said.record["decided"])


def testify(broker: Broker, poison: Poison) -> Testimony:
    READER.forget()
    testimony = Testimony()
    piles = {"dead-letters": testimony.letters} | {
        kind: getattr(testimony, kind) for kind in ("events", "decisions", "commands", "state")
    }
    for topic in broker.partitions:
        pile = piles.get(topic.split(".")[1])
        if pile is None:
            continue
        for number, offset, entry in broker.committed_entries(topic):
            if ((topic, number), offset) in poison or entry.value is None:
                continue
            try:
                name, record = READER.read(entry.value)
            except UnreadableError as error:
                testimony.unreadable.append(f"{topic}[{number}]@{offset}: {error}")
            else:
                pile.append(Said(topic, number, offset, entry.order, name, record, entry.value))
    return testimony
