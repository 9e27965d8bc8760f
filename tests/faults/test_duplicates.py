"""The log says some things twice, late, or takes them back: no view, no saga and no worker makes anything of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.faults.floor import Floor
from ops.faults.log_rows import a_tenth_taken_back, said, topics_replayed
from ops.faults.shop import Shop, now
from ops.faults.verdict import until
from ops.faults.worker_rows import commands_of_long_ago, produce_again
from ops.local_stack import Addresses
from schemas.meta import SECOND


@pytest.fixture
def floor(stack: Addresses, shop: Shop, tmp_path: Path) -> Iterator[Floor]:
    floor = Floor(shop, stack, tmp_path)
    try:
        yield floor
    finally:
        floor.clear()


def test_f20_a_replayed_log_changes_no_view_and_no_saga(floor: Floor):
    topics_replayed(floor)


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
    commands_of_long_ago(shop)


def test_f14_what_was_aborted_reaches_no_view_and_no_saga(floor: Floor):
    a_tenth_taken_back(floor)
