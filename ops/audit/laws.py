"""The laws, as an auditor reads them: what is counted, what must balance, and when it is asked."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

Asked: TypeAlias = Literal[
    "at every event", "at every cut", "by the log's own time", "of every row", "at rest"
]
"""When the auditor asks. At rest: only `demo` and `faults` do, which know that nothing is under way any more."""


@dataclass(frozen=True, slots=True)
class Balance:
    """A sentence of a law: these quantities stand in this relation."""

    quantities: tuple[str, ...]
    must: str
    asked: Asked


@dataclass(frozen=True, slots=True)
class Law:
    """Its number is what verdicts and breaches name; `module` is where its books are kept."""

    number: str
    name: str
    module: str
    balances: tuple[Balance, ...]


_STOCK = ("sellable", "reserved", "allocated", "shipped")

_LAWS = (
    Law(
        "1",
        "Stock is conserved",
        "ops.audit.stock",
        (
            Balance(
                _STOCK,
                "the balances that an event carries = the sum of all movements up to it",
                "at every event",
            ),
            Balance(_STOCK, "none is negative", "at every event"),
            Balance(("reserved", "active claims"), "reserved = sum of the active claims", "at rest"),
            Balance(("allocated", "allocated claims"), "allocated = sum of the allocated claims", "at rest"),
        ),
    ),
    Law(
        "2",
        "Nothing is promised that is not there, and nothing that is there is refused",
        "ops.audit.stock",
        (
            Balance(
                ("granted", "available"),
                "granted <= available = max(0, sellable - reserved - allocated - safety stock)",
                "at every event",
            ),
            Balance(
                ("refused", "available"), "refused > available, or the order asked too late", "at every cut"
            ),
            Balance(("uncovered",), "what an adjustment takes from under a promise is said", "at every cut"),
        ),
    ),
    Law(
        "3",
        "Every order ends once, in time",
        "ops.audit.trade",
        (
            Balance(
                ("placed", "ended"),
                "an order leaves `placed` once, after it was placed once",
                "at every event",
            ),
            Balance(("expires_at",), "it leaves `placed` by then", "by the log's own time"),
            Balance(
                ("checked out", "placed"),
                "a cart that is checked out becomes that order within ten minutes",
                "by the log's own time",
            ),
            Balance(
                ("checked out", "closed"),
                "a cart is reopened or completed for the order as which it is checked out",
                "at every event",
            ),
            Balance(
                ("remind_at",), "an order that waits for anything asks again by then", "by the log's own time"
            ),
            Balance(("waiting",), "no order waits for anything, no cart stays checked out", "at rest"),
        ),
    ),
    Law(
        "4",
        "Every reservation ends once, in time",
        "ops.audit.stock",
        (
            Balance(
                ("claim",),
                "reserved, then allocated, released or expired, once, and not before",
                "at every event",
            ),
            Balance(("expires_at",), "it ends by then", "by the log's own time"),
        ),
    ),
    Law(
        "5",
        "Money is where its order says it is",
        "ops.audit.trade",
        (
            Balance(
                ("captured", "amount"),
                "captured <= the order's amount, and 0 unless confirmed",
                "at every cut",
            ),
            Balance(
                ("held", "owed"),
                "an ended order that holds money says that it owes it",
                "by the log's own time",
            ),
            Balance(
                ("captured", "amount"),
                "an order that says it was charged was: captured = amount",
                "at every cut",
            ),
            Balance(
                ("confirmed", "captured"),
                "a confirmed order that is not charged asks again by its `remind_at`",
                "by the log's own time",
            ),
            Balance(("log", "provider"), "the provider's own ledger tells the same", "at rest"),
        ),
    ),
    Law(
        "6",
        "A command has one effect, wholly or not at all",
        "ops.audit.effects",
        (
            Balance(("commands", "effects"), "one effect per command id within 24 h", "at every event"),
            Balance(
                ("decided", "happened"), "what a decision accepted = what events say happened", "at every cut"
            ),
            Balance(("batch_size",), "a transaction has all its events", "at every cut"),
            Balance(("receipts",), "what callers were told stands in the log", "at rest"),
        ),
    ),
    Law(
        "7",
        "A read model is the fold of the log",
        "ops.audit.comparison",
        (Balance(("row", "fold"), "what a row holds = what its stream's events make of it", "of every row"),),
    ),
    Law(
        "8",
        "History is whole and unchanged",
        "ops.audit.chains",
        (
            Balance(("version",), "versions of a stream are 1..n, in one partition", "at every event"),
            Balance(
                ("previous",),
                "an event's `previous` = SHA-256 of the bytes of the event before it",
                "at every event",
            ),
        ),
    ),
)

LAWS = MappingProxyType({law.number: law for law in _LAWS})
