"""The checkers C1 to C17: what callers were told, held against the log as an outsider reads it, from offset 0."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]  # public

from ops.audit.breaches import HOLDS, Breaches
from ops.audit.checkouts import Checkouts
from ops.audit.desk import Deadlines, Desk
from ops.audit.law_book import LawBook
from ops.audit.log_reader import KINDS, LogReader, Value, open_log
from ops.audit.open_orders import OpenOrders
from ops.audit.views import ReadSide, find_view_errors
from ops.audit.wire import AvscReader, Record, UnreadableError
from ops.faults.history import History

SENTENCES: Mapping[str, str] = MappingProxyType(
    {
        "C1": "what was acknowledged stands in the log",
        "C2": "a command has at most one effect",
        "C3": "rejected has no effect; unknown has none or one, and is decided",
        "C4": "a batch is whole or not there",
        "C5": "versions are 1..n and hashes link",
        "C6": "stock is conserved at every prefix",
        "C7": "nothing is granted beyond what is available",
        "C8": "every checkout becomes an order that leaves `placed` once, and is settled",
        "C9": "every reservation ends once, in time",
        "C10": "one charge per confirmed order, none elsewhere; the provider's own ledger says the same",
        "C11": "every key and row equals the fold of the log",
        "C12": "no caller sees time run backwards, and each reads what he wrote",
        "C13": "a rebuilt view equals the live one",
        "C14": "a changed record is named",
        "C15": "no authorization before the stock is secured, no capture and no shipment before the confirmation",
        "C16": "what was not applied is a dead letter with its reason",
        "C17": "topics keep what is written",
    }
)
OF_LAWS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "1": ("C6",),
        "2": ("C7",),
        "3": ("C8",),
        "4": ("C9",),
        "5": ("C10",),
        "6": ("C1", "C2", "C4"),
        "7": ("C11",),
        "8": ("C5",),
    }
)
"""Which checkers a law of the book is."""

READ_KINDS = (*KINDS, "commands")
FOR_EVER: Mapping[str, str] = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
COMPACTED: Mapping[str, str] = {"cleanup.policy": "compact"}
SAFE: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "events": FOR_EVER,
        "commands": FOR_EVER,
        "decisions": {**FOR_EVER, "retention.ms": str(48 * 3600 * 1000)},
        "state": COMPACTED,
        "schemas": COMPACTED,
        "dead-letters": FOR_EVER,
        "checkpoints": FOR_EVER,
    }
)
"""What a topic of each kind must be set to; whoever keeps it longer does no harm."""

ANSWER_MAX_S = 10.0
Say: TypeAlias = Callable[[str], None]
Spot: TypeAlias = tuple[str, int, int]
"""Topic, partition and offset of a record."""


class OnceReader(AvscReader):
    """Reads each value once, however many books want it one after the other."""

    _value: bytes = b""
    _found: tuple[str, Record] | None = None

    def read(self, value: bytes) -> tuple[str, Record]:
        if self._found is None or value is not self._value:
            self._value, self._found = value, super().read(value)
        return self._found


@dataclass
class SagaOrder:
    """When, by the writers' one clock, what must come first was written, and what must come after; by order."""

    first: dict[tuple[str, str], int] = field(default_factory=dict)

    MUST_FOLLOW = (
        ("PaymentAuthorizationRequested", "OrderStockSecured"),
        ("PaymentCaptureRequested", "OrderConfirmed"),
        ("StockShipped", "OrderConfirmed"),
    )

    def feed(self, name: str, record: Record) -> None:
        if name in _ORDERED:
            self.first.setdefault((name, record["order_id"]), record["meta"]["recorded_at"])

    def breaches(self) -> Iterator[str]:
        for (name, order), at in self.first.items():
            for late, early in self.MUST_FOLLOW:
                if name == late and at < self.first.get((early, order), at + 1):
                    yield f"order {order}: {late} before {early}"


_ORDERED = frozenset(name for pair in SagaOrder.MUST_FOLLOW for name in pair)


@dataclass
class Evidence:
    """What the log says of each command: the batches of its events, its outcomes, and where it stands."""

    reader: AvscReader
    effects: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    positions: set[str] = field(default_factory=set)
    outcomes: dict[str, str] = field(default_factory=dict)
    asked: dict[str, set[Spot]] = field(default_factory=lambda: defaultdict(set))
    order: SagaOrder = field(default_factory=SagaOrder)

    def feed(self, value: Value) -> None:
        try:
            name, record = self.reader.read(value.value)
        except UnreadableError:
            return  # the law book says so
        match value.topic.rsplit(".", 2)[1]:
            case "commands":
                spot = (value.topic, value.partition, value.offset)
                self.asked[record["meta"]["command_id"]].add(spot)
            case "decisions":
                for decided in record["decided"]:
                    self.outcomes.setdefault(decided["command_id"], decided["outcome"])
            case _:
                meta = record["meta"]
                self.effects[meta["command_id"]].add(meta["batch_id"])
                self.positions.add(f"{meta['stream']}@{meta['version']}")
                self.order.feed(name, record)


def acknowledged(history: History, evidence: Evidence) -> Iterator[str]:
    """C1."""
    for told in history.of("ok"):
        missing = [position for position in told.positions if position not in evidence.positions]
        if missing:
            yield f"{told.route} {told.command_id} was told {', '.join(missing)}, which is not in the log"
        elif told.command_id not in evidence.outcomes:
            yield f"{told.route} {told.command_id} was acknowledged, and nobody decided it"


def at_most_once(evidence: Evidence) -> Iterator[str]:
    """C2."""
    for command_id, batches in evidence.effects.items():
        if len(batches) > 1:
            yield f"{command_id} has {len(batches)} effects"


def no_other_effect(history: History, evidence: Evidence) -> Iterator[str]:
    """C3: one effect at most of what is unknown is C2; that it is decided is asked here."""
    for told in history.of("fail"):
        if told.command_id in evidence.effects and evidence.outcomes.get(told.command_id) != "refused":
            yield f"{told.route} {told.command_id} was rejected and has an effect"
    for told in history.of("unknown"):
        if told.command_id in evidence.asked and told.command_id not in evidence.outcomes:
            yield f"{told.route} {told.command_id} was sent and is still not decided"


def not_applied(evidence: Evidence, letters: Iterable[Record]) -> Iterator[str]:
    """C16: every command that stands in the log was decided, or is a letter; each letter has a reason."""
    lettered: set[Spot] = set()
    for letter in letters:
        spot = (letter["topic"], letter["partition"], letter["offset"])
        if not letter["reason"]:
            yield f"{_named(spot)} is a letter without a reason"
        if letter["consumer"] == "commands":
            lettered.add(spot)
    for command_id in sorted(evidence.asked.keys() - evidence.outcomes.keys()):
        for spot in evidence.asked[command_id] - lettered:
            yield f"{command_id} at {_named(spot)} was neither decided nor lettered"


def _named(spot: Spot) -> str:
    topic, partition, offset = spot
    return f"{topic}[{partition}]@{offset}"


def unsafe_topics(kafka: str, prefix: str) -> Iterator[str]:
    """C17."""
    admin = AdminClient({"bootstrap.servers": kafka})
    topics = [
        name for name in admin.list_topics(timeout=ANSWER_MAX_S).topics if name.startswith(f"{prefix}.")
    ]
    asked = [ConfigResource(ResourceType.TOPIC, name) for name in topics]
    for resource, future in admin.describe_configs(asked).items():
        found = {name: entry.value for name, entry in future.result(ANSWER_MAX_S).items()}
        kind = resource.name.removeprefix(f"{prefix}.").split(".")[0]
        yield from (f"{resource.name} {complaint}" for complaint in unsafe_settings(kind, found))


def unsafe_settings(kind: str, found: Mapping[str, str]) -> Iterator[str]:
    """What of a topic's settings would lose what is written."""
    wanted = {**SAFE.get(kind, {}), "unclean.leader.election.enable": "false"}
    for name, value in wanted.items():
        if found[name] != value and not _is_kept_longer(name, value, found[name]):
            yield f"has {name}={found[name]}, not {value}"


def _is_kept_longer(name: str, wanted: str, found: str) -> bool:
    return name == "retention.ms" and wanted != "-1" and (found == "-1" or int(found) > int(wanted))


@dataclass(frozen=True)
class Books:
    """All that the checkers need of one Daybook at rest; `ledger` is the payment provider's, if there is one."""

    side: ReadSide
    history: History
    ledger: Callable[[], Collection[Mapping[str, Any]]] | None
    grace_s: float


@dataclass(frozen=True)
class Examined:
    """Of each checker that looked "holds", or what broke; and how many commands were decided, by outcome."""

    verdicts: dict[str, str]
    decided: dict[str, int]


def examine(books: Books, say: Say, skip: Collection[str] = ()) -> Examined:
    """Raises LogNotReadError."""
    prefix, kafka = books.side.topics.prefix, books.side.kafka
    reader = OnceReader()
    book, evidence = LawBook(reader, int(books.grace_s * 1_000_000)), Evidence(reader)
    with open_log(kafka, prefix, READ_KINDS) as log:
        now = time.time_ns() // 1_000
        _read(log, book, evidence, say)
    ledger = books.ledger() if books.ledger else None
    laws = book.finish(now, ledger, books.history.acknowledged(), settled=True)
    breaches = Breaches()
    found = {
        "C1": acknowledged(books.history, evidence),
        "C2": at_most_once(evidence),
        "C3": no_other_effect(books.history, evidence),
        "C11": find_view_errors(books.side, say) if "C11" not in skip else (),
        "C12": books.history.backwards,
        "C15": evidence.order.breaches(),
        "C16": not_applied(evidence, _letters(kafka, prefix, reader)),
        "C17": unsafe_topics(kafka, prefix),
    }
    for name, breaks in found.items():
        for what in breaks:
            breaches.add(name, what)
    for law, verdict in laws.items():
        for name in OF_LAWS[law]:
            if verdict != HOLDS:
                breaches.add(name, verdict)
    looked = {*found, *(name for law in laws for name in OF_LAWS[law])} - set(skip)
    verdicts = breaches.verdicts(sorted(looked, key=lambda name: int(name[1:])))
    return Examined(verdicts, dict(Counter(evidence.outcomes.values())))


def is_owed(events: Iterable[Value]) -> bool:
    """Whether an order or a cart waits for anything, as the events of carts and orders say."""
    reader, desk = AvscReader(), Desk()
    deadlines = Deadlines(desk, grace_us=0)
    orders, checkouts = OpenOrders(desk, deadlines), Checkouts(desk, deadlines)
    folds = {"order": orders.fold, "cart": checkouts.fold}
    for value in events:
        with suppress(UnreadableError):  # the law book says so
            folds[value.topic.rsplit(".", 1)[1]](*reader.read(value.value))
    orders.check_settled()
    checkouts.check_closed()
    return set(desk.breaches.verdicts(("3", "5")).values()) != {HOLDS}


def _read(log: LogReader, book: LawBook, evidence: Evidence, say: Say) -> None:
    for number, value in enumerate(log.values(), start=1):
        evidence.feed(value)
        if value.topic.rsplit(".", 2)[1] in KINDS:
            book.feed(value.topic, value.partition, value.value)
        if number % 20_000 == 0:
            say(f"checking: {number:,} records")


def _letters(kafka: str, prefix: str, reader: AvscReader) -> Iterator[Record]:
    with open_log(kafka, prefix, ("dead-letters",), ("",)) as log:
        for value in log.values():
            name, record = reader.read(value.value)
            if name == "DeadLetter" and not record["released"]:
                yield record
