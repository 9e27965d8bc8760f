"""The three sagas in one: every fact is shown to each, and what an order refuses to hear is not lost."""

from schemas.decisions import Decided
from schemas.order import (
    PlaceOrder,
    RecordAllocation,
    RecordCapture,
    RecordCartAnswer,
    RecordMoneyReturn,
    RecordPaymentAnswer,
    RecordRelease,
    RecordShipment,
    RecordStockAnswer,
)
from schemas.topics import Topics
from streams import cancellation, checkout, shipment
from streams.asked import Asked, Fact, SagaCommandRejected

TOLD = frozenset(
    told.__name__
    for told in (
        PlaceOrder,
        RecordStockAnswer,
        RecordPaymentAnswer,
        RecordAllocation,
        RecordCapture,
        RecordCartAnswer,
        RecordShipment,
        RecordRelease,
        RecordMoneyReturn,
    )
)
"""What only sagas say, and only to an order."""


def react(fact: Fact, topics: Topics) -> list[Asked | SagaCommandRejected]:
    """The commands that follow from a fact, to be sent before it is acknowledged; and dead letters."""
    asked = [
        *checkout.react(fact, topics),
        *cancellation.react(fact, topics),
        *shipment.react(fact, topics),
    ]
    return [*asked, *_unheard(fact)]


def _unheard(fact: Fact) -> list[SagaCommandRejected]:
    """The order's own answers are not reported back; a rejected one is for a person to see."""
    if isinstance(fact, Decided) and fact.rejection is not None and fact.type in TOLD:
        return [SagaCommandRejected(fact.stream, fact.command_id, fact.type, fact.rejection)]
    return []
