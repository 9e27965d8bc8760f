"""Virtual time: everything that happens stands in one queue, and blocking code runs as strands of one thread.

A strand is a stack of its own (a greenlet): where production code would block a thread, it parks and the clock goes
on to whatever comes next. So a run depends on nothing but what was put into the queue, and in which order.
"""

import heapq
from collections import deque
from collections.abc import Callable
from functools import partial
from math import ceil
from typing import Any, TypeAlias

import greenlet

from schemas.meta import SECOND, Micros

Waker: TypeAlias = Callable[..., None]
START = Micros(1_700_000_000 * SECOND)


class Ended(greenlet.GreenletExit):  # type: ignore[misc]  # it has no types
    """The process of this strand was killed: nothing it still does has an effect."""


class Process:
    """What is killed, frozen and started as a whole: strands, timers and connections belong to one."""

    def __init__(self, clock: "Clock", name: str) -> None:
        self.name = name
        self.alive = True
        self.thaws_at = Micros(0)
        self.clock = clock
        self.clock_error = 0
        """What its own clock shows too much, in microseconds."""
        self.idle_until: Callable[[], int] = lambda: clock.now
        """Until when nothing is due in it by itself: as long may a poll wait in which nothing comes."""
        self._strands: list[Strand] = []

    def spawn(self, run: Callable[[], object]) -> "Strand":
        strand = Strand(self, run)
        self._strands.append(strand)
        self.clock.at(self.clock.now, self, strand.begin)
        return strand

    def freeze(self, pause: int) -> None:
        """Nothing of it runs for so long; what comes to it meanwhile, comes then."""
        self.thaws_at = Micros(self.clock.now + pause)

    def kill(self) -> None:
        """From outside of its strands: they end here and now, and see that nothing they do has an effect."""
        self.alive = False
        strands, self._strands = self._strands, []
        for strand in strands:
            strand.end()

    def die(self, _status: int = 0) -> None:
        """From one of its own strands."""
        self.alive = False
        self.clock.at(self.clock.now, None, self.kill)
        raise Ended

    def wall_time(self) -> Micros:
        """What its own clock shows."""
        return Micros(self.clock.now + self.clock_error)


class Strand(greenlet.greenlet):  # type: ignore[misc]  # it has no types
    """Code that may block. `turn` tells a wake-up that came too late from one that is waited for."""

    def __init__(self, process: Process, run: Callable[[], object]) -> None:
        super().__init__(run, process.clock.hub)
        self.process = process
        self.turn = 0
        self.parked = False

    def begin(self) -> None:
        self.switch()

    def resume(self, turn: int, woken: bool) -> None:  # noqa: FBT001  # the answer of `park`
        if turn == self.turn and self.parked:
            self.parked = False
            self.switch(woken)

    def waker(self) -> Waker:
        """Ends the next `park`, and no later one; so many microseconds after it was called."""
        return partial(self._wake, self.turn + 1)

    def _wake(self, turn: int, after_us: float = 0) -> None:
        if self.parked and turn == self.turn:
            clock = self.process.clock
            clock.at(clock.now + int(after_us), self.process, self.resume, turn, True)

    def end(self) -> None:
        if not self.dead:
            self.throw(Ended)


class Clock:
    """The queue of what happens, in the order of time, then of being put there."""

    def __init__(self) -> None:
        self.now = START
        self.hub = greenlet.getcurrent()
        self._queue: list[tuple[int, int, Process | None, Callable[..., object], tuple[Any, ...]]] = []
        self._count = 0

    def at(self, when: int, process: Process | None, call: Callable[..., object], *args: object) -> None:
        self._count += 1
        heapq.heappush(self._queue, (when, self._count, process, call, args))

    def after(
        self, pause: float, process: Process | None, call: Callable[..., object], *args: object
    ) -> None:
        """`pause` in microseconds; a part of one counts as one."""
        self.at(self.now + ceil(pause), process, call, *args)

    def run_until(self, when: int) -> None:
        """Whatever is due by then happens; what belongs to a frozen process waits until it thaws."""
        queue = self._queue
        while queue and queue[0][0] <= when:
            due, _, process, call, args = heapq.heappop(queue)
            self.now = Micros(due)
            if process is not None:
                if not process.alive:
                    continue
                if process.thaws_at > due:
                    self.at(process.thaws_at, process, call, *args)
                    continue
            call(*args)
        self.now = Micros(max(self.now, when))

    # What strands call.

    def park(self, timeout_us: float | None = None) -> bool:
        """Wait to be woken; False when the time ran out first."""
        strand = current()
        process = strand.process
        if not process.alive:
            raise Ended
        strand.turn += 1
        strand.parked = True
        if timeout_us is not None:
            due = self.now + ceil(timeout_us) if timeout_us > 0 else self.now
            self.at(due, process, strand.resume, strand.turn, False)
        woken: bool = self.hub.switch()
        if not process.alive:
            raise Ended
        return woken

    def park_until(self, when: float) -> None:
        self.park(when - self.now)

    def sleep(self, seconds: float) -> None:
        self.park(seconds * SECOND)


def current() -> Strand:
    """The strand that is running: nothing else can wait."""
    strand: Strand = greenlet.getcurrent()
    return strand


# What `threading` gives to threads, for strands.


class Thread:
    """As `threading.Thread`; begins when it is its turn."""

    def __init__(self, target: Callable[[], object], name: str = "", daemon: bool = True) -> None:  # noqa: ARG002, FBT001, FBT002  # the shape of threading.Thread
        self._target = target
        self._strand: Strand | None = None
        self._process = current().process

    def start(self) -> None:
        self._strand = self._process.spawn(self._target)

    def is_alive(self) -> bool:
        return self._strand is not None and not self._strand.dead


class Condition:
    """As `threading.Condition`. Strands give way only where they wait, so there is nothing to lock."""

    def __init__(self) -> None:
        self._clock = current().process.clock
        self._waiting: deque[Waker] = deque()

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def notify_all(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for wake in waiting:
            wake()

    def wait_for(self, true: Callable[[], bool], timeout: float | None = None) -> bool:
        clock = self._clock
        deadline = None if timeout is None else clock.now + timeout * SECOND
        while not (found := true()):
            self._waiting.append(current().waker())
            if not clock.park(None if deadline is None else deadline - clock.now):
                return true()
        return found


class Event:
    """As `threading.Event`."""

    def __init__(self) -> None:
        self._set = False
        self._changed = Condition()

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        self._changed.notify_all()

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        return self._changed.wait_for(self.is_set, timeout)
