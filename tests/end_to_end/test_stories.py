"""Stories through all processes: what a customer and a merchant live to see, also when something goes wrong."""

import asyncio
import os
import signal
import subprocess
import sys
from typing import Any
from urllib.parse import quote

import pytest

from ops.audit.views import find_view_errors
from ops.demo.frontend import Frontend, RefusedError, open_session
from ops.demo.laws import check_laws
from ops.demo.performance import provider_ledger, read_side
from ops.settings import REPOSITORY, Settings
from ops.supervisor import RoleState, read_report
from tests.end_to_end.shop import Shop, eventually

LAWS = "12345678"


def money_of(daybook: Settings, order_id: str, verb: str) -> list[int]:
    """What moved for this order, by the payment provider's own ledger."""
    moved = (row for row in provider_ledger(daybook.provider) if row["outcome"] == "succeeded")
    return [row["amount"] for row in moved if (row["order_id"], row["verb"]) == (order_id, verb)]


def role(daybook: Settings, name: str) -> RoleState:
    report = read_report(daybook.run)
    assert report is not None
    return next(role for role in report.roles if role.name == name)


async def test_a_checkout_is_paid_once_shipped_and_told_to_everybody(shop: Shop, daybook: Settings) -> None:
    sku, anna = shop.sku("LANTERN"), shop.customer("anna")
    await shop.sells(sku, price=255, units=10)

    order_id = await shop.checks_out(anna, {sku: 6})
    await shop.secured(order_id)
    await shop.write(f"/orders/{order_id}/shipment", {})
    order = await shop.ended(order_id)

    assert (order["status"], order["payment_status"], order["amount"]) == ("completed", "captured", 6 * 255)
    assert money_of(daybook, order_id, "capture") == [6 * 255]
    level = await shop.level(sku)
    assert {name: level[name] for name in ("sellable", "reserved", "allocated", "shipped")} == {
        "sellable": 4,
        "reserved": 0,
        "allocated": 0,
        "shipped": 6,
    }
    mine = await shop.read(f"/customers/{anna}/orders", shop.token_of(anna))
    assert [one["order_id"] for one in mine["orders"]] == [order_id]
    seen = f"stock/{quote(sku)}/main@{level['version']}"
    history = await shop.read(f"/inventory/{quote(sku)}/history", after=seen)
    assert [movement["type"] for movement in reversed(history["movements"])] == [
        "StockItemRegistered",
        "StockReceived",
        "StockReplenished",
        "StockReserved",
        "StockAllocated",
        "StockShipped",
    ]


async def test_the_providers_webhooks_are_heard_while_nothing_depends_on_them(
    shop: Shop, daybook: Settings
) -> None:
    sku, eve = shop.sku("CANDLE"), shop.customer("eve")
    await shop.sells(sku, price=100, units=1)
    await shop.secured(await shop.checks_out(eve, {sku: 1}))
    async with open_session() as session:
        sandbox = Frontend(session, daybook.provider.removeprefix("http://"))
        notices = await eventually(lambda: sandbox.read("/notices"), lambda seen: not seen["waiting"])
    assert set(notices["answers"]["true"]) == {"204"}


async def test_a_declined_card_gives_the_goods_back_and_the_cart_too(shop: Shop, daybook: Settings) -> None:
    sku, bob = shop.sku("TEAPOT"), shop.customer("bob")
    await shop.sells(sku, price=1_000, units=3)

    order = await shop.ended(await shop.checks_out(bob, {sku: 3}, "tok_declined"))

    assert (order["status"], order["reason"]) == ("rejected", "payment")
    assert money_of(daybook, order["order_id"], "capture") == []
    assert (await shop.level(sku))["available"] == 3
    cart = await shop.read(f"/carts/{order['cart_id']}", shop.token_of(bob))
    assert (cart["status"], cart["units"]) == ("open", 3)


async def test_the_last_units_are_sold_once_and_the_others_are_told_what_was_short(shop: Shop) -> None:
    plenty, scarce = shop.sku("CARD"), shop.sku("CLOCK")
    await shop.sells(plenty, price=10, units=100)
    await shop.sells(scarce, price=5_000, units=2)

    placed = [shop.checks_out(shop.customer(f"c{n}"), {plenty: 1, scarce: 1}) for n in range(5)]
    orders = [await shop.order_once(order_id, is_decided) for order_id in await asyncio.gather(*placed)]

    assert sorted(order["status"] for order in orders) == ["confirmed"] * 2 + ["rejected"] * 3
    turned_away = [await shop.ended(o["order_id"]) for o in orders if o["status"] == "rejected"]
    assert {order["reason"] for order in turned_away} == {"stock"}
    assert {line["sku"] for order in turned_away for line in order["refused"]} == {scarce}
    assert ((await shop.level(scarce))["available"], (await shop.level(plenty))["available"]) == (0, 98)


def is_decided(order: dict[str, Any]) -> bool:
    return bool(order["status"] != "placed")


async def test_a_cancellation_at_any_moment_gives_goods_and_money_back(shop: Shop, daybook: Settings) -> None:
    sku = shop.sku("BASKET")
    await shop.sells(sku, price=700, units=8)

    async def change_my_mind(number: int) -> dict[str, Any]:
        """Each a little later than the one before: some placed, some confirmed by then."""
        customer = shop.customer(f"c{number}")
        order_id = await shop.checks_out(customer, {sku: 1})
        await asyncio.sleep(number * 0.1)
        await shop.write(f"/orders/{order_id}/cancellation", {"reason": "too late"}, shop.token_of(customer))
        return await shop.ended(order_id)

    orders = await asyncio.gather(*(change_my_mind(number) for number in range(8)))

    assert {(order["status"], order["reason"]) for order in orders} == {("cancelled", "too late")}
    assert (await shop.level(sku))["available"] == 8
    for order in orders:
        captured = sum(money_of(daybook, order["order_id"], "capture"))
        assert sum(money_of(daybook, order["order_id"], "refund")) == captured


async def test_of_a_cancellation_and_a_shipment_exactly_one_wins(shop: Shop) -> None:
    sku, carla = shop.sku("MIRROR"), shop.customer("carla")
    await shop.sells(sku, price=900, units=1)
    order_id = await shop.checks_out(carla, {sku: 1})
    await shop.secured(order_id)

    shipped, cancelled = await asyncio.gather(
        shop.write(f"/orders/{order_id}/shipment", {}),
        shop.write(f"/orders/{order_id}/cancellation", {}, shop.token_of(carla)),
        return_exceptions=True,
    )

    order = await shop.ended(order_id)
    if order["status"] == "completed":
        assert isinstance(cancelled, RefusedError)
        assert cancelled.kind == "order-is-being-shipped"
    else:
        assert order["status"] == "cancelled"
        assert isinstance(shipped, RefusedError)
        assert shipped.kind == "order-is-closed"


async def test_a_worker_killed_in_the_middle_of_checkouts_loses_nothing(
    shop: Shop, daybook: Settings
) -> None:
    sku = shop.sku("CANDLE")
    await shop.sells(sku, price=100, units=30)

    placed = [asyncio.create_task(shop.checks_out(shop.customer(f"c{n}"), {sku: 2})) for n in range(20)]
    for checkout in asyncio.as_completed(placed[:5]):
        await checkout
    before = role(daybook, "commands")
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    orders = [await shop.order_once(order_id, is_decided) for order_id in await asyncio.gather(*placed)]

    assert role(daybook, "commands").restarts == before.restarts + 1
    assert sorted(order["status"] for order in orders) == ["confirmed"] * 15 + ["rejected"] * 5
    for order in orders:
        if order["status"] == "confirmed":
            await shop.secured(order["order_id"])
        else:
            await shop.ended(order["order_id"])
    level = await shop.level(sku)
    assert (level["available"], level["reserved"], level["allocated"]) == (0, 0, 30)


@pytest.mark.parametrize("view", ["stock", "order"])
async def test_a_rebuilt_view_shows_the_same_and_goes_on(view: str, shop: Shop, daybook: Settings) -> None:
    sku = shop.sku(f"MUG {view}")
    await shop.sells(sku, price=450, units=4)
    before = await shop.secured(await shop.checks_out(shop.customer("dora"), {sku: 1}))

    rebuilt = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "ops", "rebuild", view],
        cwd=REPOSITORY,
        env={**os.environ, "DAYBOOK_HOME": str(daybook.home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert rebuilt.returncode == 0, rebuilt.stderr
    assert "is live" in rebuilt.stdout
    assert await shop.read(f"/orders/{before['order_id']}") == before
    await shop.secured(await shop.checks_out(shop.customer("emil"), {sku: 1}))
    assert (await shop.level(sku))["allocated"] == 2


def test_after_all_stories_the_books_hold(daybook: Settings) -> None:
    """Last: it reads what the stories above have left. The worker was down for a while, and deadlines with it."""
    verdicts = check_laws(
        daybook.kafka,
        daybook.topic_prefix,
        list(provider_ledger(daybook.provider)),
        find_view_errors=lambda: find_view_errors(read_side(daybook), print),
        grace_s=10.0,
    )
    assert verdicts == dict.fromkeys(LAWS, "holds")
