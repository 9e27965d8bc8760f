"""A story of each aggregate in which every type of its commands is spoken once or more."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.cart import (
    AddItemsToCart,
    CartItem,
    ChangeItemQuantity,
    CheckOutCart,
    ClearCart,
    CompleteCart,
    CreateCart,
    ExpireCart,
    RemoveItemFromCart,
    ReopenCart,
    order_id_of,
)
from schemas.catalog import PublishProduct, RetireProduct
from schemas.inventory import (
    AdjustStock,
    AllocateStock,
    ChangeStockPolicy,
    ExpireReservation,
    ReceiptLine,
    ReceiveStock,
    ReleaseAllocation,
    ReleaseReservation,
    ReserveStock,
    ShipStock,
)
from schemas.meta import HOUR, Micros, derived_id, event_id
from schemas.order import (
    CancelOrder,
    EraseOrderContact,
    ExpireOrder,
    PlaceOrder,
    RecordAllocation,
    RecordCapture,
    RecordCartAnswer,
    RecordMoneyReturn,
    RecordPaymentAnswer,
    RecordRelease,
    RecordShipment,
    RecordStockAnswer,
    RemindOrder,
    ShipOrder,
    payment_id_of,
)
from schemas.payment import (
    NoteProviderEvent,
    RecordProviderResult,
    RepeatPaymentRequest,
    RequestAuthorization,
    RequestCapture,
    RequestRefund,
    RequestVoid,
)
from schemas.personal import SealedContact
from schemas.values import MAIN, Line, PricedLine

SKU, OWNER, CURRENCY, AMOUNT, TOKEN = "STORY", "anna", "GBP", 255, "tok_ok"


@dataclass(frozen=True)
class Said:
    """One command of a story; its id follows from the story's name and its place in it."""

    aggregate: str
    body: Any
    command_id: str

    @property
    def actor(self) -> tuple[str, str]:
        """Kind and id of whoever says it: a saga, where an operator need not."""
        return ("operator", "olga") if isinstance(self.body, EraseOrderContact) else ("saga", "checkout")


def told(name: str, now: Micros) -> list[Said]:
    """All stories, aggregate by aggregate, each in its order; two of different names share no stream but the SKU's."""
    bodies: Mapping[str, Sequence[Any]] = {
        "catalog": _catalog(name),
        "cart": _cart(name),
        "order": [*_shipped(name), *_given_up(name)],
        "inventory": _inventory(name, now),
        "payment": [*_payment(name)],
    }
    return [
        Said(aggregate, body, _command_id(name, aggregate, number))
        for aggregate, story in bodies.items()
        for number, body in enumerate(story)
    ]


def _command_id(name: str, aggregate: str, number: int) -> str:
    return derived_id(name, aggregate, str(number))


def _catalog(name: str) -> Sequence[Any]:
    sku = f"{SKU}-{name}"
    return (
        PublishProduct(sku, "a lantern", "", ("lamps",), "", 255, CURRENCY, stocked=True),
        PublishProduct(sku, "a lantern", "", ("lamps",), "", 300, CURRENCY, stocked=True),
        RetireProduct(sku),
    )


def _cart(name: str) -> Sequence[Any]:
    cart, other = derived_id(name, "cart"), derived_id(name, "another cart")
    lantern = CartItem(SKU, "a lantern", 1, AMOUNT, CURRENCY, 1, stocked=True)
    first, second = order_id_of(cart, 1), order_id_of(cart, 2)
    return (
        CreateCart(cart, OWNER, CURRENCY),
        AddItemsToCart(cart, (lantern,)),
        ChangeItemQuantity(cart, SKU, 2),
        RemoveItemFromCart(cart, SKU),
        AddItemsToCart(cart, (lantern,)),
        ClearCart(cart),
        AddItemsToCart(cart, (lantern,)),
        CheckOutCart(cart, TOKEN),
        ReopenCart(cart, first, 1),
        CheckOutCart(cart, TOKEN),
        CompleteCart(cart, second, 1),
        CreateCart(other, OWNER, CURRENCY),
        ExpireCart(other),
    )


def _placed(order: str) -> PlaceOrder:
    line = PricedLine(1, SKU, "a lantern", 1, AMOUNT, 1, stocked=True)
    contact = SealedContact("key", b"name", b"e-mail", b"address")
    return PlaceOrder(order, derived_id(order, "cart"), OWNER, (line,), AMOUNT, CURRENCY, TOKEN, contact)


def _shipped(name: str) -> Iterator[Any]:
    order = derived_id(name, "shipped")
    payment = payment_id_of(order)
    yield _placed(order)
    yield RecordStockAnswer(order, (1,), (), "")
    yield RecordPaymentAnswer(order, payment, "done", "")
    yield RecordAllocation(order, (1,), (), "")
    yield RemindOrder(order)
    yield RecordCapture(order, payment, "done", "")
    yield RecordCartAnswer(order, derived_id(order, "cart"), "completed")
    yield ShipOrder(order)
    yield RecordShipment(order, (1,), (), 1, "")
    yield EraseOrderContact(order)


def _given_up(name: str) -> Iterator[Any]:
    order = derived_id(name, "cancelled")
    payment = payment_id_of(order)
    yield _placed(order)
    yield ExpireOrder(order)
    yield RecordStockAnswer(order, (1,), (), "")
    yield RecordPaymentAnswer(order, payment, "done", "")
    yield CancelOrder(order, "changed my mind")
    yield RecordRelease(order, (1,), "released")
    yield RecordMoneyReturn(order, payment, "void", "done", "")
    yield RecordCartAnswer(order, derived_id(order, "cart"), "reopened")


def _inventory(name: str, now: Micros) -> Sequence[Any]:
    kept, dropped, late = (derived_id(name, what) for what in ("kept", "dropped", "late"))
    lines, soon = (Line(1, SKU, 1),), Micros(now + HOUR)
    return (
        ReceiveStock(MAIN, "delivery", (ReceiptLine(SKU, 10),)),
        ChangeStockPolicy(SKU, MAIN, 1, 2),
        AdjustStock(SKU, MAIN, -1, "damaged", "", None),
        ReserveStock(kept, MAIN, lines, 1, soon),
        AllocateStock(kept, MAIN, lines, 1),
        ShipStock(kept, MAIN, lines, 1),
        ReserveStock(dropped, MAIN, lines, 1, soon),
        ReleaseReservation(dropped, MAIN, lines, 1, "cancelled"),
        ReserveStock(late, MAIN, lines, 1, soon),
        ExpireReservation(SKU, MAIN, late, 1),
        ReserveStock(derived_id(late), MAIN, lines, 1, soon),
        AllocateStock(derived_id(late), MAIN, lines, 1),
        ReleaseAllocation(derived_id(late), MAIN, lines, 1, "cancelled"),
    )


def _payment(name: str) -> Iterator[Any]:
    """Keys are the ids of the events that ask the provider: of the first event of the command that caused it."""
    kept, returned = derived_id(name, "payment"), derived_id(name, "returned payment")

    def key(number: int) -> str:
        return event_id(_command_id(name, "payment", number), 0)

    yield RequestAuthorization(kept, f"order-{kept}", OWNER, AMOUNT, CURRENCY, TOKEN, 1)
    yield NoteProviderEvent(
        kept, f"order-{kept}", AMOUNT, CURRENCY, "authorization", key(0), "succeeded", f"evt-{name}"
    )
    yield RepeatPaymentRequest(kept, "authorization", key(0), 1)
    yield RecordProviderResult(kept, "authorization", key(0), "succeeded", "ref-1", "", None)
    yield RequestCapture(kept, f"order-{kept}", AMOUNT, 1)
    yield RecordProviderResult(kept, "capture", key(4), "succeeded", "ref-2", "", None)
    yield RequestRefund(kept, f"order-{kept}", AMOUNT, 1)
    yield RecordProviderResult(kept, "refund", key(6), "succeeded", "ref-3", "", None)
    yield RequestAuthorization(returned, f"order-{returned}", OWNER, AMOUNT, CURRENCY, TOKEN, 1)
    yield RecordProviderResult(returned, "authorization", key(8), "succeeded", "ref-4", "", None)
    yield RequestVoid(returned, f"order-{returned}", CURRENCY, 1)
    yield RecordProviderResult(returned, "void", key(10), "succeeded", "ref-5", "", None)
