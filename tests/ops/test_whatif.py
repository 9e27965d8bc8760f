"""What if: the same commands under other rules come to other ends, and under the same rules to the same."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ops.whatif import rules
from ops.whatif.cli import _tell, callers_commands, rules_named
from ops.whatif.outcomes import Outcomes, compared, outcomes
from ops.whatif.world import Rules
from schemas.cart import AddItemsToCart, CartItem, CheckOutCart, CreateCart, order_id_of
from schemas.inventory import ReceiptLine, ReceiveStock
from schemas.meta import MINUTE, SECOND, CommandMeta, Micros, derived_id
from schemas.order import CancelOrder, OrderPlaced
from schemas.values import MAIN
from streams.asked import Asked
from streams.replay import Query, ReplayFailed
from tests.in_memory_shop import START
from tests.replayed import TOPICS, RecordingShop, log_of

Change = Callable[[Rules], Rules]


class Trade:
    """What callers asked, a minute apart."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self._now = START

    def receive(self, quantity: int, *skus: str) -> "Trade":
        lines = tuple(ReceiptLine(sku, quantity) for sku in skus or "A")
        return self._ask("inventory", ReceiveStock(MAIN, "delivery", lines), "merchant")

    def order(
        self, name: str, quantity: int, *skus: str, owner: str = "17851", token: str = "tok_ok"
    ) -> "Trade":
        cart = derived_id(name)
        items = tuple(CartItem(sku, "lamp", quantity, 100, "GBP", 1, True) for sku in skus or "A")
        self._ask("cart", CreateCart(cart, owner, "GBP"), owner)
        self._ask("cart", AddItemsToCart(cart, items), owner)
        self._ask("cart", CheckOutCart(cart, token), owner)
        return self

    def cancel(self, name: str) -> "Trade":
        order = order_id_of(derived_id(name), 1)
        return self._ask("order", CancelOrder(order, "changed my mind"), "17851")

    def _ask(self, aggregate: str, body: Any, who: str) -> "Trade":
        self._now = Micros(self._now + MINUTE)
        id_ = derived_id("caller", str(len(self.asked)))
        meta = CommandMeta(
            id_, body.stream, "", self._now, self._now, None, None, None, id_, id_, "customer", who, ""
        )
        self.asked.append(Asked(aggregate, body.stream.split("/")[1], body, meta))
        return self

    def under(self, change: Change, since: int = 0) -> Outcomes:
        return outcomes(self.asked, Rules(), change(Rules()), since, TOPICS, lambda _: None)


def as_today(today: Rules) -> Rules:
    return today


def ends(found: Outcomes) -> list[str]:
    return [f"{one.status} {one.units}" for one in found.orders.values()]


def test_the_same_rules_come_to_the_same_ends():
    trade = Trade().receive(10).order("a", 6).order("b", 6).order("c", 2, token="tok_declined").cancel("a")
    found = trade.under(as_today)
    assert [(one.status, one.reason) for one in found.orders.values()] == [
        ("cancelled", "changed my mind"),
        ("rejected", "stock"),
        ("rejected", "payment"),
    ]
    assert all(difference == 0 for _, _, _, difference in compared(found, trade.under(as_today)))


def test_a_safety_stock_leaves_the_last_five_unsold():
    trade = Trade().receive(10).order("a", 4).order("b", 4)
    assert ends(trade.under(as_today)) == ["confirmed 4", "confirmed 4"]
    assert ends(trade.under(rules.safety_stock)) == ["confirmed 4", "rejected 4"]


def test_partial_acceptance_sells_what_there_is():
    trade = Trade().receive(10).order("a", 6).order("b", 6).order("c", 1)
    assert ends(trade.under(as_today)) == ["confirmed 6", "rejected 6", "confirmed 1"]
    assert ends(trade.under(rules.partial_acceptance)) == ["confirmed 6", "confirmed 4", "rejected 1"]


def test_what_is_left_of_a_large_order_is_counted_without_a_gap():
    skus = [f"S{n}" for n in range(150)]
    trade = Trade().receive(10, *skus[1:]).order("a", 2, *skus)
    assert ends(trade.under(as_today)) == ["rejected 300"]
    assert ends(trade.under(rules.partial_acceptance)) == ["confirmed 298"]


def test_a_payment_of_three_minutes_outlasts_the_order_whoever_reserves_for_how_long():
    trade = Trade().receive(10).order("a", 6, owner="c-17850").order("b", 4, owner="c-17851")
    for change in (rules.slow_payments, rules.short_reservations_and_slow_payments):
        found = trade.under(change)
        assert [(one.owner, one.status, one.reason) for one in found.orders.values()] == [
            ("c-17850", "rejected", "timeout"),
            ("c-17851", "confirmed", ""),
        ]


def test_other_rules_hold_from_their_day_on():
    trade = Trade().receive(10).order("a", 4).order("b", 4)
    since = trade.asked[4].meta.issued_at
    found = trade.under(rules.safety_stock, since)
    assert ends(found) == ["rejected 4"], "the first order came before, and is not counted"


def test_a_table_and_a_file_tell_the_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    trade = Trade().receive(10).order("a", 6).order("b", 6)
    _tell(trade.under(as_today), trade.under(rules.partial_acceptance), tmp_path / "whatif.parquet")

    told = {line[:38].strip(): line[38:].split() for line in capsys.readouterr().out.splitlines()}
    assert told["orders confirmed"] == ["1", "2", "+1"]
    assert told["orders rejected (stock)"] == ["1", "0", "-1"]
    assert told["units confirmed"] == ["6", "10", "+4"]
    assert told["money confirmed, GBP minor units"] == ["600", "1,000", "+400"]
    rows = pq.read_table(tmp_path / "whatif.parquet").to_pylist()
    assert [(row["today_status"], row["candidate_status"], row["candidate_units"]) for row in rows] == [
        ("confirmed", "confirmed", 6),
        ("rejected", "confirmed", 4),
    ]


def test_only_what_callers_asked_is_decided_anew_and_comes_to_what_it_came_to_then():
    shop = RecordingShop()
    shop.receive("85123A", 6)
    for name in ("one", "two"):
        shop.pass_time(30 * SECOND)
        shop.check_out(name, "anna", {"85123A": 4})
        shop.quiesce()
    commands = callers_commands(
        log_of(shop).replay(Query(tuple(map(TOPICS.commands, ("cart", "order", "inventory")))))
    )

    found = outcomes(commands, Rules(), Rules(), 0, TOPICS, lambda _: None)

    assert names(commands) == ["ReceiveStock", *["CreateCart", "AddItemsToCart", "CheckOutCart"] * 2]
    assert found.orders.keys() == {
        event.body.order_id for event in shop.history("order") if isinstance(event.body, OrderPlaced)
    }
    assert ends(found) == ["confirmed 4", "rejected 4"]


@pytest.mark.parametrize(("since", "until"), [(0, START), (START + MINUTE, None)])
def test_a_period_in_which_nobody_asked_for_anything_is_named(since: int, until: int | None):
    shop = RecordingShop()
    shop.receive("85123A", 6)
    reading = log_of(shop).replay(Query((TOPICS.commands("inventory"),), until=until))
    with pytest.raises(ReplayFailed, match="no caller asked for anything in this period"):
        callers_commands(reading, since)


@pytest.mark.parametrize("name", ["nothing:at_all", "ops.whatif.rules:nothing", "rules", ":"])
def test_rules_that_there_are_not_are_named(name: str):
    with pytest.raises(ValueError, match=f"no rules are called {name}"):
        rules_named(name)


def names(commands: Sequence[Asked]) -> list[str]:
    return [type(asked.body).__name__ for asked in commands]
