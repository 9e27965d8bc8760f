"""Planted bugs: each takes one protection away, by substitution; a simulation that does not see them sees nothing."""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any, TypeAlias

from confluent_kafka import TopicPartition

from commands import cart, inventory, loading, order, order_state, payment, writer
from commands.handler import Handler
from commands.journal import LogDamagedError
from commands.window import Window
from ops.simulate.stores import MemoryViews
from projections.store import FoldingStore
from schemas.cart import CartCheckedOut, CheckedOutCart, OpenCart
from schemas.inventory import StockItem
from schemas.meta import NO_HASH
from schemas.order import EndedOrder
from schemas.payment import PaymentAuthorized, PaymentRequestRepeated, RequestAuthorization, RequestCapture
from streams import cancellation, checkout, deliveries, event_source, kafka_journal, payment_agent
from streams.command_producer import CommandProducer
from streams.failpoints import failpoint
from streams.kafka_journal import KafkaJournal

Put: TypeAlias = Callable[[object, str, Any], None]
"""Puts something in the place of an attribute, until the bug is dug out."""


@contextmanager
def planted(name: str) -> Iterator[None]:
    """While it lasts, the code has this bug."""
    undo: list[tuple[object, str, Any]] = []

    def put(owner: object, attribute: str, value: Any) -> None:
        undo.append((owner, attribute, vars(owner)[attribute]))
        _set(owner, attribute, value)

    try:
        BUGS[name](put)
        yield
    finally:
        for owner, attribute, value in reversed(undo):
            _set(owner, attribute, value)


def _set(owner: object, attribute: str, value: Any) -> None:
    """A class or a module is told to change; a frozen decider is not asked."""
    if isinstance(owner, type | ModuleType):
        setattr(owner, attribute, value)
    else:
        object.__setattr__(owner, attribute, value)


# The journal: one writer, one transaction, no doubt.


def no_fencing(put: Put) -> None:
    """Each process has a transactional id of its own, and commits its offsets beside the transaction."""
    settings, numbers = kafka_journal._producer_settings, itertools.count()
    put(
        kafka_journal,
        "_producer_settings",
        lambda slot: settings(slot) | {"transactional.id": f"any-{next(numbers)}"},
    )

    def transact(self: KafkaJournal, _: str, outputs: Any, positions: Any, ends: Any) -> None:
        self._producer.begin_transaction()
        self._produce(outputs, ends)
        failpoint("worker.offsets_sent")
        self._producer.commit_transaction(10)
        self._producer.poll(0)
        offsets = [TopicPartition(t.topic, t.partition, positions[p]) for p, t in self._wheres(positions)]
        self._consumer.commit(offsets=offsets, asynchronous=True)

    put(KafkaJournal, "_transact", transact)


def offset_before_events(put: Put) -> None:
    """Commands are acknowledged when they are received."""
    receive = KafkaJournal.receive

    def receive_and_commit(self: KafkaJournal, limit: int, wait_s: float) -> Any:
        received = receive(self, limit, wait_s)
        after = {one.partition: one.offset + 1 for one in received}
        offsets = [TopicPartition(t.topic, t.partition, after[p]) for p, t in self._wheres(after)]
        if offsets:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        return received

    put(KafkaJournal, "receive", receive_and_commit)


def torn_batch(put: Put) -> None:
    """The events go out in one transaction, all that belongs to them in the next."""
    transact = KafkaJournal._transact

    def transact_twice(self: KafkaJournal, batch_id: str, outputs: Any, positions: Any, ends: Any) -> None:
        self._producer.begin_transaction()
        self._produce([one for one in outputs if one.kind == "events"][:1], ends)
        self._producer.commit_transaction(10)
        self._producer.poll(0)
        rest = [one for one in outputs if one.kind == "events"][1:] + [
            one for one in outputs if one.kind != "events"
        ]
        transact(self, batch_id, rest, positions, ends)

    put(KafkaJournal, "_transact", transact_twice)


def last_stable_offset_recovery(put: Put) -> None:
    """A takeover reads up to the last stable offset, where a predecessor's transaction is still open."""

    def ends(self: KafkaJournal, kind: Any, partition: Any) -> int:
        return self._reader.get_watermark_offsets(
            TopicPartition(self._topic(kind, partition), partition.number), timeout=5.0
        )[1]

    put(KafkaJournal, "ends", ends)


def watermark_before_fence(put: Put) -> None:
    """The watermarks are captured before the predecessor is fenced off."""
    fence, ends = KafkaJournal.fence, KafkaJournal.ends
    early: dict[Any, int] = {}

    def fence_late(self: KafkaJournal, partitions: Any) -> Any:
        early.update({(self, k, p): ends(self, k, p) for k in loading.KINDS for p in partitions})
        return fence(self, partitions)

    def ends_early(self: KafkaJournal, kind: Any, partition: Any) -> int:
        return early.get((self, kind, partition)) or ends(self, kind, partition)

    put(KafkaJournal, "fence", fence_late)
    put(KafkaJournal, "ends", ends_early)


def no_wait_for_pending_offsets(put: Put) -> None:
    """The group is asked where it stands by a client that is answered at once, whatever is pending."""
    settings = kafka_journal._consumer_settings
    put(
        kafka_journal,
        "_consumer_settings",
        lambda slot: settings(slot) | {"isolation.level": "read_uncommitted"},
    )


def doubt_taken_for_success(put: Put) -> None:
    """A commit that failed is believed to stand."""

    def stands(self: KafkaJournal, *_: object) -> bool:
        self._renew()
        return True

    put(KafkaJournal, "_stands", stands)


def doubt_taken_for_failure(put: Put) -> None:
    """A commit that failed is believed to have come to nothing."""

    def stands(self: KafkaJournal, *_: object) -> bool:
        self._renew()
        return False

    put(KafkaJournal, "_stands", stands)


def no_renewal(put: Put) -> None:
    """A connection that broke is no reason for a new producer."""
    put(KafkaJournal, "_renew_if_suspicious", lambda self: None)  # noqa: ARG005  # the shape of a method


def idle_offsets_not_sent(put: Put) -> None:
    """A batch that consumed nothing leaves no trace among the offsets."""
    transact, sent = KafkaJournal._transact, dict[Any, int]()

    def transact_moved(self: KafkaJournal, batch_id: str, outputs: Any, positions: Any, ends: Any) -> None:
        moved = {p: at for p, at in positions.items() if sent.get((self, p)) != at}
        sent.update({(self, p): at for p, at in positions.items()})
        transact(self, batch_id, outputs, moved, ends)

    put(KafkaJournal, "_transact", transact_moved)


def watermark_taken_for_history(put: Put) -> None:
    """A partition without committed offsets is damaged as soon as anything stands in its topics, aborted or not."""

    def check(self: KafkaJournal, partition: Any) -> None:
        if any(self.ends(kind, partition) for kind in loading.KINDS):
            raise LogDamagedError(f"{partition}: the group has no offset")

    put(KafkaJournal, "_check_untouched", check)


# The writer.


def no_dedupe_window(put: Put) -> None:
    """Nobody remembers what was decided."""
    put(Window, "find", lambda *_: {})


def expired_commands_decided(put: Put) -> None:
    """A command has its effect however late it comes."""
    decide = writer._Batch._decide

    def decide_anyway(self: Any, asked: Any) -> None:
        decide(self, asked._replace(meta=replace(asked.meta, not_after=writer.NEVER)))

    put(writer._Batch, "_decide", decide_anyway)


def clock_runs_backwards(put: Put) -> None:
    """A partition's time is whatever the machine's clock says."""
    stage = writer.Writer.stage

    def stage_now(self: Any, received: Any, clock: Any, *rest: Any) -> Any:
        self._clock = 0
        return stage(self, received, clock, *rest)

    put(writer.Writer, "stage", stage_now)


def hash_chain_not_linked(put: Put) -> None:
    """An event does not name the hash of the one before it."""
    event = writer.Writer._event

    def unlinked(self: Any, staged: Any, index: int, *rest: Any) -> Any:
        staged.heads[staged.events[index][1]["stream"]].hash = NO_HASH
        return event(self, staged, index, *rest)

    put(writer.Writer, "_event", unlinked)


def batch_index_per_partition(put: Put) -> None:
    """A transaction's events are counted anew in each partition."""
    encode = writer.Writer.encode
    put(writer.Writer, "encode", lambda self, staged, _first, size: encode(self, staged, 0, size))


def state_not_restored(put: Put) -> None:
    """A worker that takes over goes on with what lies on its own disk."""
    _restore_only(put, "decisions")
    put(writer.Tail, "check", lambda _: None)


def window_not_restored(put: Put) -> None:
    """A worker that takes over does not know what its predecessor decided."""
    _restore_only(put, "state")


def _restore_only(put: Put, wanted: str) -> None:
    restore = writer.Writer.restore

    def restore_some(self: Any, kind: Any, stored: Any) -> Any:
        return restore(self, kind, stored) if kind == wanted else {}

    put(writer.Writer, "restore", restore_some)


def deadline_lost_on_restore(put: Put) -> None:
    """State comes back from the topic, its deadlines do not."""
    restored = writer.Writer._restored

    def without_deadlines(self: Any, stored: Any) -> Any:
        return {
            key: value
            for key, value in restored(self, stored).items()
            if not key.startswith(self._prefix + b"t")
        }

    put(writer.Writer, "_restored", without_deadlines)


def merged_before_the_commit(put: Put) -> None:
    """The disk says what happened before the log does."""
    write = KafkaJournal.write

    def handle(self: Any, received: Any) -> None:
        staged, encoded = self._decide(received)
        if not staged:
            self._reschedule()
            return
        outputs = [output for one in encoded for output in one.outputs]
        ends: dict[Any, int] = {}
        for one in outputs:
            place = (one.kind, one.partition)
            ends[place] = ends.get(place, self._journal.ends(*place)) + 1
        self._merge(staged, encoded, ends)
        write(self._journal, staged[0].batch_id, outputs, self._positions_after(staged))

    put(Handler, "_handle", handle)


# The deciders.


def oversell(put: Put) -> None:
    """What is reserved counts as available."""
    put(
        StockItem,
        "available",
        property(lambda item: max(0, item.sellable - item.allocated - item.safety_stock)),
    )


def partial_grant(put: Put) -> None:
    """Each line of a reservation is granted or refused for itself."""
    reserve = inventory._reserve

    def line_by_line(state: Any, command: Any, context: Any) -> list[Any]:
        return [e for line in command.lines for e in reserve(state, replace(command, lines=(line,)), context)]

    put(inventory, "_reserve", line_by_line)


def expiry_by_reader(put: Put) -> None:
    """A reservation that ran out is for whoever looks to pass over; nobody writes it down."""
    put(inventory.DECIDER, "deadline", lambda _path, _record: None)


def second_checkout(put: Put) -> None:
    """A cart that is checked out may be checked out again."""
    check_out, evolve_open = cart._check_out, cart._evolve_open

    def reopened(state: Any) -> Any:
        if isinstance(state, CheckedOutCart):
            return OpenCart(state.owner, state.currency, state.items, state.checkouts, 0)  # type: ignore[arg-type]
        return state

    evolve = cart.DECIDER.evolve

    def evolve_any(state: Any, event: Any) -> Any:
        if isinstance(event, CartCheckedOut):
            return {event.stream: evolve_open(reopened(state.get(event.stream)), event)}
        return evolve(state, event)

    put(cart, "_check_out", lambda state, command: check_out(reopened(state), command))
    put(cart.DECIDER, "evolve", evolve_any)


def late_authorization_kept(put: Put) -> None:
    """Money that was authorized after the order ended is not thought of again."""
    authorized = order._authorized

    def ignore_late(story: Any, state: Any) -> None:
        if not isinstance(state, EndedOrder):
            authorized(story, state)

    put(order, "_authorized", ignore_late)
    for module in (order, order_state):
        put(module, "way_back", lambda money: "refund" if money == "captured" else "none")


def reminders_forgotten(put: Put) -> None:
    """An order asks once, and never again."""
    put(order, "_remind", lambda _story: None)


def flight_without_end(put: Put) -> None:
    """A placed order waits for ever."""
    put(order, "_expire", lambda _story: None)


def unknown_not_repeated(put: Put) -> None:
    """What the provider did not answer is never asked again."""
    put(payment, "_repeat", lambda *_: [])


# Sagas and the payment agent.


def charge_without_key(put: Put) -> None:
    """A repeated request asks under a key of its own."""
    question = payment_agent.question

    def fresh(event: Any) -> Any:
        asked = question(event)
        again = isinstance(event, PaymentRequestRepeated)
        return replace(asked, key=f"{asked.key}/{event.attempt}") if again else asked

    put(payment_agent, "question", fresh)


def no_release_on_decline(put: Put) -> None:
    """What a rejected order holds stays reserved."""
    put(cancellation, "_release", lambda *_: [])


def capture_before_confirmation(put: Put) -> None:
    """Money is taken as soon as it is authorized, whatever became of the order."""
    report = checkout._report_payment

    def report_and_capture(event: Any, asking: Any) -> Any:
        asked = report(event, asking)
        if isinstance(event, PaymentAuthorized):
            asked.append(
                asking.payment(
                    event.order_id, RequestCapture(event.payment_id, event.order_id, event.amount, 1)
                )
            )
        return asked

    put(checkout, "_report_payment", report_and_capture)


def authorization_before_stock(put: Put) -> None:
    """Money is asked for as soon as the order is placed."""
    reserve = checkout._reserve

    def reserve_and_charge(event: Any, until: Any, asking: Any, topics: Any) -> Any:
        head = (event.payment_id, event.order_id, event.owner, event.amount, event.currency, event.token)
        charge = asking.payment(event.order_id, RequestAuthorization(*head, 1))
        return [*reserve(event, until, asking, topics), charge]

    put(checkout, "_reserve", reserve_and_charge)


def saga_answer_dropped(put: Put) -> None:
    """Nobody listens to what became of an allocation."""
    hear = checkout._hear
    put(
        checkout,
        "_hear",
        lambda decided, *rest: [] if decided.type == "AllocateStock" else hear(decided, *rest),
    )


def commands_not_awaited(put: Put) -> None:
    """A saga acknowledges what it read before Kafka has acknowledged what it sent."""
    send = CommandProducer.send

    async def send_and_forget(self: Any, commands: Any) -> None:
        _TASKS.add(asyncio.create_task(send(self, list(commands))))

    put(CommandProducer, "send", send_and_forget)


_TASKS: set[asyncio.Task[None]] = set()


# Agents and views.


def read_uncommitted(put: Put) -> None:
    """Agents see what is not committed, and what is aborted."""
    original = event_source.EventSource.__init__

    def init(self: Any, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named | {"isolation": "read_uncommitted"})

    put(event_source.EventSource, "__init__", init)


def ack_on_exception(put: Put) -> None:
    """A batch whose agent raised counts as done."""

    async def apply(delivery: Any, body: Any) -> Any:
        try:
            failpoint("agent_before_apply")
            return await body(delivery.batch)
        except Exception:  # noqa: BLE001  # that is the bug
            return []

    put(deliveries, "_apply", apply)


def poison_not_lettered(put: Put) -> None:
    """What cannot be applied is passed over in silence."""

    async def settle_without_letters(delivery: Any, body: Any) -> None:
        await settle(replace(delivery, letters=()), body)

    settle = deliveries.settle
    from ops.simulate import site

    put(site, "settle", settle_without_letters)


def no_version_guard(put: Put) -> None:
    """Whoever writes last to a view, wins."""
    put(MemoryViews, "is_newer", staticmethod(lambda _version, _held: True))


def position_before_documents(put: Put) -> None:
    """A view's position is moved before its documents are written."""
    put_in_order = MemoryViews._put

    async def put_position_first(self: Any, view: Any, batch: Any, folded: Any, then: Any) -> Any:
        nothing = replace(folded, after={})
        stand = await put_in_order(self, view, batch, nothing, then)
        if stand == then:
            behind = replace(batch, expected=then.next)
            stand = await put_in_order(self, view, behind, folded, then)
        return stand

    put(MemoryViews, "_put", put_position_first)


def position_of_the_store_ignored(put: Put) -> None:
    """A view goes on where it believes to be, whatever its store says."""
    apply = FoldingStore.apply

    async def apply_anyway(self: Any, batch: Any) -> Any:
        view = self._view_of(batch.topic)
        self._shelf.positions[view.title, (batch.topic, batch.partition)] = batch.expected
        return await apply(self, batch)

    put(FoldingStore, "apply", apply_anyway)


BUGS: dict[str, Callable[[Put], None]] = {
    function.__name__.replace("_", " "): function
    for function in (
        no_fencing, offset_before_events, torn_batch, last_stable_offset_recovery, watermark_before_fence,
        no_wait_for_pending_offsets, doubt_taken_for_success, doubt_taken_for_failure, no_renewal,
        idle_offsets_not_sent, watermark_taken_for_history, no_dedupe_window, expired_commands_decided, clock_runs_backwards,
        hash_chain_not_linked, batch_index_per_partition, state_not_restored, window_not_restored,
        deadline_lost_on_restore, merged_before_the_commit, oversell, partial_grant, expiry_by_reader,
        second_checkout, late_authorization_kept, reminders_forgotten, flight_without_end, unknown_not_repeated,
        charge_without_key, no_release_on_decline, capture_before_confirmation, authorization_before_stock,
        saga_answer_dropped, commands_not_awaited, read_uncommitted, ack_on_exception, poison_not_lettered,
        no_version_guard, position_before_documents, position_of_the_store_ignored,
    )
}  # fmt: skip
