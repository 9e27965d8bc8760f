"""`commands`: changes of carts, spread over ten thousand of them, each one decided, recorded and answered on its own."""

import random
import uuid
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import count, cycle
from typing import Any

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from psycopg.conninfo import conninfo_to_dict

from ops.bench.contest import Figure, Measure, Pair, in_turn
from ops.bench.crowd import side_by_side
from ops.bench.postgres import KEEPS_FLUSHED, KEEPS_UNFLUSHED, Postgres
from ops.bench.stage import KAFKA_KEEPS, Ready, Stage
from schemas.cart import AddItemsToCart, CartItem, ChangeItemQuantity, CreateCart

THREADS = (1, 4, 16)
OWNER = "customer-1"
SKU = "85123A"
CREATED_AT_ONCE = 500


class Commands:
    """Each round changes every cart about twice, in random order; the peer has `peer_s` seconds with each number of
    threads, and keeps all its aggregates in memory, as we do.
    """

    name = "commands"
    measures: Sequence[Measure] = (
        Measure("commands", "accepted/s", KAFKA_KEEPS, KEEPS_UNFLUSHED, 8, 15),
        Measure("commands, peer flushes", "accepted/s", KAFKA_KEEPS, KEEPS_FLUSHED),
    )

    def __init__(
        self,
        stage: Stage,
        postgres: Postgres,
        aggregates: int = 10_000,
        commands: int = 20_000,
        peer_s: float = 1.5,
    ) -> None:
        self._stage = stage
        self._postgres = postgres
        self._carts = [str(uuid.uuid4()) for _ in range(aggregates)]
        self._commands = commands
        self._peer_s = peer_s
        self._quantities = count(2)
        self._peer = _application(postgres, aggregates)
        self._peer_carts: list[uuid.UUID] = []

    def warm_up(self) -> None:
        item = CartItem(SKU, "a white hanging heart", 1, 255, "GBP", 1, True)
        created = [self._ready(CreateCart(cart, OWNER, "GBP")) for cart in self._carts]
        filled = [self._ready(AddItemsToCart(cart, (item,))) for cart in self._carts]
        self._stage.decide("cart", created, "carts created").expect("accepted")
        self._stage.decide("cart", filled, "carts filled").expect("accepted")
        self._postgres.set_flush(on=False)
        for first in range(0, len(self._carts), CREATED_AT_ONCE):
            some = [PeerCart() for _ in self._carts[first : first + CREATED_AT_ONCE]]
            self._peer.save(*some)
            self._peer_carts += [cart.id for cart in some]
        for cart in self._peer_carts:
            self._peer.repository.get(cart)

    def round(self) -> Mapping[str, Pair]:
        daybook, peer, flushing = in_turn(
            [self._change, partial(self._best_peer, flush=False), partial(self._best_peer, flush=True)]
        )
        return {"commands": Pair(daybook, peer), "commands, peer flushes": Pair(daybook, flushing)}

    def proof(self) -> Mapping[str, int]:
        """Every command of every round was checked to be accepted; nothing is left to be proven."""
        return {}

    def close(self) -> None:
        self._peer.close()

    # Daybook.

    def _change(self) -> Figure:
        quantity = next(self._quantities)
        rounds, rest = divmod(self._commands, len(self._carts))
        asked: list[Ready] = []
        for n in range(rounds + bool(rest)):
            carts = random.sample(self._carts, rest if n == rounds else len(self._carts))
            asked += [self._ready(ChangeItemQuantity(cart, SKU, quantity + n % 2)) for cart in carts]
        round_ = self._stage.decide("cart", asked, "commands")
        round_.expect("accepted")
        return round_.rate_of("accepted")

    def _ready(self, body: CreateCart | AddItemsToCart | ChangeItemQuantity) -> Ready:
        return self._stage.ready(body, OWNER, str(uuid.uuid4()))

    # The peer.

    def _best_peer(self, *, flush: bool) -> Figure:
        self._postgres.set_flush(on=flush)
        return max((self._changes_by_peer(n) for n in THREADS), key=lambda figure: figure.value)

    def _changes_by_peer(self, threads: int) -> Figure:
        """Each thread has aggregates of its own, so that none ever meets another's."""
        acts = [partial(self._change_by_peer, cycle(self._peer_carts[n::threads])) for n in range(threads)]
        return side_by_side(acts, self._peer_s, self._postgres.process, f"{threads} threads")

    def _change_by_peer(self, carts: Iterator[uuid.UUID]) -> bool:
        cart: PeerCart = self._peer.repository.get(next(carts))
        cart.change_quantity(SKU, cart.quantities[SKU] + 1)
        self._peer.save(cart)
        return True


class PeerCart(Aggregate):
    """The same cart, as pyeventsourcing has it."""

    @event("Created")
    def __init__(self) -> None:
        self.quantities = {SKU: 1}

    @event("ItemQuantityChanged")
    def change_quantity(self, sku: str, quantity: int) -> None:
        self.quantities[sku] = quantity


def _application(postgres: Postgres, aggregates: int) -> Application[uuid.UUID]:
    """At its best: every aggregate cached, nobody else writes, so that nothing is read again."""
    where: Mapping[str, Any] = conninfo_to_dict(postgres.url)
    name = f"bench_{uuid.uuid4().hex[:8]}"
    with postgres.connect() as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    return Application(
        {
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "POSTGRES_DBNAME": where["dbname"],
            "POSTGRES_HOST": where["host"],
            "POSTGRES_USER": where["user"],
            "POSTGRES_PASSWORD": "trusted-on-its-own-socket",
            "POSTGRES_SCHEMA": name,
            "POSTGRES_POOL_SIZE": str(max(THREADS)),
            "AGGREGATE_CACHE_MAXSIZE": str(2 * aggregates),
            "AGGREGATE_CACHE_FASTFORWARD": "no",
        }
    )
