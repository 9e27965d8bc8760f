"""The saga agent: all that follows from a batch is sent, once for every id, before the batch is acknowledged."""

import asyncio
from dataclasses import dataclass, field, replace

import pytest

from projections.view import Batch, Recorded
from schemas.cart import CartCheckedOut
from schemas.codec import Codec, Decoded
from schemas.decisions import Decided, Decisions, Rejected
from schemas.meta import NO_HASH, CommandMeta, EventMeta, Micros, RecordMeta
from schemas.order import PlaceOrder
from schemas.payment import RequestVoid
from schemas.topics import Topics
from schemas.values import PricedLine
from streams.asked import Asked
from streams.command_producer import CommandProducer
from streams.record_producer import NotDelivered, RecordProducer
from streams.saga_agents import SagaPorts, advance_checkouts, facts_in
from streams.topic_reader import read_to_end
from tests.streams.listening import CODEC

NOW = Micros(1_291_161_600_000_000)
TOPICS = Topics("t", 2)


def checked_out(cart: str) -> Decoded[EventMeta]:
    meta = EventMeta(
        f"event-{cart}",
        f"cart/{cart}",
        3,
        NOW,
        NOW,
        "c",
        "corr",
        "c",
        "customer",
        "anna",
        "b",
        0,
        1,
        "tp",
        NO_HASH,
    )
    lines = (PricedLine(1, "85123A", "lantern", 6, 255, 1, stocked=True),)
    return Decoded(meta, CartCheckedOut(cart, "anna", f"order-{cart}", 1, lines, 1530, "GBP", "tok_ok"))


def decided(**changed: object) -> Decided:
    answer = Decided(
        "c1", "ReserveStock", "stock/85123A/main", (1,), 1, "order/o1", "", "accepted", "", (), None, (), "corr", "tp",
        None, NOW,
    )  # fmt: skip
    return replace(answer, **changed)  # type: ignore[arg-type]  # fields by name


def recorded(message: Decoded[EventMeta] | Decoded[RecordMeta], offset: int = 0) -> Recorded:
    return Recorded("t.events.cart", 0, offset, b"k", message)


def decisions(*answers: Decided) -> Decoded[RecordMeta]:
    return Decoded(RecordMeta("decisions/0", NOW, "b"), Decisions(bytes(16 * len(answers)), answers))


def batch_of(*records: Recorded) -> Batch:
    return Batch("t.events.cart", 0, 0, len(records), records)


@dataclass
class Outbox:
    sent: list[Asked] = field(default_factory=list)
    down: bool = False

    async def send(self, commands: list[Asked]) -> None:
        if self.down:
            raise NotDelivered("no Kafka")
        self.sent += commands


def ports(outbox: Outbox) -> SagaPorts:
    return SagaPorts(outbox, TOPICS)  # type: ignore[arg-type]  # has what is used of it


async def test_an_event_becomes_the_commands_that_follow_from_it():
    outbox = Outbox()
    assert await advance_checkouts(batch_of(recorded(checked_out("c1"))), ports(outbox)) == []
    assert [(type(asked.body), asked.key) for asked in outbox.sent] == [(PlaceOrder, "order-c1")]


async def test_every_decision_in_a_record_is_a_fact_of_its_own():
    outbox = Outbox()
    record = recorded(decisions(decided(), decided(command_id="c2", reply_to="order/o2")))
    assert len(list(facts_in(record))) == 2
    await advance_checkouts(batch_of(record), ports(outbox))
    assert [asked.key for asked in outbox.sent] == ["o1", "o2"]


async def test_the_same_batch_again_sends_the_same_ids():
    outbox = Outbox()
    for _ in range(2):
        await advance_checkouts(batch_of(recorded(checked_out("c1"))), ports(outbox))
    first, second = outbox.sent
    assert first.meta.command_id == second.meta.command_id


async def test_what_an_order_would_not_hear_is_named_for_a_person_to_see():
    outbox = Outbox()
    deaf = decided(
        type="RecordStockAnswer", stream="order/o9", outcome="rejected", reply_to=None,
        rejection=Rejected("UnknownOrder", "not_found", "no such order"),
    )  # fmt: skip
    (poison,) = await advance_checkouts(batch_of(recorded(decisions(deaf), offset=7)), ports(outbox))
    assert (poison.stream, poison.offset) == ("order/o9", 7)
    assert "UnknownOrder" in poison.reason


async def test_while_kafka_takes_no_commands_the_batch_is_not_settled():
    with pytest.raises(NotDelivered):
        await advance_checkouts(batch_of(recorded(checked_out("c1"))), ports(Outbox(down=True)))


async def test_a_command_stands_on_its_topic_as_the_workers_expect_it(stack, topics):
    producer = RecordProducer(stack.kafka)
    command = Asked("payment", "p1", *_some_command())
    await CommandProducer(producer, Codec(), topics).send([command])
    producer.close()
    (message,) = read_to_end(stack.kafka, topics.commands("payment"), topics.partition_of("p1"))
    assert message.key() == b"p1"
    assert CODEC.decode(message.value() or b"").body == command.body
    headers = dict(message.headers() or [])
    assert headers["type"] == b"RequestVoid"
    assert headers["schema"] == (message.value() or b"")[2:10].hex().encode()


async def test_many_at_once_are_sent_through_a_bounded_queue(stack, topics):
    """The queue holds a thousand: the rest waits for the broker, and all arrive."""
    producer = RecordProducer(stack.kafka, **{"queue.buffering.max.messages": 1_000})
    body, meta = _some_command()
    commands = [Asked("payment", f"p{n}", body, meta) for n in range(3_000)]
    await asyncio.wait_for(CommandProducer(producer, Codec(), topics).send(commands), 60)
    producer.close()
    arrived = [len(list(read_to_end(stack.kafka, topics.commands("payment"), n))) for n in range(2)]
    assert sum(arrived) == 3_000


async def test_a_client_that_could_not_deliver_is_replaced(stack, topics):
    """It looks for Kafka where nobody answers; its successor knows better."""
    producer = RecordProducer("127.0.0.1:9", **{"delivery.timeout.ms": 500})
    producer._config |= {"bootstrap.servers": stack.kafka, "delivery.timeout.ms": 60_000}
    commands = CommandProducer(producer, Codec(), topics)
    sent = [Asked("payment", "p1", *_some_command())]
    with pytest.raises(NotDelivered):
        await commands.send(sent)
    await commands.send(sent)
    await asyncio.to_thread(producer.close)
    assert len(list(read_to_end(stack.kafka, topics.commands("payment"), topics.partition_of("p1")))) == 1


def _some_command() -> tuple[RequestVoid, CommandMeta]:
    meta = CommandMeta(
        "id", "payment/p1", "tp", NOW, NOW, None, None, None, "corr", "cause", "saga", "checkout", ""
    )
    return RequestVoid("p1", "o1", "GBP", 1), meta
