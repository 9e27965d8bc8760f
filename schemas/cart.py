"""The cart: what a customer means to buy, at prices already resolved. Stream `cart/{id}`."""

from typing import TypeAlias

from schemas.frozen import frozen
from schemas.meta import DAY, Micros, derived_id
from schemas.personal import SealedContact
from schemas.values import PricedLine

CART_LIMIT = 30 * DAY
"""A cart expires after so long without change."""


@frozen
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


@frozen
class CartItem:
    """One SKU in a cart; all its units are one line."""

    sku: str
    name: str
    quantity: int
    unit_price: int
    currency: str
    price_version: int
    stocked: bool


@frozen
class CreateCart(CartMessage):
    owner: str
    currency: str


@frozen
class AddItemsToCart(CartMessage):
    """All or nothing. `items` were resolved against the catalog by the API."""

    items: tuple[CartItem, ...]


@frozen
class ChangeItemQuantity(CartMessage):
    sku: str
    quantity: int


@frozen
class RemoveItemFromCart(CartMessage):
    sku: str


@frozen
class ClearCart(CartMessage):
    pass


@frozen
class CheckOutCart(CartMessage):
    token: str
    contact: SealedContact | None = None


@frozen
class ReopenCart(CartMessage):
    order_id: str
    attempt: int


@frozen
class CompleteCart(CartMessage):
    order_id: str
    attempt: int


@frozen
class ExpireCart(CartMessage):
    pass


@frozen
class CartCreated(CartMessage):
    owner: str
    currency: str
    expires_at: Micros


@frozen
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


@frozen
class CartItemQuantityChanged(CartMessage):
    sku: str
    quantity: int
    quantity_before: int
    expires_at: Micros


@frozen
class ItemRemovedFromCart(CartMessage):
    sku: str
    expires_at: Micros


@frozen
class CartCleared(CartMessage):
    expires_at: Micros


@frozen
class CartCheckedOut(CartMessage):
    owner: str
    order_id: str
    checkout: int
    lines: tuple[PricedLine, ...]
    amount: int
    currency: str
    token: str
    contact: SealedContact | None = None


@frozen
class CartReopened(CartMessage):
    order_id: str
    expires_at: Micros


@frozen
class CartCompleted(CartMessage):
    order_id: str


@frozen
class CartExpired(CartMessage):
    pass


@frozen
class OpenCart:
    """`checkouts` counts how often it was checked out so far."""

    owner: str
    currency: str
    items: tuple[CartItem, ...]
    checkouts: int
    expires_at: Micros


@frozen
class CheckedOutCart:
    owner: str
    currency: str
    items: tuple[CartItem, ...]
    checkouts: int
    order_id: str


@frozen
class CompletedCart:
    owner: str
    order_id: str


@frozen
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
