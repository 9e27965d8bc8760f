"""Laws 1, 2 and 4: what is on the shelf, what is promised of it, and how long a promise may stand open."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ops.audit.desk import Deadlines, Desk, Matters
from ops.audit.wire import Record

RESERVATION_LIMIT_US = 10 * 60 * 1_000_000


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
    claimed: int = 0  # what the active claims add up to, whatever balances are told
    promised: int = 0  # the same of the allocated ones

    @property
    def available(self) -> int:
        return max(0, self.sellable - self.reserved - self.allocated - self.safety_stock)

    @property
    def uncovered(self) -> int:
        return max(0, self.reserved + self.allocated - self.sellable)


_Fold: TypeAlias = Callable[[_Shelf, Record], None]


class StockBooks:
    """Adds up every stock stream; what is kept grows with the items and the live claims, not with the log."""

    def __init__(self, desk: Desk, deadlines: Deadlines) -> None:
        self._breaches = desk.breaches
        self._deadlines = deadlines
        self._shelves = desk.books.table("shelves", _Shelf)
        self._claims = desk.books.table("claims", _Claim)
        """By stock stream, order and line."""
        self._doubts = Matters(desk, "doubts")
        """Units that were there were refused to an order: right if it asked too late, a breach otherwise."""
        self._uncovered = Matters(desk, "uncovered")
        """Shelves that have not yet said that an adjustment took from under a promise."""
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

    def judge(self, cut: int, placed_at: Callable[[str], int | None]) -> None:
        """What was opened before this cut; `placed_at` tells when an order was placed, as its own stream knows."""
        for stream, _ in self._uncovered.overdue(cut):
            shelf = self._shelves.get(stream)
            if shelf is not None and shelf.uncovered_by:
                self._miss_shortfall(stream, shelf)
        for _, (order_id, meta, breach) in self._doubts.overdue(cut):
            placed = placed_at(order_id)
            if placed is None or meta["recorded_at"] < placed + RESERVATION_LIMIT_US:
                self._breaches.add("2", breach, meta)

    def miss(self, key: str) -> None:
        """A reservation was not ended although its time was up."""
        stream, order_id, line = key.rsplit(" ", 2)
        what = f"{stream}: the reservation of order {order_id} line {line} never ended"
        self._breaches.add("4", what, {"stream": stream})

    def check_sums(self) -> None:
        """Every shelf's balances against its claims; what each event says was compared as it came."""
        for stream in self._shelves:
            shelf = self._shelves.get(stream) or _Shelf()
            for state, told, sum_ in (
                ("active", shelf.reserved, shelf.claimed),
                ("allocated", shelf.allocated, shelf.promised),
            ):
                if sum_ != told:
                    what = f"{stream}: {told} units are {state}, its claims add up to {sum_}"
                    self._breaches.add("1", what)

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
            self._uncovered.open(event["meta"]["stream"])

    def _find_shortfall(self, shelf: _Shelf, event: Record) -> None:
        shelf.uncovered_by = ""
        if event["uncovered"] != shelf.uncovered:
            self._break(
                "2", event, f"finds {event['uncovered']} promised units uncovered, not {shelf.uncovered}"
            )

    def _miss_shortfall(self, stream: str, shelf: _Shelf) -> None:
        shelf.uncovered_by = ""
        self._breaches.add(
            "2", f"{stream}: an adjustment uncovered promises and does not say so", {"stream": stream}
        )

    # What promises units, and takes promises back.

    def _reserve(self, shelf: _Shelf, event: Record) -> None:
        self._check_granted(shelf, event)
        if (claimed := self._claims.get(_key(event))) is not None:
            self._break("1", event, f"reserves again what is claimed already for order {event['order_id']}")
            self._leave(shelf, event, claimed)
        self._claims[_key(event)] = _Claim(event["quantity"], event["expires_at"])
        self._deadlines.expect("claim", _key(event), event["expires_at"])
        shelf.reserved += event["quantity"]
        shelf.claimed += event["quantity"]

    def _refuse_reservation(self, shelf: _Shelf, event: Record) -> None:
        """A refusal of what could have been granted is a unit that stays unsold: not exactly S, but fewer."""
        if event["available"] != shelf.available:
            self._break("2", event, f"finds {event['available']} units available where {shelf.available} are")
        if event["quantity"] <= shelf.available:
            meta = event["meta"]
            breach = (
                f"{_place(event)} refuses {event['quantity']} units where {shelf.available} are available"
            )
            self._doubts.open(f"{_place(event)} {event['line']}", (event["order_id"], meta, breach))

    def _refuse_allocation(self, shelf: _Shelf, event: Record) -> None:
        """Right for a claim that is gone, and for an expired one whose units are gone."""
        claim = self._claims.get(_key(event))
        if claim is None:
            return
        if claim.state == "active" or (claim.state == "expired" and claim.quantity <= shelf.available):
            self._break(
                "2", event, f"refuses to allocate an {claim.state} claim of {claim.quantity} that is covered"
            )

    def _expire(self, shelf: _Shelf, event: Record) -> None:
        claim = self._claim(event, "active")
        if claim is not None:
            self._check_in_time(claim, event)
            if event["meta"]["recorded_at"] < claim.expires_at:
                self._break("4", event, "expires before its time")
            shelf.reserved -= claim.quantity
            self._leave(shelf, event, claim)
            claim.state = "expired"

    def _allocate(self, shelf: _Shelf, event: Record) -> None:
        claim = self._claim(event, "active", "expired")
        if claim is None:
            return
        if claim.state == "active":
            self._check_in_time(claim, event)
            shelf.reserved -= claim.quantity
        else:
            self._check_granted(shelf, event)
        self._leave(shelf, event, claim)
        claim.state = "allocated"
        shelf.allocated += claim.quantity
        shelf.promised += claim.quantity

    def _release(self, shelf: _Shelf, event: Record) -> None:
        claim = self._claim(event, "active", "expired", "allocated")
        if claim is None:
            return
        if claim.state == "active":
            self._check_in_time(claim, event)
            shelf.reserved -= claim.quantity
        elif claim.state == "allocated":
            shelf.allocated -= claim.quantity
        self._leave(shelf, event, claim)
        self._claims.pop(_key(event), None)

    def _ship(self, shelf: _Shelf, event: Record) -> None:
        claim = self._claim(event, "allocated")
        if claim is not None:
            shelf.allocated -= claim.quantity
            shelf.sellable -= claim.quantity
            shelf.shipped += claim.quantity
            self._leave(shelf, event, claim)
            self._claims.pop(_key(event), None)

    def _leave(self, shelf: _Shelf, event: Record, claim: _Claim) -> None:
        """The claim is not any more in the state in which it is."""
        if claim.state == "active":
            shelf.claimed -= claim.quantity
            self._deadlines.met("claim", _key(event), claim.expires_at)
        elif claim.state == "allocated":
            shelf.promised -= claim.quantity

    def _claim(self, event: Record, *states: str) -> _Claim | None:
        claim = self._claims.get(_key(event))
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
        late_us = self._deadlines.late_us(claim.expires_at, event["meta"]["recorded_at"])
        if late_us:
            self._break("4", event, f"ends a reservation {late_us / 1_000_000:.1f} s after its limit")

    def _break(self, law: str, event: Record, what: str) -> None:
        self._breaches.add(law, f"{_place(event)} {what}", event["meta"])


def _place(event: Record) -> str:
    return f"{event['meta']['stream']}@{event['meta']['version']}"


def _key(event: Record) -> str:
    return f"{event['meta']['stream']} {event['order_id']} {event['line']}"
