"""Every movement of stock as the log has it: read with fastavro alone, and added up anew by what each event says."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ops.audit.breaches import HOLDS, Breaches
from ops.audit.wire import Record

_LAW = "balance"


class Balances(NamedTuple):
    sellable: int = 0
    reserved: int = 0
    allocated: int = 0
    shipped: int = 0

    def plus(self, other: "Balances") -> "Balances":
        return Balances(*(ours + theirs for ours, theirs in zip(self, other, strict=True)))

    def minus(self, other: "Balances") -> "Balances":
        return Balances(*(ours - theirs for ours, theirs in zip(self, other, strict=True)))


NOTHING = Balances()


class Movement(NamedTuple):
    """An event of a stock item between the balances that the log carries before and after it; `moved` is what the
    event says has moved, and `cause` why.
    """

    name: str
    event: Record
    before: Balances
    after: Balances
    moved: Balances
    cause: str

    @property
    def change(self) -> Balances:
        return self.after.minus(self.before)

    def shown(self) -> dict[str, Any]:
        """As the ledger's page shows it."""
        event, meta = self.event, self.event["meta"]
        return {
            **{name: meta[name] for name in _OF_META},
            "reason": _reason(self.name, event),
            **{name: event.get(name) or "" for name in ("note", "document", "order_id", "corrects")},
            "type": self.name,
            "before": self.before._asdict(),
            "after": self.after._asdict(),
            "quantity": self._quantity,
            "line": event.get("line", 0),
        }

    @property
    def _quantity(self) -> int:
        quantity: int = self.event.get("quantity", self.moved.sellable)
        return quantity


_OF_META = (
    "version",
    "occurred_at",
    "recorded_at",
    "actor_kind",
    "actor_id",
    "command_id",
    "correlation_id",
    "causation_id",
    "event_id",
    "traceparent",
)


def moved(name: str, event: Record) -> tuple[Balances, str]:
    """What an event says has moved, and why; raises KeyError for an event that nobody knows."""
    match name:
        case "StockReceived":
            return Balances(sellable=event["quantity"]), "received"
        case "StockAdjusted":
            return Balances(sellable=event["after"] - event["before"]), f"adjusted: {_reason(name, event)}"
        case "StockReserved":
            return Balances(reserved=event["quantity"]), "reserved"
        case "StockReservationReleased":
            return Balances(reserved=-event["quantity"]), "reservation released"
        case "StockReservationExpired":
            return Balances(reserved=-event["quantity"]), "reservation expired"
        case "StockAllocated":
            return Balances(reserved=-event["from_reserved"], allocated=event["quantity"]), "allocated"
        case "StockAllocationReleased":
            return Balances(allocated=-event["quantity"]), "allocation released"
        case "StockShipped":
            units = event["quantity"]
            return Balances(sellable=-units, allocated=-units, shipped=units), "shipped"
        case _:
            return NOTHING, _NOTICES[name]


def _reason(name: str, event: Record) -> str:
    """An adjustment of the first release has none, which the vocabulary calls `unknown`."""
    reason: str = event.get("reason", "unknown" if name == "StockAdjusted" else "")
    return reason


_NOTICES: Mapping[str, str] = dict.fromkeys(
    (
        "StockItemRegistered",
        "StockPolicyChanged",
        "StockShortfallFound",
        "StockReservationRefused",
        "StockAllocationRefused",
        "StockShipmentRefused",
        "StockDepleted",
        "StockReplenished",
        "LowStockReached",
    ),
    "",
)
"""Events that move nothing: they have no cause."""


class Movements:
    """Follows each stock stream from its first event on; what does not add up is noted, and gone on from."""

    def __init__(self) -> None:
        self._breaches = Breaches()
        self._stood: dict[str, tuple[int, Balances]] = {}

    def follow(self, name: str, event: Record) -> Movement | None:
        """None for an event that is not one of a stock item."""
        meta = event["meta"]
        try:
            units, cause = moved(name, event)
        except KeyError:
            self.note(f"{meta['stream']}@{meta['version']} is a {name}: that is no event of a stock item")
            return None
        version, before = self._stood.get(meta["stream"], (0, NOTHING))
        after = Balances(event["sellable"], event["reserved"], event["allocated"], event["shipped"])
        self._stood[meta["stream"]] = meta["version"], after
        if meta["version"] != version + 1:
            self.note(f"{meta['stream']}@{meta['version']} follows {version}: the log skips or repeats")
        elif before.plus(units) != after:
            self.note(
                f"{meta['stream']}@{meta['version']} says {tuple(after)}; {tuple(before)} and what moved make"
                f" {tuple(before.plus(units))} (sellable, reserved, allocated, shipped)"
            )
        return Movement(name, event, before, after, units, cause)

    def note(self, breach: str) -> None:
        self._breaches.add(_LAW, breach)

    @property
    def breaches(self) -> str:
        """What does not add up, the first few in words; empty where all does."""
        verdict = self._breaches.verdicts([_LAW])[_LAW]
        return "" if verdict == HOLDS else verdict


def place_of(stream: str) -> tuple[str, str]:
    """Sku and location of `stock/{sku}/{location}`."""
    sku, _, location = stream.removeprefix("stock/").rpartition("/")
    return sku, location
