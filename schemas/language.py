"""The five aggregates, and for each the commands, events and state records that it speaks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from schemas import cart, catalog, inventory, order, payment
from schemas.decisions import Decisions
from schemas.letters import DeadLetter
from schemas.meta import CommandMeta, EventMeta, RecordMeta
from schemas.position import WriterPosition

Kind = Literal["commands", "events", "state", "decisions"]
AggregateName = Literal["catalog", "cart", "order", "inventory", "payment"]

Message: TypeAlias = Any
"""A frozen dataclass of this room: a command, an event, a state record, Decisions or a DeadLetter."""


@dataclass(frozen=True)
class Aggregate:
    """The message classes of one aggregate."""

    name: str
    commands: tuple[type, ...]
    events: tuple[type, ...]
    states: tuple[type, ...]


def _classes(union: object) -> tuple[type, ...]:
    return get_args(union) or (union,)  # a union of one is the class itself


AGGREGATES: Mapping[str, Aggregate] = {
    aggregate.name: aggregate
    for aggregate in (
        Aggregate(
            "catalog",
            _classes(catalog.CatalogCommand),
            _classes(catalog.CatalogEvent),
            _classes(catalog.Product),
        ),
        Aggregate("cart", _classes(cart.CartCommand), _classes(cart.CartEvent), _classes(cart.Cart)),
        Aggregate(
            "order", _classes(order.OrderCommand), _classes(order.OrderEvent), _classes(order.OrderState)
        ),
        Aggregate(
            "inventory",
            _classes(inventory.InventoryCommand),
            _classes(inventory.InventoryEvent),
            _classes(inventory.InventoryState),
        ),
        Aggregate(
            "payment",
            _classes(payment.PaymentCommand),
            _classes(payment.PaymentEvent),
            _classes(payment.PaymentState),
        ),
    )
}

META_OF: Mapping[type, type] = {
    **{c: CommandMeta for a in AGGREGATES.values() for c in a.commands},
    **{c: EventMeta for a in AGGREGATES.values() for c in a.events},
    **{c: RecordMeta for a in AGGREGATES.values() for c in a.states},
    Decisions: RecordMeta,
    WriterPosition: RecordMeta,
    DeadLetter: RecordMeta,
}
"""Every message class, and the class of the `meta` that its record begins with."""

STATES = frozenset(c for a in AGGREGATES.values() for c in a.states)
"""State records carry, after `meta`, the version and the hash of their stream."""
