"""A log to be read: what so many orders of 27 lines leave in the topics of events, as the winter's did."""

import secrets
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, TypeAlias

from confluent_kafka import Producer

from ops.bench.contest import BenchFailed, Progress
from schemas.cart import CartCheckedOut, CartCompleted, CartCreated, ItemAddedToCart
from schemas.codec import Codec
from schemas.inventory import StockAllocated, StockReserved, StockShipped
from schemas.language import AGGREGATES
from schemas.meta import MINUTE, EventMeta, Micros, derived_id, event_id
from schemas.order import (
    OrderCaptured,
    OrderConfirmed,
    OrderLinesAllocated,
    OrderLinesReserved,
    OrderPlaced,
    OrderShipped,
    OrderStockSecured,
    payment_id_of,
)
from schemas.payment import PaymentAuthorizationRequested, PaymentAuthorized, PaymentCaptured
from schemas.topics import Topics
from schemas.values import MAIN, Line, PricedLine
from streams.topic_admin import delete_topics, ensure_topics

LINES = 27
"""Of an order of the winter, in the mean."""
SKUS = 3_000
POLL_S = 0.25
FLUSH_S = 60.0

ClaimMoved: TypeAlias = tuple[str, str, int, int, int, int, str, int, str, int]

AGGREGATE_OF = {event: aggregate.name for aggregate in AGGREGATES.values() for event in aggregate.events}


class TradeLog:
    """Topics of their own on a real Kafka; they go with `close`."""

    def __init__(self, kafka: str, orders: int, progress: Progress) -> None:
        self.kafka = kafka
        self.topics = Topics(f"bench-{secrets.token_hex(4)}", 2)
        self.events = 0
        self.orders = orders
        self._progress = progress
        self._codec = Codec()
        self._versions: dict[str, int] = {}
        ensure_topics(kafka, self.topics)

    def write(self) -> None:
        """Raises BenchFailed where Kafka does not take it all."""
        self._progress(f"writing what {self.orders:,} orders leave")
        producer = Producer(
            {"bootstrap.servers": self.kafka, "linger.ms": 5, "partitioner": "murmur2_random"}
        )
        for _ in range(self.orders):
            for step in commands_of_an_order():
                self._write(producer, step)
        if producer.flush(FLUSH_S):
            raise BenchFailed("Kafka did not take the log that was to be read")

    def close(self) -> None:
        delete_topics(self.kafka, self.topics.prefix)

    def _write(self, producer: Producer, events: list[Any]) -> None:
        """The events of one command, side by side, as a worker writes them."""
        command_id, correlation_id = str(uuid.uuid4()), str(uuid.uuid4())
        now = Micros(time.time_ns() // 1_000)
        trace = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
        for index, event in enumerate(events):
            stream, key = event.stream, event.stream.split("/")[1]
            version = self._versions[stream] = self._versions.get(stream, 0) + 1
            whose = (command_id, correlation_id, command_id, "saga", "checkout", command_id)
            meta = EventMeta(
                event_id(command_id, index), stream, version, now, now, *whose, index, len(events), trace,
                secrets.token_bytes(32),
            )  # fmt: skip
            value = self._codec.encode(event, vars(meta))
            self._produce(producer, self.topics.events(AGGREGATE_OF[type(event)]), key, value)
            self.events += 1

    def _produce(self, producer: Producer, topic: str, key: str, value: bytes) -> None:
        partition = self.topics.partition_of(key)
        with suppress(BufferError):
            producer.produce(topic, value, key, partition)
            producer.poll(0)
            return
        producer.poll(POLL_S)
        self._produce(producer, topic, key, value)


def commands_of_an_order() -> Iterator[list[Any]]:
    """What each command of one order caused, from the cart to the shipment."""
    order, cart = str(uuid.uuid4()), str(uuid.uuid4())
    payment, owner, until = payment_id_of(order), "17850", Micros(time.time_ns() // 1_000 + 10 * MINUTE)
    skus = [f"{10_000 + (int(order[:6], 16) + n * 97) % SKUS}" for n in range(LINES)]
    priced = tuple(
        PricedLine(n, sku, f"lamp {sku}", 2, 295, 1, stocked=True) for n, sku in enumerate(skus, 1)
    )
    lines = tuple(Line(n, sku, 2) for n, sku in enumerate(skus, 1))
    amount = LINES * 590
    step = (order, cart, owner, payment, lines, amount, "GBP")
    fact = (payment, order, amount, "GBP")
    key, reference = derived_id(payment, "key"), derived_id(payment, "reference")

    def shelf(sku: str, line: int) -> ClaimMoved:
        return sku, MAIN, 1_000, 30, 120, 400, order, line, derived_id(order, str(line)), 2

    yield [CartCreated(cart, owner, "GBP", until)]
    yield [ItemAddedToCart(cart, sku, f"lamp {sku}", 2, 2, 295, 1, True, until) for sku in skus]
    yield [CartCheckedOut(cart, owner, order, 1, priced, amount, "GBP", "tok")]
    yield [OrderPlaced(order, cart, owner, payment, priced, amount, "GBP", "tok", until)]
    yield [StockReserved(*shelf(sku, n), until) for n, sku in enumerate(skus, 1)]
    yield [OrderLinesReserved(order, lines), OrderStockSecured(*step, "tok")]
    yield [PaymentAuthorizationRequested(*fact, key, owner, "tok", "", until)]
    yield [PaymentAuthorized(*fact, key, reference)]
    yield [OrderConfirmed(*step, until)]
    yield [StockAllocated(*shelf(sku, n), 2) for n, sku in enumerate(skus, 1)]
    yield [OrderLinesAllocated(order, lines)]
    yield [PaymentCaptured(*fact, key, reference)]
    yield [OrderCaptured(order, payment, amount), CartCompleted(cart, order)]
    yield [StockShipped(*shelf(sku, n)) for n, sku in enumerate(skus, 1)]
    yield [OrderShipped(order)]
