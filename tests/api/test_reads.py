"""Stored documents are served as they are, to whom they belong, and not before they show what was asked for."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from api.readings import Views
from projections import order
from projections.cassandra_store import CassandraReader, CassandraSettings
from projections.receipt import NotCaughtUp
from projections.redis_store import RedisReader, RedisSettings
from projections.view import Served
from schemas.cart import CartCreated, ItemAddedToCart
from schemas.meta import Micros
from schemas.values import Position
from tests.api.conftest import BEN, Shelf, Window, accepted
from tests.soonest import soonest

CART = "7c0f6d9e-8f8e-5d6b-9a53-3b1a4f0c7d11"
OTHER = "1d1c3a64-2f0a-5b0e-9d51-0c6f4e1b2a33"
NEVER = Micros(4_000_000_000_000_000)


def noted_waits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Position, ...]]:
    """What Redis is asked to wait for from now on."""
    waited: list[tuple[Position, ...]] = []

    async def caught_up(self: RedisReader, after: Sequence[Position], *views: object) -> None:
        if after:
            waited.append(tuple(after))

    monkeypatch.setattr(RedisReader, "caught_up", caught_up)
    return waited


async def test_anybody_sees_a_product_and_its_version(window: Window, shelf: Shelf):
    await shelf.publish("BANK CHARGES", 255)
    answered = await window.ask("GET", "/v1/products/BANK%20CHARGES")

    assert (answered.status, answered.json["price"], answered.headers["etag"]) == (200, 255, '"1"')


@pytest.mark.parametrize("has", ['"1"', 'W/"1"', '"7", "1"', "*"])
async def test_who_has_the_document_already_is_told_so(window: Window, shelf: Shelf, has: str):
    await shelf.publish("A")
    answered = await window.ask("GET", "/v1/products/A", if_none_match=has)

    assert (answered.status, answered.body) == (304, b"")


async def test_what_is_not_there_is_a_404(window: Window, shelf: Shelf):
    for path in ("/v1/products/NONE", "/v1/inventory/NONE", "/v1/products/a%2Fb", f"/v1/products/{'x' * 65}"):
        assert (await window.ask("GET", path)).status == 404


async def test_a_cart_is_its_owners_alone(window: Window, shelf: Shelf):
    await shelf.happened("cart", 1, CartCreated(CART, "ben", "GBP", NEVER))
    own = await window.ask("GET", f"/v1/carts/{CART}", by=BEN)
    foreign = await window.ask("GET", f"/v1/carts/{CART}", by=("customer", "eve"))

    assert [own.status, foreign.status] == [200, 404]


@pytest.mark.parametrize("version", [1, 2])
async def test_anothers_cart_is_a_404_at_once_whatever_version_is_asked_for(
    window: Window, shelf: Shelf, monkeypatch: pytest.MonkeyPatch, version: int
):
    await shelf.happened("cart", 1, CartCreated(CART, "ben", "GBP", NEVER))
    waited = noted_waits(monkeypatch)
    receipt = f"cart/{CART}@{version}"
    foreign = await window.ask("GET", f"/v1/carts/{CART}", by=("customer", "eve"), daybook_after=receipt)

    assert (foreign.status, waited) == (404, [])


async def test_a_cart_that_turns_out_to_be_anothers_while_it_is_waited_for_is_a_404(
    window: Window, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
):
    async def caught_up(self: RedisReader, after: Sequence[Position], *views: object) -> None:
        if after:
            await shelf.happened("cart", 1, CartCreated(CART, "ben", "GBP", NEVER))
            raise NotCaughtUp(tuple(after))

    monkeypatch.setattr(RedisReader, "caught_up", caught_up)
    receipt = f"cart/{CART}@2"
    foreign = await window.ask("GET", f"/v1/carts/{CART}", by=("customer", "eve"), daybook_after=receipt)

    assert foreign.status == 404


async def test_ones_own_cart_waits_for_no_other_that_the_receipt_names(
    window: Window, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
):
    await shelf.happened("cart", 1, CartCreated(CART, "ben", "GBP", NEVER))
    waited = noted_waits(monkeypatch)
    receipt = f"cart/{CART}@1, cart/{OTHER}@9"
    own = await window.ask("GET", f"/v1/carts/{CART}", by=BEN, daybook_after=receipt)

    assert (own.status, waited) == (200, [(Position(f"cart/{CART}", 1),)])


async def test_anothers_order_is_a_404_whatever_version_is_asked_for(
    window: Window, monkeypatch: pytest.MonkeyPatch
):
    """The order is at version 7; who may see it waits for the eighth in vain."""

    async def find(reader: CassandraReader, order_id: str, after: Sequence[Position]) -> dict[str, Any]:
        if any(position.version > 7 for position in after):
            raise NotCaughtUp(tuple(after))
        return {"owner": "ben", "contact": None, "version": 7}

    monkeypatch.setattr(order, "find", find)
    nothing: Any = None
    window.app.state.views = Views(nothing, nothing)
    told = {
        (subject, version): (
            await window.ask(
                "GET", f"/v1/orders/{CART}", by=("customer", subject), daybook_after=f"order/{CART}@{version}"
            )
        ).status
        for subject in ("ben", "eve")
        for version in (7, 8)
    }

    assert told == {("ben", 7): 200, ("ben", 8): 503, ("eve", 7): 404, ("eve", 8): 404}


async def test_a_list_of_orders_waits_for_no_order_of_another(
    window: Window, monkeypatch: pytest.MonkeyPatch
):
    waited: list[Position] = []

    async def find(reader: CassandraReader, order_id: str, after: Sequence[Position] = ()) -> Any:
        return {CART: {"owner": "ben"}, OTHER: {"owner": "eve"}}.get(order_id)

    async def of_customer(
        reader: CassandraReader, owner: str, cursor: str, limit: int, after: Sequence[Position]
    ) -> Served:
        waited.extend(after)
        return Served(b"{}")

    monkeypatch.setattr(order, "find", find)
    monkeypatch.setattr(order, "of_customer", of_customer)
    nothing: Any = None
    window.app.state.views = Views(nothing, nothing)
    receipt = f"order/{CART}@1, order/{OTHER}@2, order/not-there-yet@3"
    await window.ask("GET", "/v1/customers/ben/orders", by=BEN, daybook_after=receipt)

    assert waited == [Position(f"order/{CART}", 1), Position("order/not-there-yet", 3)]


async def test_what_became_of_a_command_is_for_its_sender_alone_in_the_role_that_sent_it(
    window: Window, shelf: Shelf
):
    await window.ask("POST", "/v1/carts", {}, by=BEN)
    (sent,) = window.writer.metas
    await shelf.was_decided(replace(accepted(sent), sender="customer/ben"))
    path = f"/v1/commands/{sent.command_id}"
    own = await window.ask("GET", path, by=BEN)
    foreign = [await window.ask("GET", path, by=who) for who in (("merchant", "ben"), ("customer", "eve"))]

    assert (own.status, own.json["outcome"]) == (200, "accepted")
    assert [answered.status for answered in foreign] == [404, 404]


async def test_another_customers_orders_are_a_404(window: Window, shelf: Shelf):
    assert (await window.ask("GET", "/v1/customers/ben/orders", by=("customer", "eve"))).status == 404


async def test_a_read_shows_the_write_that_its_receipt_names(window: Window, shelf: Shelf):
    await shelf.happened("cart", 1, CartCreated(CART, "ben", "GBP", NEVER))
    await shelf.happened("cart", 2, ItemAddedToCart(CART, "A", "the A", 2, 2, 255, 1, True, NEVER))
    receipt = f"cart/{CART}@2, order/1@1"
    answered = await window.ask("GET", f"/v1/carts/{CART}", by=BEN, daybook_after=receipt)

    assert (answered.status, answered.json["units"]) == (200, 2)


async def test_a_view_that_is_behind_says_so_within_two_seconds(window: Window, shelf: Shelf):
    await shelf.publish("A")
    answers = []

    async def ask() -> None:
        answers.append(await window.ask("GET", "/v1/products/A", daybook_after="product/A@2"))

    assert await soonest(ask, 2.5) < 2.5
    answered = answers[-1]
    assert (answered.status, answered.type, answered.headers["retry-after"]) == (503, "view-behind", "1")
    assert answered.json["missing"] == ["product/A@2"]


async def test_a_receipt_of_other_streams_only_is_a_400(window: Window, shelf: Shelf):
    await shelf.publish("A")
    answered = await window.ask("GET", "/v1/products/A", daybook_after="order/1@1")

    assert (answered.status, answered.type) == (400, "foreign-receipt")


async def test_a_receipt_that_is_none_is_a_400(window: Window, shelf: Shelf):
    assert (await window.ask("GET", "/v1/products/A", daybook_after="A")).status == 400


@pytest.mark.parametrize("query", ["page=0", "limit=0", "limit=101", "limit=x", "sort=cold", "page=10001"])
async def test_a_query_out_of_its_limits_is_a_422(window: Window, shelf: Shelf, query: str):
    assert (await window.ask("GET", f"/v1/products?{query}")).status == 422


async def test_products_are_listed_by_pages(window: Window, shelf: Shelf):
    for sku in ("C", "A", "B"):
        await shelf.publish(sku)
    answered = await window.ask("GET", "/v1/products?page=2&limit=2")

    assert [one["sku"] for one in answered.json["products"]] == ["C"]
    assert answered.json["total"] == 3


async def test_a_cursor_that_nobody_gave_out_is_a_400(window: Window, shelf: Shelf):
    answered = await window.ask("GET", "/v1/customers/ben/orders?cursor=x", by=BEN)

    assert (answered.status, answered.type) == (400, "malformed-request")


async def is_unavailable(window: Window, path: str) -> None:
    answered = await window.ask("GET", path, by=BEN)
    assert (answered.status, answered.type) == (503, "view-unavailable"), path
    assert answered.headers["retry-after"] == "1"


async def test_a_store_that_is_down_is_a_503_within_two_seconds(window: Window):
    nobody = "127.0.0.1:1"
    views = Views(
        RedisReader(RedisSettings(nobody, timeout_s=0.9)),
        CassandraReader(CassandraSettings((nobody,), timeout_s=1.8)),
    )
    window.app.state.views = views
    for path in ("/v1/products/A", f"/v1/carts/{CART}", f"/v1/orders/{CART}", f"/v1/commands/{CART}"):
        assert await soonest(partial(is_unavailable, window, path), 2.5) < 2.5, path
    items = await window.ask("POST", f"/v1/carts/{CART}/items", [{"sku": "A", "quantity": 1}], by=BEN)
    assert (items.status, window.writer.asked) == (503, [])
    await views.close()
