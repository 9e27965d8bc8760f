"""The report of the demo: its figures add up to the input's lines, its keys are as promised, its words are plain."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from ops.demo.invoices import Line, read_lines
from ops.demo.plan import TradePlan, plan_trade
from ops.demo.report import (
    LAWS,
    Measures,
    OrderOutcome,
    OrderStatus,
    Outcomes,
    Percentiles,
    Report,
    adds_up,
    build_report,
    laws_hold,
    render,
    to_json,
)

WINTER_FILE = Path(__file__).parents[2] / "ops/demo/data/online_retail_winter.parquet"
NOON = datetime(2010, 12, 1, 12, 0, tzinfo=UTC)
ALL_HOLD = dict.fromkeys(LAWS, "holds")
MEASURES = Measures(
    elapsed_s=20.0,
    commands=5_000,
    transactions=1_000,
    command_ms=Percentiles(8.0, 30.0),
    freshness_ms=Percentiles(12.0, 50.0),
    rss_mb_max={"commands": 120.0, "kafka": 500.0},
    rss_mb_thirds={"commands": (100.0, 110.0, 120.0), "kafka": (480.0, 490.0, 500.0)},
    cpu_s={"commands": 9.5, "kafka": 11.0},
)


def small_plan() -> TradePlan:
    """Invoice 1: two lines of goods and postage; invoice 2: one line; an adjustment each of 3 and 4; a cancellation."""
    return plan_trade(
        [
            Line("1", "85123A", "WHITE LANTERN", 2, 255, NOON, 17850),
            Line("1", "85123A", "WHITE LANTERN", 1, 295, NOON, 17850),
            Line("1", "POST", "POSTAGE", 1, 1_800, NOON, 17850),
            Line("2", "71053", "RED BAG", 1, 339, NOON, None),
            Line("3", "71053", "damages", -1, 0, NOON, None),
            Line("4", "71053", "lost", -9, 0, NOON, None),
            Line("C5", "71053", "RED BAG", -1, 339, NOON, None),
        ],
        scarcity=0.0,
    )


def report_of(*statuses: OrderStatus, refused_skus: tuple[str, ...] = ()) -> Report:
    plan = small_plan()
    outcomes = Outcomes(
        orders={
            str(number): OrderOutcome(status, units_shipped=1, captured_minor=500, refused_skus=refused_skus)
            for number, status in enumerate(statuses, start=1)
        },
        adjustments={plan.adjustments[0].key: "adjusted", plan.adjustments[1].key: "refused"},
    )
    return build_report(plan, outcomes, MEASURES, ALL_HOLD)


def test_every_line_has_one_fate_and_postage_is_sold_without_stock():
    report = report_of("confirmed", "rejected_stock")
    assert adds_up(report)
    assert report.input.by_fate == {
        "sold": 2,
        "sold_without_stock": 1,
        "refused_stock": 1,
        "declined_payment": 0,
        "timed_out": 0,
        "cancelled": 0,
        "adjusted": 1,
        "adjustment_refused": 1,
        "adjustment_not_stocked": 0,
        "cancellation_not_traded": 1,
        "bad_debt_not_traded": 0,
    }


@pytest.mark.parametrize(
    ("status", "fate"),
    [
        ("rejected_stock", "refused_stock"),
        ("rejected_payment", "declined_payment"),
        ("rejected_timeout", "timed_out"),
        ("cancelled", "cancelled"),
    ],
)
def test_the_fate_of_an_order_is_that_of_all_its_lines(status: OrderStatus, fate: str):
    report = report_of(status, "confirmed")
    assert report.input.by_fate[fate] == 3
    assert getattr(report.orders, status) == 1
    assert adds_up(report)


def test_an_order_that_was_never_answered_leaves_a_sum_that_is_off():
    assert not adds_up(report_of("confirmed"))


def test_an_order_that_never_ended_leaves_a_sum_that_is_off():
    assert not adds_up(report_of("confirmed", "placed"))


def test_a_lost_line_leaves_a_sum_that_is_off():
    report = report_of("confirmed", "confirmed")
    assert not adds_up(replace(report, input=replace(report.input, lines=report.input.lines + 1)))


def test_the_fates_of_the_first_day_add_up_to_its_lines():
    plan = plan_trade(read_lines(WINTER_FILE, date(2010, 12, 1), date(2010, 12, 1)), 0.01)
    outcomes = Outcomes(
        orders={order.invoice_no: OrderOutcome("confirmed", order.units) for order in plan.orders},
        adjustments={adjustment.key: "adjusted" for adjustment in plan.adjustments},
    )
    report = build_report(plan, outcomes, MEASURES, ALL_HOLD)
    assert adds_up(report)
    assert report.orders.placed == 127
    assert sum(report.input.by_fate.values()) == 3_108


def test_rates_are_per_second_between_the_first_cart_and_the_last_shipment():
    report = report_of("confirmed", "rejected_stock")
    assert (report.orders_per_s, report.commands_per_s, report.transactions_per_s) == (0.1, 250.0, 50.0)
    assert (report.units_shipped, report.captured_minor, report.repriced) == (2, 1_000, 1)


def test_the_json_has_the_promised_keys_and_no_others():
    document: dict[str, Any] = json.loads(json.dumps(to_json(report_of("confirmed", "cancelled"))))
    assert list(document) == [
        "input", "orders", "repriced", "units_shipped", "captured_minor", "elapsed_s", "orders_per_s", "commands_per_s",
        "transactions_per_s", "command_ms", "freshness_ms", "rss_mb_max", "rss_mb_thirds", "cpu_s", "laws",
    ]  # fmt: skip
    assert list(document["input"]) == ["lines", "invoices", "by_fate"]
    assert list(document["orders"]) == [
        "placed", "confirmed", "rejected_stock", "rejected_payment", "rejected_timeout", "cancelled",
    ]  # fmt: skip
    assert document["command_ms"] == {"p50": 8.0, "p99": 30.0}
    assert document["rss_mb_thirds"]["commands"] == [100.0, 110.0, 120.0]
    assert list(document["laws"]) == ["1", "2", "3", "4", "5", "6", "7", "8"]


def test_percentiles_are_those_of_the_nearest_rank():
    assert Percentiles.of(range(1, 101)) == Percentiles(50, 99)
    assert Percentiles.of([7.0]) == Percentiles(7.0, 7.0)
    assert Percentiles.of([]) == Percentiles(0.0, 0.0)


def test_laws_hold_only_if_all_eight_were_checked_and_hold():
    report = report_of("confirmed", "confirmed")
    assert laws_hold(report)
    assert not laws_hold(replace(report, laws=ALL_HOLD | {"4": "reservation r-1 outlived its limit"}))
    assert not laws_hold(replace(report, laws={"1": "holds"}))


def test_a_shopkeeper_reads_pounds_reasons_and_what_ran_out():
    text = render(report_of("confirmed", "rejected_stock", refused_skus=("71053",)))
    assert "£10.00" in text
    assert "RED BAG (71053)" in text
    assert "refused: not enough stock for the whole order" in text
    assert text.count("holds") == 8
    assert "DOES NOT ADD UP" not in text
    assert all(len(row) <= 100 for row in text.splitlines())


def test_a_shopkeeper_is_told_what_broke_and_what_does_not_add_up():
    report = replace(report_of("confirmed"), laws=ALL_HOLD | {"2": "85123A promised 3 of 2"})
    text = render(report)
    assert "85123A promised 3 of 2" in text
    assert "DOES NOT ADD UP TO 7" in text


def test_an_unchecked_law_is_said_to_be_unchecked():
    assert "NOT CHECKED" in render(replace(report_of("confirmed", "confirmed"), laws={}))
