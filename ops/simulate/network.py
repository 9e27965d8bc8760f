"""The network between processes and the broker: latency, a broker that is out of reach, and single mishaps."""

from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, TypeVar

from confluent_kafka import KafkaError, KafkaException

from ops.simulate.broker import Broker, refused
from ops.simulate.clockwork import Process
from schemas.meta import SECOND

Mishap = Literal["answer lost", "request lost", "slow", "again later", "far too late"]
"""answer lost: it was done, nobody hears; request lost: nothing was done; slow: both take seconds; again later: the
connection breaks, the request is sent again and answered, and its first copy arrives later; far too late: it arrives
when nobody waits for it any more.
"""

LATENCY_US = 1_500
FETCHES_US = (20_000, 20_000, 100_000, 300_000)
"""A fetch that waits is answered so long after there is something at most: quick brokers and slow ones."""
RECOVERY = 15 * SECOND
"""After a fault the rest takes so long at most: a session, a restart, a transaction given up."""
LATE_S = 4.0
COPIES = 12
"""So many copies of a request that was sent again arrive late; one of them may meet the next transaction."""

LONGEST_FETCH_US = 2_000_000

T = TypeVar("T")


@dataclass
class Weather:
    """How the network is now: latencies are multiplied by `slowness`, nothing arrives before `down_until`."""

    slowness: float = 1.0
    down_until: int = 0


class Network:
    """One for all processes. Mishaps are armed for the next request of a kind (`end`, `offsets`, …) of a role."""

    def __init__(self, broker: Broker, random: Random) -> None:
        self.broker = broker
        self.clock = broker.clock
        self.weather = Weather()
        self._random = random
        self.fetch_us = random.choice(FETCHES_US)
        self._armed: defaultdict[tuple[str, str], deque[Mishap]] = defaultdict(deque)
        self._strays: defaultdict[str, list[Callable[[], object]]] = defaultdict(list)
        self.hampered: list[tuple[int, int]] = []
        """From when to when writers may have been late with what is due: nothing else excuses them."""
        self.happened: defaultdict[str, int] = defaultdict(int)

    def arm(self, role: str, api: str, mishap: Mishap) -> None:
        self._armed[role, api].append(mishap)

    def hamper(self, lasts: int) -> None:
        """Writers are disturbed from now on for so many microseconds, and then they recover."""
        self.hampered.append((self.clock.now, self.clock.now + lasts + RECOVERY))

    def let_strays_arrive(self, role: str) -> None:
        """Copies of this role's requests that were on their way since they were sent again."""
        strays, self._strays[role] = self._strays[role], []
        for stray in strays:
            self.clock.after(self._random.random() * LATE_S / 2 * SECOND, None, stray)

    def heal(self) -> None:
        self._armed.clear()
        self._strays.clear()
        self.weather = Weather()

    def next_mishap(self, process: Process, api: str) -> Mishap | None:
        """What happens to this request, if anything."""
        armed = self._armed.get((process.name, api))
        if not armed:
            return None
        mishap = armed.popleft()
        self.happened[f"{api}: {mishap}"] += 1
        return mishap

    def latency_us(self) -> float:
        return self._random.random() * LATENCY_US * self.weather.slowness

    def longest_fetch_us(self) -> float:
        return min(self.fetch_us * self.weather.slowness, LONGEST_FETCH_US)

    def call(self, process: Process, api: str, timeout_s: float, ask: Callable[[], T], lines: list[str]) -> T:
        """A question and its answer, in a strand. Raises what the broker says, and `_TIMED_OUT`.

        `lines` is where the client's library notes that a connection broke.
        """
        deadline = self.clock.now + timeout_s * SECOND
        self._wait_for_broker(deadline)
        mishap = self.next_mishap(process, api)
        if mishap is not None:
            self.hamper(int(timeout_s * SECOND))
            return self._mishap(mishap, process.name, api, timeout_s, ask, lines)
        self.clock.park(self.latency_us())
        return ask()

    def _wait_for_broker(self, deadline: float) -> None:
        down = self.weather.down_until
        if down > self.clock.now:
            if down > deadline:
                self.clock.park(deadline - self.clock.now)
                raise refused(KafkaError._TIMED_OUT, retriable=True)
            self.clock.park(down - self.clock.now + self.latency_us())

    def _mishap(
        self, mishap: Mishap, role: str, api: str, timeout_s: float, ask: Callable[[], T], lines: list[str]
    ) -> T:
        random, clock = self._random, self.clock
        match mishap:
            case "answer lost" | "request lost":
                clock.park(self.latency_us())
                if mishap == "answer lost":
                    ask()
                clock.park(random.uniform(0.05, timeout_s) * SECOND)
                lines.append(f"FAIL [thrd] {api}: connection reset")
                raise refused(KafkaError._TIMED_OUT, retriable=True)
            case "far too late":
                clock.after(random.uniform(20, 60) * SECOND, None, _ignoring(ask))
                clock.park(timeout_s * SECOND)
                raise refused(KafkaError._TIMED_OUT, retriable=True)
            case "slow":
                clock.park(random.uniform(0.1, LATE_S) * SECOND)
                answer = ask()
                clock.park(random.uniform(0.1, LATE_S) * SECOND)
                return answer
            case "again later":
                clock.park(self.latency_us())
                answer = ask()
                lines.append(f"FAIL [thrd] {api}: connection reset")
                for _ in range(COPIES):
                    pause = random.choice((0.02, 0.3, 3.0)) * random.random()
                    clock.after(pause * SECOND, None, _ignoring(ask))
                self._strays[role].append(_ignoring(ask))
                return answer


def _ignoring(ask: Callable[[], Any]) -> Callable[[], None]:
    """The copy that arrives late: nobody waits for its answer."""

    def arrive() -> None:
        try:
            ask()
        except KafkaException:
            return

    return arrive
