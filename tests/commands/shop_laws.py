"""The laws, asked of a shop in memory: as time goes by, and when everything is quiet; and how its processes stumble."""

from collections.abc import Sequence
from random import Random

from schemas.cart import CheckedOutCart, CompletedCart, OpenCart, cart_stream
from schemas.inventory import ActiveClaim, AllocatedClaim, ExpiredClaim
from schemas.meta import SECOND
from schemas.order import (
    ConfirmedOrder,
    OrderConfirmed,
    OrderPlaced,
    PlacedOrder,
    SettledOrder,
    order_stream,
    payment_id_of,
)
from tests.in_memory_shop import Shop

GRACE = 2 * SECOND


def stumble(shop: Shop, chance: Random, frozen: str | None) -> None:
    """One process does one thing, unless its aggregate is frozen."""
    sources = [source for source in shop.sources() if source[1] != frozen]
    queues = [place for place in shop.queues() if place[0] != frozen]
    match chance.choices(("deliver", "decide", "call", "hint", "again", "die"), (45, 40, 10, 5, 4, 1))[0]:
        case "deliver" if sources:
            shop.deliver(chance.choice(sources))
        case "decide" if queues:
            shop.decide(chance.choice(queues))
        case "call" if shop.calls:
            willing, lost, heard = (chance.random() < likely for likely in (0.8, 0.1, 0.8))
            shop.call(chance.randrange(len(shop.calls)), willing=willing, lost=lost, heard=heard)
        case "hint" if shop.provider.notices:
            shop.hint(chance.randrange(len(shop.provider.notices)))
        case "again" if shop.facts:
            shop.rewind(chance.choice(sorted(shop.facts)), chance.randint(1, 5))
        case "die" if shop.calls:
            shop.calls.pop(0)


def check_captures(shop: Shop, orders: Sequence[str]) -> None:
    """Law 5 at any moment."""
    for order_id in orders:
        if isinstance(shop.get(order_stream(order_id)), PlacedOrder | None):
            assert not shop.provider.captured(payment_id_of(order_id)), "law 5: captured, not confirmed"


def check_always(shop: Shop) -> None:
    """Laws 3 and 4 as time goes by."""
    for record in shop.records.values():
        if isinstance(record, PlacedOrder):
            assert record.expires_at + GRACE >= shop.now, "law 3: a placed order outlived its deadline"
        if isinstance(record, ActiveClaim):
            assert record.expires_at + GRACE >= shop.now, "law 4: a reservation outlived its limit"


def check_end(shop: Shop, orders: Sequence[str]) -> None:
    """Laws 3, 4 and 5 when everything is quiet."""
    assert shop.letters == [], "an order refused to hear a saga"
    assert not [r for r in shop.records.values() if isinstance(r, ActiveClaim)], (
        "law 4: a reservation lives on"
    )
    for order_id in orders:
        record = shop.get(order_stream(order_id))
        assert isinstance(record, ConfirmedOrder | SettledOrder), f"law 3: {record}"
        check_money(shop, order_id, record)
        check_claims(shop, order_id, record)
        check_cart(shop, order_id, record)


def check_money(shop: Shop, order_id: str, record: ConfirmedOrder | SettledOrder) -> None:
    payment_id = payment_id_of(order_id)
    events = shop.events_of(order_stream(order_id))
    assert len(shop.provider.moved[payment_id, "capture"]) <= 1, "law 5: charged twice"
    if shop.provider.moved[payment_id, "capture"]:
        assert any(isinstance(event, OrderConfirmed) for event in events), "law 5: captured, never confirmed"
    assert shop.provider.held(payment_id) == 0, "law 5: money is held that nobody will capture"
    amount = next(e.amount for e in events if isinstance(e, OrderPlaced))
    kept = isinstance(record, ConfirmedOrder) or record.ending == "completed"
    assert shop.provider.captured(payment_id) == (amount if kept else 0), f"law 5: {record}"
    check_ledger(shop, payment_id)


def check_ledger(shop: Shop, payment_id: str) -> None:
    """The payment's own ledger says what the provider's says."""
    ledger = shop.get(f"payment/{payment_id}")
    moved = shop.provider.moved
    for verb in ("authorized", "captured", "voided", "refunded"):
        name = {"authorized": "authorization", "captured": "capture", "voided": "void"}.get(verb, "refund")
        assert (getattr(ledger, verb) if ledger else 0) == sum(moved[payment_id, name]), f"{ledger}: {verb}"
    told = [getattr(event, "provider_event_id", None) for event in shop.events_of(f"payment/{payment_id}")]
    heard = [event_id for event_id in told if event_id is not None]
    assert len(heard) == len(set(heard)), "a provider's event was written down twice"


def check_claims(shop: Shop, order_id: str, record: ConfirmedOrder | SettledOrder) -> None:
    claims = [
        claim
        for claim in shop.records.values()
        if isinstance(claim, ActiveClaim | ExpiredClaim | AllocatedClaim) and claim.order_id == order_id
    ]
    if isinstance(record, SettledOrder):
        assert claims == [], "a settled order holds claims"
    else:
        assert all(isinstance(claim, AllocatedClaim) for claim in claims)


def check_cart(shop: Shop, order_id: str, record: ConfirmedOrder | SettledOrder) -> None:
    events = shop.events_of(order_stream(order_id))
    cart = shop.get(cart_stream(events[0].cart_id))
    assert not isinstance(cart, CheckedOutCart), "a cart waits for ever"
    was_confirmed = any(isinstance(event, OrderConfirmed) for event in events)
    assert isinstance(cart, CompletedCart if was_confirmed else OpenCart)
