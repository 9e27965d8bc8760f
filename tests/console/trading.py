"""A shop that has traded: its log with events, commands and decisions, and what the pages are asked for."""

from collections.abc import Iterator
from dataclasses import replace

from projections.view import Batch, Recorded
from schemas.cart import order_id_of
from schemas.catalog import ProductPublished
from schemas.decisions import Decided, Decisions
from schemas.inventory import AdjustStock
from schemas.meta import HOUR, MINUTE, NO_HASH, EventMeta, RecordMeta, derived_id
from schemas.order import CancelOrder, ShipOrder
from schemas.values import MAIN
from tests.in_memory_shop import START
from tests.replayed import CODEC, TOPICS, RecordingShop, WrittenLog, log_of

LAMP, VASE = "85123A", "22423"
ANNA = "17850"
CART = derived_id("first")
ORDER = order_id_of(CART, 1)
CANCELLED = order_id_of(derived_id("third"), 1)


def traded() -> RecordingShop:
    """A week of a small shop. Anna's first order is shipped, another is refused, a third cancelled."""
    shop = RecordingShop()
    shop.receive(LAMP, 120)
    shop.receive(VASE, 4)
    shop.pass_time(HOUR)
    _order(shop, "first", ANNA, {LAMP: 6, VASE: 2})
    shop.act("order", ORDER, ShipOrder(ORDER), "merchant", "mia")
    shop.quiesce()
    _order(shop, "second", "13047", {VASE: 40})
    for number in range(24):
        _order(shop, f"more {number}", ANNA, {LAMP: 1 + number % 5})
    _order(shop, "third", ANNA, {LAMP: 12})
    shop.act("order", CANCELLED, CancelOrder(CANCELLED, "changed my mind"), "customer", ANNA)
    shop.quiesce()
    adjusted = AdjustStock(LAMP, MAIN, -7, "damaged", "a pallet fell <over>", None)
    shop.act("inventory", LAMP, adjusted, "merchant", "mia")
    shop.receive(LAMP, 60)
    return shop


def _order(shop: RecordingShop, name: str, owner: str, items: dict[str, int]) -> None:
    shop.check_out(name, owner, items)
    shop.quiesce()
    shop.pass_time(2 * HOUR + 17 * MINUTE)


def whole_log(shop: RecordingShop) -> WrittenLog:
    """With the decisions, each in a record of its own."""
    log = log_of(shop)
    asked = {meta.command_id: meta for _, _, _, meta in shop.asked}
    for (kind, aggregate, number), facts in sorted(shop.facts.items()):
        for decided in facts:
            if kind == "decisions" and isinstance(decided, Decided):
                meta = RecordMeta(f"{aggregate}[{number}]", decided.recorded_at, "batch")
                sender = asked.get(decided.command_id)
                who = (
                    f"{sender.actor_kind}/{sender.actor_id}" if sender and sender.actor_kind != "saga" else ""
                )
                body = Decisions(b"", (replace(decided, sender=who),))
                key = decided.stream.split("/")[1]
                log.write(TOPICS.decisions(aggregate), key, CODEC.encode(body, vars(meta)))
    return log


def published(log: WrittenLog, sku: str, name: str) -> WrittenLog:
    """The product is published first."""
    body = ProductPublished(sku, name, "", ("lights",), "", 255, "GBP", stocked=True)
    cause = derived_id("published", sku)
    meta = EventMeta(
        cause, body.stream, 1, START, START, cause, cause, cause, "merchant", "mia", cause, 0, 1, "", NO_HASH
    )
    log.write(TOPICS.events("catalog"), sku, CODEC.encode(body, vars(meta)))
    return log


def batches(log: WrittenLog, topics: list[str]) -> Iterator[Batch]:
    """Each partition of these topics as one batch, as a source would hand it to a store."""
    for (topic, number), extent in log.extents(topics).items():
        ours = [one for one in log.records if one[:2] == (topic, number)]
        records = [Recorded(*one[:4], CODEC.decode(one.value)) for one in ours]
        if records:
            yield Batch(topic, number, 0, extent.high, records)
