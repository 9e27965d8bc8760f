"""F16: the provider stumbles, hangs, tells twice, out of order and too early, and impostors tell lies: money moves once."""

from collections.abc import Iterator

import pytest

from ops.faults.floor import Floor
from ops.faults.payment_rows import Till, another_amount_moves_nothing, lies_are_refused, money_moves_once
from ops.faults.shop import Shop
from ops.local_stack import Addresses


@pytest.fixture(scope="module")
def till(stack: Addresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Till]:
    folder = tmp_path_factory.mktemp("till")
    shop = Shop(stack.kafka, folder)
    try:
        floor = Floor(shop, stack, folder)
        with Till(floor).opened() as till:
            floor.start("payments", DAYBOOK_PROVIDER=till.provider)
            yield till
    finally:
        shop.close()


def test_f16_whatever_the_provider_does_money_moves_once_and_the_same_key_is_asked_again(till: Till):
    money_moves_once(till)


def test_f16_what_was_forged_or_stale_was_refused_and_reached_no_payment(till: Till):
    lies_are_refused(till)


def test_f16_a_signed_notice_of_another_amount_is_written_down_once_and_moves_nothing(till: Till):
    another_amount_moves_nothing(till)
