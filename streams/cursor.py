"""Where an assigned partition stands: what was read, what is being applied, what may be committed."""

from collections import deque
from dataclasses import dataclass, field

from projections.view import Partition


@dataclass(slots=True)
class Flight:
    """One delivery under way: the offset behind it, and when its first record was written (Unix seconds)."""

    next: int
    written_at: float
    landed: bool = False


@dataclass(slots=True)
class Cursor:
    """One partition from its assignment to its revocation. Every change happens under the source's lock.

    `next` is where the next batch is expected to begin; `acked` is where the unbroken row of acknowledged batches
    ends, `committed` what Kafka was last told of it. `generation` changes when the partition is rewound, so that what
    was delivered before is known to be stale; `misplaced` says that the consumer must seek to `next`. `end` is where
    the reader last met the end of the log.
    """

    partition: Partition
    next: int
    acked: int
    committed: int
    checked_at: float
    generation: int = 0
    end: int = -1
    misplaced: bool = False
    held: bool = False
    live: bool = True
    flights: deque[Flight] = field(default_factory=deque)

    @classmethod
    def at(cls, partition: Partition, position: int, now: float) -> "Cursor":
        return cls(partition, position, position, position, now)

    def take_off(self, flight: Flight) -> None:
        self.flights.append(flight)

    def land(self, flight: Flight) -> None:
        """Whatever the order of landing, `acked` moves only over an unbroken row."""
        flight.landed = True
        while self.flights and self.flights[0].landed:
            self.acked = self.flights.popleft().next

    def rewind(self, position: int) -> None:
        """What is under way is stale from now on; what comes next is read again from `position`."""
        self.next = self.acked = position
        self.generation += 1
        self.misplaced = True
        self.end = -1
        self.flights.clear()

    def lag(self, high: int) -> int:
        """Offsets between what is applied and the end of the log; markers behind the last record do not count."""
        caught_up = not self.flights and self.end >= high
        return 0 if caught_up else max(0, high - self.acked)

    def oldest(self) -> float | None:
        """When the oldest record under way was written, if any is."""
        return self.flights[0].written_at if self.flights else None
