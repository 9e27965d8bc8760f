"""The order decides: what was asked and what came back for a checkout, and what is owed when it ends."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias, assert_never

from commands.decider import Context, Decider, Snapshot
from commands.order_state import (
    HELD,
    OWED,
    UNALLOCATED,
    after,
    claim_of,
    deadline,
    evolve,
    is_leaving,
    is_owed,
    is_shipped,
    lines_of,
    living,
    money_owed,
    placed,
    rises,
    unallocated,
    way_back,
    where,
)
from commands.rejections import (
    OrderIsBeingShipped,
    OrderIsClosed,
    OrderIsNotConfirmed,
    Rejection,
    UnknownOrder,
)
from schemas.meta import MINUTE, SECOND, Micros
from schemas.order import (
    FLIGHT_LIMIT,
    REMINDER_INTERVAL,
    CancelOrder,
    ConfirmedOrder,
    EndedOrder,
    EraseOrderContact,
    ExpireOrder,
    Order,
    OrderCancelled,
    OrderCaptured,
    OrderCaptureFailed,
    OrderCaptureRequested,
    OrderCartClosed,
    OrderClaimsOrphaned,
    OrderClaimsReturned,
    OrderCommand,
    OrderCompleted,
    OrderConfirmationRepeated,
    OrderConfirmed,
    OrderContactErased,
    OrderEvent,
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
    OrderRejectionReason,
    OrderReturnRequested,
    OrderSettled,
    OrderShipmentRefused,
    OrderShipmentRequested,
    OrderShipped,
    OrderStockSecured,
    PlacedOrder,
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
    SettledOrder,
    ShipOrder,
    payment_id_of,
)
from schemas.values import Line, RefusedLine

STEWARDS = frozenset({"merchant", "operator", "saga", "deadline"})
"""Who may act on an order beside its owner."""

CAPTURE_BACK_OFF = 10 * SECOND
CAPTURE_BACK_OFF_MAX = 10 * MINUTE
"""A failed capture is asked for again, the pause doubling each time."""

Step: TypeAlias = tuple[str, str, str, str, tuple[Line, ...], int, str]
"""How every event begins that triggers a step: order, cart, owner, payment, lines, amount, currency."""
Return: TypeAlias = tuple[str, str, str, str, tuple[Line, ...], int, str, str, str, str, Micros]
"""How a step begins that asks for what an ended order is owed: the same, held, money, cart, remind_at."""

Asked: TypeAlias = CancelOrder | ShipOrder | ExpireOrder | RemindOrder | EraseOrderContact
Heard: TypeAlias = (
    RecordStockAnswer
    | RecordPaymentAnswer
    | RecordAllocation
    | RecordCapture
    | RecordCartAnswer
    | RecordShipment
    | RecordRelease
    | RecordMoneyReturn
)
"""What came back, in whatever order; the same again is not news."""


class Story:
    """The events of one command so far, and the order as it stands after them."""

    def __init__(self, state: Snapshot, order: Order, context: Context) -> None:
        self.order = order
        self.events: list[OrderEvent] = []
        self.now = context.now
        self._state = state

    def tell(self, event: OrderEvent) -> None:
        self.events.append(event)
        self.order = after(self.order, event)

    def in_(self, pause: int) -> Micros:
        return Micros(self.now + pause)

    def lines(self, numbers: Iterable[int]) -> tuple[Line, ...]:
        return lines_of(self._state, living(self.order), numbers)

    def step(self, numbers: Iterable[int]) -> Step:
        """What a step needs that concerns these lines."""
        o = living(self.order)
        return o.order_id, o.cart_id, o.owner, o.payment_id, self.lines(numbers), o.amount, o.currency


def decide(state: Snapshot, command: OrderCommand, context: Context) -> Sequence[OrderEvent] | Rejection:
    order: Order | None = state.get(command.stream)
    if isinstance(command, PlaceOrder):
        return _place(state, command, context) if order is None else []
    if order is None or not _may(command, order, context):
        return UnknownOrder(f"there is no order {command.order_id}")
    story = Story(state, order, context)
    refusal = _tell(story, command)
    if refusal is not None:
        return refusal
    if isinstance(story.order, EndedOrder) and not is_owed(story.order):
        story.tell(OrderSettled(command.order_id))
    return story.events


def _tell(story: Story, command: Asked | Heard) -> Rejection | None:
    match command:
        case ShipOrder():
            return _ship(story)
        case CancelOrder():
            return _cancel_if_asked(story, command)
        case ExpireOrder():
            _expire(story)
        case RemindOrder():
            _remind(story)
        case EraseOrderContact():
            _erase_contact(story)
        case _:
            _hear(story, command)
    return None


def _hear(story: Story, command: Heard) -> None:
    match command:
        case RecordStockAnswer():
            _hear_of_stock(story, command)
        case RecordPaymentAnswer():
            _hear_of_authorization(story, command)
        case RecordAllocation():
            _hear_of_allocation(story, command)
        case RecordCapture():
            _hear_of_capture(story, command)
        case RecordCartAnswer():
            _hear_of_cart(story, command)
        case RecordShipment():
            _hear_of_shipment(story, command)
        case RecordRelease():
            _hear_of_release(story, command)
        case RecordMoneyReturn():
            _hear_of_money_return(story, command)
        case _:
            assert_never(command)


def _may(command: OrderCommand, order: Order, context: Context) -> bool:
    """A customer may cancel what is theirs, and ships nothing; a person is forgotten by an operator alone."""
    if isinstance(command, EraseOrderContact):
        return context.actor_kind == "operator"
    if context.actor_kind in STEWARDS:
        return True
    is_theirs = context.actor_kind == "customer" and context.actor_id == order.owner
    return is_theirs and not isinstance(command, ShipOrder)


# Placed: stock first, then money.


def _place(state: Snapshot, command: PlaceOrder, context: Context) -> Sequence[OrderEvent]:
    event = OrderPlaced(
        command.order_id,
        command.cart_id,
        command.owner,
        payment_id_of(command.order_id),
        command.lines,
        command.amount,
        command.currency,
        command.token,
        Micros(context.now + FLIGHT_LIMIT),
        command.contact,
    )
    story = Story(state, placed(event), context)
    story.events.append(event)
    _secure_stock(story)
    return story.events


def _secure_stock(story: Story) -> None:
    """With the last answer granted, money is asked for."""
    order = story.order
    if isinstance(order, PlacedOrder) and order.money == "none" and "o" not in order.claims:
        story.tell(OrderStockSecured(*story.step(where(order.claims, HELD)), order.token))


def _hear_of_stock(story: Story, command: RecordStockAnswer) -> None:
    unanswered = [n for n in command.lines if claim_of(story.order, n) == "o"]
    if not unanswered:
        return
    if command.refused or command.code:
        _refuse_stock(story, unanswered, command)
    elif isinstance(story.order, PlacedOrder):
        story.tell(OrderLinesReserved(command.order_id, story.lines(unanswered)))
        _secure_stock(story)
    else:
        story.tell(OrderClaimsOrphaned(*story.step(unanswered), "reserved"))


def _refuse_stock(story: Story, unanswered: list[int], command: RecordStockAnswer) -> None:
    refused = _refusals(story, unanswered, command.refused, command.code)
    withheld = set(unanswered) - {line.line for line in refused}
    story.tell(OrderLinesRefused(command.order_id, refused, tuple(sorted(withheld))))
    if isinstance(story.order, PlacedOrder):
        _reject(story, "stock")


def _refusals(
    story: Story, numbers: Sequence[int], refused: Sequence[RefusedLine], code: str
) -> tuple[RefusedLine, ...]:
    """The refused ones among these lines; all of them if the command had no effect at all."""
    if code:
        return tuple(RefusedLine(line.line, line.sku, line.quantity, 0) for line in story.lines(numbers))
    asked = set(numbers)
    return tuple(line for line in refused if line.line in asked)


def _hear_of_authorization(story: Story, command: RecordPaymentAnswer) -> None:
    order = story.order
    if isinstance(order, SettledOrder) or command.payment_id != order.payment_id:
        return
    if command.outcome == "done" and order.money in ("asked", "declined"):
        _authorized(story, order)
    if command.outcome == "failed" and order.money == "asked":
        story.tell(OrderPaymentDeclined(order.order_id, order.payment_id, command.code))
        if isinstance(order, PlacedOrder):
            _reject(story, "payment")


def _authorized(story: Story, order: PlacedOrder | ConfirmedOrder | EndedOrder) -> None:
    if isinstance(order, EndedOrder):
        return story.tell(OrderPaymentOrphaned(*story.step(()), "void"))
    story.tell(OrderPaymentAuthorized(order.order_id, order.payment_id, order.amount))
    story.tell(OrderConfirmed(*story.step(where(order.claims, HELD)), story.in_(REMINDER_INTERVAL)))
    return None


def _expire(story: Story) -> None:
    if isinstance(story.order, PlacedOrder) and story.now >= story.order.expires_at:
        _reject(story, "timeout")


# Confirmed: allocated, captured, shipped.


def _hear_of_allocation(story: Story, command: RecordAllocation) -> None:
    refused = bool(command.refused or command.code)
    if refused and isinstance(story.order, ConfirmedOrder):
        _refuse_allocation(story, story.order, command.lines)
    elif not refused:
        _allocated(story, [n for n in command.lines if rises(story.order, n, "a")])


def _refuse_allocation(story: Story, order: ConfirmedOrder, numbers: Sequence[int]) -> None:
    """Nothing can be taken back once goods are leaving; then the reminder asks for the allocation again."""
    if any(claim_of(story.order, n) in UNALLOCATED for n in numbers) and not is_leaving(order):
        _cancel(story, "stock")


def _allocated(story: Story, numbers: Sequence[int]) -> None:
    if numbers and isinstance(story.order, ConfirmedOrder):
        story.tell(OrderLinesAllocated(story.order.order_id, story.lines(numbers)))
    elif numbers and isinstance(story.order, EndedOrder):
        story.tell(OrderClaimsOrphaned(*story.step(numbers), "allocated"))


def _hear_of_capture(story: Story, command: RecordCapture) -> None:
    order = story.order
    if isinstance(order, SettledOrder | PlacedOrder) or command.payment_id != order.payment_id:
        return
    if isinstance(order, EndedOrder):
        if command.outcome == "done" and order.money in ("asked", "declined", "authorized"):
            story.tell(OrderPaymentOrphaned(*story.step(()), "refund"))
    elif order.money == "authorized" and command.outcome == "done":
        story.tell(OrderCaptured(order.order_id, order.payment_id, order.amount))
        _complete(story)
    elif order.money == "authorized" and command.outcome == "failed":
        pause = min(CAPTURE_BACK_OFF << min(order.captures - 1, 16), CAPTURE_BACK_OFF_MAX)
        story.tell(OrderCaptureFailed(order.order_id, order.payment_id, command.code, story.in_(pause)))


def _ship(story: Story) -> Rejection | None:
    order = story.order
    match order:
        case PlacedOrder():
            return OrderIsNotConfirmed("it waits for stock or money")
        case ConfirmedOrder():
            if "?" not in order.parcels and not is_shipped(order):
                _ask_for_shipment(story, order, where(order.parcels, "-"))
        case EndedOrder(ending=ending) | SettledOrder(ending=ending):
            return None if ending == "completed" else OrderIsClosed(f"it was {ending}")
        case _:
            assert_never(order)
    return None


def _ask_for_shipment(story: Story, order: ConfirmedOrder, numbers: Iterable[int]) -> None:
    again = story.in_(REMINDER_INTERVAL)
    story.tell(OrderShipmentRequested(*story.step(numbers), order.shipments + 1, again))
    _announce_shipped(story)


def _hear_of_shipment(story: Story, command: RecordShipment) -> None:
    """A refusal counts only if it answers the latest request; goods that left have left, whoever asked."""
    order = story.order
    if not isinstance(order, ConfirmedOrder):
        return
    stocked = [n for n in command.lines if claim_of(story.order, n) != "-"]
    refused = _refusals(story, stocked, command.refused, command.code)
    kept = {line.line for line in refused}
    shipped = [n for n in stocked if n not in kept and order.parcels[n - 1] != "s"]
    if shipped:
        story.tell(OrderLinesShipped(order.order_id, story.lines(shipped)))
    waiting = tuple(line for line in refused if order.parcels[line.line - 1] == "?")
    if waiting and command.attempt == order.shipments:
        story.tell(OrderShipmentRefused(order.order_id, waiting))
    if shipped:
        _announce_shipped(story)


def _announce_shipped(story: Story) -> None:
    if isinstance(story.order, ConfirmedOrder) and is_shipped(story.order):
        story.tell(OrderShipped(story.order.order_id))
        _complete(story)


def _complete(story: Story) -> None:
    order = story.order
    if isinstance(order, ConfirmedOrder) and order.money == "captured" and is_shipped(order):
        story.tell(OrderCompleted(order.order_id, story.in_(REMINDER_INTERVAL)))


# The end, and what is owed after it.


def _reject(story: Story, reason: OrderRejectionReason) -> None:
    story.tell(OrderRejected(*_given_up(story), reason))


def _cancel(story: Story, reason: str) -> None:
    story.tell(OrderCancelled(*_given_up(story), reason))


def _given_up(story: Story) -> Return:
    """What must be given back. A cart is reopened for an order that was not confirmed; a line that is not
    answered yet is released when it turns out to have been granted.
    """
    order = living(story.order)
    confirmed = isinstance(order, ConfirmedOrder)
    return (
        *story.step(where(order.claims, HELD)),
        "allocated" if confirmed else "reserved",
        way_back(order.money),
        order.cart if isinstance(order, ConfirmedOrder) else "reopen",
        story.in_(REMINDER_INTERVAL),
    )


def _cancel_if_asked(story: Story, command: CancelOrder) -> Rejection | None:
    order = story.order
    match order:
        case ConfirmedOrder() if is_leaving(order):
            return OrderIsBeingShipped("its goods are on their way")
        case PlacedOrder() | ConfirmedOrder():
            _cancel(story, command.reason)
        case EndedOrder(ending="completed") | SettledOrder(ending="completed"):
            return OrderIsBeingShipped("its goods have left")
        case EndedOrder(ending="rejected") | SettledOrder(ending="rejected"):
            return OrderIsClosed("it was rejected")
        case EndedOrder() | SettledOrder():
            return None
        case _:
            assert_never(order)
    return None


def _hear_of_release(story: Story, command: RecordRelease) -> None:
    """Nobody releases what an order still holds that goes on; a claim without an answer has not ended yet."""
    if command.how == "expired":
        _expired(story, [n for n in command.lines if rises(story.order, n, "e")])
    elif command.how == "released" and isinstance(story.order, EndedOrder):
        ended = [n for n in command.lines if claim_of(story.order, n) in HELD]
        if ended:
            story.tell(OrderClaimsReturned(command.order_id, story.lines(ended), "released"))


def _expired(story: Story, numbers: Sequence[int]) -> None:
    if not numbers:
        return
    story.tell(OrderClaimsReturned(living(story.order).order_id, story.lines(numbers), "expired"))
    if isinstance(story.order, PlacedOrder):
        _reject(story, "timeout")


def _hear_of_money_return(story: Story, command: RecordMoneyReturn) -> None:
    order = story.order
    if not isinstance(order, EndedOrder) or order.ending == "completed":
        return
    if command.outcome in ("done", "nothing") and way_back(order.money) == command.verb:
        amount = order.amount if command.outcome == "done" else 0
        story.tell(OrderMoneyReturned(order.order_id, order.payment_id, command.verb, amount))


def _hear_of_cart(story: Story, command: RecordCartAnswer) -> None:
    order = story.order
    if isinstance(order, ConfirmedOrder | EndedOrder) and order.cart != "none" and command.how != "failed":
        story.tell(OrderCartClosed(order.order_id, command.how))


def _remind(story: Story) -> None:
    order = story.order
    if isinstance(order, ConfirmedOrder) and story.now >= order.remind_at:
        _ask_again(story, order)
    if isinstance(order, EndedOrder) and story.now >= order.remind_at:
        _ask_back_again(story, order)


def _ask_again(story: Story, order: ConfirmedOrder) -> None:
    missing = unallocated(order)
    again = story.in_(REMINDER_INTERVAL)
    if missing or order.cart != "none":
        step = story.step(missing)
        story.tell(OrderConfirmationRepeated(*step, order.attempt + 1, order.cart, again))
    if order.money == "authorized":
        story.tell(OrderCaptureRequested(*story.step(()), order.captures + 1, again))
    if "?" in order.parcels:
        _ask_for_shipment(story, order, where(order.parcels, "?"))


def _ask_back_again(story: Story, order: EndedOrder) -> None:
    step = story.step(where(order.claims, OWED))
    owed = (order.held, money_owed(order), order.cart, story.in_(REMINDER_INTERVAL))
    story.tell(OrderReturnRequested(*step, *owed, order.attempt + 1))


# Forgotten, in whatever state.


def _erase_contact(story: Story) -> None:
    if story.order.has_contact:
        story.tell(OrderContactErased(story.order.order_id))


DECIDER = Decider("order", decide, evolve, deadline=deadline)
