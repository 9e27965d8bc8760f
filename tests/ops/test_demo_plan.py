"""The plan of the demo: each line of the input has one place, and the prices, stock and orders follow the rules."""

from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from ops.demo.invoices import Line, is_goods, read_lines
from ops.demo.plan import Adjustment, Fate, Order, TradePlan, plan_trade
from ops.demo.words import Reason, category_of, reason_of

WINTER_FILE = Path(__file__).parents[2] / "ops/demo/data/online_retail_winter.parquet"
FIRST_DAY = date(2010, 12, 1)
NOON = datetime(2010, 12, 1, 12, 0, tzinfo=UTC)


def line(
    invoice_no: str = "536365",
    sku: str = "85123A",
    quantity: int = 1,
    *,
    price_minor: int = 255,
    description: str = "WHITE LANTERN",
    occurred_at: datetime = NOON,
    customer_id: int | None = 17850,
) -> Line:
    return Line(invoice_no, sku, description, quantity, price_minor, occurred_at, customer_id)


def plan_of(*lines: Line, scarcity: float = 0.0) -> TradePlan:
    return plan_trade(lines, scarcity)


@pytest.fixture(scope="module")
def winter_lines() -> list[Line]:
    return read_lines(WINTER_FILE, FIRST_DAY, date(2011, 2, 28))


@pytest.fixture(scope="module")
def winter(winter_lines: list[Line]) -> TradePlan:
    return plan_trade(winter_lines, 0.01)


# ── the retailer's own days ───────────────────────────────────────────────────────────────────────────────


def test_all_lines_of_the_first_day_have_one_place_in_the_plan():
    plan = plan_trade(read_lines(WINTER_FILE, FIRST_DAY, FIRST_DAY), 0.01)
    assert (plan.lines, plan.invoices, len(plan.products)) == (3_108, 143, 1_351)
    assert plan.accounted_lines == 3_108


def test_all_lines_of_the_winter_have_one_place_in_the_plan(winter: TradePlan):
    assert (winter.lines, winter.invoices, len(winter.products)) == (105_335, 4_894, 3_159)
    assert winter.accounted_lines == 105_335


def test_the_winter_is_3745_orders_of_27_and_a_half_lines(winter: TradePlan):
    assert len(winter.orders) == 3_745
    assert sum(order.source_lines for order in winter.orders) / 3_745 == pytest.approx(27.5, abs=0.05)


def test_the_winters_adjustments_are_its_zero_price_and_negative_lines(winter: TradePlan):
    assert len(winter.adjustments) + winter.untraded[Fate.ADJUSTMENT_NOT_STOCKED] == 214 + 326
    assert sum(adjustment.delta < 0 for adjustment in winter.adjustments) == 214


def test_a_plan_of_the_winter_asks_nothing_that_the_api_refuses(winter: TradePlan):
    assert winter.untradable == ()
    assert all(1 <= product.price_minor <= 1_000_000 for product in winter.products)
    assert all(1 <= receipt.quantity <= 1_000_000 for receipt in winter.receipts)
    assert all(0 < abs(adjustment.delta) <= 1_000_000 for adjustment in winter.adjustments)
    assert all(0 < len(order.lines) <= 2_000 for order in winter.orders)
    assert all(1 <= each.quantity <= 1_000_000 for order in winter.orders for each in order.lines)
    assert all(product.description and product.category for product in winter.products)


def test_each_key_of_the_winter_is_used_once(winter: TradePlan):
    assert len({order.invoice_no for order in winter.orders}) == len(winter.orders)
    assert len({adjustment.key for adjustment in winter.adjustments}) == len(winter.adjustments)
    assert len({(receipt.sku, receipt.document) for receipt in winter.receipts}) == len(winter.receipts)


def test_stock_codes_that_differ_only_in_case_are_different_products(winter: TradePlan):
    skus = {product.sku for product in winter.products}
    assert {"M", "m"} <= skus
    assert len({sku.lower() for sku in skus}) < len(skus)


def test_every_reason_is_among_the_winters_adjustments(winter: TradePlan):
    reasons = Counter(adjustment.reason for adjustment in winter.adjustments)
    assert set(reasons) == {
        "damaged", "shrinkage", "found", "count_correction", "channel_transfer", "reversal", "unknown",
    }  # fmt: skip
    silent = ("", "?")
    assert all(
        a.note in silent or a.note.isupper() or a.note.endswith("No")
        for a in winter.adjustments
        if a.reason == "unknown"
    )


def test_most_of_the_winters_products_have_a_category_and_none_is_the_shop(winter: TradePlan):
    categories = Counter(product.category for product in winter.products)
    assert categories["other"] < len(winter.products) / 4
    assert max(categories.values()) < len(winter.products) / 4


# ── reading ───────────────────────────────────────────────────────────────────────────────────────────────


def test_only_the_asked_days_are_read_both_included():
    lines = read_lines(WINTER_FILE, date(2010, 12, 2), date(2010, 12, 3))
    assert {each.occurred_at.date() for each in lines} == {date(2010, 12, 2), date(2010, 12, 3)}


def test_a_line_is_read_in_pence_and_utc():
    first = read_lines(WINTER_FILE, FIRST_DAY, FIRST_DAY)[0]
    assert first == Line(
        "536365", "85123A", "WHITE HANGING HEART T-LIGHT HOLDER", 6, 255,
        datetime(2010, 12, 1, 8, 26, tzinfo=UTC), 17850,
    )  # fmt: skip


def test_days_without_trade_make_an_empty_plan():
    plan = plan_trade(read_lines(WINTER_FILE, date(2010, 12, 25), date(2010, 12, 25)), 0.01)
    assert (plan.lines, plan.products, plan.receipts, plan.trade) == (0, (), (), ())


# ── products ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("sku", "goods"),
    [("85123A", True), ("DCGS0003", True), ("DCGSSBOY", True), ("POST", False), ("M", False), ("C2", False),
     ("gift_0001_20", False), ("BANK CHARGES", False), ("1234", False), ("dcgs0003", False), ("¹2345", False)],
)  # fmt: skip
def test_goods_begin_with_five_digits_or_dcgs(sku: str, goods: bool):
    assert is_goods(sku) is goods


def test_the_commonest_price_is_published_and_the_others_are_repriced():
    plan = plan_of(line(price_minor=255), line("2", price_minor=255), line("3", price_minor=295))
    assert plan.products[0].price_minor == 255
    assert plan.repriced_lines == 1


def test_of_two_equally_common_prices_the_lower_is_published():
    assert plan_of(line(price_minor=295), line("2", price_minor=255)).products[0].price_minor == 255


def test_a_code_that_was_never_sold_is_published_at_a_penny_and_is_in_no_order():
    plan = plan_of(line(quantity=-3, price_minor=0), line("C1", quantity=-1))
    assert (plan.products[0].price_minor, plan.products[0].sellable) == (1, False)
    assert plan.orders == ()


def test_a_price_dearer_than_the_api_takes_is_lowered_and_said_so():
    plan = plan_of(line(sku="AMAZONFEE", price_minor=1_354_133))
    assert plan.products[0].price_minor == 1_000_000
    assert plan.repriced_lines == 1
    assert plan.remarks == ("AMAZONFEE is published at £10,000.00, the dearest price that the API takes",)


def test_a_product_is_called_what_it_is_most_often_called_where_it_is_sold():
    reasons = [line(str(n), quantity=-1, price_minor=0, description="damages") for n in range(3)]
    assert plan_of(*reasons, line(description="LANTERN")).products[0].description == "LANTERN"


def test_a_product_without_any_name_is_called_by_its_code():
    assert plan_of(line(description="")).products[0].description == "85123A"


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("WHITE METAL LANTERN", "candles-and-lights"),
        ("JUMBO BAG RED RETROSPOT", "bags"),
        ("ALARM CLOCK BAKELIKE", "home"),
        ("?", "other"),
    ],
)
def test_a_category_is_that_of_the_last_word_that_names_one(name: str, category: str):
    assert category_of(name) == category


def test_what_is_no_goods_is_a_service_whatever_it_is_called():
    assert plan_of(line(sku="POST", description="POSTAGE BOX")).products[0].category == "services"


# ── stock ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_sold_and_written_off_is_received_less_the_scarcity_rounded_up():
    lines = (line(quantity=250), line("2", quantity=-50, price_minor=0))
    assert [receipt.quantity for receipt in plan_of(*lines, scarcity=0.01).receipts] == [297]
    assert [receipt.quantity for receipt in plan_of(*lines, scarcity=0.005).receipts] == [299]


def test_what_was_found_is_not_received_again():
    plan = plan_of(line(quantity=5), line("2", quantity=3, price_minor=0, description="found"))
    assert [receipt.quantity for receipt in plan.receipts] == [5]
    assert [adjustment.delta for adjustment in plan.adjustments] == [3]


def test_nothing_is_received_of_what_has_no_stock_or_where_all_is_scarce():
    assert plan_of(line(sku="POST")).receipts == ()
    assert plan_of(line(), scarcity=1.0).receipts == ()


def test_a_receipt_larger_than_the_api_takes_comes_in_parts():
    plan = plan_of(line(quantity=900_000), line("2", quantity=900_000))
    assert [receipt.quantity for receipt in plan.receipts] == [1_000_000, 800_000]
    assert len({receipt.document for receipt in plan.receipts}) == 2


@pytest.mark.parametrize("scarcity", [-0.01, 1.01])
def test_a_scarcity_that_is_no_share_is_refused(scarcity: float):
    with pytest.raises(ValueError, match="between 0 and 1"):
        plan_of(line(), scarcity=scarcity)


@pytest.mark.parametrize(
    ("note", "reason"),
    [("damages", "damaged"), ("thrown away", "damaged"), ("mouldy, thrown away.", "damaged"), ("faulty", "damaged"),
     ("samples/damages", "damaged"), ("incorrectly made-thrown away.", "damaged"), ("Dagamed", "damaged"),
     ("Unsaleable, destroyed.", "damaged"), ("broken", "damaged"), ("wet rusty", "damaged"), ("crushed boxes", "damaged"),
     ("Found", "found"), ("found box", "found"), ("had been put aside", "found"),
     ("check", "count_correction"), ("counted", "count_correction"), ("label mix up", "count_correction"),
     ("wrong barcode", "count_correction"), ("wrongly coded 20713", "count_correction"), ("sold as 22467", "count_correction"),
     ("amazon", "channel_transfer"), ("amazon sales", "channel_transfer"), ("Dotcom", "channel_transfer"),
     ("Dotcom sales", "channel_transfer"), ("ebay", "channel_transfer"), ("FBA", "channel_transfer"),
     ("reverse 21/5/10 adjustment", "reversal"), ("stock creditted wrongly", "reversal"),
     ("Given away", "shrinkage"), ("lost in space", "shrinkage"), ("missing?", "shrinkage"), ("can't find", "shrinkage"),
     ("?", "unknown"), ("", "unknown"), ("phil said so", "unknown")],
)  # fmt: skip
def test_the_retailers_words_give_the_reason(note: str, reason: Reason):
    assert reason_of(note) == reason


def test_a_products_own_name_is_no_reason_for_an_adjustment():
    sold = line(description="GINGHAM CHECK BAG")
    plan = plan_of(sold, line("2", quantity=-1, price_minor=0, description="GINGHAM CHECK BAG"))
    assert plan.adjustments[0].reason == "unknown"


def test_an_adjustment_keeps_the_retailers_words_sign_and_time():
    given = line("536589", "21777", quantity=-10, price_minor=0, description="thrown away")
    assert plan_of(given).adjustments == (
        Adjustment("536589-0", "536589", "21777", -10, "damaged", "thrown away", NOON),
    )


def test_an_adjustment_of_what_has_no_stock_is_counted_and_not_sent():
    plan = plan_of(line(sku="POST", quantity=1000, price_minor=0))
    assert plan.adjustments == ()
    assert plan.untraded[Fate.ADJUSTMENT_NOT_STOCKED] == 1


# ── orders ────────────────────────────────────────────────────────────────────────────────────────────────


def test_lines_of_one_sku_are_one_line_of_the_order_and_remembered():
    plan = plan_of(line(quantity=2), line(sku="71053"), line(quantity=3, price_minor=295))
    assert [(each.sku, each.quantity, each.source_lines) for each in plan.orders[0].lines] == [
        ("85123A", 5, 2),
        ("71053", 1, 1),
    ]
    assert plan.orders[0].source_lines == 3
    assert plan.orders[0].units == 6


def test_an_invoice_with_both_gives_an_order_and_adjustments():
    plan = plan_of(line(), line(sku="71053", price_minor=0))
    assert [type(piece) for piece in plan.trade] == [Order, Adjustment]


def test_cancellations_and_bad_debts_are_named_and_not_traded():
    plan = plan_of(line("C536379", quantity=-1), line("A563185", "B"))
    assert plan.trade == ()
    assert plan.untraded[Fate.CANCELLATION_NOT_TRADED] == 1
    assert plan.untraded[Fate.BAD_DEBT_NOT_TRADED] == 1


def test_each_order_without_a_customer_is_its_own_guest():
    plan = plan_of(line("1", customer_id=None), line("2", customer_id=None), line("3", customer_id=17850))
    assert [order.customer for order in plan.orders] == ["guest-1", "guest-2", "c-17850"]


def test_customers_whose_number_is_divisible_by_97_have_a_declined_card():
    plan = plan_of(
        line("1", customer_id=97 * 130), line("2", customer_id=97 * 130 + 1), line("3", customer_id=None)
    )
    assert [order.token for order in plan.orders] == ["tok_declined", "tok_ok", "tok_ok"]


def test_trade_is_in_time_order_whatever_the_order_of_the_lines():
    later = datetime(2010, 12, 1, 13, 0, tzinfo=UTC)
    plan = plan_of(
        line("2", occurred_at=later), line("3", quantity=-1, price_minor=0), line("1", occurred_at=later)
    )
    assert [piece.invoice_no for piece in plan.trade] == ["3", "1", "2"]


def test_stock_comes_in_before_the_first_day_opens():
    plan = plan_of(line())
    assert plan.receipts[0].occurred_at == plan.opens_at == datetime(2010, 12, 1, tzinfo=UTC)


def test_an_order_too_large_to_be_true_is_named_and_not_sent():
    plan = plan_of(
        line("1", quantity=1_000_000), line("1", quantity=1), *(line("2", f"{n:05}") for n in range(2_001))
    )
    assert plan.orders == ()
    assert [each.why for each in plan.untradable] == ["1,000,001 units of 85123A", "2,001 SKUs in one cart"]
    assert plan.untraded[Fate.NOT_TRADABLE] == 2_003
    assert plan.receipts == ()


@pytest.mark.parametrize("quantity", [0, -1_000_001])
def test_an_adjustment_by_nothing_or_too_much_is_named_and_not_sent(quantity: int):
    plan = plan_of(line(quantity=quantity))
    assert plan.adjustments == ()
    assert plan.untraded[Fate.NOT_TRADABLE] == 1
