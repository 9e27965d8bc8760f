"""What may follow on an answer, as OpenAPI links: which operation, and what of the answer it is asked with."""

from collections.abc import Mapping, Sequence
from typing import Any

RECEIPT = "$response.header.Daybook-Receipt"
OUTCOME = "read_command"

FOLLOWING: Mapping[str, Sequence[str]] = {
    "create_cart": ("read_cart", "add_items", "clear_cart", "check_out"),
    "add_items": ("read_cart", "add_items", "change_quantity", "remove_item", "clear_cart", "check_out"),
    "change_quantity": ("read_cart", "check_out"),
    "remove_item": ("read_cart", "add_items"),
    "clear_cart": ("read_cart", "add_items"),
    "check_out": ("read_order", "cancel_order", "ship_order", "read_cart"),
    "read_cart": ("add_items", "change_quantity", "remove_item", "check_out"),
    "read_order": ("list_orders", "cancel_order", "ship_order"),
    "cancel_order": ("read_order",),
    "ship_order": ("read_order", "cancel_order"),
    "list_orders": ("list_orders", "read_order"),
    "publish_product": ("read_product", "receive_stock", "retire_product"),
    "retire_product": ("read_product", "publish_product"),
    "list_products": ("read_product", "read_level"),
    "receive_stock": ("read_level", "read_history", "adjust_stock", "change_policy"),
    "adjust_stock": ("read_level", "read_history"),
    "change_policy": ("read_level",),
    "read_history": ("read_history",),
}
"""A write's outcome can be asked for as well, whatever the write was."""

ELSEWHERE: Mapping[tuple[str, str], str] = {
    ("add_items", "sku"): "$request.body#/0/sku",
    ("read_cart", "sku"): "$response.body#/items/0/sku",
    ("list_products", "sku"): "$response.body#/products/0/sku",
    ("list_orders", "order_id"): "$response.body#/orders/0/order_id",
    ("read_order", "customer_id"): "$response.body#/owner",
    ("list_orders", "customer_id"): "$request.path.customer_id",
    ("list_orders", "cursor"): "$response.body#/next",
    ("read_history", "sku"): "$request.path.sku",
    ("read_history", "cursor"): "$response.body#/next",
}
"""Where an answer has a parameter of what follows, if not in the field of the same name."""


def links_of(
    operation: Mapping[str, Any], operations: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The links of each successful status of an operation, by name."""
    name, answers = operation["operationId"], operation["responses"]
    following = FOLLOWING.get(name, ())
    found = {status: _links(name, following, operations) for status in answers if status in ("200", "201")}
    if "202" in answers:
        found["202"] = _links(name, (OUTCOME,), operations)
    return {status: links for status, links in found.items() if links}


def _links(
    source: str, targets: Sequence[str], operations: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    return {
        target: {
            "operationId": target,
            "parameters": _parameters(source, operations[source], operations[target]),
        }
        for target in targets
    }


def _parameters(source: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, str]:
    """What the path needs; the page behind this one; and, after a write, that the read shows it."""
    asked = {(one["name"], one["in"]) for one in after["parameters"]}
    found = {
        f"path.{name}": ELSEWHERE.get((source, name), f"$response.body#/{name}")
        for name, place in sorted(asked)
        if place == "path"
    }
    if source == after["operationId"] and (source, "cursor") in ELSEWHERE:
        found["query.cursor"] = ELSEWHERE[source, "cursor"]
    if ("Daybook-After", "header") in asked and "202" in before["responses"]:
        found["header.Daybook-After"] = RECEIPT
    return found
