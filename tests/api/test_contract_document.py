"""The API's document in itself: every answer is described, and every link leads somewhere."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from api.documented import shape_of
from api.links import FOLLOWING
from tests.api.conftest import ANNA, BEN, Window

CART = "7c0f6d9e-8f8e-5d6b-9a53-3b1a4f0c7d11"


@pytest.fixture
async def operations(window: Window) -> dict[str, dict[str, Any]]:
    document = (await window.ask("GET", "/openapi.json")).json
    return {one["operationId"]: one for methods in document["paths"].values() for one in methods.values()}


def links_of(operation: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for answer in operation["responses"].values():
        yield from answer.get("links", {}).items()


def test_every_link_leads_to_an_operation_and_fills_its_path(operations: dict[str, dict[str, Any]]):
    for operation in operations.values():
        for _, link in links_of(operation):
            asked = {(p["in"], p["name"]) for p in operations[link["operationId"]]["parameters"]}
            filled = {tuple(name.split(".", 1)) for name in link["parameters"]}
            assert filled <= asked
            assert {place for place in asked if place[0] == "path"} <= filled


def test_what_may_follow_is_linked_from_every_success(operations: dict[str, dict[str, Any]]):
    for name, following in FOLLOWING.items():
        for status in {"200", "201"} & operations[name]["responses"].keys():
            assert list(operations[name]["responses"][status]["links"]) == list(following)


def test_a_shop_can_be_walked_by_links_from_cart_to_shipment(operations: dict[str, dict[str, Any]]):
    way = ["create_cart", "add_items", "check_out", "read_order", "ship_order", "cancel_order", "read_order"]
    for step, following in pairwise(way):
        assert following in dict(links_of(operations[step]))


def test_a_read_that_follows_a_write_is_asked_to_show_it(operations: dict[str, dict[str, Any]]):
    link = operations["check_out"]["responses"]["201"]["links"]["read_order"]

    assert link["parameters"]["header.Daybook-After"] == "$response.header.Daybook-Receipt"


def test_every_answer_that_is_no_success_is_a_problem_or_unwell(operations: dict[str, dict[str, Any]]):
    for name, operation in operations.items():
        for status, answer in operation["responses"].items():
            if int(status) >= 400 and not name.startswith("tell_"):
                assert list(answer["content"]) == ["application/problem+json"], (name, status)


def test_who_is_asked_to_come_again_is_told_when(operations: dict[str, dict[str, Any]]):
    for operation in operations.values():
        for status in {"202", "503"} & operation["responses"].keys():
            assert operation["responses"][status]["headers"]["Retry-After"]["required"]


def test_an_example_gives_its_shape():
    shape = shape_of({"sku": "A", "units": 2, "stocked": True, "lines": [{"line": 1}], "next": None})

    assert shape["required"] == ["sku", "units", "stocked", "lines", "next"]
    assert [one.get("type") for one in shape["properties"].values()] == [
        "string",
        "integer",
        "boolean",
        "array",
        None,
    ]
    assert shape["properties"]["lines"]["items"]["properties"] == {"line": {"type": "integer"}}


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", f"/v1/carts/{CART}/items", "DELETE, POST"),
        ("PATCH", "/v1/products/A", "DELETE, GET, PUT"),
        ("PUT", "/v1/carts", "POST"),
    ],
)
async def test_a_method_that_is_not_allowed_is_told_all_that_are(
    window: Window, method: str, path: str, allowed: str
):
    answered = await window.ask(method, path, {}, by=BEN)

    assert (answered.status, answered.headers["allow"]) == (405, allowed)


async def test_a_problem_that_nobody_has_is_not_explained(window: Window):
    for slug in ("nothing", "No-Slug", "a" * 101):
        answered = await window.ask("GET", f"/problems/{slug}", by=ANNA)
        assert (answered.status, answered.type) == (404, "not-found")
