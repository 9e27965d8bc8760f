"""The stock of a period: opening, movements by cause, closing, by SKU and in all; it balances, or says where not."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ops.audit.movements import NOTHING, Balances, Movement, place_of
from projections.history import Wanted
from projections.movements import Kind

OPENING, CLOSING = "opening", "closing"
IN_ALL = "(all)"
COLUMNS: Mapping[str, Kind] = {
    "sku": "text",
    "location": "text",
    "what": "text",
    "entries": "int",
    "sellable": "int",
    "reserved": "int",
    "allocated": "int",
    "shipped": "int",
}


@dataclass(slots=True)
class Account:
    """One stock item, or all: the opening and the closing are what the log carries, the movements what it says.

    What moves nothing (a refusal, a policy) is no entry of it.
    """

    opening: Balances = NOTHING
    closing: Balances = NOTHING
    entries_before: int = 0
    moved: defaultdict[str, Balances] = field(default_factory=lambda: defaultdict(Balances))
    entries: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def post(self, movement: Movement, *, is_before: bool) -> None:
        self.closing = self.closing.plus(movement.change)
        if is_before:
            self.opening = self.opening.plus(movement.change)
            self.entries_before += bool(movement.cause)
        elif movement.cause:
            self.moved[movement.cause] = self.moved[movement.cause].plus(movement.moved)
            self.entries[movement.cause] += 1

    def add(self, other: "Account") -> None:
        self.opening, self.closing = self.opening.plus(other.opening), self.closing.plus(other.closing)
        self.entries_before += other.entries_before
        for cause, units in other.moved.items():
            self.moved[cause] = self.moved[cause].plus(units)
            self.entries[cause] += other.entries[cause]

    @property
    def balances(self) -> bool:
        found = self.opening
        for units in self.moved.values():
            found = found.plus(units)
        return found == self.closing

    def rows(self, sku: str, location: str) -> Iterator[dict[str, Any]]:
        """As many rows as there are causes, between opening and closing."""
        counted = sum(self.entries.values())
        yield _row(sku, location, OPENING, self.entries_before, self.opening)
        for cause in sorted(self.moved):
            yield _row(sku, location, cause, self.entries[cause], self.moved[cause])
        yield _row(sku, location, CLOSING, self.entries_before + counted, self.closing)


def _row(sku: str, location: str, what: str, entries: int, units: Balances) -> dict[str, Any]:
    return {"sku": sku, "location": location, "what": what, "entries": entries, **units._asdict()}


class Report:
    """Accounts of all stock items; memory grows with the items, not with the log."""

    def __init__(self, period: Wanted) -> None:
        self._period = period
        self._accounts: defaultdict[str, Account] = defaultdict(Account)

    def post(self, movement: Movement) -> None:
        """In any order of streams, each stream from its first event on."""
        meta = movement.event["meta"]
        at = meta[f"{self._period.by}_at"]
        if at <= self._period.until:
            self._accounts[meta["stream"]].post(movement, is_before=at < self._period.since)

    @property
    def is_empty(self) -> bool:
        return not self._accounts

    @property
    def in_all(self) -> Account:
        found = Account()
        for account in self._accounts.values():
            found.add(account)
        return found

    def rows(self, *, only_total: bool = False) -> Iterator[dict[str, Any]]:
        """By SKU and location, then in all."""
        for stream in sorted(self._accounts) if not only_total else ():
            yield from self._accounts[stream].rows(*place_of(stream))
        yield from self.in_all.rows(IN_ALL, "")

    def unbalanced(self) -> list[str]:
        """The stock items whose opening and movements do not make their closing."""
        return [stream for stream, account in sorted(self._accounts.items()) if not account.balances]
