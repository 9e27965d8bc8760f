"""What can be said of a row of the matrix, and how a row says that it is not as it must be."""

import time
from collections.abc import Callable


class Clock:
    """How long this machine may take: on one that is busy with other things every bound is so many times as long."""

    patience: float = 1.0


CLOCK = Clock()
POLL_S = 0.05
SAY_EVERY_S = 2.0


class RowIsRed(Exception):
    """Something is not as it must be; the message says what."""


class NotShown(Exception):
    """This machine has no means to make the fault; the message says which is missing."""


def demand(holds: object, what: str) -> None:
    """Raises RowIsRed."""
    if not holds:
        raise RowIsRed(what)


def until(
    holds: Callable[[], object], within_s: float, what: str = "", say: Callable[[str], None] = lambda _: None
) -> float:
    """Waits until something holds; returns after how many seconds. Raises RowIsRed when it does not in time.

    `say` hears every two seconds what is being waited for.
    """
    began = said = time.monotonic()
    while not holds():
        now = time.monotonic()
        if now - began > within_s * CLOCK.patience:
            raise RowIsRed(f"not within {within_s * CLOCK.patience:g} s: {what}")
        if now - said > SAY_EVERY_S:
            said = now
            say(f"waiting: {what} ({now - began:.0f} s)")
        time.sleep(POLL_S)
    return time.monotonic() - began
