"""Why a command has no effect, in the words that a person reads."""

from typing import Any

import pytest

from commands import cart, catalog, inventory, order, payment
from commands.decider import Command, Decider
from commands.rejections import (
    CartIsCheckedOut,
    CartIsClosed,
    CartIsEmpty,
    CurrencyMismatch,
    OrderIsBeingShipped,
    OrderIsClosed,
    OrderIsNotConfirmed,
    PaymentHoldsTooLittle,
    PaymentIsCaptured,
    QuantityTooLarge,
    Rejection,
    StockBelowEmptyShelf,
    TooManyLines,
    UnknownCart,
    UnknownCartItem,
    UnknownOrder,
    UnknownPayment,
    UnknownProduct,
    UnknownStockItem,
)
from schemas.cart import (
    AddItemsToCart,
    CartCheckedOut,
    CartCompleted,
    CartCreated,
    CartExpired,
    CartItem,
    ChangeItemQuantity,
    CheckOutCart,
    ClearCart,
    CreateCart,
    ItemAddedToCart,
    order_id_of,
)
from schemas.catalog import RetireProduct
from schemas.inventory import (
    AdjustStock,
    ChangeStockPolicy,
    StockItemRegistered,
    StockReceived,
)
from schemas.meta import Micros
from schemas.order import (
    CancelOrder,
    OrderCompleted,
    OrderLinesShipped,
    OrderSettled,
    OrderShipmentRequested,
    OrderShipped,
    ShipOrder,
)
from schemas.payment import (
    PaymentAuthorizationRequested,
    PaymentAuthorized,
    PaymentCaptured,
    PaymentCaptureRequested,
    RequestCapture,
    RequestRefund,
    RequestVoid,
)
from schemas.values import LINES_MAX, MAIN, QUANTITY_MAX, PricedLine
from tests.an_order import (
    BOWL,
    CONFIRMED,
    LAMP,
    LEAVING,
    ORDER,
    PLACED,
    REMIND_AT,
    SECURED,
    cancelled,
    rejected,
    step,
)
from tests.specification import SHOP, Actor, Given, customer

ALICE, BOB = customer("alice"), customer("bob")
SOON = Micros(1)
FIRST = order_id_of("c", 1)
CREATED = CartCreated("c", "alice", "GBP", SOON)
FILLED = (CREATED, ItemAddedToCart("c", "LAMP", "A lamp", 2, 2, 100, 1, True, SOON))
CHECKED_OUT = (
    *FILLED,
    CartCheckedOut(
        "c", "alice", FIRST, 1, (PricedLine(1, "LAMP", "A lamp", 2, 100, 1, stocked=True),), 200, "GBP", "tok"
    ),
)


def lamps(quantity: int, currency: str = "GBP", sku: str = "LAMP") -> CartItem:
    return CartItem(sku, "A lamp", quantity, 100, currency, 1, stocked=True)


TOO_MANY = AddItemsToCart("c", tuple(lamps(1, sku=f"LAMP{n}") for n in range(LINES_MAX)))
STRANGERS = UnknownCart("no cart c")

CART: list[tuple[tuple[Any, ...], Command, Actor, Rejection]] = [
    ((), ClearCart("c"), ALICE, STRANGERS),
    (FILLED, ClearCart("c"), BOB, STRANGERS),
    (FILLED, CreateCart("c", "bob", "GBP"), BOB, STRANGERS),
    ((), CreateCart("c", "bob", "GBP"), ALICE, STRANGERS),
    (CHECKED_OUT, ClearCart("c"), ALICE, CartIsCheckedOut(f"it was checked out as order {FIRST}")),
    (
        (*CHECKED_OUT, CartCompleted("c", FIRST)),
        ClearCart("c"),
        ALICE,
        CartIsClosed(f"it was completed by order {FIRST}"),
    ),
    ((*FILLED, CartExpired("c")), ClearCart("c"), ALICE, CartIsClosed("it expired")),
    ((*FILLED, CartExpired("c")), CheckOutCart("c", "tok"), ALICE, CartIsClosed("it expired")),
    ((CREATED,), CheckOutCart("c", "tok"), ALICE, CartIsEmpty("there is nothing in it to check out")),
    (
        FILLED,
        AddItemsToCart("c", (lamps(1, "EUR"),)),
        ALICE,
        CurrencyMismatch("LAMP is priced in EUR, the cart in GBP"),
    ),
    (
        FILLED,
        AddItemsToCart("c", (lamps(QUANTITY_MAX - 1),)),
        ALICE,
        QuantityTooLarge(f"{QUANTITY_MAX + 1} of LAMP; at most {QUANTITY_MAX}"),
    ),
    (FILLED, TOO_MANY, ALICE, TooManyLines(f"{LINES_MAX + 1} lines; at most {LINES_MAX}")),
    (FILLED, ChangeItemQuantity("c", "BOWL", 1), ALICE, UnknownCartItem("BOWL is not in the cart")),
    (
        FILLED,
        ChangeItemQuantity("c", "LAMP", QUANTITY_MAX + 1),
        ALICE,
        QuantityTooLarge(f"{QUANTITY_MAX + 1} of LAMP; at most {QUANTITY_MAX}"),
    ),
]
CATALOG = [((), RetireProduct("LAMP"), SHOP, UnknownProduct("no product LAMP"))]

ANNA = customer("anna")
NO_ORDER = UnknownOrder(f"there is no order {ORDER}")
SHIPPED = (
    *CONFIRMED,
    OrderShipmentRequested(*step(LAMP, BOWL), 1, REMIND_AT),
    OrderLinesShipped(ORDER, (LAMP, BOWL)),
    OrderShipped(ORDER),
    OrderCompleted(ORDER, REMIND_AT),
)
HAVE_LEFT = OrderIsBeingShipped("its goods have left")
ORDERS = [
    (SHIPPED, CancelOrder(ORDER, "late"), ANNA, HAVE_LEFT),
    ((*SHIPPED, OrderSettled(ORDER)), CancelOrder(ORDER, "late"), ANNA, HAVE_LEFT),
    (
        (*SECURED, rejected(LAMP, reason="stock"), OrderSettled(ORDER)),
        CancelOrder(ORDER, "late"),
        ANNA,
        OrderIsClosed("it was rejected"),
    ),
    ((), ShipOrder(ORDER), SHOP, NO_ORDER),
    (CONFIRMED, ShipOrder(ORDER), ANNA, NO_ORDER),
    (CONFIRMED, CancelOrder(ORDER, "late"), BOB, NO_ORDER),
    (PLACED, ShipOrder(ORDER), SHOP, OrderIsNotConfirmed("it waits for stock or money")),
    (LEAVING, CancelOrder(ORDER, "late"), ANNA, OrderIsBeingShipped("its goods are on their way")),
    ((*SECURED, rejected(LAMP, reason="stock")), ShipOrder(ORDER), SHOP, OrderIsClosed("it was rejected")),
    (
        (*SECURED, rejected(LAMP, reason="stock")),
        CancelOrder(ORDER, "late"),
        ANNA,
        OrderIsClosed("it was rejected"),
    ),
    ((*SECURED, cancelled(LAMP, reason="late")), ShipOrder(ORDER), SHOP, OrderIsClosed("it was cancelled")),
    (
        (*SECURED, cancelled(LAMP, reason="late"), OrderSettled(ORDER)),
        ShipOrder(ORDER),
        SHOP,
        OrderIsClosed("it was cancelled"),
    ),
]

ALL = ("p", "o", 500, "GBP")
ASKED = (PaymentAuthorizationRequested(*ALL, "k1", "anna", "tok", "", SOON),)
HELD = (*ASKED, PaymentAuthorized(*ALL, "k1", "auth"))
CHARGED = (
    *HELD,
    PaymentCaptureRequested(*ALL, "k2", "anna", "", "auth", SOON),
    PaymentCaptured(*ALL, "k2", "cap"),
)
PAYMENTS = [
    ((), RequestCapture("p", "o", 500, 1), SHOP, UnknownPayment("there is no payment p")),
    (HELD, RequestCapture("p", "o", 500, 1), BOB, UnknownPayment("there is no payment p")),
    (
        HELD,
        RequestCapture("p", "o", 501, 1),
        SHOP,
        PaymentHoldsTooLittle("500 is authorized, 501 asked"),
    ),
    (CHARGED, RequestVoid("p", "o", "GBP", 1), SHOP, PaymentIsCaptured("500 is captured: refund it")),
    (
        CHARGED,
        RequestRefund("p", "o", 501, 1),
        SHOP,
        PaymentHoldsTooLittle("500 is captured, 501 asked back"),
    ),
]
ON_THE_SHELF = (
    StockItemRegistered("LAMP", MAIN, 0, 0, 0, 0),
    StockReceived("LAMP", MAIN, 5, 0, 0, 0, 5, "note"),
)
STOCK = [
    ((), ChangeStockPolicy("LAMP", MAIN, 1, 1), SHOP, UnknownStockItem("nothing is known of LAMP")),
    (
        ON_THE_SHELF,
        AdjustStock("LAMP", MAIN, -6, "damaged", "", None),
        SHOP,
        StockBelowEmptyShelf("5 on the shelf of LAMP, -6 asked"),
    ),
]
CASES = [
    (decider, *case)
    for decider, cases in (
        (cart.DECIDER, CART),
        (catalog.DECIDER, CATALOG),
        (order.DECIDER, ORDERS),
        (payment.DECIDER, PAYMENTS),
        (inventory.DECIDER, STOCK),
    )
    for case in cases
]


@pytest.mark.parametrize(
    ("decider", "history", "command", "actor", "rejection"),
    CASES,
    ids=[f"{type(case[4]).__name__}-{type(case[2]).__name__}-{n}" for n, case in enumerate(CASES)],
)
def test_a_rejection_says_what_stands_in_the_way(
    decider: Decider, history: tuple[Any, ...], command: Command, actor: Actor, rejection: Rejection
) -> None:
    assert Given(decider, *history).when(command, actor).rejection == rejection
