"""`freshness`: from a command to its effect in a view, beside a bare transaction of one event and who polls for it."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median

from ops.bench.asking import WITHIN_S, Asking
from ops.bench.contest import BenchFailed, Figure, Measure, Pair, in_turn
from ops.bench.costs import Costs
from ops.bench.latency import BareTransactions, p99
from ops.bench.stage import KAFKA_KEEPS, Stage
from projections import stock
from projections.redis_store import RedisReader
from projections.view import Served
from schemas.inventory import StockEvent, stock_stream
from schemas.values import MAIN

COUNT = 200
"""Of a round."""
WARM_ROUNDS = 12
"""Until the broker's code is compiled; both sides are half as fast before."""
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
        self._asking = Asking(stage)
        self._reader = RedisReader(stage.start_projections())
        self._bare = BareTransactions(stage)

    def warm_up(self) -> None:
        self._asking.begin()
        self._asking.run(self._projecting())
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
        served = self._asking.run(self._levels())
        return {"stale_documents": sum(one != reserved[sku] for sku, one in served.items())}

    def close(self) -> None:
        self._asking.run(self._reader.close())
        self._asking.close()
        self._bare.close()

    async def _projecting(self) -> None:
        deadline = time.monotonic() + PROJECTING_WITHIN_S
        while await self._shown(self._asking.skus[-1]) is None:
            if time.monotonic() > deadline:
                raise BenchFailed(f"nothing comes into the views:\n{self._stage.projections_log()}")
            await asyncio.sleep(LOOK_EVERY_S)

    def _figure(self) -> Figure:
        costs = Costs(self._stage.processes())
        took_ms = self._asking.run(self._ask_often())
        return Figure(median(took_ms), costs.per_event(self._count), f"p99 {p99(took_ms):.1f} ms")

    async def _ask_often(self) -> list[float]:
        return [await self._ask_one() for _ in range(self._count)]

    async def _ask_one(self) -> float:
        """Milliseconds from building the command until its effect is read; the answer is heard meanwhile."""
        sku = self._asking.next_sku()
        before = await self._version(sku)
        began = time.perf_counter()
        asking = asyncio.create_task(self._asking.reserve(sku))
        while await self._version(sku) == before:
            if time.perf_counter() - began > WITHIN_S:
                raise BenchFailed(f"{stock_stream(sku, MAIN)} is not shown:\n{self._stage.projections_log()}")
            await asyncio.sleep(LOOK_EVERY_S)
        took_s = time.perf_counter() - began
        await asking
        return took_s * 1_000

    async def _version(self, sku: str) -> int:
        shown = await self._shown(sku)
        return shown.version if shown else 0

    async def _shown(self, sku: str) -> Served | None:
        return await self._reader.document(stock.VIEW, stock_stream(sku, MAIN))

    async def _levels(self) -> dict[str, int]:
        found = await self._reader.documents(
            stock.VIEW, [stock_stream(sku, MAIN) for sku in self._asking.skus]
        )
        return {
            sku: one.document()["reserved"] if one else -1
            for sku, one in zip(self._asking.skus, found, strict=True)
        }
