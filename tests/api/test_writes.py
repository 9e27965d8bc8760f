"""What a write must bring, what becomes of it, and what is turned away before anybody is asked."""

import json
from typing import Any
from urllib.parse import quote

import pytest

from api.problems import OutcomeUnknownError
from schemas.cart import AddItemsToCart, CheckOutCart, CreateCart, order_id_of
from schemas.catalog import PublishProduct
from schemas.decisions import ALREADY, Decided
from schemas.inventory import AdjustStock, ReceiptLine, ReceiveStock
from schemas.meta import CommandMeta, derived_id
from schemas.values import Position
from tests.api.conftest import ANNA, BEN, Bearer, Shelf, Window, accepted, rejected

CART = "7c0f6d9e-8f8e-5d6b-9a53-3b1a4f0c7d11"
ORDER = order_id_of(CART, 1)
PRODUCT = {"name": "T-light holder", "price": 255, "currency": "GBP"}
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_a_published_product_is_created_once_and_changed_after(window: Window):
    created = await window.ask("PUT", "/v1/products/85123A", PRODUCT, by=ANNA)
    window.writer.decide = lambda meta: accepted(meta, version=2)
    changed = await window.ask("PUT", "/v1/products/85123A", PRODUCT, by=ANNA)
    window.writer.decide = lambda meta: accepted(meta, status=ALREADY)
    same = await window.ask("PUT", "/v1/products/85123A", PRODUCT, by=ANNA)

    assert [created.status, changed.status, same.status] == [201, 200, 200]
    assert created.headers["daybook-receipt"] == "product/85123A@1"
    assert created.headers["etag"] == '"1"'
    assert window.writer.commands[0] == PublishProduct(
        "85123A", "T-light holder", "", (), "", 255, "GBP", True
    )


@pytest.mark.parametrize("sku", ["BANK CHARGES", "gift_0001_20", "85123A", "é", "a,b@3%"])
async def test_a_merchants_own_skus_are_taken_as_they_are(window: Window, sku: str):
    body = {"document": "note 1", "quantity": 3}
    answered = await window.ask("POST", f"/v1/inventory/{quote(sku, safe='')}/receipts", body, by=ANNA)

    assert answered.status == 200
    assert window.writer.commands == [ReceiveStock("main", "note 1", (ReceiptLine(sku, 3),))]
    assert window.writer.asked[0][:2] == ("inventory", sku)


async def test_the_same_key_is_the_same_command_and_another_key_another(window: Window):
    for key in ("a", "a", "b"):
        await window.ask("POST", "/v1/carts", {}, by=BEN, idempotency_key=key)

    first, again, other = window.writer.metas
    assert first.command_id == again.command_id == derived_id("customer/ben", "POST", "/v1/carts", "a")
    assert first.fingerprint == again.fingerprint
    assert other.command_id != first.command_id
    assert window.writer.commands[0] == CreateCart(derived_id(first.command_id), "ben", "GBP")


@pytest.mark.parametrize("other", [("merchant", "eve"), ("customer", "ben")])
async def test_another_callers_key_is_another_command_also_of_the_same_name_in_another_role(
    window: Window, other: Bearer
):
    path, body = "/v1/orders/7c0f6d9e-8f8e-5d6b-9a53-3b1a4f0c7d11/cancellation", {"reason": "no need"}
    await window.ask("POST", path, body, by=("merchant", "ben"), idempotency_key="a")
    await window.ask("POST", path, body, by=other, idempotency_key="a")

    one, another = window.writer.metas
    assert one.command_id != another.command_id


async def test_a_fingerprint_ignores_how_json_was_written_and_nothing_else(window: Window):
    for raw in (
        b'{"delta": 3, "reason": "found"}',
        b'{"reason":"found","delta":3,"note":""}',
        b'{"delta":4,"reason":"found"}',
    ):
        await window.ask("POST", "/v1/inventory/A/adjustments", raw=raw, by=ANNA)

    one, same, other = (meta.fingerprint for meta in window.writer.metas)
    assert one == same != other


async def test_the_actor_is_the_tokens_subject(window: Window):
    await window.ask("POST", "/v1/carts", {}, by=BEN)

    meta = window.writer.metas[0]
    assert (meta.actor_kind, meta.actor_id, meta.reply_to) == ("customer", "ben", "api/test")
    assert meta.not_after - meta.issued_at == 30_000_000


async def test_a_trace_travels_from_request_to_command_and_back(window: Window):
    answered = await window.ask("POST", "/v1/carts", {}, by=BEN, traceparent=TRACE)

    meta = window.writer.metas[0]
    assert meta.traceparent == answered.headers["traceparent"] == TRACE
    assert meta.correlation_id == "4bf92f35-77b3-4da6-a3ce-929d0e0e4736"


async def test_a_bad_trace_is_replaced_by_a_new_one(window: Window):
    await window.ask("POST", "/v1/carts", {}, by=BEN, traceparent="00-zz")

    assert window.writer.metas[0].traceparent.startswith("00-")


@pytest.mark.parametrize(("given", "version"), [('"3"', 3), ("3", 3), ('W/"3"', 3), (None, None)])
async def test_if_match_is_the_expected_version(window: Window, given: str | None, version: int | None):
    await window.ask("DELETE", f"/v1/carts/{CART}/items", by=BEN, if_match=given)

    assert window.writer.metas[0].expected_version == version


@pytest.mark.parametrize("given", ["*", '"x"', "-1", '"1", "2"'])
async def test_an_if_match_that_is_no_version_is_malformed(window: Window, given: str):
    answered = await window.ask("DELETE", f"/v1/carts/{CART}/items", by=BEN, if_match=given)

    assert (answered.status, window.writer.asked) == (400, [])


@pytest.mark.parametrize("key", [None, "", " ", "ä", "x" * 201, "a b"])
async def test_a_write_without_a_good_idempotency_key_is_turned_away(window: Window, key: str | None):
    answered = await window.ask(
        "POST", "/v1/carts", {}, by=BEN, idempotency_key=key and key.encode().decode("latin-1")
    )

    assert (answered.status, answered.type) == (400, "idempotency-key-missing")
    assert window.writer.asked == []


async def test_a_checkout_answers_with_the_order_and_both_places_in_its_receipt(window: Window):
    also = Position(f"order/{ORDER}", 1)
    window.writer.decide = lambda meta: accepted(meta, also, version=3)
    first = await window.ask("POST", f"/v1/carts/{CART}/checkout", {"payment_token": "tok_ok"}, by=BEN)
    window.writer.decide = lambda meta: accepted(meta, also, version=3, status=ALREADY)
    again = await window.ask("POST", f"/v1/carts/{CART}/checkout", {"payment_token": "tok_ok"}, by=BEN)

    assert [first.status, again.status] == [201, 200]
    assert first.json["order_id"] == again.json["order_id"] == ORDER
    assert first.headers["daybook-receipt"] == f"cart/{CART}@3, order/{ORDER}@1"
    assert first.headers["location"] == f"/v1/orders/{ORDER}"
    assert window.writer.commands[0] == CheckOutCart(CART, "tok_ok")


async def test_what_is_not_decided_in_time_can_be_asked_for_later(window: Window):
    window.writer.decide = lambda _: None
    answered = await window.ask("POST", "/v1/carts", {}, by=BEN)

    command_id = window.writer.metas[0].command_id
    assert (answered.status, answered.headers["location"]) == (202, f"/v1/commands/{command_id}")


@pytest.mark.parametrize(
    ("type_", "kind", "status", "slug"),
    [
        ("UnknownCart", "not_found", 404, "unknown-cart"),
        ("CartIsCheckedOut", "conflict", 409, "cart-is-checked-out"),
        ("CommandReused", "unprocessable", 422, "command-reused"),
        ("VersionConflict", "precondition", 412, "version-conflict"),
        ("CommandExpired", "expired", 503, "command-expired"),
        ("InternalError", "internal", 500, "internal-error"),
    ],
)
async def test_a_rejection_is_a_problem_of_its_own_type(
    window: Window, type_: str, kind: str, status: int, slug: str
):
    window.writer.decide = lambda meta: rejected(meta, type_, kind)
    answered = await window.ask("DELETE", f"/v1/carts/{CART}/items", by=BEN)

    assert (answered.status, answered.type) == (status, slug)
    assert answered.headers["content-type"] == "application/problem+json"
    assert answered.json["command_id"] == window.writer.metas[0].command_id
    assert ("retry-after" in answered.headers) == (status == 503)


async def test_an_unknown_outcome_names_the_command_and_asks_to_come_again(window: Window):
    def unknown(meta: CommandMeta) -> Decided:
        raise OutcomeUnknownError("Kafka did not confirm it.", command_id=meta.command_id)

    window.writer.decide = unknown
    answered = await window.ask("POST", "/v1/carts", {}, by=BEN)

    assert (answered.status, answered.headers["retry-after"]) == (503, "1")
    assert answered.json["command_id"] == answered.headers["daybook-command"]


LINE = {"sku": "A", "quantity": 1}
BAD_BODIES: list[tuple[str, str, Any, Bearer]] = [
    ("POST", f"/v1/carts/{CART}/items", [{**LINE, "price": 1}], BEN),
    ("POST", f"/v1/carts/{CART}/items", [{**LINE, "unit_price": 1}], BEN),
    ("POST", f"/v1/carts/{CART}/items", [{**LINE, "quantity": 0}], BEN),
    ("POST", f"/v1/carts/{CART}/items", [{**LINE, "quantity": -1}], BEN),
    ("POST", f"/v1/carts/{CART}/items", [{**LINE, "quantity": 1_000_001}], BEN),
    ("POST", f"/v1/carts/{CART}/items", [{**LINE, "quantity": "1"}], BEN),
    ("POST", f"/v1/carts/{CART}/items", [{**LINE, "quantity": 1.0}], BEN),
    ("POST", f"/v1/carts/{CART}/items", [{**LINE, "quantity": True}], BEN),
    ("POST", f"/v1/carts/{CART}/items", [{**LINE, "sku": "a/b"}], BEN),
    ("POST", f"/v1/carts/{CART}/items", [{**LINE, "sku": "x" * 65}], BEN),
    ("POST", f"/v1/carts/{CART}/items", [{**LINE, "sku": "\ud800"}], BEN),
    ("POST", f"/v1/carts/{CART}/items", [], BEN),
    ("POST", f"/v1/carts/{CART}/items", [LINE] * 2_001, BEN),
    ("POST", f"/v1/carts/{CART}/items", LINE, BEN),
    ("PATCH", f"/v1/carts/{CART}/items/A", {"quantity": 0}, BEN),
    ("PATCH", f"/v1/carts/{CART}/items/A", {"quantity": 1, "price": 1}, BEN),
    ("POST", f"/v1/carts/{CART}/checkout", {"payment_token": "tok_ok", "amount": 1}, BEN),
    ("POST", f"/v1/carts/{CART}/checkout", {"payment_token": ""}, BEN),
    ("POST", f"/v1/carts/{CART}/checkout", {}, BEN),
    ("POST", "/v1/carts", {"owner": "eve"}, BEN),
    ("PUT", "/v1/products/A", {**PRODUCT, "price": 0}, ANNA),
    ("PUT", "/v1/products/A", {**PRODUCT, "price": -1}, ANNA),
    ("PUT", "/v1/products/A", {**PRODUCT, "price": 1_000_001}, ANNA),
    ("PUT", "/v1/products/A", {**PRODUCT, "currency": "pounds"}, ANNA),
    ("PUT", "/v1/products/A", {**PRODUCT, "colour": "red"}, ANNA),
    ("POST", "/v1/inventory/A/receipts", {"document": "d", "quantity": 0}, ANNA),
    ("POST", "/v1/inventory/A/adjustments", {"delta": 0, "reason": "found"}, ANNA),
    ("POST", "/v1/inventory/A/adjustments", {"delta": -1_000_001, "reason": "found"}, ANNA),
    ("POST", "/v1/inventory/A/adjustments", {"delta": 1, "reason": "because"}, ANNA),
    ("PUT", "/v1/inventory/A/policy", {"safety_stock": -1, "low_stock_at": 0}, ANNA),
    ("POST", f"/v1/orders/{ORDER}/cancellation", {"reason": "r", "by": "eve"}, BEN),
    ("POST", f"/v1/orders/{ORDER}/shipment", {"lines": [1]}, ANNA),
]


@pytest.mark.parametrize(("method", "path", "body", "by"), BAD_BODIES)
async def test_what_can_be_read_but_is_not_allowed_is_a_422_and_nobody_is_asked(
    window: Window, method, path, body, by
):
    answered = await window.ask(method, path, body, by=by)

    assert (answered.status, answered.type) == (422, "invalid-request")
    assert answered.json["errors"]
    assert window.writer.asked == []


@pytest.mark.parametrize("raw", [b"{", b"\xff\xfe", b"[" * 100_000, b"", b"9" * 10_000])
async def test_what_is_no_json_is_a_400(window: Window, raw: bytes):
    answered = await window.ask("PUT", "/v1/products/A", raw=raw, by=ANNA)

    assert (answered.status, answered.type) == (400, "malformed-request")


async def test_what_says_that_it_is_no_json_is_a_400(window: Window):
    answered = await window.ask("PUT", "/v1/products/A", PRODUCT, by=ANNA, content_type="text/plain")

    assert answered.status == 400


@pytest.mark.parametrize("says_so", [True, False])
async def test_a_body_over_256_kb_is_a_413_whether_it_says_so_or_not(window: Window, says_so: bool):
    raw = json.dumps({**PRODUCT, "description": "x" * 256 * 1024}).encode()
    length = str(len(raw)) if says_so else None
    answered = await window.ask("PUT", "/v1/products/A", raw=raw, by=ANNA, content_length=length)

    assert (answered.status, answered.type) == (413, "body-too-large")
    assert window.writer.asked == []


@pytest.mark.parametrize(
    "path", ["/v1/carts/x/checkout", f"/v1/carts/{CART.upper()}/checkout", "/v1/nothing"]
)
async def test_a_path_that_can_name_nothing_is_a_404(window: Window, path: str):
    answered = await window.ask("POST", path, {"payment_token": "tok_ok"}, by=BEN)

    assert (answered.status, answered.type) == (404, "not-found")


async def test_a_method_that_a_path_has_not_is_a_405(window: Window):
    answered = await window.ask("PATCH", "/v1/carts", {}, by=BEN)

    assert (answered.status, answered.type) == (405, "method-not-allowed")


async def test_a_mistake_of_ours_is_a_500_that_says_nothing_more(window: Window):
    def broken(_: CommandMeta) -> Decided:
        raise KeyError("secret")

    window.writer.decide = broken
    with pytest.raises(KeyError):  # the framework answers first, then lets the server log it
        await window.ask("POST", "/v1/carts", {}, by=BEN)


async def test_backdating_needs_the_claim(window: Window):
    at = "2010-12-01T08:26:00Z"
    plain = await window.ask("POST", "/v1/carts", {}, by=BEN, daybook_occurred_at=at)
    token = window.token("customer", "ben", backdate=True)
    claimed = await window.ask(
        "POST", "/v1/carts", {}, authorization=f"Bearer {token}", daybook_occurred_at=at
    )

    assert [plain.status, claimed.status] == [403, 201]
    assert window.writer.metas[0].occurred_at == 1_291_191_960_000_000


@pytest.mark.parametrize(
    "at", ["2100-01-01T00:00:00Z", "yesterday", "2010-12-01T08:26:00", "0001-01-01T00:00:00+14:00"]
)
async def test_a_time_in_the_future_or_without_offset_is_a_422(window: Window, at: str):
    token = window.token("customer", "ben", backdate=True)
    answered = await window.ask(
        "POST", "/v1/carts", {}, authorization=f"Bearer {token}", daybook_occurred_at=at
    )

    assert answered.status == 422


async def test_items_are_sent_at_the_catalogs_price(window: Window, shelf: Shelf):
    await shelf.publish("BANK CHARGES", 255)
    await shelf.publish("POST", 100)
    body = [{"sku": "BANK CHARGES", "quantity": 2}, {"sku": "POST", "quantity": 1}]
    answered = await window.ask("POST", f"/v1/carts/{CART}/items", body, by=BEN)

    assert answered.status == 200
    (command,) = window.writer.commands
    assert isinstance(command, AddItemsToCart)
    assert [(i.sku, i.quantity, i.unit_price, i.price_version, i.stocked) for i in command.items] == [
        ("BANK CHARGES", 2, 255, 1, True),
        ("POST", 1, 100, 1, False),
    ]


async def test_one_sku_that_is_not_for_sale_keeps_all_out(window: Window, shelf: Shelf):
    await shelf.publish("A")
    await shelf.publish("OLD", retire=True)
    for sku in ("OLD", "NONE"):
        body = [{"sku": "A", "quantity": 1}, {"sku": sku, "quantity": 1}]
        answered = await window.ask("POST", f"/v1/carts/{CART}/items", body, by=BEN)

        assert (answered.status, answered.type) == (404, "unknown-product")
        assert answered.json["skus"] == [sku]
    assert window.writer.asked == []


async def test_what_was_resolved_is_no_part_of_what_the_caller_said(window: Window, shelf: Shelf):
    body = [{"sku": "A", "quantity": 1}]
    await shelf.publish("A", 255)
    await window.ask("POST", f"/v1/carts/{CART}/items", body, by=BEN, idempotency_key="k")
    await shelf.publish("B")
    await window.ask("POST", f"/v1/carts/{CART}/items", body, by=BEN, idempotency_key="k")

    first, again = window.writer.metas
    assert first.fingerprint == again.fingerprint


async def test_a_sku_is_read_from_where_it_was_adjusted(window: Window):
    body = {"delta": -3, "reason": "damaged", "note": "wet"}
    await window.ask("POST", "/v1/inventory/A/adjustments", body, by=ANNA)

    assert window.writer.commands == [AdjustStock("A", "main", -3, "damaged", "wet", None)]
