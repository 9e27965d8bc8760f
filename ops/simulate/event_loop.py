"""An asyncio loop on virtual time, one for each simulated process: what agents await, they await here."""

import asyncio
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, cast

from ops.simulate.clockwork import Ended, Process, Waker, current
from schemas.meta import SECOND


class _Handle(asyncio.Handle):
    """A callback that is due, without what only the debugger wants to know of it."""

    __slots__ = ()

    def __init__(  # its parent's would ask for more
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: Context | None,
    ) -> None:
        self._callback, self._args, self._loop = callback, args, loop
        self._context = copy_context() if context is None else context
        self._cancelled, self._repr, self._source_traceback = False, None, None


class VirtualLoop:
    """As much of a loop as our agents use: callbacks, timers, tasks, and `to_thread` as a strand of its own."""

    def __init__(self, process: Process) -> None:
        self.loop = cast("asyncio.AbstractEventLoop", self)
        self._process = process
        self._clock = process.clock
        self._ready: deque[asyncio.Handle] = deque()
        self.failures: list[dict[str, Any]] = []
        self._wake: Waker | None = None
        process.spawn(self._spin)

    def _spin(self) -> None:
        ready, process = self._ready, self._process
        while True:
            events._set_running_loop(self.loop)  # noqa: SLF001  # as every loop does
            try:
                while ready:
                    handle = ready.popleft()
                    if not handle._cancelled:  # noqa: SLF001  # as every loop does
                        handle._run()  # noqa: SLF001  # as every loop does
                    if not process.alive:
                        raise Ended
            finally:
                events._set_running_loop(None)  # noqa: SLF001  # as every loop does
            self._wake = current().waker()
            self._clock.park()
            self._wake = None

    # What asyncio asks of a loop.

    def time(self) -> float:
        return self._clock.now / SECOND

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return not self._process.alive

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = _Handle(callback, args, self.loop, context)
        self._add(handle)
        return handle

    def _add(self, handle: asyncio.Handle) -> None:
        self._ready.append(handle)
        wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    call_soon_threadsafe = call_soon

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self.loop, context)
        self._clock.at(round(when * SECOND), self._process, self._due, handle)
        return handle

    def _due(self, handle: asyncio.TimerHandle) -> None:
        if not handle.cancelled():
            self._add(handle)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer is passed over when it is due."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self.loop)

    def create_task(
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self.loop, name=name, context=context)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # noqa: ARG002  # there is one kind of thread
        done = self.create_future()

        def run() -> None:
            try:
                result = func(*args)
            except Exception as error:  # noqa: BLE001  # it is told to who awaits
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(result)

        self._process.spawn(run)
        return done

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """A failure that nobody awaited; of a process that lives, it is a bug of the simulation's or of ours."""
        if self._process.alive:
            self.failures.append(context)
