"""`takeover`: how long nobody decides when a worker is killed or frozen, until its successor's first answers."""

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from ops.bench.contest import Figure, Measure, Pair
from ops.bench.stage import KAFKA_KEEPS, Ready, Stage
from schemas.inventory import ReceiptLine, ReceiveStock, ReserveStock
from schemas.meta import HOUR, Micros
from schemas.values import MAIN, Line

WINDOW = 60_000
"""Commands that the successor must know the outcomes of."""


BURST = 4_000
"""Commands in whose midst a worker freezes: more than its next transaction takes."""


class Takeover:
    """Seconds from the signal until one command of each partition is answered.

    The same slot is started again at once, and finds its disk. Another slot runs already, for the other half of the
    partitions; it learns of the end when the session times out, and makes all else from the topics. One that freezes
    (SIGSTOP) does so while it decides, and may leave a transaction open, which the broker has to end first.
    """

    name = "takeover"
    measures: Sequence[Measure] = (
        Measure("same slot", "s p95", KAFKA_KEEPS, "", 3, None, "figure", "less", 0.95),
        Measure("another slot", "s p95", KAFKA_KEEPS, "", 10, None, "figure", "less", 0.95),
        Measure("frozen", "s p95", KAFKA_KEEPS, "", 12, None, "figure", "less", 0.95),
    )

    def __init__(self, stage: Stage, window: int = WINDOW) -> None:
        self._stage = stage
        self._window = window
        names = (f"SKU-{n}" for n in range(1_000))
        by_partition = {stage.topics.partition_of(name): name for name in names}
        self._skus = [by_partition[n] for n in sorted(by_partition)]

    def warm_up(self) -> None:
        received = [ReceiveStock(MAIN, "delivery", (ReceiptLine(sku, 1_000_000),)) for sku in self._skus]
        self._stage.decide("inventory", [self._ready(body) for body in received])
        share = self._window // len(self._skus)
        filling = [self._reservation(sku) for sku in self._skus for _ in range(share)]
        self._stage.decide("inventory", filling, f"{self._window:,} commands into the window")

    def round(self) -> Mapping[str, Pair]:
        took = {
            "same slot": self._by_the_same(),
            "another slot": self._by_another(),
            "frozen": self._frozen(),
        }
        return {name: Pair(Figure(seconds)) for name, seconds in took.items()}

    def proof(self) -> Mapping[str, int]:
        """Every answer was checked to be a grant, and each decision counted once by its command."""
        return {}

    def _by_the_same(self) -> float:
        began = time.monotonic()
        self._stage.kill_worker()
        self._stage.start_worker()
        self._answered()
        return time.monotonic() - began

    def _by_another(self) -> float:
        with self._second_slot():
            began = time.monotonic()
            self._stage.kill_worker()
            self._answered()
            took = time.monotonic() - began
            self._stage.start_worker()
        return took

    def _frozen(self) -> float:
        """Until the second slot has decided the rest of the burst, and one command of each partition."""
        struck = 0.0

        def freeze() -> None:
            nonlocal struck
            struck = time.monotonic()
            self._stage.freeze_worker()

        with self._second_slot():
            burst = [self._reservation(sku) for sku in self._skus for _ in range(BURST // len(self._skus))]
            self._stage.decide("inventory", burst, midway=freeze).expect("accepted")
            self._answered()
            took = time.monotonic() - struck
            self._stage.kill_worker()
            self._stage.start_worker()
        return took

    @contextmanager
    def _second_slot(self) -> Iterator[None]:
        """With nothing on its disk, and half of the partitions; at the end the first slot serves alone."""
        self._stage.forget_disk(1)
        self._stage.start_worker(1)
        while not self._stage.serves(1):
            self._answered()
        yield
        self._stage.kill_worker(1)
        self._answered()

    def _answered(self) -> None:
        self._stage.decide("inventory", [self._reservation(sku) for sku in self._skus]).expect("accepted")

    def _reservation(self, sku: str) -> Ready:
        limit = Micros(time.time_ns() // 1_000 + HOUR)
        return self._ready(ReserveStock(str(uuid.uuid4()), MAIN, (Line(1, sku, 1),), 1, limit))

    def _ready(self, body: ReceiveStock | ReserveStock) -> Ready:
        return self._stage.ready(body, "merchant", str(uuid.uuid4()))
