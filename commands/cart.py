"""The cart decides: what a customer may still change, and when it becomes an order."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias, assert_never

from commands.decider import Answer, Context, Deadline, of_one_record
from commands.rejections import (
    CartIsCheckedOut,
    CartIsClosed,
    CartIsEmpty,
    CurrencyMismatch,
    QuantityTooLarge,
    Rejection,
    TooManyLines,
    UnknownCart,
    UnknownCartItem,
)
from schemas.cart import (
    CART_LIMIT,
    AddItemsToCart,
    Cart,
    CartCheckedOut,
    CartCleared,
    CartCommand,
    CartCompleted,
    CartCreated,
    CartEvent,
    CartExpired,
    CartItem,
    CartItemQuantityChanged,
    CartReopened,
    ChangeItemQuantity,
    CheckedOutCart,
    CheckOutCart,
    ClearCart,
    CompleteCart,
    CompletedCart,
    CreateCart,
    ExpireCart,
    ExpiredCart,
    ItemAddedToCart,
    ItemRemovedFromCart,
    OpenCart,
    RemoveItemFromCart,
    ReopenCart,
    cart_stream,
    order_id_of,
)
from schemas.meta import Micros
from schemas.order import order_stream
from schemas.values import LINES_MAX, QUANTITY_MAX, Position, PricedLine

STEWARDS = frozenset({"merchant", "operator", "saga", "deadline"})
"""Who may act on a cart beside its owner."""

Decision: TypeAlias = Sequence[CartEvent] | Rejection
Change: TypeAlias = AddItemsToCart | ChangeItemQuantity | RemoveItemFromCart | ClearCart
OpenCartEvent: TypeAlias = (
    ItemAddedToCart
    | CartItemQuantityChanged
    | ItemRemovedFromCart
    | CartCleared
    | CartCheckedOut
    | CartExpired
)


def decide(cart: Cart | None, command: CartCommand, context: Context) -> Decision:
    if isinstance(command, CreateCart):
        return _create(cart, command, context)
    if cart is None or not _may_act(context, cart.owner):
        return UnknownCart(f"no cart {command.cart_id}")
    match command:
        case AddItemsToCart() | ChangeItemQuantity() | RemoveItemFromCart() | ClearCart():
            return _change(cart, command, context)
        case CheckOutCart():
            return _check_out(cart, command)
        case ReopenCart():
            return _reopen(cart, command, context)
        case CompleteCart():
            return _complete(cart, command)
        case ExpireCart():
            return _expire(cart, command, context)
        case _:
            assert_never(command)


def _may_act(context: Context, owner: str) -> bool:
    return context.actor_kind in STEWARDS or (context.actor_kind == "customer" and context.actor_id == owner)


def _limit(context: Context) -> Micros:
    return Micros(context.now + CART_LIMIT)


def _create(cart: Cart | None, command: CreateCart, context: Context) -> Decision:
    if not _may_act(context, command.owner) or (cart is not None and cart.owner != command.owner):
        return UnknownCart(f"no cart {command.cart_id}")
    if cart is not None:
        return []
    return [CartCreated(command.cart_id, command.owner, command.currency, _limit(context))]


def _change(cart: Cart, command: Change, context: Context) -> Decision:
    match cart:
        case OpenCart():
            return _change_open(cart, command, context)
        case CheckedOutCart():
            return CartIsCheckedOut(f"it was checked out as order {cart.order_id}")
        case CompletedCart():
            return CartIsClosed(f"it was completed by order {cart.order_id}")
        case ExpiredCart():
            return CartIsClosed("it expired")
        case _:
            assert_never(cart)


def _change_open(cart: OpenCart, command: Change, context: Context) -> Decision:
    match command:
        case AddItemsToCart():
            return _add(cart, command, context)
        case ChangeItemQuantity():
            return _change_quantity(cart, command, context)
        case RemoveItemFromCart():
            is_there = any(item.sku == command.sku for item in cart.items)
            return [ItemRemovedFromCart(command.cart_id, command.sku, _limit(context))] if is_there else []
        case ClearCart():
            return [CartCleared(command.cart_id, _limit(context))] if cart.items else []
        case _:
            assert_never(command)


def _add(cart: OpenCart, command: AddItemsToCart, context: Context) -> Decision:
    """A SKU that is there already has its line added to, at the newer price."""
    units = {item.sku: item.quantity for item in cart.items}
    events: list[CartEvent] = []
    for item in command.items:
        if item.currency != cart.currency:
            return CurrencyMismatch(f"{item.sku} is priced in {item.currency}, the cart in {cart.currency}")
        after = units[item.sku] = units.get(item.sku, 0) + item.quantity
        if after > QUANTITY_MAX:
            return QuantityTooLarge(f"{after} of {item.sku}; at most {QUANTITY_MAX}")
        events.append(_added(command.cart_id, item, after, _limit(context)))
    if len(units) > LINES_MAX:
        return TooManyLines(f"{len(units)} lines; at most {LINES_MAX}")
    return events


def _added(cart_id: str, item: CartItem, after: int, limit: Micros) -> ItemAddedToCart:
    return ItemAddedToCart(
        cart_id,
        item.sku,
        item.name,
        item.quantity,
        after,
        item.unit_price,
        item.price_version,
        item.stocked,
        limit,
    )


def _change_quantity(cart: OpenCart, command: ChangeItemQuantity, context: Context) -> Decision:
    before = next((item.quantity for item in cart.items if item.sku == command.sku), None)
    if before is None:
        return UnknownCartItem(f"{command.sku} is not in the cart")
    if command.quantity > QUANTITY_MAX:
        return QuantityTooLarge(f"{command.quantity} of {command.sku}; at most {QUANTITY_MAX}")
    if command.quantity == before:
        return []
    return [CartItemQuantityChanged(command.cart_id, command.sku, command.quantity, before, _limit(context))]


def _check_out(cart: Cart, command: CheckOutCart) -> Decision:
    """Once: asked again, also while the order runs its course, the cart answers with the order it has become."""
    match cart:
        case OpenCart(items=()):
            return CartIsEmpty("there is nothing in it to check out")
        case OpenCart():
            return [_checked_out(cart, command)]
        case CheckedOutCart() | CompletedCart():
            return []
        case ExpiredCart():
            return CartIsClosed("it expired")
        case _:
            assert_never(cart)


def _checked_out(cart: OpenCart, command: CheckOutCart) -> CartCheckedOut:
    checkout = cart.checkouts + 1
    return CartCheckedOut(
        command.cart_id,
        cart.owner,
        order_id_of(command.cart_id, checkout),
        checkout,
        tuple(_priced(line, item) for line, item in enumerate(cart.items, start=1)),
        sum(item.quantity * item.unit_price for item in cart.items),
        cart.currency,
        command.token,
        command.contact,
    )


def _priced(line: int, item: CartItem) -> PricedLine:
    return PricedLine(
        line, item.sku, item.name, item.quantity, item.unit_price, item.price_version, item.stocked
    )


def _reopen(cart: Cart, command: ReopenCart, context: Context) -> Decision:
    if isinstance(cart, CheckedOutCart) and cart.order_id == command.order_id:
        return [CartReopened(command.cart_id, command.order_id, _limit(context))]
    return []


def _complete(cart: Cart, command: CompleteCart) -> Decision:
    if isinstance(cart, CheckedOutCart) and cart.order_id == command.order_id:
        return [CartCompleted(command.cart_id, command.order_id)]
    return []


def _expire(cart: Cart, command: ExpireCart, context: Context) -> Decision:
    is_due = isinstance(cart, OpenCart) and cart.expires_at <= context.now
    return [CartExpired(command.cart_id)] if is_due else []


def evolve(cart: Cart | None, event: CartEvent) -> Cart:
    match event:
        case CartCreated():
            return OpenCart(event.owner, event.currency, (), 0, event.expires_at)
        case CartReopened():
            assert isinstance(cart, CheckedOutCart)
            return OpenCart(cart.owner, cart.currency, cart.items, cart.checkouts, event.expires_at)
        case CartCompleted():
            assert isinstance(cart, CheckedOutCart)
            return CompletedCart(cart.owner, event.order_id)
        case _:
            assert isinstance(cart, OpenCart)
            return _evolve_open(cart, event)


def _evolve_open(cart: OpenCart, event: OpenCartEvent) -> Cart:
    match event:
        case ItemAddedToCart():
            items = _with(cart.items, _item(event, cart.currency))
            return replace(cart, items=items, expires_at=event.expires_at)
        case CartItemQuantityChanged():
            items = tuple(
                replace(item, quantity=event.quantity) if item.sku == event.sku else item
                for item in cart.items
            )
            return replace(cart, items=items, expires_at=event.expires_at)
        case ItemRemovedFromCart():
            items = tuple(item for item in cart.items if item.sku != event.sku)
            return replace(cart, items=items, expires_at=event.expires_at)
        case CartCleared():
            return replace(cart, items=(), expires_at=event.expires_at)
        case CartCheckedOut():
            return CheckedOutCart(cart.owner, cart.currency, cart.items, event.checkout, event.order_id)
        case CartExpired():
            return ExpiredCart(cart.owner)
        case _:
            assert_never(event)


def _item(event: ItemAddedToCart, currency: str) -> CartItem:
    return CartItem(
        event.sku,
        event.name,
        event.quantity_after,
        event.unit_price,
        currency,
        event.price_version,
        event.stocked,
    )


def _with(items: tuple[CartItem, ...], item: CartItem) -> tuple[CartItem, ...]:
    """The items with this one on its SKU's line, or on a new last one."""
    for i, old in enumerate(items):
        if old.sku == item.sku:
            return (*items[:i], item, *items[i + 1 :])
    return (*items, item)


def answer(cart: Cart | None, command: CartCommand, _events: Sequence[CartEvent]) -> Answer:
    match command, cart:
        case CheckOutCart(), CheckedOutCart(order_id=order_id) | CompletedCart(order_id=order_id):
            return Answer(positions=(Position(order_stream(order_id), 1),))
        case ReopenCart() | CompleteCart(), _:
            return Answer(status=_became(cart, command))
        case _:
            return Answer()


def _became(cart: Cart | None, command: ReopenCart | CompleteCart) -> str:
    """What became of the cart as far as that order is concerned: reopened, completed or moved_on."""
    match cart:
        case OpenCart() if order_id_of(command.cart_id, cart.checkouts) == command.order_id:
            return "reopened"
        case CompletedCart() if cart.order_id == command.order_id:
            return "completed"
        case _:
            return "moved_on"


def deadline(path: str, record: Cart) -> Deadline | None:
    if not isinstance(record, OpenCart):
        return None
    return Deadline(record.expires_at, ExpireCart(path.removeprefix(cart_stream(""))))


DECIDER = of_one_record("cart", decide, evolve, answer, deadline)
