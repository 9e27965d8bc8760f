"""The payment agent: asked at least once, made once, told once for each outcome, and one slow call holds up no other."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from confluent_kafka import Producer

from projections.view import Batch, Recorded
from schemas.codec import Decoded
from schemas.meta import NO_HASH, EventMeta, Micros, derived_id
from schemas.payment import (
    PaymentAuthorizationRequested,
    PaymentCaptureRequested,
    PaymentRequested,
    PaymentRequestRepeated,
    PaymentVoided,
    RecordProviderResult,
)
from schemas.topics import Topics
from streams.asked import Asked
from streams.payment_agent import PaymentPorts, question, settle_payments, told
from streams.payments import ProviderAnswer, ProviderRequest, Verb
from streams.record_producer import NotDelivered
from streams.topic_reader import read_to_end
from tests.sandbox_process import SandboxProcess
from tests.streams.listening import CODEC, until

NOW = Micros(1_291_161_600_000_000)
SUCCEEDED = ProviderAnswer("succeeded", "ref-1", "")


def requested(payment: str, token: str = "tok_ok", version: int = 1) -> Decoded[EventMeta]:
    id_ = derived_id(payment, str(version))
    meta = EventMeta(
        id_,
        f"payment/{payment}",
        version,
        NOW,
        NOW,
        id_,
        "corr",
        id_,
        "saga",
        "checkout",
        id_,
        0,
        1,
        "tp",
        NO_HASH,
    )
    order = derived_id(payment, "order")
    body = PaymentAuthorizationRequested(payment, order, 1250, "GBP", id_, "anna", token, "", NOW)
    return Decoded(meta, body)


def batch_of(*events: Decoded[EventMeta]) -> Batch:
    records = [Recorded("events", 0, offset, b"k", event) for offset, event in enumerate(events)]
    return Batch("events", 0, 0, len(events), records)


@dataclass
class Till:
    """A provider that answers when it is let; it counts how many questions are open at once."""

    slow: frozenset[str] = frozenset()
    slow_may_end: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[ProviderRequest] = field(default_factory=list)
    open_now: int = 0
    open_at_most: int = 0

    async def ask(self, request: ProviderRequest) -> ProviderAnswer:
        self.asked.append(request)
        self.open_now += 1
        self.open_at_most = max(self.open_at_most, self.open_now)
        await asyncio.sleep(0)
        if request.payment_id in self.slow:
            await self.slow_may_end.wait()
        self.open_now -= 1
        return SUCCEEDED


@dataclass
class Outbox:
    sent: list[Asked] = field(default_factory=list)
    fails: int = 0

    async def send(self, commands: list[Asked]) -> None:
        if self.fails:
            self.fails -= 1
            raise NotDelivered("no Kafka")
        self.sent += commands


def ports(till: Till, outbox: Outbox, calls: int = 64) -> PaymentPorts:
    return PaymentPorts(till, outbox, asyncio.Semaphore(calls))  # type: ignore[arg-type]  # has what is used of it


async def test_every_request_is_asked_and_its_answer_told():
    till, outbox = Till(), Outbox()
    await settle_payments(batch_of(requested("p1"), requested("p2")), ports(till, outbox))
    assert [request.payment_id for request in till.asked] == ["p1", "p2"]
    assert {asked.key for asked in outbox.sent} == {"p1", "p2"}
    body = outbox.sent[0].body
    assert body == RecordProviderResult(
        "p1", "authorization", derived_id("p1", "1"), "succeeded", "ref-1", "", None
    )


async def test_what_is_no_request_is_not_asked():
    till, outbox = Till(), Outbox()
    meta = requested("p1").meta
    voided = Decoded(meta, PaymentVoided("p1", "o", 0, "GBP", "key", "ref"))
    await settle_payments(batch_of(voided), ports(till, outbox))
    assert (till.asked, outbox.sent) == ([], [])


async def test_a_slow_answer_holds_up_no_other():
    till, outbox = Till(slow=frozenset({"p1"})), Outbox()
    batch = batch_of(requested("p1"), *(requested(f"q{n}") for n in range(20)))
    settling = asyncio.create_task(settle_payments(batch, ports(till, outbox)))
    await until(lambda: len(outbox.sent) == 20)
    assert not settling.done()
    till.slow_may_end.set()
    await settling
    assert outbox.sent[-1].key == "p1"


async def test_no_more_questions_are_open_at_once_than_allowed():
    till, outbox = Till(), Outbox()
    await settle_payments(batch_of(*(requested(f"p{n}") for n in range(50))), ports(till, outbox, calls=7))
    assert till.open_at_most == 7
    assert len(outbox.sent) == 50


async def test_while_kafka_does_not_take_an_answer_the_batch_is_not_settled():
    till, outbox = Till(), Outbox(fails=1)
    with pytest.raises(NotDelivered):
        await settle_payments(batch_of(requested("p1"), requested("p2")), ports(till, outbox))
    # The other call was not cut off half-way.
    assert len(till.asked) == 2
    assert len(outbox.sent) == 1


def test_the_same_answer_again_is_the_same_command_and_another_outcome_another():
    request = requested("p1")
    unknown = ProviderAnswer("unknown", "", "timeout")
    assert told(request, SUCCEEDED).meta.command_id == told(request, SUCCEEDED).meta.command_id
    assert told(request, SUCCEEDED).meta.command_id != told(request, unknown).meta.command_id


def test_a_repetition_asks_what_was_asked_first_under_the_first_key():
    first = requested("p1").body
    again = PaymentRequestRepeated(**vars(first), verb="authorization", attempt=2)
    assert question(again) == question(first)
    assert question(again).verb is Verb.AUTHORIZE


def test_a_capture_names_what_was_authorized():
    capture = PaymentCaptureRequested("p1", "o", 500, "GBP", "key", "anna", "", "auth-7", NOW)
    asked = question(capture)
    assert (asked.verb, asked.reference, asked.amount) == (Verb.CAPTURE, "auth-7", 500)


def test_every_kind_of_request_can_be_asked():
    for kind in PaymentRequested.__subclasses__():
        verb = {"verb": "void", "attempt": 2} if kind is PaymentRequestRepeated else {}
        question(kind("p1", "o", 1, "GBP", "key", "anna", "", "ref", NOW, **verb))


def test_the_answer_is_told_in_the_requests_name():
    meta = told(requested("p1"), SUCCEEDED).meta
    cause = requested("p1").meta
    assert (meta.causation_id, meta.correlation_id) == (cause.event_id, "corr")
    assert meta.issued_at == cause.recorded_at
    assert meta.reply_to is None


# F15: the agent killed around the call, in a process of its own, against the real sandbox.


@dataclass(frozen=True)
class Till15:
    """The agent's process, its sandbox, and what it wrote."""

    kafka: str
    topics: Topics
    sandbox: SandboxProcess
    state: str

    def start(self, failpoints: str = "") -> subprocess.Popen[bytes]:
        environment = {
            "DAYBOOK_KAFKA": self.kafka,
            "DAYBOOK_TOPIC_PREFIX": self.topics.prefix,
            "DAYBOOK_PROVIDER": self.sandbox.url,
            "DAYBOOK_STATE": self.state,
            "DAYBOOK_FAILPOINTS": failpoints,
            "DAYBOOK_SLOT": "1",
        }
        with open(f"{self.state}/log", "ab") as log:  # noqa: PTH123  # a test's log
            return subprocess.Popen(
                [sys.executable, "-m", "streams.payment_agent"],
                env=os.environ | environment,
                stdout=log,
                stderr=log,
            )

    def ask(self, payment: str) -> None:
        request = requested(payment)
        producer = Producer({"bootstrap.servers": self.kafka})
        value = CODEC.encode(request.body, vars(request.meta))
        producer.produce(
            self.topics.events("payment"), value, payment.encode(), self.topics.partition_of(payment)
        )
        assert producer.flush(60) == 0

    def told(self, payment: str) -> list[str]:
        """The ids of the commands that tell this payment something."""
        partition = self.topics.partition_of(payment)
        messages = read_to_end(self.kafka, self.topics.commands("payment"), partition)
        decoded = [CODEC.decode(message.value() or b"") for message in messages]
        return [command.meta.command_id for command in decoded if command.body.payment_id == payment]

    def charges(self) -> list[dict[str, object]]:
        return [row for row in self.sandbox.ledger() if row["verb"] == "authorization"]


@pytest.fixture
def till(stack, topics, tmp_path) -> Iterator[Till15]:
    folder = tmp_path / "sandbox"
    folder.mkdir()
    sandbox = SandboxProcess(folder)
    sandbox.start()
    yield Till15(stack.kafka, topics, sandbox, str(tmp_path))
    sandbox.kill()


@pytest.mark.parametrize(
    "point", ["payment_before_call", "payment_after_call", "payment_after_command", "agent_before_ack"]
)
async def test_killed_around_the_call_there_is_exactly_one_charge(till, point):
    dying = till.start(f"{point}=kill")
    till.ask("p1")
    assert await asyncio.to_thread(dying.wait, 60) == -signal.SIGKILL
    agent = till.start()
    try:
        await until(lambda: till.told("p1"))
        till.ask("p2")
        await until(lambda: till.told("p2"))
    finally:
        agent.terminate()
        assert agent.wait(60) == 0
    assert len(set(till.told("p1"))) == 1
    assert [row["payment_id"] for row in till.charges()] == ["p1", "p2"]


async def test_idle_it_costs_next_to_nothing(till):
    """All of Daybook's processes together may use 5 % of a core when idle."""
    import psutil

    agent = till.start()
    try:
        till.ask("p1")
        await until(lambda: till.told("p1"))
        process = psutil.Process(agent.pid)
        before, started = sum(process.cpu_times()[:2]), time.monotonic()
        await until(lambda: time.monotonic() - started > 5)
        used = (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - started)
    finally:
        agent.terminate()
        agent.wait(60)
    assert used < 0.02
