"""`hot-sku`: reservations of one SKU, which everybody wants at once, and of which not one more may be granted than there are."""

import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import psycopg

from ops.bench.contest import Figure, Measure, Pair, in_turn
from ops.bench.crowd import side_by_side
from ops.bench.postgres import KEEPS_FLUSHED, KEEPS_UNFLUSHED, Postgres
from ops.bench.stage import KAFKA_FLUSHES, KAFKA_KEEPS, Stage
from schemas.inventory import ReceiptLine, ReceiveStock, ReserveStock, StockReserved
from schemas.meta import HOUR, Micros, derived_id
from schemas.values import MAIN, Line

CONNECTIONS = (1, 8, 32)
SCARCE = 0.01
"""So much of what is asked for is not there: the last ones must be refused while it counts."""

TABLES = """
DROP TABLE IF EXISTS stock, reservation;
CREATE TABLE stock (sku text PRIMARY KEY, available bigint NOT NULL CHECK (available >= 0));
CREATE TABLE reservation (id uuid PRIMARY KEY, order_id uuid NOT NULL, sku text NOT NULL, quantity bigint NOT NULL,
                          expires_at timestamptz NOT NULL);
"""
TAKE = "UPDATE stock SET available = available - %s WHERE sku = %s AND available >= %s"
NOTE = "INSERT INTO reservation VALUES (%s, %s, %s, %s, now() + interval '10 minutes')"


class HotSku:
    """Each round has a SKU of its own; the peer has `peer_s` seconds with each number of connections.

    Both sides flush before they answer, as PostgreSQL does by default; then neither does.
    """

    name = "hot-sku"
    measures: Sequence[Measure] = (
        Measure("hot-sku", "reservations/s", KAFKA_FLUSHES, KEEPS_FLUSHED, 5, 10),
        Measure("hot-sku, neither flushes", "reservations/s", KAFKA_KEEPS, KEEPS_UNFLUSHED),
    )

    def __init__(self, stage: Stage, postgres: Postgres, commands: int = 20_000, peer_s: float = 1.5) -> None:
        self._stage = stage
        self._postgres = postgres
        self._commands = commands
        self._peer_s = peer_s
        self._stock: dict[str, int] = {}

    def warm_up(self) -> None:
        with self._postgres.connect() as connection:
            connection.execute(TABLES)
        self._reserve(max(100, self._commands // 10), flush=False)

    def round(self) -> Mapping[str, Pair]:
        safe, safe_peer, fast, fast_peer = in_turn(
            [
                partial(self._reserve, self._commands, flush=True),
                partial(self._best_peer, flush=True),
                partial(self._reserve, self._commands, flush=False),
                partial(self._best_peer, flush=False),
            ]
        )
        return {"hot-sku": Pair(safe, safe_peer), "hot-sku, neither flushes": Pair(fast, fast_peer)}

    def proof(self) -> Mapping[str, int]:
        """Units granted beyond the stock, and units not granted though there were callers for them."""
        granted = dict.fromkeys(self._stock, 0)
        for event in self._stage.events("inventory"):
            if isinstance(event, StockReserved):
                granted[event.sku] += event.quantity
        left = {sku: stock - granted[sku] for sku, stock in self._stock.items()}
        with self._postgres.connect() as connection:
            row = connection.execute("SELECT count(*) FROM stock WHERE available < 0").fetchone()
        return {
            "oversold": sum(max(0, -units) for units in left.values()),
            "not_granted": sum(max(0, units) for units in left.values()),
            "oversold_by_peer": int(row[0]) if row else -1,
        }

    # Daybook.

    def _reserve(self, commands: int, *, flush: bool) -> Figure:
        self._stage.set_flush(on=flush)
        sku = f"HOT-{len(self._stock)}"
        stock = commands - max(1, int(commands * SCARCE))
        received = ReceiveStock(MAIN, "delivery", (ReceiptLine(sku, stock),))
        self._stage.decide("inventory", [self._stage.ready(received, "merchant", str(uuid.uuid4()))])
        self._stock[sku] = stock
        limit = Micros(time.time_ns() // 1_000 + HOUR)
        orders = [str(uuid.uuid4()) for _ in range(commands)]
        asked = [
            self._stage.ready(
                ReserveStock(order, MAIN, (Line(1, sku, 1),), 1, limit),
                "merchant",
                derived_id(order, "reserve"),
            )
            for order in orders
        ]
        round_ = self._stage.decide("inventory", asked, "hot-sku")
        round_.expect("accepted", "refused")
        return round_.rate_of("accepted")

    # The peer.

    def _best_peer(self, *, flush: bool) -> Figure:
        self._postgres.set_flush(on=flush)
        with self._postgres.connect() as connection:
            connection.execute("TRUNCATE stock, reservation")
            connection.execute("INSERT INTO stock VALUES ('HOT', 1000000000)")
        return max((self._peer(n) for n in CONNECTIONS), key=lambda figure: figure.value)

    def _peer(self, connections: int) -> Figure:
        with ExitStack() as stack:
            open_ = [stack.enter_context(self._postgres.connect()) for _ in range(connections)]
            acts = [partial(take_one, connection) for connection in open_]
            return side_by_side(acts, self._peer_s, self._postgres.process, f"{connections} connections")


def take_one(connection: psycopg.Connection) -> bool:
    """One reservation, as it is done in a database: both rows or none."""
    with connection.transaction():
        if connection.execute(TAKE, (1, "HOT", 1)).rowcount == 0:
            return False
        connection.execute(NOTE, (uuid.uuid4(), uuid.uuid4(), "HOT", 1))
    return True
