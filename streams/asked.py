"""What a saga makes of a fact: commands, whose ids follow from the fact, so that twice is once."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from commands.decider import Command
from schemas.codec import Decoded
from schemas.decisions import Decided, Rejected
from schemas.meta import FOR_EVER, HOUR, CommandMeta, EventMeta, Micros, derived_id
from schemas.order import PlaceOrder, order_stream
from schemas.topics import Topics
from schemas.values import Line

PATIENCE = 12 * HOUR
"""A saga's command may have its effect for so long after its trigger; an order that waits is reminded, and asks again."""

Fact: TypeAlias = Decoded[EventMeta] | Decided
"""An event, or one of the decisions in a decisions record."""


@dataclass(frozen=True)
class Asked:
    """A command to be sent: to the topic of `aggregate`, in the partition of `key`."""

    aggregate: str
    key: str
    body: Command
    meta: CommandMeta


@dataclass(frozen=True)
class SagaCommandRejected:
    """An order would not hear what a saga told it; nobody is left to tell, so it becomes a dead letter.

    `command_id` and `type` are the rejected command's.
    """

    stream: str
    command_id: str
    type: str
    rejection: Rejected


class Trigger(NamedTuple):
    """What a command inherits from the fact that caused it."""

    id: str
    recorded_at: Micros
    occurred_at: Micros | None
    correlation_id: str
    traceparent: str


class Asking:
    """The commands that one saga (`actor`) sends because of one fact."""

    def __init__(self, actor: str, fact: Fact) -> None:
        self._actor = actor
        self._fact = fact

    def order(self, body: Command) -> Asked:
        """Tell the order; it is not asked to answer."""
        return self._ask("order", body.order_id, body, None, "")

    def new_order(self, body: PlaceOrder) -> Asked:
        """As `order`, however late: no order is there yet that would be reminded of it. One that is there says so itself."""
        return self._ask("order", body.order_id, body, None, "", FOR_EVER)

    def cart(self, order_id: str, body: Command) -> Asked:
        return self._ask("cart", body.cart_id, body, order_stream(order_id), "")

    def payment(self, order_id: str, body: Command) -> Asked:
        return self._ask("payment", body.payment_id, body, order_stream(order_id), "")

    def stock(
        self,
        reply_to: str,
        lines: Iterable[Line],
        topics: Topics,
        body: Callable[[tuple[Line, ...]], Command],
    ) -> list[Asked]:
        """One command for each inventory partition in which some of an order's lines live."""
        return [
            self._ask("inventory", group[0].sku, body(group), reply_to, str(partition))
            for partition, group in by_partition(lines, topics)
        ]

    def _ask(
        self,
        aggregate: str,
        key: str,
        body: Command,
        reply_to: str | None,
        part: str,
        not_after: Micros | None = None,
    ) -> Asked:
        trigger = trigger_of(self._fact)
        meta = CommandMeta(
            command_id=derived_id(trigger.id, type(body).__name__, part),
            stream=body.stream,
            traceparent=trigger.traceparent,
            issued_at=trigger.recorded_at,
            not_after=Micros(trigger.recorded_at + PATIENCE) if not_after is None else not_after,
            occurred_at=trigger.occurred_at,
            expected_version=None,
            reply_to=reply_to,
            correlation_id=trigger.correlation_id,
            causation_id=trigger.id,
            actor_kind="saga",
            actor_id=self._actor,
            fingerprint="",
        )
        return Asked(aggregate, key, body, meta)


def trigger_of(fact: Fact) -> Trigger:
    if isinstance(fact, Decided):
        recorded_at = Micros(fact.recorded_at)
        occurred_at = None if fact.occurred_at is None else Micros(fact.occurred_at)
        return Trigger(fact.command_id, recorded_at, occurred_at, fact.correlation_id, fact.traceparent)
    meta = fact.meta
    return Trigger(meta.event_id, meta.recorded_at, meta.occurred_at, meta.correlation_id, meta.traceparent)


def by_partition(lines: Iterable[Line], topics: Topics) -> list[tuple[int, tuple[Line, ...]]]:
    """The lines that live together, in the order of their partitions."""
    groups: defaultdict[int, list[Line]] = defaultdict(list)
    for line in lines:
        groups[topics.partition_of(line.sku)].append(line)
    return [(partition, tuple(groups[partition])) for partition in sorted(groups)]


def asking_order(decided: Decided) -> str | None:
    """The order for which a saga asked this; None if somebody else did."""
    kind, _, order_id = (decided.reply_to or "").partition("/")
    return order_id if kind == "order" else None


def code_of(decided: Decided) -> str:
    """Why the command had no effect at all; empty if it was decided."""
    return decided.rejection.type if decided.rejection else ""


def money_outcome(decided: Decided) -> str:
    """The payment's word; a request that was rejected has failed."""
    return "failed" if decided.rejection else decided.status


def cart_outcome(decided: Decided, done: str) -> str:
    """`done`; refused, if the cart says no for good; failed, if it must be asked again."""
    if decided.rejection is None:
        return done
    return "refused" if decided.rejection.kind in ("not_found", "conflict") else "failed"
