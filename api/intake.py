"""The intake: commands go to Kafka here, and each waits here for what becomes of it."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
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
from schemas.meta import CommandMeta
from schemas.topics import Topics

IN_FLIGHT_MAX = 2_000
CONFIRMED_WITHIN_S = 1.7
"""Kafka must confirm a command within this, or its sender is told that the outcome is unknown (within 2 s)."""
DECIDED_WITHIN_S = 5.0
"""After so long the sender is told where to ask later."""
DELIVERY_TIMEOUT_MS = 2_000
QUEUE_KB = 65_536
POLL_S = 0.5
FLUSH_S = 3.0

log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class _Flight:
    """A command on its way. `answer` is None when it was not decided in time.

    `delivered` is written by the poll thread and read by the event loop: a plain flag, set once.
    """

    command_id: str
    fingerprint: str
    answer: asyncio.Future[Decided | None]
    timer: asyncio.TimerHandle | None = None
    delivered: bool = False


class Intake:
    """Lives in one event loop, with two threads beside it: one serves the producer, one reads decisions."""

    def __init__(self, kafka: str, topics: Topics, codec: Codec) -> None:
        self.reply_to = f"api/{uuid4().hex}"
        self._kafka = kafka
        self._topics = topics
        self._codec = codec
        self._flights: dict[str, _Flight] = {}
        self._producer = Producer(_settings(kafka), logger=KafkaLog())
        self._ending = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="producer-poll", daemon=True)
        self._reader = DecisionsReader(kafka, topics, self.reply_to, codec, self._hand_over)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._fatal: KafkaError | None = None
        self.answered = 0

    def start(self) -> None:
        """To be called in the event loop that will ask."""
        self._loop = asyncio.get_running_loop()
        self._poller.start()
        self._reader.start()

    async def stop(self) -> None:
        """Everything produced is in Kafka or given up when this returns (at most 5 s)."""
        await asyncio.to_thread(self._producer.flush, FLUSH_S)
        self._ending.set()
        await asyncio.to_thread(self._reader.stop)
        await asyncio.to_thread(self._poller.join, 2 * POLL_S)

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
            return False
        return True

    async def ask(self, aggregate: str, key: str, command: Command, meta: CommandMeta) -> Decided | None:
        """What becomes of the command; None if that is not known after 5 s.

        Who sends the same command while it is on its way joins it. Raises NotReadyError, OverloadedError,
        CommandTooLargeError (nothing was sent), OutcomeUnknownError (it was, perhaps), CommandReusedError (another
        body under the same id); each names the command.
        """
        flight = self._flights.get(meta.command_id)
        if flight is None:
            flight = self._send(aggregate, key, command, meta)
        elif flight.fingerprint != meta.fingerprint:
            raise CommandReusedError(
                "The same Idempotency-Key is on its way with another body.", command_id=meta.command_id
            )
        # Shielded: one caller who goes away must not take the answer from those who joined.
        return await asyncio.shield(flight.answer)

    def _send(self, aggregate: str, key: str, command: Command, meta: CommandMeta) -> _Flight:
        loop = self._admit(meta.command_id)
        value = self._codec.encode(command, vars(meta))
        flight = _Flight(meta.command_id, meta.fingerprint, loop.create_future())
        try:
            self._producer.produce(
                self._topics.commands(aggregate),
                value,
                key.encode(),
                self._topics.partition_of(key),
                on_delivery=self._on_delivery(flight),
                headers=_headers(command, meta, value),
            )
        except BufferError:
            why = "The queue to Kafka is full; nothing was sent."
            raise OverloadedError(why, command_id=meta.command_id) from None
        except KafkaException as error:
            raise self._not_taken(error.args[0], meta.command_id) from None
        flight.timer = loop.call_later(CONFIRMED_WITHIN_S, self._look_after, flight)
        self._flights[flight.command_id] = flight
        return flight

    def _admit(self, command_id: str) -> asyncio.AbstractEventLoop:
        if self._loop is None or not self.hears_decisions:
            raise NotReadyError(
                "Kafka's answers cannot be heard yet; nothing was sent.", command_id=command_id
            )
        if len(self._flights) >= IN_FLIGHT_MAX:
            why = f"{IN_FLIGHT_MAX} commands are waiting for their answers; nothing was sent."
            raise OverloadedError(why, command_id=command_id)
        return self._loop

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

    def _look_after(self, flight: _Flight) -> None:
        if not flight.delivered:
            self._fail(flight, "Kafka has not confirmed the command in time.")
        else:
            rest_s = DECIDED_WITHIN_S - CONFIRMED_WITHIN_S
            flight.timer = flight.answer.get_loop().call_later(rest_s, self._land, flight, None)

    def _fail(self, flight: _Flight, why: str) -> None:
        if self._forget(flight):
            text = f"{why} It has no effect or one; the same key may be sent again."
            flight.answer.set_exception(OutcomeUnknownError(text, command_id=flight.command_id))

    def _land(self, flight: _Flight, decided: Decided | None) -> None:
        if self._forget(flight):
            flight.answer.set_result(decided)

    def _forget(self, flight: _Flight) -> bool:
        """Whether its answer is still waited for."""
        if flight.timer:
            flight.timer.cancel()
        if self._flights.get(flight.command_id) is flight:
            del self._flights[flight.command_id]
        return not flight.answer.done()

    # In the poll thread.

    def _poll(self) -> None:
        while not self._ending.is_set():
            self._producer.poll(POLL_S)

    def _on_delivery(self, flight: _Flight) -> Callable[[KafkaError | None, Message], None]:
        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is None:
                # The common case wakes nobody: the answer comes through the decisions.
                flight.delivered = True
                return
            if error.fatal():
                self._fatal = error
            self._in_loop(self._fail, flight, f"Kafka did not take the command ({error.name()}).")

        return delivered

    # In the reader's thread.

    def _hand_over(self, decided: list[Decided]) -> None:
        self._in_loop(self._land_all, decided)

    def _in_loop(self, call: Callable[..., None], *arguments: object) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *arguments)

    def _land_all(self, decided: Sequence[Decided]) -> None:
        self.answered += len(decided)
        for one in decided:
            flight = self._flights.get(one.command_id)
            if flight is not None:
                self._land(flight, one)


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
        "linger.ms": 1,
        "partitioner": "murmur2_random",
        "delivery.timeout.ms": DELIVERY_TIMEOUT_MS,
        "queue.buffering.max.kbytes": QUEUE_KB,
        "retry.backoff.ms": 20,
        # The default (rebootstrap) loses sight of the broker after a dropped connection.
        "metadata.recovery.strategy": "none",
        "reconnect.backoff.max.ms": 500,
        "log.connection.close": False,
    }
