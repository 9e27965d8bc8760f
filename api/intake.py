"""The intake: commands go to Kafka here, and each waits here for what becomes of it."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from uuid import uuid4

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from api.decisions_reader import DecisionsReader, KafkaLog
from api.problems import (
    CommandReusedError,
    CommandTooLargeError,
    NotReadyError,
    OutcomeUnknownError,
    OverloadedError,
    ProblemError,
)
from schemas.codec import Codec
from schemas.decisions import Decided
from schemas.language import Message as Command
from schemas.meta import CommandMeta, Micros
from schemas.topics import Topics

IN_FLIGHT_MAX = 2_000
CONFIRMED_WITHIN_S = 1.7
"""Kafka must confirm a command within this, or its sender is told that the outcome is unknown (within 2 s)."""
DECIDED_WITHIN_S = 5.0
"""After so long the sender is told where to ask later."""
DELIVERY_TIMEOUT_MS = 2_000
QUEUE_KB = 65_536
SERVE_EVERY_S = 0.25
RENEW_AFTER_S = 5.0
"""Kafka's client that has heard nothing for so long is replaced: librdkafka forgets a broker that is missing in one
answer (one that was fenced for a moment, say), and then looks for it no more.
"""
FLUSH_S = 3.0
FLUSH_LOOK_S = 0.01

Answer: TypeAlias = asyncio.Future[Decided | None]
"""None: not decided in time."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Outgoing:
    """A command as it stands on its topic."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    headers: list[tuple[str, str | bytes | None]]


@dataclass(eq=False, slots=True)
class _Flight:
    """A command on its way, and who waits for its answer. `not_after` is that of the record that was sent."""

    command_id: str
    fingerprint: str
    not_after: Micros
    waiting: list[Answer] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None
    delivered: bool = False

    def is_answered_by(self, decided: Decided) -> bool:
        """Whether this is what became of the command, and not of an earlier record under the same key whose sender has
        gone: one with another body, or one that came too late when this one is still in time.
        """
        if decided.fingerprint != self.fingerprint:
            return False
        is_expired = decided.rejection is not None and decided.rejection.kind == "expired"
        return not is_expired or decided.recorded_at > self.not_after


class Intake:
    """Lives in one event loop; one thread beside it reads decisions."""

    def __init__(self, kafka: str, topics: Topics, codec: Codec) -> None:
        self.reply_to = f"api/{uuid4().hex}"
        self._kafka = kafka
        self._topics = topics
        self._codec = codec
        self._flights: dict[str, _Flight] = {}
        self._departing: list[tuple[_Flight, _Outgoing]] = []
        self._producer = Producer(_settings(kafka), logger=KafkaLog())
        self._leaving: Producer | None = None
        self._unheard_since: float | None = None
        self._serving: asyncio.TimerHandle | None = None
        self._reader = DecisionsReader(kafka, topics, self.reply_to, codec, self._hand_over)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._fatal: KafkaError | None = None
        self.answered = 0

    def start(self) -> None:
        """To be called in the event loop that will ask."""
        self._loop = asyncio.get_running_loop()
        self._reader.start()
        self._serve(self._loop)

    async def stop(self) -> None:
        """Everything produced is in Kafka or given up when this returns (at most 5 s)."""
        self._depart()
        gives_up_at = time.monotonic() + FLUSH_S
        clients = [client for client in (self._producer, self._leaving) if client is not None]
        while any(map(len, clients)) and time.monotonic() < gives_up_at:
            await asyncio.sleep(FLUSH_LOOK_S)
            for client in clients:
                client.poll(0)
        if self._serving:
            self._serving.cancel()
        await asyncio.to_thread(self._reader.stop)

    @property
    def in_flight(self) -> int:
        return len(self._flights)

    @property
    def hears_decisions(self) -> bool:
        return self._reader.ready.is_set()

    @property
    def broken(self) -> object | None:
        """Why this process can never work again, if so."""
        return self._reader.broken or self._fatal

    async def reaches_kafka(self, timeout_s: float) -> bool:
        try:
            await asyncio.to_thread(self._producer.list_topics, self._topics.schemas, timeout_s)
        except KafkaException:
            self._nothing_heard()
            return False
        self._unheard_since = None
        return True

    async def ask(self, aggregate: str, key: str, command: Command, meta: CommandMeta) -> Decided | None:
        """What becomes of the command; None if that is not known after 5 s.

        Who sends the same command while it is on its way joins it. Raises NotReadyError, OverloadedError,
        CommandTooLargeError (nothing was sent), OutcomeUnknownError (it was, perhaps), CommandReusedError (another
        body under the same id); each names the command.
        """
        flight = self._flights.get(meta.command_id)
        loop = asyncio.get_running_loop()
        if flight is None:
            flight = self._begin(loop, aggregate, key, command, meta)
        elif flight.fingerprint != meta.fingerprint:
            raise CommandReusedError(
                "The same Idempotency-Key is on its way with another body.", command_id=meta.command_id
            )
        # A future of his own: one caller who goes away must not take the answer from those who joined.
        answer: Answer = loop.create_future()
        flight.waiting.append(answer)
        return await answer

    def _begin(
        self, loop: asyncio.AbstractEventLoop, aggregate: str, key: str, command: Command, meta: CommandMeta
    ) -> _Flight:
        self._admit(meta.command_id)
        outgoing = self._outgoing(aggregate, key, command, meta)
        flight = _Flight(meta.command_id, meta.fingerprint, meta.not_after)
        flight.timer = loop.call_later(CONFIRMED_WITHIN_S, self._look_after, flight)
        self._flights[flight.command_id] = flight
        if not self._departing:
            loop.call_soon(self._depart)
        self._departing.append((flight, outgoing))
        return flight

    def _outgoing(self, aggregate: str, key: str, command: Command, meta: CommandMeta) -> _Outgoing:
        value = self._codec.encode(command, vars(meta))
        topic, partition = self._topics.commands(aggregate), self._topics.partition_of(key)
        return _Outgoing(topic, partition, key.encode(), value, _headers(command, meta, value))

    def _depart(self) -> None:
        """What was asked within one turn of the loop goes out at once, and so in few requests to Kafka, without
        anybody waiting for a timer.
        """
        departing, self._departing = self._departing, []
        for flight, outgoing in departing:
            self._produce(flight, outgoing)
        self._producer.poll(0)

    def _produce(self, flight: _Flight, outgoing: _Outgoing) -> None:
        try:
            self._producer.produce(
                outgoing.topic,
                outgoing.value,
                outgoing.key,
                outgoing.partition,
                on_delivery=self._on_delivery(flight),
                headers=outgoing.headers,
            )
        except BufferError:
            why = "The queue to Kafka is full; nothing was sent."
            self._end(flight, OverloadedError(why, command_id=flight.command_id))
        except KafkaException as error:
            self._end(flight, self._not_taken(error.args[0], flight.command_id))

    def _admit(self, command_id: str) -> None:
        if not self.hears_decisions:
            raise NotReadyError(
                "Kafka's answers cannot be heard yet; nothing was sent.", command_id=command_id
            )
        if len(self._flights) >= IN_FLIGHT_MAX:
            why = f"{IN_FLIGHT_MAX} commands are waiting for their answers; nothing was sent."
            raise OverloadedError(why, command_id=command_id)

    def _not_taken(self, error: KafkaError, command_id: str) -> ProblemError:
        """What the producer refused at once: a record too large for ever, anything else for now."""
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return CommandTooLargeError(
                "The command is larger than a record may be; nothing was sent.", command_id=command_id
            )
        if error.code() == KafkaError._FATAL:  # its public name
            self._fatal = error
        return NotReadyError(
            f"Kafka's client took nothing ({error.name()}); nothing was sent.", command_id=command_id
        )

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """What Kafka's client has to say is heard here and whenever commands go out: no thread wakes up for it."""
        self._producer.poll(0)
        self._renew_client(loop)
        self._serving = loop.call_later(SERVE_EVERY_S, self._serve, loop)

    def _renew_client(self, loop: asyncio.AbstractEventLoop) -> None:
        """One at a time leaves, when it has told of all that it was given: within DELIVERY_TIMEOUT_MS."""
        if self._leaving is not None:
            self._leaving.poll(0)
            if not len(self._leaving):
                loop.run_in_executor(None, _let_go, [self._leaving])
                self._leaving = None
        elif self._unheard_since is not None and time.monotonic() - self._unheard_since > RENEW_AFTER_S:
            log.warning("kafka_client_renewed", unheard_s=round(time.monotonic() - self._unheard_since, 1))
            self._leaving, self._producer = (
                self._producer,
                Producer(_settings(self._kafka), logger=KafkaLog()),
            )
            self._unheard_since = None

    def _nothing_heard(self) -> None:
        if self._unheard_since is None:
            self._unheard_since = time.monotonic()

    def _on_delivery(self, flight: _Flight) -> Callable[[KafkaError | None, Message], None]:
        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is None:
                self._unheard_since = None
                flight.delivered = True  # the answer comes through the decisions
                return
            if error.fatal():
                self._fatal = error
            self._fail(flight, f"Kafka did not take the command ({error.name()}).")

        return delivered

    def _look_after(self, flight: _Flight) -> None:
        self._producer.poll(0)
        if not flight.delivered:
            self._fail(flight, "Kafka has not confirmed the command in time.")
        else:
            rest_s = DECIDED_WITHIN_S - CONFIRMED_WITHIN_S
            flight.timer = asyncio.get_running_loop().call_later(rest_s, self._end, flight, None)

    def _fail(self, flight: _Flight, why: str) -> None:
        self._nothing_heard()
        text = f"{why} It has no effect or one; the same key may be sent again."
        self._end(flight, OutcomeUnknownError(text, command_id=flight.command_id))

    def _end(self, flight: _Flight, outcome: Decided | ProblemError | None) -> None:
        """All who wait hear it; a flight ends once."""
        if self._flights.get(flight.command_id) is not flight:
            return
        del self._flights[flight.command_id]
        if flight.timer:
            flight.timer.cancel()
        for answer in flight.waiting:
            if answer.done():  # its caller has gone
                continue
            if isinstance(outcome, ProblemError):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)

    def _land(self, decided: Sequence[Decided]) -> None:
        self.answered += len(decided)
        for one in decided:
            flight = self._flights.get(one.command_id)
            if flight is not None and flight.is_answered_by(one):
                self._end(flight, one)

    # In the reader's thread.

    def _hand_over(self, decided: Sequence[Decided]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._land, decided)


def _let_go(last: list[Producer]) -> None:
    """In a thread of its own, for it waits until the client's threads have ended."""
    last.clear()


def _headers(command: Command, meta: CommandMeta, value: bytes) -> list[tuple[str, str | bytes | None]]:
    return [
        ("type", type(command).__name__.encode()),
        ("stream", meta.stream.encode()),
        ("schema", value[2:10].hex().encode()),
        ("traceparent", meta.traceparent.encode()),
    ]


def _settings(kafka: str) -> dict[str, Any]:
    return {
        "bootstrap.servers": kafka,
        "enable.idempotence": True,
        "acks": "all",
        "linger.ms": 0,
        "partitioner": "murmur2_random",
        "delivery.timeout.ms": DELIVERY_TIMEOUT_MS,
        "queue.buffering.max.kbytes": QUEUE_KB,
        "retry.backoff.ms": 20,
        # The default (rebootstrap) loses sight of the broker after a dropped connection.
        "metadata.recovery.strategy": "none",
        "reconnect.backoff.max.ms": 500,
        "log.connection.close": False,
    }
