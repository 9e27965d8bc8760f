"""The log says some things twice, late, or takes them back: no view, no saga and no worker makes anything of it."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from ops.local_stack import Addresses
from schemas.inventory import (
    StockEvent,
    StockItemRegistered,
    StockReceived,
    StockReservationExpired,
    claim_path,
)
from schemas.language import AGGREGATES
from schemas.meta import DAY, NO_HASH, SECOND, EventMeta, Micros, derived_id
from schemas.order import PlaceOrder, payment_id_of
from schemas.values import MAIN, PricedLine
from tests.faults.bench_roles import Floor
from tests.faults.bench_shop import CODEC, SKU, Shop, new_id, now
from tests.sandbox_process import until


@pytest.fixture
def floor(stack: Addresses, shop: Shop, tmp_path: Path) -> Iterator[Floor]:
    floor = Floor(shop, stack, tmp_path)
    try:
        yield floor
    finally:
        floor.clear()


# F20: again.


def place_order(shop: Shop, units: int) -> str:
    """An order of goods that goes as far as it can where nobody takes payments."""
    order = new_id()
    line = PricedLine(1, SKU, "a lantern", units, 255, 1, stocked=True)
    placing = PlaceOrder(order, new_id(), "anna", (line,), units * 255, "GBP", "tok_ok")
    shop.send(placing, derived_id(order), aggregate="order", actor_kind="saga", actor_id="checkout")
    payments = shop.topics.events("payment")
    until(lambda: any(payment_id_of(order).encode() == m.key() for m in shop.records(payments)), 20)
    return order


def produce_again(shop: Shop, messages: list[Any]) -> None:
    producer = Producer({"bootstrap.servers": shop.kafka})
    for one in messages:
        producer.produce(one.topic(), one.value(), one.key(), one.partition(), headers=one.headers())
    assert producer.flush(10) == 0


def said(shop: Shop, kind: str) -> Counter[bytes]:
    """Every value on the topics of a kind, and how often it stands there."""
    topics = [getattr(shop.topics, kind)(aggregate) for aggregate in AGGREGATES]
    return Counter(message.value() for message in shop.records(*topics))


def asked(shop: Shop) -> set[str]:
    """The ids of all commands that anybody ever sent."""
    return {CODEC.decode(value).meta.command_id for value in said(shop, "commands")}


def test_f20_a_replayed_log_changes_no_view_and_no_saga(floor: Floor):
    shop = floor.shop
    shop.start()
    floor.start("sagas")
    projections = floor.start("projections")
    shop.answer(shop.receive_stock(10))
    place_order(shop, units=3)
    floor.await_quiet()
    assert floor.view_errors() == []
    rows, events, commands = floor.rows(), said(shop, "events"), asked(shop)

    names = [shop.topics.events("inventory"), shop.topics.decisions("inventory"), shop.topics.events("order")]
    again = list(shop.records(*names))
    produce_again(shop, again)
    floor.await_quiet()

    assert floor.view_errors() == []
    assert floor.rows() == rows
    assert asked(shop) == commands
    replayed = Counter(message.value() for message in again if ".events." in message.topic())
    assert replayed
    assert said(shop, "events") == events + replayed
    assert list(shop.records(shop.topics.dead_letters)) == []
    assert projections.lives


def test_f20_a_command_that_the_window_has_forgotten_is_past_its_time(shop: Shop):
    shop.start("without_window")
    shop.answer(shop.receive_stock(10))
    until_then = now() + 5 * SECOND
    found = shop.adjust(5, not_after=until_then)
    assert shop.answer(found).outcome == "accepted"
    events = said(shop, "events")
    until(lambda: now() > until_then, 10)

    sent = [m for m in shop.records(shop.topics.commands("inventory")) if found.encode() in m.value()]
    produce_again(shop, sent)
    shop.until(lambda: len(shop.answers[found]) == 2, "the second answer")

    rejection = shop.answers[found][1].rejection
    assert rejection is not None
    assert rejection.type == "CommandExpired"
    assert said(shop, "events") == events


def test_f20_commands_of_long_ago_have_no_effect(shop: Shop):
    shop.start()
    shop.answer(shop.receive_stock(10))
    events = said(shop, "events")
    then = now() - 2 * DAY
    old = [shop.adjust(5, issued_at=then, not_after=then + 300 * SECOND) for _ in range(20)]
    rejections = [shop.answer(command).rejection for command in old]
    assert {one.type for one in rejections if one} == {"CommandExpired"}
    assert all(rejections)
    assert said(shop, "events") == events


# F14: taken back.


class Chronicle:
    """A transactional producer of its own that writes the history of one stock item, and takes some of it back."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._version = 0
        self._producer = Producer(
            {"bootstrap.servers": shop.kafka, "transactional.id": f"{shop.topics.prefix}-chronicle"}
        )
        self._producer.init_transactions(20)

    def write(self, event: StockEvent, *, abort: bool = False) -> None:
        """As the next version of the stream; the version is used again where this one is taken back."""
        value = CODEC.encode(event, vars(self._meta(event)))
        headers: list[tuple[str, bytes]] = [("stream", event.stream.encode())]
        self._producer.begin_transaction()
        self._producer.produce(
            self._shop.topics.events("inventory"),
            value,
            event.sku.encode(),
            self._shop.topics.partition_of(event.sku),
            headers=headers,  # type: ignore[arg-type]  # its types know lists of str only
        )
        assert self._producer.flush(10) == 0
        if abort:
            self._producer.abort_transaction(10)
        else:
            self._producer.commit_transaction(10)
            self._version += 1

    def _meta(self, event: StockEvent) -> EventMeta:
        at, id_ = Micros(now()), new_id()
        return EventMeta(
            id_, event.stream, self._version + 1, at, at, id_, id_, id_, "deadline",
            claim_path(event.sku, event.location, "order", 1), id_, 0, 1, "", NO_HASH,
        )  # fmt: skip


def expired(order: str, sellable: int) -> StockReservationExpired:
    return StockReservationExpired(SKU, MAIN, sellable, 0, 0, 0, order, 1, derived_id(order), 1)


def heard_by_the_sagas(floor: Floor) -> bool:
    topics = [floor.shop.topics.events("inventory")]
    reached = floor.committed("sagas", topics)
    return all(reached[place] >= end for place, end in floor.ends(topics).items())


def test_f14_what_was_aborted_reaches_no_view_and_no_saga(floor: Floor):
    shop = floor.shop
    floor.start("projections")
    floor.start("sagas")
    chronicle = Chronicle(shop)
    chronicle.write(StockItemRegistered(SKU, MAIN, 0, 0, 0, 0))
    chronicle.write(StockReceived(SKU, MAIN, 77, 0, 0, 0, 77, "delivery 1"))

    kept, taken_back = [new_id() for _ in range(45)], [new_id() for _ in range(5)]
    for number, order in enumerate(kept):
        if number % 9 == 0:
            chronicle.write(expired(taken_back[number // 9], sellable=999), abort=True)
        chronicle.write(expired(order, sellable=77))
    chronicle.write(expired(taken_back[0], sellable=999), abort=True)

    until(lambda: heard_by_the_sagas(floor), 20)
    assert floor.view_errors() == []
    told = [CODEC.decode(m.value()) for m in shop.records(shop.topics.commands("order"))]
    assert {command.body.order_id for command in told} == set(kept)
    assert floor.sellable(SKU) == 77
    movements = floor.history(SKU)
    assert {one["order_id"] for one in movements if one["order_id"]} == set(kept)
    assert [one["version"] for one in movements] == list(range(47, 0, -1))
