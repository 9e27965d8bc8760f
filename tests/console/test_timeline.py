"""An order's story over all streams: complete, in order, each event with its cause; and a command's fate."""

from dataclasses import replace
from functools import partial
from typing import get_args

import pytest

from ops.console.archive import Archive, LogTooLong
from ops.console.timeline import SHOWN_MAX, Timeline, fate_of, order_timeline, told
from ops.console.words import SENTENCES, money, sentence, spoken
from ops.story import NoStory
from schemas.cart import CartEvent
from schemas.inventory import InventoryEvent
from schemas.meta import derived_id
from schemas.order import OrderEvent, OrderRejected
from schemas.payment import PaymentEvent
from tests.console.trading import CANCELLED, CART, LAMP, ORDER, traded, whole_log
from tests.projections.shop import ended
from tests.replayed import TOPICS, RecordingShop, WrittenLog


@pytest.fixture(scope="module")
def shop() -> RecordingShop:
    return traded()


@pytest.fixture(scope="module")
def log(shop: RecordingShop) -> WrittenLog:
    return whole_log(shop)


@pytest.fixture(scope="module")
def story(log: WrittenLog) -> Timeline:
    return order_timeline(log.replay, TOPICS, ORDER)


def test_the_story_is_all_that_happened_to_the_order_and_nothing_else(story: Timeline, shop: RecordingShop):
    everything = [
        event for aggregate in ("cart", "order", "inventory", "payment") for event in shop.history(aggregate)
    ]
    ours = {
        f"{event.meta.stream}@{event.meta.version}"
        for event in everything
        if event.meta.stream == f"cart/{CART}" or getattr(event.body, "order_id", "") == ORDER
    }
    assert {entry.place for entry in story.entries} == ours
    assert story.kinds == ["cart", "order", "stock", "payment"]


def test_it_is_told_in_order_with_each_cause_before_its_effect(story: Timeline):
    places = [entry.place for entry in story.entries]
    for entry in story.entries:
        assert not entry.cause.place or places.index(entry.cause.place) < places.index(entry.place), entry
    versions: dict[str, int] = {}
    for entry in story.entries:
        assert entry.version == versions.get(entry.stream, 0) + 1 or entry.kind == "stock"
        versions[entry.stream] = entry.version


def test_each_event_says_who_and_because_of_what(story: Timeline):
    entry = {one.type: one for one in story.entries}
    assert (entry["CartCheckedOut"].actor, entry["CartCheckedOut"].cause.told) == (
        "customer 17850",
        "on request",
    )
    assert entry["OrderPlaced"].cause.told == "Cart checked out"
    assert entry["StockReserved"].cause.place == f"order/{ORDER}@1"
    assert entry["OrderShipmentRequested"].actor == "merchant mia"
    assert f"6 of {LAMP} shipped" in [one.told for one in story.entries]


def test_a_cancelled_order_says_why(log: WrittenLog):
    words = [entry.told for entry in order_timeline(log.replay, TOPICS, CANCELLED).entries]
    assert "Order cancelled: changed my mind" in words
    assert words[-1] == "Order settled: nothing is owed any more"


def test_an_order_that_never_was_has_no_story(log: WrittenLog):
    with pytest.raises(NoStory, match="the log has no order"):
        order_timeline(log.replay, TOPICS, derived_id("never"))


def test_a_story_without_end_is_cut_and_says_so(shop: RecordingShop):
    event = shop.history("cart")[0]
    many = [
        replace(event, meta=replace(event.meta, version=n, event_id=str(n), causation_id=str(n - 1)))
        for n in range(1, SHOWN_MAX + 3)
    ]
    found = told(many)
    assert (len(found.entries), found.is_cut) == (SHOWN_MAX, True)


def test_causes_that_go_in_a_circle_end_somewhere(shop: RecordingShop):
    event = shop.history("cart")[0]
    circle = [
        replace(event, meta=replace(event.meta, version=n, event_id=f"{n}", causation_id=f"{n % 3 + 1}"))
        for n in (1, 2, 3)
    ]
    assert [entry.version for entry in told(circle).entries] == [1, 2, 3]


def test_a_commands_fate_is_what_was_asked_decided_and_done(log: WrittenLog, story: Timeline):
    checkout = next(entry.command_id for entry in story.entries if entry.type == "CartCheckedOut")
    fate = fate_of(log.replay, TOPICS, checkout)
    assert (fate.type, fate.decided and fate.decided.outcome) == ("CheckOutCart", "accepted")
    assert [entry.type for entry in fate.timeline.entries] == ["CartCheckedOut"]
    assert not fate_of(log.replay, TOPICS, derived_id("never")).is_known


async def test_a_log_that_is_too_long_is_given_up(log: WrittenLog):
    archive = Archive(lambda: log, dict, patience_s=-1.0)
    with pytest.raises(LogTooLong, match="could not be gone through within"):
        await archive.ask(partial(order_timeline, topics=TOPICS, order_id=ORDER))


def test_every_sentence_names_what_its_event_has():
    kinds = [
        kind for union in (CartEvent, OrderEvent, InventoryEvent, PaymentEvent) for kind in get_args(union)
    ]
    named = {kind.__name__: kind for kind in kinds}
    assert SENTENCES.keys() <= named.keys()
    made = {
        "money": {"amount", "currency"},
        "money_back": {"money"},
        "lines": {"lines"},
        "refused": {"lines"},
    }
    for name, template in SENTENCES.items():
        placeholders = {part.split("}")[0] for part in template.split("{")[1:]}
        needed = {field for one in placeholders for field in made.get(one, {one})}
        assert needed <= set(named[name].__dataclass_fields__), name


def test_words_are_plain():
    assert spoken("StockReservationRefused") == "Stock reservation refused"
    assert money(1530, "GBP") == "15.30 GBP"
    assert money(1530, "JPY") == "1,530 JPY"
    assert sentence(ended(OrderRejected, "order-1", "A", reason="")) == "Order rejected: —"
