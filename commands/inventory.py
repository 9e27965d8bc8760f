"""Inventory decides: what came in and went out, and which units are promised to which order."""

from collections.abc import Iterator, Sequence
from typing import TypeAlias, assert_never

from commands.decider import Answer, Changes, Context, Deadline, Decider, Record, Snapshot
from commands.rejections import Rejection, StockBelowEmptyShelf, UnknownStockItem
from schemas.inventory import (
    ActiveClaim,
    AdjustStock,
    AllocatedClaim,
    AllocateStock,
    ChangeStockPolicy,
    Claim,
    ClaimEvent,
    ExpiredClaim,
    ExpireReservation,
    InventoryCommand,
    InventoryEvent,
    InventoryState,
    LowStockReached,
    ReceiveStock,
    ReleaseAllocation,
    ReleaseReservation,
    ReserveStock,
    ShipmentRefusal,
    ShipStock,
    StockAdjusted,
    StockAllocated,
    StockAllocationRefused,
    StockAllocationReleased,
    StockDepleted,
    StockItem,
    StockItemRegistered,
    StockPolicyChanged,
    StockReceived,
    StockReplenished,
    StockReservationExpired,
    StockReservationRefused,
    StockReservationReleased,
    StockReserved,
    StockShipmentRefused,
    StockShipped,
    StockShortfallFound,
    claim_path,
    stock_stream,
)
from schemas.meta import derived_id
from schemas.values import Line, RefusedLine

NO_STOCK = StockItem(0, 0, 0, 0, 0, 0)
"""What an item is that nobody registered; a refusal is the first event of its stream, and leaves this record."""
GRANTED = Answer()

Asked: TypeAlias = (
    ReserveStock | ReleaseReservation | AllocateStock | ReleaseAllocation | ShipStock | ExpireReservation
)
"""What is asked for an order's lines at one location."""
Refusal: TypeAlias = StockReservationRefused | StockAllocationRefused | StockShipmentRefused
REFUSALS = (StockReservationRefused, StockAllocationRefused, StockShipmentRefused)
Head: TypeAlias = tuple[str, str, int, int, int, int]
"""How every stock event begins: sku, location, and sellable, reserved, allocated, shipped after it."""
ClaimHead: TypeAlias = tuple[str, str, int, int, int, int, str, int, str]
"""How an event about a claim begins: the same, then order, line and claim id."""


def decide(
    state: Snapshot, command: InventoryCommand, context: Context
) -> Sequence[InventoryEvent] | Rejection:
    match command:
        case ReserveStock():
            return _reserve(state, command, context)
        case AllocateStock():
            return _allocate(state, command)
        case ShipStock():
            return _ship(state, command)
        case ReleaseReservation() | ReleaseAllocation():
            return _release(state, command)
        case ExpireReservation():
            return _expire(state, command, context)
        case ReceiveStock():
            return _receive(state, command)
        case AdjustStock():
            return _adjust(state, command)
        case ChangeStockPolicy():
            return _change_policy(state, command)
        case _:
            assert_never(command)


class Draft:
    """The events of a command so far, and the records as they stand after them: its lines run through it.

    A SKU may stand on several lines, and what one line takes is no longer there for the next. The last event is
    folded only when a further line looks, for most commands have one line.
    """

    def __init__(self, state: Snapshot) -> None:
        self.events: list[InventoryEvent] = []
        self._state = state
        self._changed: dict[str, Record | None] = {}
        self._unfolded: InventoryEvent | None = None

    def get(self, path: str) -> Record | None:
        if self._unfolded is not None:
            self._fold(self._unfolded)
        return self._changed[path] if path in self._changed else self._state.get(path)

    def item(self, sku: str, location: str) -> StockItem:
        item: StockItem | None = self.get(stock_stream(sku, location))
        return item or NO_STOCK

    def claim(self, command: Asked, line: Line) -> Claim | None:
        claim: Claim | None = self.get(claim_path(line.sku, command.location, command.order_id, line.line))
        return claim

    def write(self, event: InventoryEvent, before: StockItem) -> None:
        """Note an event that leaves the item's policy as it is, and what follows from it."""
        if self._unfolded is not None:
            self._fold(self._unfolded)
        self._unfolded = event
        self.events.append(event)
        had = before.available
        has = max(0, event.sellable - event.reserved - event.allocated - before.safety_stock)
        if has != had:
            self.events += _crossings(event, had, has, before.low_stock_at, before.low_stock_at)

    def _fold(self, event: InventoryEvent) -> None:
        self._unfolded = None
        self._changed.update(evolve(self, event))


def _crossings(
    event: InventoryEvent, had: int, has: int, mark_before: int, mark: int
) -> Iterator[InventoryEvent]:
    """What there is to say when availability went from `had` to `has` units; a low mark of 0 is none."""
    head = (event.sku, event.location, event.sellable, event.reserved, event.allocated, event.shipped)
    was_low = had <= mark_before != 0
    if has <= mark != 0 and not was_low:
        yield LowStockReached(*head, has, mark)
    if had and not has:
        yield StockDepleted(*head)
    if has and not had:
        yield StockReplenished(*head, has)


def _moved(
    item: StockItem,
    command: Asked,
    line: Line,
    *,
    sellable: int = 0,
    reserved: int = 0,
    allocated: int = 0,
    shipped: int = 0,
) -> ClaimHead:
    """The beginning of a claim's event that changes the item's balances by so much."""
    return (
        line.sku,
        command.location,
        item.sellable + sellable,
        item.reserved + reserved,
        item.allocated + allocated,
        item.shipped + shipped,
        command.order_id,
        line.line,
        derived_id(command.order_id, str(line.line), line.sku, command.location),
    )


# What is asked for an order. A claim that is already as it is asked to be, is answered by no event.


def _reserve(state: Snapshot, command: ReserveStock, context: Context) -> Sequence[InventoryEvent]:
    """A claim for every line; or a refusal for each line that can't be granted, and no claim."""
    draft, refusals = Draft(state), list[InventoryEvent]()
    is_late = command.expires_at <= context.now
    for line in command.lines:
        if draft.claim(command, line) is not None:
            continue
        item = draft.item(line.sku, command.location)
        if is_late or line.quantity > item.available:
            head = _moved(Draft(state).item(line.sku, command.location), command, line)
            refusals.append(StockReservationRefused(*head, line.quantity, item.available))
        else:
            head = _moved(item, command, line, reserved=line.quantity)
            draft.write(StockReserved(*head, line.quantity, command.expires_at), item)
    return refusals or draft.events


def _allocate(state: Snapshot, command: AllocateStock) -> Sequence[InventoryEvent]:
    """Every claim is promised, also one that expired and whose units are still free; or none is."""
    draft, refusals = Draft(state), list[InventoryEvent]()
    for line in command.lines:
        claim = draft.claim(command, line)
        if isinstance(claim, AllocatedClaim):
            continue
        item = draft.item(line.sku, command.location)
        from_reserved = claim.quantity if isinstance(claim, ActiveClaim) else 0
        if claim is None or claim.quantity > from_reserved + item.available:
            head = _moved(Draft(state).item(line.sku, command.location), command, line)
            refusals.append(StockAllocationRefused(*head, line.quantity, item.available))
        else:
            head = _moved(item, command, line, reserved=-from_reserved, allocated=claim.quantity)
            draft.write(StockAllocated(*head, claim.quantity, from_reserved), item)
    return refusals or draft.events


def _ship(state: Snapshot, command: ShipStock) -> Sequence[InventoryEvent]:
    """Line by line: the goods leave, or a refusal says why not.

    The record of a claim is gone once it is shipped, and an order never asks to ship what it gave back: so a claim
    that is gone was shipped, unless the item never shipped as many units.
    """
    draft = Draft(state)
    for line in command.lines:
        claim = draft.claim(command, line)
        item = draft.item(line.sku, command.location)
        if isinstance(claim, AllocatedClaim) and claim.quantity <= item.sellable:
            q = claim.quantity
            head = _moved(item, command, line, sellable=-q, allocated=-q, shipped=q)
            draft.write(StockShipped(*head, q), item)
        elif claim is not None or item.shipped < line.quantity:
            why: ShipmentRefusal = "not_on_shelf" if isinstance(claim, AllocatedClaim) else "not_allocated"
            draft.write(StockShipmentRefused(*_moved(item, command, line), line.quantity, why), item)
    return draft.events


def _release(state: Snapshot, command: ReleaseReservation | ReleaseAllocation) -> Sequence[InventoryEvent]:
    """Either release ends a claim in whatever state it is."""
    draft = Draft(state)
    for line in command.lines:
        claim = draft.claim(command, line)
        if claim is not None:
            item = draft.item(line.sku, command.location)
            draft.write(_released(claim, item, command, line), item)
    return draft.events


def _released(
    claim: Claim, item: StockItem, command: ReleaseReservation | ReleaseAllocation, line: Line
) -> InventoryEvent:
    match claim:
        case ActiveClaim(quantity=q):
            return StockReservationReleased(*_moved(item, command, line, reserved=-q), q, command.reason)
        case ExpiredClaim():
            return StockReservationReleased(*_moved(item, command, line), 0, command.reason)
        case AllocatedClaim(quantity=q):
            return StockAllocationReleased(*_moved(item, command, line, allocated=-q), q, command.reason)
        case _:
            assert_never(claim)


def _expire(state: Snapshot, command: ExpireReservation, context: Context) -> Sequence[InventoryEvent]:
    draft, line = Draft(state), Line(command.line, command.sku, 0)
    claim = draft.claim(command, line)
    if isinstance(claim, ActiveClaim) and claim.expires_at <= context.now:
        item = draft.item(command.sku, command.location)
        head = _moved(item, command, line, reserved=-claim.quantity)
        draft.write(StockReservationExpired(*head, claim.quantity), item)
    return draft.events


# What happens on the shelf.


def _receive(state: Snapshot, command: ReceiveStock) -> Sequence[InventoryEvent]:
    """The same document again, under another command, is another receipt: deliveries come in parts."""
    draft = Draft(state)
    for line in command.lines:
        item = _registered(draft, line.sku, command.location)
        head = _counted(line.sku, command.location, item, line.quantity)
        draft.write(StockReceived(*head, line.quantity, command.document), item)
    return draft.events


def _adjust(state: Snapshot, command: AdjustStock) -> Sequence[InventoryEvent] | Rejection:
    """A fact: it may uncover promises, and says so. Only a shelf that would hold less than nothing is no fact."""
    if command.delta == 0:
        return []
    draft = Draft(state)
    before = draft.item(command.sku, command.location).sellable
    after = before + command.delta
    if after < 0:
        return StockBelowEmptyShelf(f"{before} on the shelf of {command.sku}, {command.delta} asked")
    item = _registered(draft, command.sku, command.location)
    head = _counted(command.sku, command.location, item, command.delta)
    draft.write(StockAdjusted(*head, before, after, command.reason, command.note, command.corrects), item)
    if item.reserved + item.allocated > after:
        uncovered = item.reserved + item.allocated - after
        draft.events.append(StockShortfallFound(*head, uncovered))
    return draft.events


def _change_policy(state: Snapshot, command: ChangeStockPolicy) -> Sequence[InventoryEvent] | Rejection:
    item: StockItem | None = state.get(command.stream)
    if item is None:
        return UnknownStockItem(f"nothing is known of {command.sku}")
    if (command.safety_stock, command.low_stock_at) == (item.safety_stock, item.low_stock_at):
        return []
    head = _counted(command.sku, command.location, item, 0)
    changed = StockPolicyChanged(*head, command.safety_stock, command.low_stock_at)
    has = _after(item, changed).available
    return [changed, *_crossings(changed, item.available, has, item.low_stock_at, command.low_stock_at)]


def _registered(draft: Draft, sku: str, location: str) -> StockItem:
    """The item; the draft registers it if this is the first that is heard of it."""
    item: StockItem | None = draft.get(stock_stream(sku, location))
    if item is None:
        draft.write(StockItemRegistered(*_counted(sku, location, NO_STOCK, 0)), NO_STOCK)
    return item or NO_STOCK


def _counted(sku: str, location: str, item: StockItem, delta: int) -> Head:
    """The beginning of an event that puts `delta` units on the shelf."""
    return sku, location, item.sellable + delta, item.reserved, item.allocated, item.shipped


# What is true afterwards.


def evolve(state: Snapshot, event: InventoryEvent) -> Changes:
    stream = event.stream
    item = _after(state.get(stream) or NO_STOCK, event)
    match event:
        case StockReserved():
            key = _key(event)
            return {stream: item, claim_path(*key): ActiveClaim(*key, event.quantity, event.expires_at)}
        case StockAllocated():
            key = _key(event)
            return {stream: item, claim_path(*key): AllocatedClaim(*key, event.quantity)}
        case StockReservationExpired():
            key = _key(event)
            return {stream: item, claim_path(*key): ExpiredClaim(*key, event.quantity)}
        case StockShipped() | StockReservationReleased() | StockAllocationReleased():
            return {stream: item, claim_path(*_key(event)): None}
        case (
            StockItemRegistered()
            | StockReceived()
            | StockPolicyChanged()
            | StockAdjusted()
            | StockShortfallFound()
            | StockReservationRefused()
            | StockAllocationRefused()
            | StockShipmentRefused()
            | StockDepleted()
            | StockReplenished()
            | LowStockReached()
        ):
            return {stream: item}
        case _:
            assert_never(event)


def _after(item: StockItem, event: InventoryEvent) -> StockItem:
    policy = event if isinstance(event, StockPolicyChanged) else item
    return StockItem(
        event.sellable,
        event.reserved,
        event.allocated,
        event.shipped,
        policy.safety_stock,
        policy.low_stock_at,
    )


def _key(event: ClaimEvent) -> tuple[str, str, str, int]:
    return event.sku, event.location, event.order_id, event.line


def answer(_state: Snapshot, _command: InventoryCommand, events: Sequence[InventoryEvent]) -> Answer:
    refused = [
        RefusedLine(event.line, event.sku, event.quantity, _could_have(event))
        for event in events
        if isinstance(event, REFUSALS)
    ]
    return Answer(refused=tuple(refused)) if refused else GRANTED


def _could_have(event: Refusal) -> int:
    """Units that could have been granted at that moment; of a promise to ship, what lies on the shelf."""
    if isinstance(event, StockShipmentRefused):
        return event.sellable if event.reason == "not_on_shelf" else 0
    return event.available


def deadline(_path: str, record: InventoryState) -> Deadline | None:
    if not isinstance(record, ActiveClaim):
        return None
    command = ExpireReservation(record.sku, record.location, record.order_id, record.line)
    return Deadline(record.expires_at, command)


def reads(command: InventoryCommand) -> Iterator[str]:
    """The items, and the claims of the lines that an order asks for."""
    match command:
        case ReceiveStock():
            yield from (stock_stream(line.sku, command.location) for line in command.lines)
        case AdjustStock() | ChangeStockPolicy():
            yield command.stream
        case ExpireReservation():
            yield command.stream
            yield claim_path(command.sku, command.location, command.order_id, command.line)
        case _:
            for line in command.lines:
                yield stock_stream(line.sku, command.location)
                yield claim_path(line.sku, command.location, command.order_id, line.line)


DECIDER = Decider("inventory", decide, evolve, answer, deadline, reads)
