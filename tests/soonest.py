"""How soon something is done: a machine that stood still while it was tried is no witness against it."""

import time
from collections.abc import Awaitable, Callable

TRIES = 3


async def soonest(attempt: Callable[[], Awaitable[object]], within_s: float) -> float:
    """Seconds that it took; tried again, a few times at most, where it took longer than it may."""
    took: list[float] = []
    while not took or (min(took) >= within_s and len(took) < TRIES):
        begun = time.monotonic()
        await attempt()
        took.append(time.monotonic() - begun)
    return min(took)
