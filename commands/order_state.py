"""What an order remembers: its root of one letter per line, and what each event makes of it."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeAlias, TypeVar, assert_never

from commands.decider import Changes, Deadline, Snapshot
from schemas.order import (
    LINES_PER_RECORD,
    ConfirmedOrder,
    EndedOrder,
    Ending,
    ExpireOrder,
    Money,
    MoneyReturn,
    Order,
    OrderCancelled,
    OrderCaptured,
    OrderCaptureFailed,
    OrderCaptureRequested,
    OrderCartClosed,
    OrderClaimsOrphaned,
    OrderClaimsReturned,
    OrderCompleted,
    OrderConfirmationRepeated,
    OrderConfirmed,
    OrderContactErased,
    OrderEvent,
    OrderLines,
    OrderLinesAllocated,
    OrderLinesRefused,
    OrderLinesReserved,
    OrderLinesShipped,
    OrderMoneyReturned,
    OrderPaymentAuthorized,
    OrderPaymentDeclined,
    OrderPaymentOrphaned,
    OrderPlaced,
    OrderRejected,
    OrderReturnRequested,
    OrderSettled,
    OrderShipmentRefused,
    OrderShipmentRequested,
    OrderShipped,
    OrderState,
    OrderStockSecured,
    PlacedOrder,
    RemindOrder,
    SettledOrder,
    order_lines_path,
)
from schemas.values import Line, RefusedLine

RISE = "oread"
"""The life of a claim, in the letters of `schemas.order.Claim`: a fact moves it to the right, or is no news."""
HELD = "rea"
"""Claims that a release must end; one that expired holds no units, yet might be allocated again."""
OWED = "orea"
UNALLOCATED = "ore"

LivingOrder: TypeAlias = PlacedOrder | ConfirmedOrder | EndedOrder
ClaimNews: TypeAlias = (
    OrderLinesReserved | OrderLinesRefused | OrderLinesAllocated | OrderClaimsReturned | OrderClaimsOrphaned
)
MoneyNews: TypeAlias = (
    OrderStockSecured
    | OrderPaymentAuthorized
    | OrderPaymentDeclined
    | OrderPaymentOrphaned
    | OrderCaptured
    | OrderMoneyReturned
)
AfterConfirmation: TypeAlias = (
    OrderConfirmationRepeated
    | OrderCaptureRequested
    | OrderCaptureFailed
    | OrderShipmentRequested
    | OrderLinesShipped
    | OrderShipmentRefused
    | OrderShipped
    | OrderCompleted
)
Common: TypeAlias = tuple[str, str, str, int, str, tuple[Line, ...], str, str]
T = TypeVar("T")


class BrokenInvariantError(TypeError):
    """History says what can't be."""


def expected(record: object, kind: type[T]) -> T:
    """The record, which history says must be of this kind; if not, an invariant broke."""
    if not isinstance(record, kind):
        raise BrokenInvariantError(f"{type(record).__name__} where a {kind.__name__} must be")
    return record


def living(order: Order) -> LivingOrder:
    if isinstance(order, SettledOrder):
        raise BrokenInvariantError("nothing happens to a settled order")
    return order


# What is true after an event.


def evolve(state: Snapshot, event: OrderEvent) -> Changes:
    stream = event.stream
    if isinstance(event, OrderPlaced):
        return {stream: placed(event)} | _line_records(event)
    order: Order = state.get(stream)  # type: ignore[assignment]  # its first event placed it
    changes: dict[str, OrderState | None] = {stream: after(order, event)}
    if isinstance(event, OrderSettled):
        changes |= dict.fromkeys(_line_paths(event.order_id, len(living(order).claims)))
    return changes


def after(order: Order, event: OrderEvent) -> Order:
    """The root after any event."""
    match event:
        case OrderPlaced():
            return placed(event)
        case (
            OrderLinesReserved()
            | OrderLinesRefused()
            | OrderLinesAllocated()
            | OrderClaimsReturned()
            | OrderClaimsOrphaned()
        ):
            before = living(order)
            return replace(before, claims=_claims_after(before.claims, event))
        case (
            OrderStockSecured()
            | OrderPaymentAuthorized()
            | OrderPaymentDeclined()
            | OrderPaymentOrphaned()
            | OrderCaptured()
            | OrderMoneyReturned()
        ):
            return replace(living(order), money=_money_after(event))
        case OrderConfirmed():
            return _confirmed(living(order), event)
        case OrderRejected():
            return _ended(living(order), event, "rejected")
        case OrderCancelled():
            return _ended(living(order), event, "cancelled")
        case OrderReturnRequested() | OrderSettled():
            return _after_the_end(expected(order, EndedOrder), event)
        case OrderContactErased():
            return replace(order, has_contact=False)
        case OrderCartClosed():
            return _cart_closed(order)
        case _:
            return _after_confirmation(expected(order, ConfirmedOrder), event)


def _claims_after(claims: str, event: ClaimNews) -> str:
    numbers = [line.line for line in event.lines]
    match event:
        case OrderLinesReserved():
            return put(claims, numbers, "r")
        case OrderLinesRefused():
            return put(claims, [*numbers, *event.withheld], "x")
        case OrderLinesAllocated():
            return put(claims, numbers, "a")
        case OrderClaimsReturned():
            return put(claims, numbers, "e" if event.how == "expired" else "d")
        case OrderClaimsOrphaned():
            return put(claims, numbers, "a" if event.held == "allocated" else "r")
        case _:
            assert_never(event)


def _money_after(event: MoneyNews) -> Money:
    match event:
        case OrderStockSecured():
            return "asked"
        case OrderPaymentAuthorized():
            return "authorized"
        case OrderPaymentDeclined():
            return "declined"
        case OrderPaymentOrphaned():
            return "captured" if event.money == "refund" else "authorized"
        case OrderCaptured():
            return "captured"
        case OrderMoneyReturned():
            return "returned"
        case _:
            assert_never(event)


def _after_confirmation(order: ConfirmedOrder, event: AfterConfirmation) -> Order:
    match event:
        case OrderConfirmationRepeated():
            return replace(order, attempt=event.attempt, remind_at=event.remind_at)
        case OrderCaptureRequested():
            return replace(order, captures=event.attempt, remind_at=event.remind_at)
        case OrderCaptureFailed():
            return replace(order, remind_at=event.retry_at)
        case OrderShipmentRequested():
            parcels = _put_lines(order.parcels, event.lines, "?")
            return replace(order, parcels=parcels, shipments=event.attempt, remind_at=event.remind_at)
        case OrderLinesShipped():
            return replace(order, parcels=_put_lines(order.parcels, event.lines, "s"))
        case OrderShipmentRefused():
            return replace(order, parcels=_put_lines(order.parcels, event.lines, "-"))
        case OrderShipped():
            return order
        case OrderCompleted():
            return _completed(order, event)
        case _:
            assert_never(event)


def placed(event: OrderPlaced) -> PlacedOrder:
    return PlacedOrder(
        event.order_id,
        event.cart_id,
        event.owner,
        event.amount,
        event.currency,
        _stocked(event) if len(event.lines) <= LINES_PER_RECORD else (),
        "".join("o" if line.stocked else "-" for line in event.lines),
        "none",
        event.token,
        event.expires_at,
        event.contact is not None,
    )


def _common(o: LivingOrder) -> Common:
    """The fields that every living order begins with."""
    return o.order_id, o.cart_id, o.owner, o.amount, o.currency, o.lines, o.claims, o.money


def _confirmed(order: LivingOrder, event: OrderConfirmed) -> ConfirmedOrder:
    parcels = "-" * len(order.claims)
    return ConfirmedOrder(*_common(order), parcels, "complete", 0, 1, 1, event.remind_at, order.has_contact)


def _ended(order: LivingOrder, event: OrderRejected | OrderCancelled, ending: Ending) -> EndedOrder:
    return EndedOrder(*_common(order), ending, event.held, event.cart, 1, event.remind_at, order.has_contact)


def _completed(order: ConfirmedOrder, event: OrderCompleted) -> EndedOrder:
    """All of its claims were shipped: none is owed."""
    owed = "completed", "allocated", order.cart, 1, event.remind_at
    return replace(EndedOrder(*_common(order), *owed, order.has_contact), claims="-" * len(order.claims))


def _after_the_end(order: EndedOrder, event: OrderReturnRequested | OrderSettled) -> Order:
    if isinstance(event, OrderSettled):
        return SettledOrder(order.order_id, order.owner, order.ending, order.has_contact)
    return replace(order, attempt=event.attempt, remind_at=event.remind_at)


def _cart_closed(order: Order) -> Order:
    if isinstance(order, ConfirmedOrder):
        return replace(order, cart="none")
    return replace(expected(order, EndedOrder), cart="none")


# Many lines lie in records of their own, written once: afterwards only the root's letters change.


def lines_of(state: Snapshot, order: LivingOrder, numbers: Iterable[int]) -> tuple[Line, ...]:
    """These of the order's stocked lines, wherever they lie."""
    wanted = set(numbers)
    if len(order.claims) <= LINES_PER_RECORD:
        return tuple(line for line in order.lines if line.line in wanted)
    chunks = sorted({_chunk_of(number) for number in wanted})
    records = [expected(state.get(order_lines_path(order.order_id, n)), OrderLines) for n in chunks]
    return tuple(line for record in records for line in record.lines if line.line in wanted)


def _stocked(event: OrderPlaced) -> tuple[Line, ...]:
    return tuple(Line(line.line, line.sku, line.quantity) for line in event.lines if line.stocked)


def _line_records(event: OrderPlaced) -> dict[str, OrderLines]:
    paths = _line_paths(event.order_id, len(event.lines))
    chunks: list[list[Line]] = [[] for _ in paths]
    for line in _stocked(event) if paths else ():
        chunks[_chunk_of(line.line)].append(line)
    records = (OrderLines(event.order_id, tuple(chunk)) for chunk in chunks)
    return dict(zip(paths, records, strict=True))


def _line_paths(order_id: str, lines: int) -> list[str]:
    if lines <= LINES_PER_RECORD:
        return []
    return [order_lines_path(order_id, chunk) for chunk in range(_chunk_of(lines) + 1)]


def _chunk_of(number: int) -> int:
    return (number - 1) // LINES_PER_RECORD


# A line is a letter.


def where(letters: str, wanted: str) -> tuple[int, ...]:
    """The numbers of the lines whose letter is one of those wanted."""
    return tuple(number for number, letter in enumerate(letters, 1) if letter in wanted)


def put(letters: str, numbers: Iterable[int], letter: str) -> str:
    changed = list(letters)
    for number in numbers:
        changed[number - 1] = letter
    return "".join(changed)


def _put_lines(letters: str, lines: Iterable[Line | RefusedLine], letter: str) -> str:
    return put(letters, (line.line for line in lines), letter)


def claim_of(order: Order, number: int) -> str:
    """The claim of a line; of a settled order, or a line that it has not, one that nothing can happen to."""
    claims = "" if isinstance(order, SettledOrder) else order.claims
    return claims[number - 1] if 0 < number <= len(claims) else "-"


def rises(order: Order, number: int, to: str) -> bool:
    """Whether it is news that the claim of a line came as far as this."""
    return -1 < RISE.find(claim_of(order, number)) < RISE.index(to)


# What is still to be heard, or owed.


def unallocated(order: ConfirmedOrder) -> tuple[int, ...]:
    return tuple(n for n in where(order.claims, UNALLOCATED) if order.parcels[n - 1] == "-")


def is_shipped(order: ConfirmedOrder) -> bool:
    stocked = (parcel for parcel, claim in zip(order.parcels, order.claims, strict=True) if claim != "-")
    return order.shipments > 0 and all(parcel == "s" for parcel in stocked)


def is_leaving(order: ConfirmedOrder) -> bool:
    return "?" in order.parcels or "s" in order.parcels or is_shipped(order)


def is_waiting(order: ConfirmedOrder) -> bool:
    """Whether there is an answer to wait for."""
    missing = bool(unallocated(order)) or order.cart != "none" or "?" in order.parcels
    return missing or order.money == "authorized"


def way_back(money: str) -> MoneyReturn:
    """How money goes back: what is captured is refunded; whatever else was asked for is voided."""
    if money in ("none", "returned"):
        return "none"
    return "refund" if money == "captured" else "void"


def money_owed(order: EndedOrder) -> MoneyReturn:
    return "none" if order.ending == "completed" or order.money == "declined" else way_back(order.money)


def is_owed(order: EndedOrder) -> bool:
    return bool(where(order.claims, OWED)) or money_owed(order) != "none" or order.cart != "none"


def deadline(_path: str, record: OrderState) -> Deadline | None:
    match record:
        case PlacedOrder():
            return Deadline(record.expires_at, ExpireOrder(record.order_id))
        case ConfirmedOrder():
            return Deadline(record.remind_at, RemindOrder(record.order_id)) if is_waiting(record) else None
        case EndedOrder():
            return Deadline(record.remind_at, RemindOrder(record.order_id))
        case SettledOrder() | OrderLines():
            return None
        case _:
            assert_never(record)
