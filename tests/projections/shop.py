"""Events of a small shop, with everything filled in that a test does not care about."""

from typing import Any

from schemas import cart, catalog, inventory, order
from schemas.decisions import Decided, Rejected
from schemas.meta import Micros
from schemas.values import Line, Position, PricedLine, RefusedLine

LATER = Micros(2_000_000_000_000_000)


def published(sku: str, *categories: str, price: int = 295, stocked: bool = True) -> Any:
    return catalog.ProductPublished(sku, f"the {sku}", "of tin", categories, "", price, "GBP", stocked)


def changed(sku: str, *categories: str) -> Any:
    return catalog.ProductChanged(sku, f"the new {sku}", "of gold", categories, "new.png", True)


def received(sku: str, quantity: int, sellable: int, **balances: int) -> Any:
    return inventory.StockReceived(*_stock(sku, sellable, **balances), quantity, "delivery note 1")


def reserved(sku: str, sellable: int, reserved: int, quantity: int = 1, **balances: int) -> Any:
    place = _stock(sku, sellable, reserved=reserved, **balances)
    return inventory.StockReserved(*place, "order-1", 1, "claim-1", quantity, LATER)


def adjusted(sku: str, before: int, after: int) -> Any:
    return inventory.StockAdjusted(*_stock(sku, after), before, after, "damaged", "wet", None)


def _stock(
    sku: str, sellable: int, reserved: int = 0, allocated: int = 0, shipped: int = 0
) -> tuple[str, str, int, int, int, int]:
    return sku, "main", sellable, reserved, allocated, shipped


def created(cart_id: str, owner: str = "anna") -> Any:
    return cart.CartCreated(cart_id, owner, "GBP", LATER)


def added(cart_id: str, sku: str, quantity: int, after: int | None = None) -> Any:
    return cart.ItemAddedToCart(cart_id, sku, f"the {sku}", quantity, after or quantity, 295, 1, True, LATER)


def priced(*skus: str) -> tuple[PricedLine, ...]:
    return tuple(PricedLine(n, sku, f"the {sku}", 2, 295, 1, True) for n, sku in enumerate(skus, 1))


def lines(*skus: str) -> tuple[Line, ...]:
    return tuple(Line(n, sku, 2) for n, sku in enumerate(skus, 1))


def placed(order_id: str, *skus: str, owner: str = "anna") -> Any:
    return order.OrderPlaced(
        order_id, "cart-1", owner, "payment-1", priced(*skus), 590 * len(skus), "GBP", "tok_ok", LATER
    )


def step(kind: type, order_id: str, *skus: str, **more: Any) -> Any:
    """An event of an order that triggers a step: it carries all that the step needs."""
    return kind(order_id, "cart-1", "anna", "payment-1", lines(*skus), 590 * len(skus), "GBP", **more)


def ended(kind: type, order_id: str, *skus: str, money: str = "none", **more: Any) -> Any:
    return step(kind, order_id, *skus, held="reserved", cart="reopen", remind_at=LATER, money=money, **more)


def decided(command_id: str, sender: str = "anna", outcome: str = "accepted", at: int = 0) -> Decided:
    return Decided(
        command_id=command_id,
        type="AddItemsToCart",
        stream="cart/1",
        lines=(),
        attempt=0,
        reply_to=None,
        fingerprint="",
        outcome=outcome,
        status="",
        refused=(RefusedLine(1, "A", 3, 2),) if outcome == "refused" else (),
        rejection=Rejected("CartIsEmpty", "conflict", "nothing in it") if outcome == "rejected" else None,
        positions=(Position("cart/1", 4),),
        correlation_id="correlation",
        traceparent="00-trace",
        occurred_at=None,
        recorded_at=Micros(at),
        sender=sender,
    )
