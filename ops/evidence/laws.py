"""What must hold between the events of one stock item, as far as they are in hand: balances, claims, grants."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from ops.evidence.datum_reader import Datum

Balances: TypeAlias = tuple[int, int, int, int]
"""Sellable, reserved, allocated, shipped."""

ClaimKey: TypeAlias = tuple[str, int]
"""An order's id and the number of its line."""


class LawBroken(Exception):
    """The event cannot follow what was before it; the message says why."""


@dataclass(slots=True)
class Claim:
    quantity: int
    expires_at: int
    state: str = "active"


@dataclass(slots=True)
class Shelf:
    """One stock item after some event. `balances` and `safety_stock` are None where nothing in hand says them;
    `claims` is None where no claim is in hand from its beginning, and holds those of one `order` where only these are.
    """

    balances: Balances | None = None
    safety_stock: int | None = None
    claims: dict[ClaimKey, Claim] | None = None
    order: str = ""

    @classmethod
    def of_order(cls, order: str) -> "Shelf":
        """Before the first event of an order on it: all of that order begins here."""
        return cls(claims={}, order=order)

    @classmethod
    def empty(cls) -> "Shelf":
        """Before the first event of a stream."""
        return cls((0, 0, 0, 0), 0, {})

    def fold(self, name: str, event: Datum) -> None:
        """The next event. Raises LawBroken."""
        told = event["sellable"], event["reserved"], event["allocated"], event["shipped"]
        if min(told) < 0:
            raise LawBroken(f"has a negative balance: {told}")
        before = self.balances
        if before is not None:
            self._check_balances(name, event, before, told)
        if self.claims is not None and (rule := _RULES.get(name)) and self.order in ("", event["order_id"]):
            rule(self, self.claims, event)
        if name == "StockPolicyChanged":
            self.safety_stock = event["safety_stock"]
        self.balances = told

    def _check_balances(self, name: str, event: Datum, before: Balances, told: Balances) -> None:
        move = _MOVES.get(name)
        sellable, reserved, allocated, shipped = move(event) if move else _STILL
        ours = before[0] + sellable, before[1] + reserved, before[2] + allocated, before[3] + shipped
        if told != ours:
            raise LawBroken(
                f"says sellable, reserved, allocated, shipped {told}; its movement makes them {ours}"
            )
        if name == "StockAdjusted" and event["before"] != before[0]:
            raise LawBroken(f"adjusts {event['before']} units where {before[0]} are")
        if name == "StockShortfallFound" and event["uncovered"] != max(0, told[1] + told[2] - told[0]):
            raise LawBroken(f"finds {event['uncovered']} promised units uncovered")

    def available(self) -> int | None:
        """Units that could be granted; None where the safety stock is not in hand."""
        if self.balances is None or self.safety_stock is None:
            return None
        sellable, reserved, allocated, _ = self.balances
        return max(0, sellable - reserved - allocated - self.safety_stock)

    def check_granted(self, quantity: int) -> None:
        available = self.available()
        if available is not None and quantity > available:
            raise LawBroken(f"grants {quantity} units where {available} are available")


_STILL: Balances = (0, 0, 0, 0)
_MOVES: Mapping[str, Callable[[Datum], Balances]] = {
    "StockReceived": lambda e: (e["quantity"], 0, 0, 0),
    "StockAdjusted": lambda e: (e["after"] - e["before"], 0, 0, 0),
    "StockReserved": lambda e: (0, e["quantity"], 0, 0),
    "StockReservationReleased": lambda e: (0, -e["quantity"], 0, 0),
    "StockReservationExpired": lambda e: (0, -e["quantity"], 0, 0),
    "StockAllocated": lambda e: (0, -e["from_reserved"], e["quantity"], 0),
    "StockAllocationReleased": lambda e: (0, 0, -e["quantity"], 0),
    "StockShipped": lambda e: (-e["quantity"], 0, -e["quantity"], e["quantity"]),
}
"""How an event changes the balances; the others leave them as they are."""


def _reserve(shelf: Shelf, claims: dict[ClaimKey, Claim], event: Datum) -> None:
    shelf.check_granted(event["quantity"])
    if _key(event) in claims:
        raise LawBroken(f"reserves again what order {event['order_id']} has claimed already")
    claims[_key(event)] = Claim(event["quantity"], event["expires_at"])


def _refuse(shelf: Shelf, _: dict[ClaimKey, Claim], event: Datum) -> None:
    available = shelf.available()
    if available is not None and event["available"] > available:
        raise LawBroken(f"finds {event['available']} units available where {available} are")


def _expire(_: Shelf, claims: dict[ClaimKey, Claim], event: Datum) -> None:
    claim = _claim(claims, event, "active")
    if event["meta"]["recorded_at"] < claim.expires_at:
        raise LawBroken("expires before its time")
    _check_quantity(claim, event)
    claim.state = "expired"


def _allocate(shelf: Shelf, claims: dict[ClaimKey, Claim], event: Datum) -> None:
    claim = _claim(claims, event, "active", "expired")
    if event["from_reserved"] != (claim.quantity if claim.state == "active" else 0):
        raise LawBroken(f"takes {event['from_reserved']} reserved units of a claim that is {claim.state}")
    if claim.state == "expired":
        shelf.check_granted(event["quantity"])
    _check_quantity(claim, event)
    claim.state = "allocated"


def _release(_: Shelf, claims: dict[ClaimKey, Claim], event: Datum) -> None:
    claim = _claim(claims, event, "active", "expired")
    if event["quantity"] != (claim.quantity if claim.state == "active" else 0):
        raise LawBroken(
            f"releases {event['quantity']} units of a claim of {claim.quantity} that is {claim.state}"
        )
    del claims[_key(event)]


def _end_allocation(_: Shelf, claims: dict[ClaimKey, Claim], event: Datum) -> None:
    _check_quantity(_claim(claims, event, "allocated"), event)
    del claims[_key(event)]


_RULES: Mapping[str, Callable[[Shelf, dict[ClaimKey, Claim], Datum], None]] = {
    "StockReserved": _reserve,
    "StockReservationRefused": _refuse,
    "StockReservationReleased": _release,
    "StockReservationExpired": _expire,
    "StockAllocated": _allocate,
    "StockAllocationReleased": _end_allocation,
    "StockShipped": _end_allocation,
}
"""What a claim must be for an event to speak of it, and what it is afterwards; seen before the balances change."""


def _claim(claims: Mapping[ClaimKey, Claim], event: Datum, *states: str) -> Claim:
    claim = claims.get(_key(event))
    if claim is None or claim.state not in states:
        found = "there is none" if claim is None else f"it is {claim.state}"
        raise LawBroken(f"speaks of a claim of order {event['order_id']} that should be {states[0]}: {found}")
    return claim


def _check_quantity(claim: Claim, event: Datum) -> None:
    if event["quantity"] != claim.quantity:
        raise LawBroken(f"moves {event['quantity']} units of a claim of {claim.quantity}")


def _key(event: Datum) -> ClaimKey:
    return event["order_id"], event["line"]


@dataclass(slots=True)
class StreamEnd:
    """Where a stream ends so far."""

    version: int
    digest: bytes
    recorded_at: int
    shelf: Shelf = field(default_factory=Shelf)
