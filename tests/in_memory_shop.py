"""The whole shop in memory: the real deciders and sagas, a clock turned by hand, no order across topics."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from commands import cart, inventory, order, payment
from commands.decider import Answer, Command, Context, Deadline, Decider, Event, Record
from commands.rejections import Rejection
from schemas.cart import AddItemsToCart, CartItem, CheckOutCart, CreateCart, cart_stream, order_id_of
from schemas.codec import Decoded
from schemas.decisions import Decided
from schemas.inventory import ReceiptLine, ReceiveStock
from schemas.meta import NO_HASH, SECOND, CommandMeta, EventMeta, Micros, derived_id
from schemas.payment import (
    NoteProviderEvent,
    PaymentRequested,
    PaymentRequestRepeated,
    RecordProviderResult,
    Verb,
)
from schemas.personal import SealedContact
from schemas.topics import Topics
from schemas.values import MAIN
from streams import saga
from streams.asked import Asked, Fact, SagaCommandRejected

START = Micros(1_291_161_600 * SECOND)
DECIDERS: Mapping[str, Decider] = {
    "cart": cart.DECIDER,
    "inventory": inventory.DECIDER,
    "order": order.DECIDER,
    "payment": payment.DECIDER,
}
React: TypeAlias = Callable[[Fact, Topics], list[Asked | SagaCommandRejected]]
Place: TypeAlias = tuple[str, int]
"""A partition of one aggregate's topics."""
Source: TypeAlias = tuple[str, str, int]
"""A topic partition that the sagas read: events or decisions, aggregate, partition."""


@dataclass
class Provider:
    """Does what it is asked once for each key. `moved` is its own ledger: (payment, verb) → amounts; `notices` is what
    it tells of that unasked, by webhook, how often and in what order ever.
    """

    outcomes: dict[str, tuple[str, str]] = field(default_factory=dict)
    moved: defaultdict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    notices: list[NoteProviderEvent] = field(default_factory=list)

    def ask(self, verb: str, request: PaymentRequested, willing: bool) -> tuple[str, str]:
        """(outcome, reference). A willing provider does whatever the money allows."""
        if request.key not in self.outcomes:
            outcome = self._outcome(verb, request, willing)
            if outcome == "succeeded":
                self.moved[request.payment_id, verb].append(request.amount)
            self.outcomes[request.key] = (outcome, derived_id(request.key) if outcome == "succeeded" else "")
            self._leave_notice(verb, request, outcome)
        return self.outcomes[request.key]

    def _leave_notice(self, verb: str, request: PaymentRequested, outcome: str) -> None:
        told = (request.payment_id, request.order_id, request.amount, request.currency, verb, request.key)
        self.notices.append(NoteProviderEvent(*told, outcome, derived_id(request.key, "event")))

    def _outcome(self, verb: str, request: PaymentRequested, willing: bool) -> str:
        if not willing:
            return "declined" if verb == "authorization" else "failed"
        holds = self.held(request.payment_id)
        room = {"capture": holds, "void": holds, "refund": self.captured(request.payment_id)}
        return "succeeded" if request.amount <= room.get(verb, request.amount) else "failed"

    def held(self, payment_id: str) -> int:
        """Authorized, and neither captured nor voided."""
        return self._sum(payment_id, "authorization") - self._sum(payment_id, "capture", "void")

    def captured(self, payment_id: str) -> int:
        """Captured, and not refunded."""
        return self._sum(payment_id, "capture") - self._sum(payment_id, "refund")

    def _sum(self, payment_id: str, *verbs: str) -> int:
        return sum(sum(self.moved[payment_id, verb]) for verb in verbs)


class Shop:
    """Facts lie in their topic partitions until they are delivered, commands until they are decided."""

    def __init__(self, react: React = saga.react, deciders: Mapping[str, Decider] = DECIDERS) -> None:
        self.topics = Topics(partitions=2)
        self.now = START
        self.provider = Provider()
        self.records: dict[str, Record] = {}
        self.facts: defaultdict[Source, list[Fact]] = defaultdict(list)
        self.read: defaultdict[Source, int] = defaultdict(int)
        self.waiting: defaultdict[Place, list[Asked]] = defaultdict(list)
        self.calls: list[tuple[str, PaymentRequested, str]] = []
        self.letters: list[SagaCommandRejected] = []
        self._react = react
        self._deciders = deciders
        self._decided: dict[str, Decided] = {}
        self._versions: defaultdict[str, int] = defaultdict(int)
        self._deadlines: dict[str, tuple[str, Deadline]] = {}
        self._sent = 0

    def get(self, path: str) -> Record | None:
        return self.records.get(path)

    # What people do.

    def receive(self, sku: str, quantity: int) -> None:
        self.act("inventory", sku, ReceiveStock(MAIN, "delivery", (ReceiptLine(sku, quantity),)), "merchant")

    def check_out(
        self,
        name: str,
        owner: str,
        items: Mapping[str, int],
        stocked: bool = True,
        contact: SealedContact | None = None,
    ) -> str:
        """A cart is filled and checked out at once; the order that it becomes."""
        cart_id = derived_id(name)
        lines = tuple(CartItem(sku, sku, q, 100, "GBP", 1, stocked) for sku, q in items.items())
        for body in (
            CreateCart(cart_id, owner, "GBP"),
            AddItemsToCart(cart_id, lines),
            CheckOutCart(cart_id, "tok", contact),
        ):
            self.act("cart", cart_id, body, "customer", owner)
        return order_id_of(cart_id, self.records[cart_stream(cart_id)].checkouts)

    def act(self, aggregate: str, key: str, body: Command, kind: str, actor: str = "") -> None:
        """Somebody outside asks, and it is decided at once."""
        self._sent += 1
        self._decide(aggregate, key, body, self._meta(body, derived_id("act", str(self._sent)), kind, actor))

    # What processes do.

    def sources(self) -> list[Source]:
        """Where facts wait to be delivered."""
        return sorted(s for s, facts in self.facts.items() if self.read[s] < len(facts))

    def queues(self) -> list[Place]:
        """Where commands wait to be decided."""
        return sorted(place for place, asked in self.waiting.items() if asked)

    def deliver(self, source: Source) -> None:
        """The next fact of a topic partition to the sagas, and to the payment agent."""
        fact = self.facts[source][self.read[source]]
        self.read[source] += 1
        for made in self._react(fact, self.topics):
            if isinstance(made, SagaCommandRejected):
                self.letters.append(made)
            else:
                self.waiting[made.aggregate, self.topics.partition_of(made.key)].append(made)
        if isinstance(fact, Decoded) and isinstance(fact.body, PaymentRequested):
            self.calls.append((_verb_of(fact.body), fact.body, fact.meta.event_id))

    def rewind(self, source: Source, steps: int) -> None:
        """A saga died before it had committed what it had read."""
        self.read[source] = max(0, self.read[source] - steps)

    def decide(self, place: Place) -> None:
        asked = self.waiting[place].pop(0)
        self._decide(asked.aggregate, asked.key, asked.body, asked.meta)

    def call(self, index: int, willing: bool, lost: bool, heard: bool) -> None:
        """The payment agent asks; the request may be `lost`, and the answer not `heard`."""
        verb, request, event_id = self.calls.pop(index)
        outcome, reference = ("unknown", "") if lost else self.provider.ask(verb, request, willing)
        if not heard:
            outcome, reference = "unknown", ""
        code = "" if outcome == "succeeded" else outcome
        body = RecordProviderResult(request.payment_id, verb, request.key, outcome, reference, code, None)
        meta = self._meta(body, derived_id(event_id, "asked"), "provider", "sandbox")
        place = ("payment", self.topics.partition_of(request.payment_id))
        self.waiting[place].append(Asked("payment", request.payment_id, body, meta))

    def hint(self, index: int) -> None:
        """A webhook comes, perhaps not for the first time; the API's window has forgotten that it came before."""
        body = self.provider.notices[index]
        self._sent += 1
        meta = self._meta(body, derived_id("hint", str(self._sent)), "provider", "webhook")
        place = ("payment", self.topics.partition_of(body.payment_id))
        self.waiting[place].append(Asked("payment", body.payment_id, body, meta))

    def pass_time(self, pause: int) -> None:
        """Every deadline on the way is met when it is due."""
        until = Micros(self.now + pause)
        while self._deadlines:
            path, (aggregate, due) = min(self._deadlines.items(), key=lambda item: (item[1][1].at, item[0]))
            if due.at > until:
                break
            self.now = max(self.now, due.at)
            del self._deadlines[path]
            meta = self._meta(due.command, derived_id(path, str(due.at)), "deadline", path)
            self._decide(aggregate, due.command.stream.split("/")[1], due.command, meta)
        self.now = until

    def quiesce(self) -> None:
        """Everybody works, and the provider is well."""
        while True:
            if sources := self.sources():
                self.deliver(sources[0])
            elif queues := self.queues():
                self.decide(queues[0])
            elif self.calls:
                self.call(0, willing=True, lost=False, heard=True)
            else:
                return

    # The writer, without a log.

    def _decide(self, aggregate: str, key: str, body: Command, meta: CommandMeta) -> None:
        place = (aggregate, self.topics.partition_of(key))
        decided = self._decided.get(meta.command_id)
        if decided is None:
            decided = self._decided[meta.command_id] = self._first_outcome(place, body, meta)
        self.facts["decisions", *place].append(decided)

    def _first_outcome(self, place: Place, body: Command, meta: CommandMeta) -> Decided:
        decider = self._deciders[place[0]]
        context = Context(self.now, meta.command_id, meta.actor_kind, meta.actor_id)
        events = decider.decide(self, body, context)
        if isinstance(events, Rejection):
            return self._outcome(body, meta, Answer(), events)
        for index, event in enumerate(events):
            for path, record in decider.evolve(self, event).items():
                self._keep(place[0], path, record)
            self.facts["events", *place].append(self._recorded(event, meta, context.event_id(index)))
        return self._outcome(body, meta, decider.answer(self, body, events), None)

    def _keep(self, aggregate: str, path: str, record: Record | None) -> None:
        self._deadlines.pop(path, None)
        if record is None:
            self.records.pop(path, None)
            return
        self.records[path] = record
        due = self._deciders[aggregate].deadline(path, record)
        if due is not None:
            self._deadlines[path] = (aggregate, due)

    def _recorded(self, event: Event, meta: CommandMeta, event_id: str) -> Decoded[EventMeta]:
        stream = event.stream
        self._versions[stream] += 1
        return Decoded(
            EventMeta(
                event_id, stream, self._versions[stream], self.now, self.now, meta.command_id,
                meta.correlation_id, meta.causation_id, meta.actor_kind, meta.actor_id, "batch", 0, 1,
                meta.traceparent, NO_HASH,
            ),
            event,
        )  # fmt: skip

    def _outcome(
        self, body: Command, meta: CommandMeta, answer: Answer, rejection: Rejection | None
    ) -> Decided:
        outcome = "rejected" if rejection else "refused" if answer.refused else "accepted"
        numbers = tuple(line.line for line in getattr(body, "lines", ()) if hasattr(line, "line"))
        return Decided(
            meta.command_id, type(body).__name__, meta.stream, numbers, getattr(body, "attempt", 0),
            meta.reply_to, "", outcome, answer.status, answer.refused,
            rejection.as_rejected() if rejection else None, answer.positions, meta.correlation_id,
            meta.traceparent, meta.occurred_at, self.now,
        )  # fmt: skip

    def _meta(self, body: Any, command_id: str, kind: str, actor: str) -> CommandMeta:
        return CommandMeta(
            command_id, body.stream, "", self.now, self.now, None, None, None, command_id, command_id,
            kind, actor, "",
        )  # fmt: skip

    # What happened.

    def history(self, aggregate: str) -> Sequence[Decoded[EventMeta]]:
        """All events of an aggregate; those of one stream in their order."""
        return [
            fact
            for source, facts in sorted(self.facts.items())
            for fact in facts
            if source[:2] == ("events", aggregate) and isinstance(fact, Decoded)
        ]

    def events_of(self, stream: str) -> list[Event]:
        return [e.body for e in self.history(stream.split("/", maxsplit=1)[0]) if e.meta.stream == stream]


def _verb_of(request: PaymentRequested) -> Verb | str:
    if isinstance(request, PaymentRequestRepeated):
        return request.verb
    return type(request).__name__.removeprefix("Payment").removesuffix("Requested").lower()
