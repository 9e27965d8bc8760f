"""The cart's rules, one sentence each."""

from typing import Any

import pytest

from commands.cart import DECIDER
from commands.decider import Answer, Deadline
from commands.rejections import (
    CartIsCheckedOut,
    CartIsClosed,
    CartIsEmpty,
    CurrencyMismatch,
    QuantityTooLarge,
    TooManyLines,
    UnknownCart,
    UnknownCartItem,
)
from schemas.cart import (
    CART_LIMIT,
    AddItemsToCart,
    CartCheckedOut,
    CartCleared,
    CartCompleted,
    CartCreated,
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
from schemas.personal import SealedContact
from schemas.values import LINES_MAX, QUANTITY_MAX, Position, PricedLine
from tests.specification import DEADLINE, SAGA, SHOP, Actor, Given, customer

CART = "c1"
ALICE, BOB = customer("alice"), customer("bob")
FIRST, SECOND = order_id_of(CART, 1), order_id_of(CART, 2)
LAMP, TEAPOT = "85123A", "22139"
NOW = 1_000
LATER = Micros(NOW + CART_LIMIT)
CREATED = CartCreated(CART, "alice", "GBP", Micros(CART_LIMIT))
ONE_ORDER = Answer(positions=(Position(f"order/{FIRST}", 1),))

CHANGES = [
    AddItemsToCart(CART, ()),
    ChangeItemQuantity(CART, LAMP, 5),
    RemoveItemFromCart(CART, LAMP),
    ClearCart(CART),
]


def item(sku: str, quantity: int, price: int = 100, currency: str = "GBP", version: int = 1) -> CartItem:
    return CartItem(sku, f"name of {sku}", quantity, price, currency, version, stocked=True)


def added(sku: str, quantity: int, after: int, price: int = 100, version: int = 1) -> ItemAddedToCart:
    return ItemAddedToCart(
        CART, sku, f"name of {sku}", quantity, after, price, version, stocked=True, expires_at=LATER
    )


def add(*items: CartItem) -> AddItemsToCart:
    return AddItemsToCart(CART, items)


def given(*events: Any) -> Given:
    return Given(DECIDER, *events)


def filled() -> Given:
    """Alice's cart with two lamps at 100 and a teapot at 250."""
    return given(CREATED, added(LAMP, 2, 2), added(TEAPOT, 1, 1, price=250))


def items_of(here: Given) -> tuple[CartItem, ...]:
    cart: OpenCart = here.records[cart_stream(CART)]
    return cart.items


def checked_out() -> Given:
    here = filled()
    here.when(CheckOutCart(CART, "tok_ok"), ALICE, NOW)
    return here


def completed() -> Given:
    here = checked_out()
    here.when(CompleteCart(CART, FIRST, 1), SAGA, NOW)
    return here


def expired() -> Given:
    here = filled()
    here.when(ExpireCart(CART), DEADLINE, LATER)
    return here


# Whose it is.


def test_a_cart_is_created_once_for_its_owner():
    here = given()
    create = CreateCart(CART, "alice", "GBP")
    here.when(create, ALICE, NOW).then(CartCreated(CART, "alice", "GBP", LATER))
    here.when(create, ALICE, NOW).then_nothing()
    assert here.get(cart_stream(CART)) == OpenCart("alice", "GBP", (), 0, LATER)


def test_nobody_creates_a_cart_for_another_customer():
    given().when(CreateCart(CART, "alice", "GBP"), BOB).then_rejected(UnknownCart)
    filled().when(CreateCart(CART, "bob", "GBP"), BOB).then_rejected(UnknownCart)


@pytest.mark.parametrize("command", [*CHANGES, CheckOutCart(CART, "tok_ok")])
def test_another_customers_cart_is_as_unknown_as_one_that_never_was(command):
    filled().when(command, BOB).then_rejected(UnknownCart)
    filled().when(command, Actor("auditor", "alice")).then_rejected(UnknownCart)
    given().when(command, ALICE).then_rejected(UnknownCart)


@pytest.mark.parametrize("actor", [ALICE, SHOP, SAGA, DEADLINE, Actor("operator", "olga")])
def test_the_owner_and_the_shop_may_change_a_cart(actor):
    filled().when(ClearCart(CART), actor, NOW).then(CartCleared(CART, LATER))


# What is in it.


def test_items_are_added_and_every_change_moves_the_limit():
    here = given(CREATED)
    here.when(add(item(LAMP, 2), item(TEAPOT, 1, 250)), ALICE, NOW).then(
        added(LAMP, 2, 2), added(TEAPOT, 1, 1, price=250)
    )
    assert here.get(cart_stream(CART)) == OpenCart(
        "alice", "GBP", (item(LAMP, 2), item(TEAPOT, 1, 250)), 0, LATER
    )


def test_a_sku_that_is_there_has_its_line_added_to_at_the_newer_price():
    here = filled()
    here.when(add(item(LAMP, 3, price=90, version=2)), ALICE, NOW).then(
        added(LAMP, 3, 5, price=90, version=2)
    )
    assert items_of(here)[0] == item(LAMP, 5, price=90, version=2)


def test_a_sku_that_is_named_twice_is_one_line():
    here = given(CREATED)
    here.when(add(item(LAMP, 2), item(LAMP, 3)), ALICE, NOW).then(added(LAMP, 2, 2), added(LAMP, 3, 5))
    assert items_of(here) == (item(LAMP, 5),)


def test_items_in_another_currency_are_not_added_nor_is_any_beside_them():
    filled().when(add(item("1", 1), item("2", 1, currency="EUR")), ALICE).then_rejected(CurrencyMismatch)


def test_a_cart_has_so_many_lines_and_no_more():
    here = given(CREATED)
    here.when(add(*(item(str(n), 1) for n in range(LINES_MAX))), ALICE, NOW)
    assert len(items_of(here)) == LINES_MAX
    here.when(add(item("0", 1)), ALICE, NOW).then(added("0", 1, 2))
    here.when(add(item("one more", 1)), ALICE, NOW).then_rejected(TooManyLines)


def test_a_line_has_so_many_units_and_no_more():
    here = given(CREATED)
    here.when(add(item(LAMP, QUANTITY_MAX)), ALICE, NOW).then(added(LAMP, QUANTITY_MAX, QUANTITY_MAX))
    here.when(add(item(LAMP, 1)), ALICE, NOW).then_rejected(QuantityTooLarge)
    here.when(ChangeItemQuantity(CART, LAMP, QUANTITY_MAX + 1), ALICE).then_rejected(QuantityTooLarge)


def test_a_quantity_is_changed_and_the_same_again_changes_nothing():
    here = filled()
    here.when(ChangeItemQuantity(CART, LAMP, 7), ALICE, NOW).then(
        CartItemQuantityChanged(CART, LAMP, 7, 2, LATER)
    )
    here.when(ChangeItemQuantity(CART, LAMP, 7), ALICE, NOW).then_nothing()
    assert items_of(here) == (item(LAMP, 7), item(TEAPOT, 1, 250))


@pytest.mark.parametrize(
    "change", [ChangeItemQuantity(CART, LAMP, 5), RemoveItemFromCart(CART, LAMP), ClearCart(CART)], ids=type
)
def test_whatever_is_changed_moves_the_limit(change: Any):
    here = filled()
    here.when(change, ALICE, LATER - 1).then_answers(Answer())
    assert here.records[cart_stream(CART)].expires_at == LATER - 1 + CART_LIMIT


def test_a_line_may_be_changed_to_the_most_units_there_may_be():
    most = ChangeItemQuantity(CART, LAMP, QUANTITY_MAX)
    filled().when(most, ALICE, NOW).then(CartItemQuantityChanged(CART, LAMP, QUANTITY_MAX, 2, LATER))


def test_what_is_not_in_the_cart_has_no_quantity_to_change():
    filled().when(ChangeItemQuantity(CART, "absent", 7), ALICE).then_rejected(UnknownCartItem)


def test_an_item_is_removed_once():
    here = filled()
    here.when(RemoveItemFromCart(CART, LAMP), ALICE, NOW).then(ItemRemovedFromCart(CART, LAMP, LATER))
    here.when(RemoveItemFromCart(CART, LAMP), ALICE, NOW).then_nothing()
    assert items_of(here) == (item(TEAPOT, 1, 250),)


def test_a_cart_is_cleared_once():
    here = filled()
    here.when(ClearCart(CART), ALICE, NOW).then(CartCleared(CART, LATER))
    here.when(ClearCart(CART), ALICE, NOW).then_nothing()
    assert items_of(here) == ()


# Checking out.


def test_a_cart_is_checked_out_with_its_lines_numbered_and_added_up():
    here = filled()
    here.when(CheckOutCart(CART, "tok_ok"), ALICE, NOW).then(
        CartCheckedOut(
            CART,
            "alice",
            FIRST,
            1,
            (
                PricedLine(1, LAMP, f"name of {LAMP}", 2, 100, 1, stocked=True),
                PricedLine(2, TEAPOT, f"name of {TEAPOT}", 1, 250, 1, stocked=True),
            ),
            450,
            "GBP",
            "tok_ok",
        )
    ).then_answers(ONE_ORDER)
    items = (item(LAMP, 2), item(TEAPOT, 1, 250))
    assert here.get(cart_stream(CART)) == CheckedOutCart("alice", "GBP", items, 1, FIRST)


def test_an_empty_cart_is_not_checked_out():
    given(CREATED).when(CheckOutCart(CART, "tok_ok"), ALICE).then_rejected(CartIsEmpty)


def test_a_checkout_hands_its_contact_on_unread():
    contact = SealedContact("key", b"n", b"e", b"a")
    [event] = filled().when(CheckOutCart(CART, "tok_ok", contact), ALICE, NOW).events
    assert isinstance(event, CartCheckedOut)
    assert event.contact == contact


@pytest.mark.parametrize("here", [checked_out, completed])
def test_a_second_checkout_answers_with_the_first_order(here):
    here().when(CheckOutCart(CART, "tok_other"), ALICE).then_nothing().then_answers(ONE_ORDER)


@pytest.mark.parametrize("command", CHANGES)
def test_a_checked_out_cart_is_frozen(command):
    checked_out().when(command, ALICE).then_rejected(CartIsCheckedOut)


@pytest.mark.parametrize("here", [completed, expired])
@pytest.mark.parametrize("command", CHANGES)
def test_a_closed_cart_is_not_changed(here, command):
    here().when(command, ALICE).then_rejected(CartIsClosed)


def test_an_expired_cart_is_not_checked_out():
    expired().when(CheckOutCart(CART, "tok_ok"), ALICE).then_rejected(CartIsClosed)


# What became of its order.


def test_a_cart_is_opened_again_once_for_its_order():
    here = checked_out()
    here.when(ReopenCart(CART, FIRST, 1), SAGA, NOW).then(CartReopened(CART, FIRST, LATER)).then_answers(
        Answer(status="reopened")
    )
    here.when(ReopenCart(CART, FIRST, 2), SAGA, NOW).then_nothing().then_answers(Answer(status="reopened"))
    items = (item(LAMP, 2), item(TEAPOT, 1, 250))
    assert here.get(cart_stream(CART)) == OpenCart("alice", "GBP", items, 1, LATER)


def test_the_next_checkout_is_another_order():
    here = checked_out()
    here.when(ReopenCart(CART, FIRST, 1), SAGA, NOW)
    [event] = here.when(CheckOutCart(CART, "tok_ok"), ALICE, NOW).events
    assert (event.order_id, event.checkout) == (SECOND, 2)


def test_a_cart_is_completed_once_by_its_order():
    here = checked_out()
    here.when(CompleteCart(CART, FIRST, 1), SAGA).then(CartCompleted(CART, FIRST)).then_answers(
        Answer(status="completed")
    )
    here.when(CompleteCart(CART, FIRST, 2), SAGA).then_nothing().then_answers(Answer(status="completed"))
    assert here.get(cart_stream(CART)) == CompletedCart("alice", FIRST)


@pytest.mark.parametrize("of", [ReopenCart, CompleteCart])
def test_a_cart_that_was_checked_out_anew_is_left_alone_by_its_former_order(of):
    here = checked_out()
    here.when(ReopenCart(CART, FIRST, 1), SAGA, NOW)
    here.when(CheckOutCart(CART, "tok_ok"), ALICE, NOW)
    here.when(of(CART, FIRST, 2), SAGA).then_nothing().then_answers(Answer(status="moved_on"))


def test_reopening_and_completing_do_not_undo_each_other():
    here = checked_out()
    here.when(ReopenCart(CART, FIRST, 1), SAGA, NOW)
    here.when(CompleteCart(CART, FIRST, 1), SAGA).then_nothing().then_answers(Answer(status="reopened"))
    completed().when(ReopenCart(CART, FIRST, 1), SAGA).then_nothing().then_answers(Answer(status="completed"))


@pytest.mark.parametrize("of", [ReopenCart, CompleteCart])
def test_an_expired_cart_has_moved_on(of):
    expired().when(of(CART, FIRST, 1), SAGA).then_nothing().then_answers(Answer(status="moved_on"))


# Its limit.


def test_a_cart_expires_at_its_limit_and_not_before():
    filled().when(ExpireCart(CART), DEADLINE, LATER - 1).then_nothing()
    here = filled()
    here.when(ExpireCart(CART), DEADLINE, LATER).then(CartExpired(CART))
    assert here.get(cart_stream(CART)) == ExpiredCart("alice")


@pytest.mark.parametrize("here", [checked_out, completed, expired])
def test_only_an_open_cart_expires(here):
    here().when(ExpireCart(CART), DEADLINE, 2 * LATER).then_nothing()


def test_only_an_open_cart_has_a_deadline():
    path = cart_stream(CART)
    assert DECIDER.deadline(path, filled().get(path)) == Deadline(LATER, ExpireCart(CART))
    for here in (checked_out(), completed(), expired()):
        assert DECIDER.deadline(path, here.get(path)) is None
