"""Reservations asked for one by one, as the API asks: its own intake, in this process."""

import asyncio
import itertools
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

from api.intake import Intake
from ops.bench.contest import BenchFailed
from ops.bench.stage import Stage, command_meta
from schemas.inventory import ReceiptLine, ReceiveStock, ReserveStock
from schemas.meta import HOUR, Micros, derived_id
from schemas.values import MAIN, Line

SKUS = 500
WITHIN_S = 10.0

T = TypeVar("T")


class Asking:
    """Lives in an event loop of its own, where `run` runs what it is given."""

    def __init__(self, stage: Stage) -> None:
        self.skus = [f"SKU-{n}" for n in range(SKUS)]
        self._stage = stage
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._intake = Intake(stage.kafka, stage.topics, stage.codec)
        self._next_sku = itertools.cycle(self.skus)
        self._orders = map(str, itertools.count())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def begin(self) -> None:
        """Stock for all that will be asked; returns when answers are heard."""
        received = [ReceiveStock(MAIN, "delivery", (ReceiptLine(sku, 1_000_000),)) for sku in self.skus]
        asked = [
            self._stage.ready(body, "merchant", derived_id("received", body.stream)) for body in received
        ]
        self._stage.decide("inventory", asked, "stock received").expect("accepted")
        self.run(self._listen())

    async def _listen(self) -> None:
        self._intake.start()
        deadline = time.monotonic() + WITHIN_S
        while not self._intake.hears_decisions:
            if time.monotonic() > deadline:
                raise BenchFailed("the API's reader of decisions does not come up")
            await asyncio.sleep(0.02)

    def next_sku(self) -> str:
        """Each in turn."""
        return next(self._next_sku)

    async def reserve(self, sku: str) -> None:
        """One unit, for an order that nobody has heard of; raises BenchFailed unless it is granted."""
        order = derived_id("order", next(self._orders))
        limit = Micros(time.time_ns() // 1_000 + HOUR)
        body = ReserveStock(order, MAIN, (Line(1, sku, 1),), 1, limit)
        meta = command_meta(body.stream, "merchant", derived_id(order, "reserve"), self._intake.reply_to)
        decided = await self._intake.ask("inventory", sku, body, meta)
        if decided is None or decided.outcome != "accepted":
            raise BenchFailed(f"a reservation was {decided.outcome if decided else 'not decided in time'}")

    def close(self) -> None:
        self.run(self._intake.stop())
        self._runner.close()
