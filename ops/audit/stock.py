"""Laws 1, 2 and 4: what is on the shelf, what is promised of it, and how long a promise may stand open."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ops.audit.breaches import Breaches
from ops.audit.wire import Record

RESERVATION_LIMIT_US = 10 * 60 * 1_000_000

ClaimKey: TypeAlias = tuple[str, int]
"""An order's id and the number of its line."""


@dataclass(slots=True)
class _Claim:
    """A promise to one line of an order; when it is released or shipped it is forgotten."""

    quantity: int
    expires_at: int
    state: Literal["active", "expired", "allocated"] = "active"


@dataclass(slots=True)
class _Shelf:
    """One stock item as its movements, added up by us, say it is."""

    sellable: int = 0
    reserved: int = 0
    allocated: int = 0
    shipped: int = 0
    safety_stock: int = 0
    uncovered_by: str = ""  # the command that took from under a promise and has not yet said so
    claims: dict[ClaimKey, _Claim] = field(default_factory=dict)

    @property
    def available(self) -> int:
        return max(0, self.sellable - self.reserved - self.allocated - self.safety_stock)

    @property
    def uncovered(self) -> int:
        return max(0, self.reserved + self.allocated - self.sellable)


_Fold: TypeAlias = Callable[[_Shelf, Record], None]


@dataclass(frozen=True, slots=True)
class _Doubt:
    """Units that were there were refused to an order: right if it asked too late, a breach otherwise."""

    order_id: str
    recorded_at: int
    breach: str


class StockBooks:
    """Adds up every stock stream; memory grows with the items and the live claims, not with the log."""

    def __init__(self, breaches: Breaches, grace_us: int) -> None:
        self._breaches = breaches
        self._grace_us = grace_us
        self._shelves: dict[str, _Shelf] = {}
        self._doubts: list[_Doubt] = []
        self._folds: dict[str, _Fold] = {
            "StockReceived": self._receive,
            "StockPolicyChanged": self._change_policy,
            "StockAdjusted": self._adjust,
            "StockShortfallFound": self._find_shortfall,
            "StockReserved": self._reserve,
            "StockReservationRefused": self._refuse_reservation,
            "StockReservationReleased": self._release,
            "StockReservationExpired": self._expire,
            "StockAllocated": self._allocate,
            "StockAllocationRefused": self._refuse_allocation,
            "StockAllocationReleased": self._release,
            "StockShipped": self._ship,
        }

    def fold(self, name: str, event: Record) -> None:
        stream = event["meta"]["stream"]
        shelf = self._shelves.get(stream)
        if shelf is None:
            shelf = self._shelves[stream] = _Shelf()
        if shelf.uncovered_by and shelf.uncovered_by != event["meta"]["command_id"]:
            self._miss_shortfall(stream, shelf)
        fold = self._folds.get(name)
        if fold is not None:
            fold(shelf, event)
        self._compare(shelf, event)

    def finish(self, now: int, placed_at: Callable[[str], int | None]) -> None:
        """`placed_at` tells when an order was placed, which only its own stream knows."""
        for stream, shelf in self._shelves.items():
            if shelf.uncovered_by:
                self._miss_shortfall(stream, shelf)
            self._check_sums(stream, shelf)
            self._check_ended(stream, shelf, now)
        for doubt in self._doubts:
            placed = placed_at(doubt.order_id)
            if placed is None or doubt.recorded_at < placed + RESERVATION_LIMIT_US:
                self._breaches.add("2", doubt.breach)

    def _check_ended(self, stream: str, shelf: _Shelf, now: int) -> None:
        for (order_id, line), claim in shelf.claims.items():
            if claim.state == "active" and now > claim.expires_at + self._grace_us:
                self._breaches.add(
                    "4", f"{stream}: the reservation of order {order_id} line {line} never ended"
                )

    def _compare(self, shelf: _Shelf, event: Record) -> None:
        """The balances that the event carries must be ours; then go on from them, so that one error is one breach."""
        ours = (shelf.sellable, shelf.reserved, shelf.allocated, shelf.shipped)
        told = (event["sellable"], event["reserved"], event["allocated"], event["shipped"])
        if ours != told:
            self._break(
                "1",
                event,
                f"says sellable, reserved, allocated, shipped {told}; its movements add up to {ours}",
            )
            shelf.sellable, shelf.reserved, shelf.allocated, shelf.shipped = told
        if min(told) < 0:
            self._break("1", event, f"has a negative balance: {told}")

    def _check_sums(self, stream: str, shelf: _Shelf) -> None:
        for state, told in (("active", shelf.reserved), ("allocated", shelf.allocated)):
            claimed = sum(claim.quantity for claim in shelf.claims.values() if claim.state == state)
            if claimed != told:
                self._breaches.add("1", f"{stream}: {told} units are {state}, its claims add up to {claimed}")

    # What moves units.

    def _receive(self, shelf: _Shelf, event: Record) -> None:
        shelf.sellable += event["quantity"]

    def _change_policy(self, shelf: _Shelf, event: Record) -> None:
        shelf.safety_stock = event["safety_stock"]

    def _adjust(self, shelf: _Shelf, event: Record) -> None:
        if event["before"] != shelf.sellable:
            self._break("1", event, f"adjusts {event['before']} units where {shelf.sellable} are")
        shelf.sellable = event["after"]
        if event["after"] < event["before"] and shelf.uncovered:
            shelf.uncovered_by = event["meta"]["command_id"]

    def _find_shortfall(self, shelf: _Shelf, event: Record) -> None:
        shelf.uncovered_by = ""
        if event["uncovered"] != shelf.uncovered:
            self._break(
                "2", event, f"finds {event['uncovered']} promised units uncovered, not {shelf.uncovered}"
            )

    def _miss_shortfall(self, stream: str, shelf: _Shelf) -> None:
        shelf.uncovered_by = ""
        self._breaches.add("2", f"{stream}: an adjustment uncovered promises and does not say so")

    # What promises units, and takes promises back.

    def _reserve(self, shelf: _Shelf, event: Record) -> None:
        self._check_granted(shelf, event)
        if _key(event) in shelf.claims:
            self._break("1", event, f"reserves again what is claimed already for order {event['order_id']}")
        shelf.claims[_key(event)] = _Claim(event["quantity"], event["expires_at"])
        shelf.reserved += event["quantity"]

    def _refuse_reservation(self, shelf: _Shelf, event: Record) -> None:
        """A refusal of what could have been granted is a unit that stays unsold: not exactly S, but fewer."""
        if event["available"] != shelf.available:
            self._break("2", event, f"finds {event['available']} units available where {shelf.available} are")
        if event["quantity"] <= shelf.available:
            meta = event["meta"]
            breach = (
                f"{_place(event)} refuses {event['quantity']} units where {shelf.available} are available"
            )
            self._doubts.append(_Doubt(event["order_id"], meta["recorded_at"], breach))

    def _refuse_allocation(self, shelf: _Shelf, event: Record) -> None:
        """Right for a claim that is gone, and for an expired one whose units are gone."""
        claim = shelf.claims.get(_key(event))
        if claim is None:
            return
        if claim.state == "active" or (claim.state == "expired" and claim.quantity <= shelf.available):
            self._break(
                "2", event, f"refuses to allocate an {claim.state} claim of {claim.quantity} that is covered"
            )

    def _expire(self, shelf: _Shelf, event: Record) -> None:
        claim = self._claim(shelf, event, "active")
        if claim is not None:
            self._check_in_time(claim, event)
            if event["meta"]["recorded_at"] < claim.expires_at:
                self._break("4", event, "expires before its time")
            claim.state = "expired"
            shelf.reserved -= claim.quantity

    def _allocate(self, shelf: _Shelf, event: Record) -> None:
        claim = self._claim(shelf, event, "active", "expired")
        if claim is None:
            return
        if claim.state == "active":
            self._check_in_time(claim, event)
            shelf.reserved -= claim.quantity
        else:
            self._check_granted(shelf, event)
        claim.state = "allocated"
        shelf.allocated += claim.quantity

    def _release(self, shelf: _Shelf, event: Record) -> None:
        claim = self._claim(shelf, event, "active", "expired", "allocated")
        if claim is None:
            return
        if claim.state == "active":
            self._check_in_time(claim, event)
            shelf.reserved -= claim.quantity
        elif claim.state == "allocated":
            shelf.allocated -= claim.quantity
        del shelf.claims[_key(event)]

    def _ship(self, shelf: _Shelf, event: Record) -> None:
        claim = self._claim(shelf, event, "allocated")
        if claim is not None:
            shelf.allocated -= claim.quantity
            shelf.sellable -= claim.quantity
            shelf.shipped += claim.quantity
            del shelf.claims[_key(event)]

    def _claim(self, shelf: _Shelf, event: Record, *states: str) -> _Claim | None:
        claim = shelf.claims.get(_key(event))
        if claim is not None and claim.state in states:
            return claim
        found = "there is none" if claim is None else f"it is {claim.state}"
        self._break(
            "4", event, f"speaks of a claim of order {event['order_id']} that should be {states[0]}: {found}"
        )
        return None

    def _check_granted(self, shelf: _Shelf, event: Record) -> None:
        if event["quantity"] > shelf.available:
            self._break("2", event, f"grants {event['quantity']} units where {shelf.available} are available")

    def _check_in_time(self, claim: _Claim, event: Record) -> None:
        late_us = event["meta"]["recorded_at"] - claim.expires_at
        if late_us > self._grace_us:
            self._break("4", event, f"ends a reservation {late_us / 1_000_000:.1f} s after its limit")

    def _break(self, law: str, event: Record, what: str) -> None:
        self._breaches.add(law, f"{_place(event)} {what}")


def _place(event: Record) -> str:
    return f"{event['meta']['stream']}@{event['meta']['version']}"


def _key(event: Record) -> ClaimKey:
    return event["order_id"], event["line"]
