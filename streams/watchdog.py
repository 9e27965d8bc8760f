"""A watchdog: it ends the process when something that must turn has not turned for a minute."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

log = structlog.get_logger(__name__)

LIMIT_S = 60.0
LOOK_EVERY_S = 5.0
EXIT_STATUS = 70


def _exit() -> None:
    os._exit(EXIT_STATUS)  # whatever hangs would hang an orderly exit too


class Watchdog:
    """Each turner says that it turned; one that rests owes nothing. Safe from any thread."""

    def __init__(self, limit_s: float = LIMIT_S, bark: Callable[[], None] = _exit) -> None:
        self._limit_s = limit_s
        self._bark = bark
        self._turned_at: dict[str, float] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing.set()

    def turned(self, name: str) -> None:
        self._turned_at[name] = time.monotonic()

    def rests(self, name: str) -> None:
        self._turned_at.pop(name, None)

    @contextmanager
    def working(self, name: str) -> Iterator[None]:
        """While it lasts, `name` has to turn."""
        self.turned(name)
        try:
            yield
        finally:
            self.rests(name)

    def stuck(self) -> list[str]:
        """Who has not turned for too long."""
        now = time.monotonic()
        return [name for name, at in self._turned_at.copy().items() if now - at > self._limit_s]

    def _watch(self) -> None:
        while not self._closing.wait(min(LOOK_EVERY_S, self._limit_s / 2)):
            stuck = self.stuck()
            if stuck:
                log.critical("stuck: this process ends", turners=stuck, limit_s=self._limit_s)
                self._bark()
                return
