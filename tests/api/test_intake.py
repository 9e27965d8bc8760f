"""Commands into a real Kafka and their outcomes back; a small responder stands where the worker would."""

import asyncio
import copy
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, replace
from uuid import UUID, uuid4

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from structlog.testing import capture_logs

import api.intake
from api.decisions_reader import KafkaLog
from api.intake import Intake
from api.problems import (
    CommandReusedError,
    CommandTooLargeError,
    NotReadyError,
    OutcomeUnknownError,
    OverloadedError,
)
from ops.local_stack import Addresses
from schemas.avro import Schema, schema_of
from schemas.cart import ClearCart, CreateCart
from schemas.codec import Codec, Decoded
from schemas.decisions import Decided, Decisions
from schemas.meta import CommandMeta, Micros, derived_id
from schemas.resolution import encode_sample
from schemas.topics import Topics
from streams.topic_admin import delete_topics, ensure_topics
from tests.api.conftest import accepted, rejected
from tests.soonest import soonest

CODEC = Codec()
DEAD = "127.0.0.1:1"


def meta_of(key: str, intake: Intake, fingerprint: str = "f") -> CommandMeta:
    now = Micros(time.time_ns() // 1_000)
    command_id = derived_id("ben", key)
    cart = f"cart/{derived_id(command_id)}"
    return CommandMeta(
        command_id,
        cart,
        "00-1-1-01",
        now,
        Micros(now + 30_000_000),
        None,
        None,
        intake.reply_to,
        "c",
        "c",
        "customer",
        "ben",
        fingerprint,
    )


class Responder:
    """Reads the commands of carts and answers as `answer` says, one decisions record per command."""

    def __init__(self, kafka: str, topics: Topics) -> None:
        self.seen: list[Decoded[CommandMeta]] = []
        self.silent = False
        self._topics = topics
        self._producer = Producer({"bootstrap.servers": kafka, "linger.ms": 0})
        self._consumer = Consumer(
            {"bootstrap.servers": kafka, "group.id": "none", "enable.auto.commit": False}
        )
        commands = topics.commands("cart")
        self._consumer.assign([TopicPartition(commands, n, 0) for n in range(topics.partitions)])
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ending.is_set():
            message = self._consumer.poll(0.05)
            if message is not None and message.error() is None:
                command = CODEC.decode(message.value() or b"")
                self.seen.append(command)
                if not self.silent:
                    self.answer(accepted(command.meta), message.partition() or 0)

    def answer(self, decided: Decided, partition: int = 0) -> None:
        body = Decisions(UUID(decided.command_id).bytes, (decided,))
        meta = {"stream": f"cart/{partition}", "recorded_at": decided.recorded_at, "batch_id": "b"}
        self._producer.produce(self._topics.decisions("cart"), CODEC.encode(body, meta), partition=partition)
        self._producer.flush(5)

    def close(self) -> None:
        self._ending.set()
        self._thread.join()
        self._consumer.close()


async def until(holds) -> None:
    """Wait for a condition, at most 60 s."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


@pytest.fixture(scope="module")
def topics(stack: Addresses) -> Iterator[Topics]:
    topics = Topics(f"intake-test-{uuid4().hex[:8]}")
    ensure_topics(stack.kafka, topics)
    yield topics
    delete_topics(stack.kafka, topics.prefix)


@pytest.fixture
def responder(stack: Addresses, topics: Topics) -> Iterator[Responder]:
    responder = Responder(stack.kafka, topics)
    yield responder
    responder.close()


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine's Kafka may take its time; how long a caller waits has tests of its own."""
    monkeypatch.setattr(api.intake, "CONFIRMED_WITHIN_S", 60)
    monkeypatch.setattr(api.intake, "DECIDED_WITHIN_S", 120)
    monkeypatch.setattr(api.intake, "DELIVERY_TIMEOUT_MS", 60_000)


@pytest.fixture
async def intake(stack: Addresses, topics: Topics, unhurried: None) -> AsyncIterator[Intake]:
    intake = Intake(stack.kafka, topics, Codec())
    intake.start()
    await until(lambda: intake.hears_decisions)
    yield intake
    await intake.stop()


async def ask(intake: Intake, meta: CommandMeta) -> Decided | None:
    cart_id = meta.stream.removeprefix("cart/")
    return await intake.ask("cart", cart_id, CreateCart(cart_id, "ben", "GBP"), meta)


async def test_a_command_comes_back_decided(intake: Intake, responder: Responder, topics: Topics):
    meta = meta_of("one", intake)
    decided = await ask(intake, meta)

    assert decided is not None
    assert (decided.command_id, decided.outcome) == (meta.command_id, "accepted")
    (seen,) = [c for c in responder.seen if c.meta.command_id == meta.command_id]
    assert seen.meta == meta
    assert intake.in_flight == 0


async def test_a_retry_joins_the_running_request(intake: Intake, responder: Responder):
    meta = meta_of("two", intake)
    answers = await asyncio.gather(*[ask(intake, meta) for _ in range(5)])

    assert all(answer is answers[0] for answer in answers)
    assert len([c for c in responder.seen if c.meta.command_id == meta.command_id]) == 1


async def test_one_caller_who_goes_away_does_not_take_the_answer_along(intake: Intake, responder: Responder):
    meta = meta_of("three", intake)
    leaves, stays = asyncio.create_task(ask(intake, meta)), asyncio.create_task(ask(intake, meta))
    await asyncio.sleep(0)
    leaves.cancel()

    assert await stays is not None


async def test_another_body_under_a_running_key_is_refused(intake: Intake, responder: Responder):
    meta = meta_of("four", intake)
    running = asyncio.create_task(ask(intake, meta))
    await asyncio.sleep(0)
    with pytest.raises(CommandReusedError):
        await ask(intake, replace(meta, fingerprint="other"))

    assert await running is not None


async def test_who_asks_hears_nothing_of_another_body_under_the_same_key(
    intake: Intake, responder: Responder
):
    """The first was given up before it was decided; the second is sent meanwhile."""
    responder.silent = True
    first = meta_of("five", intake)
    second = replace(first, fingerprint="other")
    asked = asyncio.create_task(ask(intake, second))
    await until(lambda: any(c.meta == second for c in responder.seen))
    responder.answer(accepted(first))
    responder.answer(rejected(second, "CommandReused", "unprocessable"))

    decided = await asked
    assert decided is not None
    assert decided.rejection is not None
    assert decided.rejection.type == "CommandReused"


async def test_a_right_retry_hears_nothing_of_a_wrong_one(intake: Intake, responder: Responder):
    responder.silent = True
    right = meta_of("six", intake)
    asked = asyncio.create_task(ask(intake, right))
    await until(lambda: any(c.meta == right for c in responder.seen))
    responder.answer(rejected(replace(right, fingerprint="other"), "CommandReused", "unprocessable"))
    responder.answer(accepted(right))

    decided = await asked
    assert decided is not None
    assert decided.outcome == "accepted"


async def test_an_earlier_record_that_came_too_late_does_not_end_a_retry_that_is_in_time(
    intake: Intake, responder: Responder
):
    responder.silent = True
    retry = meta_of("seven", intake)
    asked = asyncio.create_task(ask(intake, retry))
    await until(lambda: any(c.meta == retry for c in responder.seen))
    responder.answer(rejected(retry, "CommandExpired", "expired"))  # recorded when the retry was sent
    responder.answer(accepted(retry))

    decided = await asked
    assert decided is not None
    assert decided.outcome == "accepted"


async def test_a_command_that_came_too_late_itself_is_told_so(intake: Intake, responder: Responder):
    responder.silent = True
    late = meta_of("eight", intake)
    asked = asyncio.create_task(ask(intake, late))
    await until(lambda: any(c.meta == late for c in responder.seen))
    expired = rejected(late, "CommandExpired", "expired")
    responder.answer(replace(expired, recorded_at=Micros(late.not_after + 1)))

    decided = await asked
    assert decided is not None
    assert decided.rejection is not None
    assert decided.rejection.kind == "expired"


@pytest.mark.parametrize("is_told_first", [True, False])
async def test_what_a_later_release_answers_is_understood_as_soon_as_its_schema_is_told(
    intake: Intake, responder: Responder, stack: Addresses, topics: Topics, is_told_first: bool
):
    responder.silent = True
    schema = with_one_field_more(f"told_first_{is_told_first}")
    meta = meta_of(f"nine, {is_told_first}", intake)
    asked = asyncio.create_task(ask(intake, meta))
    await until(lambda: any(c.meta == meta for c in responder.seen))
    answer, told = written_with(schema, accepted(meta)), json.dumps(schema).encode()
    producer = Producer({"bootstrap.servers": stack.kafka})
    both = [(topics.schemas, told), (topics.decisions("cart"), answer)]
    for topic, value in both if is_told_first else reversed(both):
        producer.produce(topic, value, b"key", 0)
        producer.flush(60)

    decided = await asyncio.wait_for(asked, 60)
    assert decided == accepted(meta)


def with_one_field_more(name: str) -> Schema:
    """The schema of decisions as a later release may have it."""
    schema = copy.deepcopy(schema_of(Decisions))
    (decided,) = [field["type"]["items"] for field in schema["fields"] if field["name"] == "decided"]
    decided["fields"].append({"name": name, "type": ["null", "string"], "default": None})
    return schema


def written_with(schema: Schema, decided: Decided) -> bytes:
    meta = {"stream": "cart/0", "recorded_at": decided.recorded_at, "batch_id": "b"}
    ids = UUID(decided.command_id).bytes
    return encode_sample(schema, {"meta": meta, "ids": ids, "decided": [asdict(decided)]})


async def test_a_hundred_callers_are_all_answered(intake: Intake, responder: Responder):
    decided = await asyncio.gather(*[ask(intake, meta_of(f"many-{n}", intake)) for n in range(100)])

    assert len({one.command_id for one in decided if one}) == 100


async def test_what_is_too_much_is_turned_away_unsent(intake: Intake, responder: Responder, monkeypatch):
    monkeypatch.setattr(api.intake, "IN_FLIGHT_MAX", 2)
    responder.silent = True
    running = [asyncio.create_task(ask(intake, meta_of(f"full-{n}", intake))) for n in range(2)]
    await until(lambda: intake.in_flight == 2)
    with pytest.raises(OverloadedError) as turned_away:
        await ask(intake, meta_of("full-3", intake))
    assert turned_away.value.members["command_id"] == meta_of("full-3", intake).command_id
    await until(lambda: len(responder.seen) >= 2)
    for command in responder.seen:
        responder.answer(accepted(command.meta))

    assert all(await asyncio.gather(*running))


async def test_a_full_queue_to_kafka_turns_the_next_away_unsent(intake: Intake):
    intake._producer = Producer(
        api.intake._settings(DEAD) | {"queue.buffering.max.messages": 2, "delivery.timeout.ms": 1_000}
    )
    metas = [meta_of(f"queued-{n}", intake) for n in range(3)]
    told = await asyncio.gather(*[ask(intake, meta) for meta in metas], return_exceptions=True)

    assert [type(one) for one in told] == [OutcomeUnknownError, OutcomeUnknownError, OverloadedError]
    assert intake.in_flight == 0


async def test_what_was_asked_is_in_kafka_when_it_has_stopped(stack, topics, responder: Responder):
    intake = Intake(stack.kafka, topics, Codec())
    intake.start()
    await until(lambda: intake.hears_decisions)
    responder.silent = True
    metas = [meta_of(f"last-{n}", intake) for n in range(3)]
    asked = [asyncio.create_task(ask(intake, meta)) for meta in metas]
    await asyncio.sleep(0)
    await intake.stop()
    await until(lambda: {meta.command_id for meta in metas} <= {c.meta.command_id for c in responder.seen})
    for task in asked:
        task.cancel()


async def test_a_command_too_large_for_a_record_is_refused_for_ever_and_unsent(intake: Intake):
    meta = replace(meta_of("huge", intake), correlation_id="x" * 1_000_000)
    with pytest.raises(CommandTooLargeError) as too_large:
        await ask(intake, meta)

    assert (too_large.value.status, too_large.value.members["command_id"]) == (422, meta.command_id)
    assert intake.in_flight == 0


async def test_what_kafkas_client_does_not_take_is_a_503_with_the_commands_id(
    intake: Intake, responder: Responder, topics: Topics
):
    """It refuses a partition that the topic has not, once it knows the topic."""
    await ask(intake, meta_of("makes the topic known", intake))
    intake._topics = Topics(topics.prefix, 1_000)
    meta = meta_of("nowhere", intake)
    with pytest.raises(NotReadyError) as not_taken:
        await ask(intake, meta)

    assert (not_taken.value.status, not_taken.value.members["command_id"]) == (503, meta.command_id)
    assert intake.in_flight == 0
    assert intake.broken is None


async def test_what_takes_too_long_is_not_known_yet_and_the_next_asking_is_answered(
    intake: Intake, responder: Responder, monkeypatch
):
    await ask(intake, meta_of("makes the topic known", intake))
    monkeypatch.setattr(api.intake, "CONFIRMED_WITHIN_S", 3.0)
    monkeypatch.setattr(api.intake, "DECIDED_WITHIN_S", 3.1)
    responder.silent = True
    meta = meta_of("late", intake)
    assert await ask(intake, meta) is None

    responder.silent = False
    monkeypatch.setattr(api.intake, "CONFIRMED_WITHIN_S", 60)
    monkeypatch.setattr(api.intake, "DECIDED_WITHIN_S", 120)
    assert await ask(intake, meta) is not None
    assert len([c for c in responder.seen if c.meta.command_id == meta.command_id]) == 2


async def test_answers_to_others_and_bytes_that_are_none_do_no_harm(
    intake: Intake, responder: Responder, stack, topics
):
    foreign = replace(meta_of("foreign", intake), reply_to="api/another")
    responder.answer(accepted(foreign))
    producer = Producer({"bootstrap.servers": stack.kafka})
    for poison in (
        b"",
        b"\x00" * 40,
        intake.reply_to.encode() * 3,
        b"\xc3\x01" + b"\x07" * 8 + intake.reply_to.encode(),
    ):
        producer.produce(topics.decisions("cart"), poison, partition=0)
    producer.flush(5)

    assert await ask(intake, meta_of("after", intake)) is not None
    assert intake.broken is None


async def test_without_kafka_nothing_is_taken_until_answers_can_be_heard(topics: Topics):
    intake = Intake(DEAD, topics, Codec())
    intake.start()
    try:
        with pytest.raises(NotReadyError) as not_ready:
            await ask(intake, meta_of("early", intake))
        assert not_ready.value.members["command_id"] == meta_of("early", intake).command_id
        assert not await intake.reaches_kafka(0.2)
    finally:
        await intake.stop()


async def test_kafka_that_went_away_is_told_within_two_seconds_with_the_commands_id(stack, topics, responder):
    """The reader has its positions; the producer is then pointed at a port where nobody answers."""
    intake = Intake(stack.kafka, topics, Codec())
    intake.start()
    try:
        await until(lambda: intake.hears_decisions)

        async def asked() -> None:
            intake._producer = Producer(api.intake._settings(DEAD))
            meta = meta_of(f"gone-{uuid4()}", intake)
            with pytest.raises(OutcomeUnknownError) as unknown:
                await ask(intake, meta)
            assert unknown.value.members["command_id"] == meta.command_id
            assert intake.in_flight == 0

        assert await soonest(asked, 2) < 2
    finally:
        await intake.stop()


async def test_a_wrong_number_of_partitions_ends_it(stack, topics):
    intake = Intake(stack.kafka, Topics(topics.prefix, 3), Codec())
    intake.start()
    await until(lambda: intake.broken)
    await intake.stop()

    assert "partitions" in str(intake.broken)
    with pytest.raises(NotReadyError):
        await intake.ask("cart", "x", ClearCart("x"), meta_of("x", intake))


async def test_a_client_that_has_lost_sight_of_kafka_is_replaced(
    intake: Intake, responder: Responder, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(api.intake, "RENEW_AFTER_S", 0.2)
    lost = Producer({"bootstrap.servers": DEAD, "message.timeout.ms": 2_000})
    intake._producer = lost
    with pytest.raises(OutcomeUnknownError):
        await ask(intake, meta_of("into the void", intake))
    await until(lambda: intake._producer is not lost and intake._leaving is None)

    assert await intake.reaches_kafka(10)
    assert await ask(intake, meta_of("to somebody who listens", intake)) is not None


def test_librdkafkas_lines_are_told_once_a_second_and_counted_in_between(monkeypatch: pytest.MonkeyPatch):
    now = 100.0
    monkeypatch.setattr("api.decisions_reader.time.monotonic", lambda: now)
    log = KafkaLog()
    with capture_logs() as told:
        for _ in range(20):
            log.log(logging.ERROR, "%s: connection refused", "broker 1")
        now += 1
        log.log(logging.ERROR, "back")
    assert [(line["line"], line["left_out"]) for line in told] == [
        ("broker 1: connection refused", 0),
        ("back", 19),
    ]
