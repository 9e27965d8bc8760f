"""The one producer of an agent's process: records go out together and are awaited together."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streams.kafka_clients import producer_config

POLL_S = 0.25
FULL_S = 0.01
CLOSE_S = 10.0


class NotDelivered(Exception):  # it may be sent again: no error of ours
    """Kafka did not acknowledge in time: the records may be in the log all the same."""


class UnsendableError(ValueError):
    """Kafka will never take this record (too large, unknown partition): sending it again changes nothing."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record with its explicit partition."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    headers: dict[str, bytes] = field(default_factory=dict)


class _Pending:
    """The acknowledgements that one `send` waits for; counted down in the poll thread."""

    def __init__(self, count: int, loop: asyncio.AbstractEventLoop) -> None:
        self.done: asyncio.Future[None] = loop.create_future()
        self._left = count
        self._error: KafkaError | None = None
        self._loop = loop

    def acknowledge(self, error: KafkaError | None, _: Message) -> None:
        self._left -= 1
        self._error = self._error or error
        if self._left == 0 and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        if self.done.done():
            return
        if self._error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(NotDelivered(str(self._error)))


class RecordProducer:
    """A plain idempotent Producer with a thread that polls while anything is under way, and sleeps otherwise.

    One that could not deliver is replaced. librdkafka may never find a broker again that was without its partitions for
    a moment (it was frozen longer than the controller waits), and would time out every record from then on.
    """

    def __init__(self, kafka: str, **config: Any) -> None:
        self._config = producer_config(kafka) | config
        self._producer = Producer(self._config)
        self._leaving: list[Producer] = []
        """Replaced, and not yet done with what they were given: for DELIVERY_TIMEOUT_MS at most."""
        self._wanted = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._poll, name="producer-poll", daemon=True)
        self._thread.start()

    async def send(self, records: Sequence[Outgoing]) -> None:
        """Returns when all are acknowledged; raises NotDelivered when one is not."""
        if not records:
            return
        pending, producer = _Pending(len(records), asyncio.get_running_loop()), self._producer
        for record in records:
            await self._produce(producer, record, pending)
        if producer is not self._producer:
            self._leaving.append(
                producer
            )  # replaced while its queue was full: it has something to tell again
        try:
            await pending.done
        except NotDelivered:
            self._replace(producer)
            raise

    def close(self) -> None:
        """Waits (10 s at most) for what is under way."""
        self._producer.flush(CLOSE_S)
        self._closing = True
        self._wanted.set()
        self._thread.join(CLOSE_S)

    def _replace(self, lost: Producer) -> None:
        """Once, however many sends hear of it."""
        if lost is self._producer:
            self._leaving.append(lost)
            self._producer = Producer(self._config)
            self._wanted.set()

    async def _produce(self, producer: Producer, record: Outgoing, pending: _Pending) -> None:
        while True:
            try:
                producer.produce(
                    record.topic,
                    record.value,
                    record.key,
                    record.partition,
                    on_delivery=pending.acknowledge,
                    headers=list(record.headers.items()),
                )
            except KafkaException as error:
                raise UnsendableError(str(error)) from error
            except BufferError:  # the bounded queue is full: wait for the broker, not for memory
                self._wanted.set()
                await asyncio.sleep(FULL_S)
            else:
                self._wanted.set()
                return

    def _poll(self) -> None:
        while not self._closing:
            self._wanted.wait()
            self._wanted.clear()
            # Whatever is produced after this check sets the event again: nothing waits unpolled.
            while len(self._producer) or self._leaving:
                self._producer.poll(POLL_S / (1 + len(self._leaving)))
                for one in list(self._leaving):
                    one.poll(POLL_S / (1 + len(self._leaving)))
                    if not len(one):
                        self._leaving.remove(one)
