"""The cart: what a customer means to buy, at prices already resolved. Stream `cart/{id}`."""

from dataclasses import dataclass
from typing import TypeAlias

from schemas.meta import DAY, Micros, derived_id
from schemas.values import PricedLine

CART_LIMIT = 30 * DAY
"""A cart expires after so long without change."""


@dataclass(frozen=True)
class CartMessage:
    cart_id: str

    @property
    def stream(self) -> str:
        return cart_stream(self.cart_id)


def cart_stream(cart_id: str) -> str:
    return f"cart/{cart_id}"


def order_id_of(cart_id: str, checkout: int) -> str:
    """The order that the `checkout`-th checkout (from 1) of a cart places."""
    return derived_id(cart_id, str(checkout))


@dataclass(frozen=True)
class CartItem:
    """One SKU in a cart; all its units are one line."""

    sku: str
    name: str
    quantity: int
    unit_price: int
    currency: str
    price_version: int
    stocked: bool


@dataclass(frozen=True)
class CreateCart(CartMessage):
    owner: str
    currency: str


@dataclass(frozen=True)
class AddItemsToCart(CartMessage):
    """All or nothing. `items` were resolved against the catalog by the API."""

    items: tuple[CartItem, ...]


@dataclass(frozen=True)
class ChangeItemQuantity(CartMessage):
    sku: str
    quantity: int


@dataclass(frozen=True)
class RemoveItemFromCart(CartMessage):
    sku: str


@dataclass(frozen=True)
class ClearCart(CartMessage):
    pass


@dataclass(frozen=True)
class CheckOutCart(CartMessage):
    token: str


@dataclass(frozen=True)
class ReopenCart(CartMessage):
    order_id: str
    attempt: int


@dataclass(frozen=True)
class CompleteCart(CartMessage):
    order_id: str
    attempt: int


@dataclass(frozen=True)
class ExpireCart(CartMessage):
    pass


@dataclass(frozen=True)
class CartCreated(CartMessage):
    owner: str
    currency: str
    expires_at: Micros


@dataclass(frozen=True)
class ItemAddedToCart(CartMessage):
    """`quantity` units were added; the line now has `quantity_after`."""

    sku: str
    name: str
    quantity: int
    quantity_after: int
    unit_price: int
    price_version: int
    stocked: bool
    expires_at: Micros


@dataclass(frozen=True)
class CartItemQuantityChanged(CartMessage):
    sku: str
    quantity: int
    quantity_before: int
    expires_at: Micros


@dataclass(frozen=True)
class ItemRemovedFromCart(CartMessage):
    sku: str
    expires_at: Micros


@dataclass(frozen=True)
class CartCleared(CartMessage):
    expires_at: Micros


@dataclass(frozen=True)
class CartCheckedOut(CartMessage):
    owner: str
    order_id: str
    checkout: int
    lines: tuple[PricedLine, ...]
    amount: int
    currency: str
    token: str


@dataclass(frozen=True)
class CartReopened(CartMessage):
    order_id: str
    expires_at: Micros


@dataclass(frozen=True)
class CartCompleted(CartMessage):
    order_id: str


@dataclass(frozen=True)
class CartExpired(CartMessage):
    pass


@dataclass(frozen=True)
class OpenCart:
    """`checkouts` counts how often it was checked out so far."""

    owner: str
    currency: str
    items: tuple[CartItem, ...]
    checkouts: int
    expires_at: Micros


@dataclass(frozen=True)
class CheckedOutCart:
    owner: str
    currency: str
    items: tuple[CartItem, ...]
    checkouts: int
    order_id: str


@dataclass(frozen=True)
class CompletedCart:
    owner: str
    order_id: str


@dataclass(frozen=True)
class ExpiredCart:
    owner: str


CartCommand: TypeAlias = (
    CreateCart
    | AddItemsToCart
    | ChangeItemQuantity
    | RemoveItemFromCart
    | ClearCart
    | CheckOutCart
    | ReopenCart
    | CompleteCart
    | ExpireCart
)
CartEvent: TypeAlias = (
    CartCreated
    | ItemAddedToCart
    | CartItemQuantityChanged
    | ItemRemovedFromCart
    | CartCleared
    | CartCheckedOut
    | CartReopened
    | CartCompleted
    | CartExpired
)
Cart: TypeAlias = OpenCart | CheckedOutCart | CompletedCart | ExpiredCart
