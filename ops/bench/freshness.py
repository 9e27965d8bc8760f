"""`freshness`: from a command to its effect in a view, beside a bare transaction of one event and who polls for it."""

import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median

import uvloop

from api.intake import Intake
from ops.bench.contest import BenchFailed, Figure, Measure, Pair, in_turn
from ops.bench.costs import Costs
from ops.bench.latency import WARM_ROUNDS, WITHIN_S, BareTransactions, p99
from ops.bench.stage import KAFKA_KEEPS, Stage, command_meta
from projections import stock
from projections.redis_store import RedisReader
from projections.view import Served
from schemas.inventory import ReceiptLine, ReceiveStock, ReserveStock, StockEvent, stock_stream
from schemas.meta import HOUR, Micros, derived_id
from schemas.values import MAIN, Line

SKUS = 500
COUNT = 200
"""Of a round."""
LOOK_EVERY_S = 0.001
PROJECTING_WITHIN_S = 120.0


class Freshness:
    """One caller, who after each reservation looks into Redis until the stock of the SKU shows it. Milliseconds, p50."""

    name = "freshness"
    measures: Sequence[Measure] = (
        Measure(
            "freshness",
            "ms p50",
            f"{KAFKA_KEEPS}; then read from Redis",
            f"{KAFKA_KEEPS}; then polled",
            3,
            None,
            better="less",
        ),
    )

    def __init__(self, stage: Stage, count: int = COUNT) -> None:
        self._stage = stage
        self._count = count
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._intake = Intake(stage.kafka, stage.topics, stage.codec)
        self._reader = RedisReader(stage.start_projections())
        self._bare = BareTransactions(stage)
        self._skus = [f"SKU-{n}" for n in range(SKUS)]
        self._next_sku = itertools.cycle(self._skus)
        self._orders = map(str, itertools.count())

    def warm_up(self) -> None:
        received = [ReceiveStock(MAIN, "delivery", (ReceiptLine(sku, 1_000_000),)) for sku in self._skus]
        asked = [
            self._stage.ready(body, "merchant", derived_id("received", body.stream)) for body in received
        ]
        self._stage.decide("inventory", asked, "stock received").expect("accepted")
        self._runner.run(self._listen())
        for _ in range(WARM_ROUNDS):
            self.round()

    def round(self) -> Mapping[str, Pair]:
        fresh, bare = in_turn([self._figure, partial(self._bare.figure, self._count)])
        return {self.name: Pair(fresh, bare)}

    def proof(self) -> Mapping[str, int]:
        """Documents that say another number of reserved units than the last event of their SKU."""
        reserved = {
            event.sku: event.reserved
            for event in self._stage.events("inventory")
            if isinstance(event, StockEvent)
        }
        served = self._runner.run(self._levels())
        return {"stale_documents": sum(one != reserved[sku] for sku, one in served.items())}

    def close(self) -> None:
        self._runner.run(self._intake.stop())
        self._runner.run(self._reader.close())
        self._runner.close()
        self._bare.close()

    async def _listen(self) -> None:
        self._intake.start()
        deadline = time.monotonic() + PROJECTING_WITHIN_S
        while not self._intake.hears_decisions or await self._shown(self._skus[-1]) is None:
            if time.monotonic() > deadline:
                raise BenchFailed(f"nothing comes into the views:\n{self._stage.projections_log()}")
            await asyncio.sleep(0.02)

    def _figure(self) -> Figure:
        costs = Costs(self._stage.processes())
        took_ms = self._runner.run(self._ask_often())
        return Figure(median(took_ms), costs.per_event(self._count), f"p99 {p99(took_ms):.1f} ms")

    async def _ask_often(self) -> list[float]:
        return [await self._ask_one() for _ in range(self._count)]

    async def _ask_one(self) -> float:
        """Milliseconds from building the command until its effect is read; the answer is heard meanwhile."""
        sku, order = next(self._next_sku), derived_id("order", next(self._orders))
        before = await self._version(sku)
        began = time.perf_counter()
        limit = Micros(time.time_ns() // 1_000 + HOUR)
        body = ReserveStock(order, MAIN, (Line(1, sku, 1),), 1, limit)
        meta = command_meta(body.stream, "merchant", derived_id(order, "reserve"), self._intake.reply_to)
        asking = asyncio.create_task(self._intake.ask("inventory", sku, body, meta))
        while await self._version(sku) == before:
            if time.perf_counter() - began > WITHIN_S:
                raise BenchFailed(f"{body.stream} is not shown:\n{self._stage.projections_log()}")
            await asyncio.sleep(LOOK_EVERY_S)
        took_s = time.perf_counter() - began
        decided = await asking
        if decided is None or decided.outcome != "accepted":
            raise BenchFailed(f"a reservation was {decided.outcome if decided else 'not decided in time'}")
        return took_s * 1_000

    async def _version(self, sku: str) -> int:
        shown = await self._shown(sku)
        return shown.version if shown else 0

    async def _shown(self, sku: str) -> Served | None:
        return await self._reader.document(stock.VIEW, stock_stream(sku, MAIN))

    async def _levels(self) -> dict[str, int]:
        found = await self._reader.documents(stock.VIEW, [stock_stream(sku, MAIN) for sku in self._skus])
        return {
            sku: one.document()["reserved"] if one else -1 for sku, one in zip(self._skus, found, strict=True)
        }
