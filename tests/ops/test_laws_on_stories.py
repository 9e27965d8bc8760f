"""The reader of the laws agrees with the real deciders and sagas: whatever story they tell, it finds no law broken."""

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from typing import Any

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from commands import order
from ops.audit.law_book import LawBook
from ops.audit.wire import AvscReader
from schemas.codec import Codec
from schemas.meta import NO_HASH, SECOND
from schemas.payment import PaymentRequested, PaymentRequestRepeated
from tests.commands.test_saga_laws import Checkouts
from tests.in_memory_shop import DECIDERS, Shop

CODEC = Codec()
READER = AvscReader()
LAWS_WITHOUT_DECISIONS = ("1", "2", "3", "4", "5", "8")
"""The shop in memory keeps no log: what it decided is not written down, so the sixth law can't be read there."""


class AuditedCheckouts(Checkouts):
    """The same random stories, and at their end the audit."""

    def teardown(self) -> None:
        super().teardown()
        assert broken_laws(self.shop, settled=True) == {}


def broken_laws(shop: Shop, *, settled: bool = False) -> dict[str, str]:
    book = LawBook(READER)
    for topic, partition, value in written(shop):
        book.feed(topic, partition, value)
    verdicts = book.finish(shop.now, list(ledger(shop)), settled=settled)
    return {law: verdicts[law] for law in LAWS_WITHOUT_DECISIONS if verdicts[law] != "holds"}


def written(shop: Shop) -> Iterator[tuple[str, int, bytes]]:
    """The shop's events as a writer would have put them into Kafka, one transaction each."""
    ends: dict[str, bytes] = {}
    for (kind, aggregate, partition), facts in sorted(shop.facts.items()):
        for fact in facts if kind == "events" else ():
            stream: str = fact.meta.stream  # type: ignore[union-attr]  # of events there is nothing else
            meta = replace(fact.meta, previous=ends.get(stream, NO_HASH), batch_id=fact.meta.event_id)  # type: ignore[union-attr]
            value = CODEC.encode(fact.body, vars(meta))  # type: ignore[union-attr]
            ends[stream] = sha256(value).digest()
            yield f"t.events.{aggregate}", partition, value


def ledger(shop: Shop) -> Iterator[dict[str, Any]]:
    """What the shop's provider did, as rows of a provider's own ledger."""
    for event in shop.history("payment"):
        body = event.body
        is_first = isinstance(body, PaymentRequested) and not isinstance(body, PaymentRequestRepeated)
        if is_first and body.key in shop.provider.outcomes:
            verb = type(body).__name__.removeprefix("Payment").removesuffix("Requested").lower()
            outcome, _ = shop.provider.outcomes[body.key]
            yield {
                "verb": verb,
                "key": body.key,
                "payment_id": body.payment_id,
                "amount": body.amount,
                "outcome": outcome,
            }


def test_no_story_of_the_shop_breaks_a_law_in_the_eyes_of_the_reader():
    run_state_machine_as_test(
        AuditedCheckouts, settings=settings(max_examples=60, stateful_step_count=40, deadline=None)
    )


def test_a_checkout_told_to_its_end_holds_money_and_stock_as_the_reader_expects():
    shop = Shop()
    shop.receive("85123A", 6)
    shop.check_out("cart", "anna", {"85123A": 2})
    shop.quiesce()
    shop.pass_time(3600 * SECOND)
    assert broken_laws(shop, settled=True) == {}
    assert sum(row["amount"] for row in ledger(shop) if row["verb"] == "capture") == 200


def test_an_order_that_no_deadline_ends_is_found():
    forgetful = replace(order.DECIDER, deadline=lambda path, record: None)
    shop = Shop(deciders={**DECIDERS, "order": forgetful})
    shop.receive("85123A", 6)
    order_id = shop.check_out("cart", "anna", {"85123A": 2})
    shop.deliver(shop.sources()[0])
    while not shop.history("order"):
        shop.deliver(shop.sources()[0]) if shop.sources() else shop.decide(shop.queues()[0])
    shop.pass_time(63 * SECOND)
    assert broken_laws(shop) == {"3": f"order/{order_id} never ended"}
