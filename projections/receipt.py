"""Receipts: a set of `stream@version` that a caller wants to see, and how a read waits for them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic

from schemas.values import Position

POSITIONS_MAX = 100
WAIT_S = 1.8
"""Within 2 s the caller has its answer, so a little less is spent on waiting."""

FIRST_PAUSE_S = 0.002
LONGEST_PAUSE_S = 0.025

Versions = Callable[[Sequence[str]], Awaitable[Mapping[str, int]]]
"""Stream names → the version that a view has of each (0 where it has none)."""


class ForeignReceipt(Exception):
    """None of the receipt's positions is in a stream that the view folds."""


class NotCaughtUp(Exception):
    """The view did not get as far as `missing` in time."""

    def __init__(self, missing: tuple[Position, ...]) -> None:
        super().__init__("not there yet: " + ", ".join(str(position) for position in missing))
        self.missing = missing


def parse_receipt(text: str) -> tuple[Position, ...]:
    """The positions in `cart/1@3, order/2@1`; raises ValueError for anything else, or for more than 100."""
    positions = tuple(_position(part.strip()) for part in text.split(","))
    if len(positions) > POSITIONS_MAX:
        raise ValueError(f"a receipt has at most {POSITIONS_MAX} positions")
    return positions


def _position(text: str) -> Position:
    stream, at, version = text.rpartition("@")
    if not (at and "/" in stream and version.isascii() and version.isdigit() and len(version) < 19):
        raise ValueError(f"{text[:80]!r} is not stream@version")
    return Position(stream, int(version))


def of_kinds(after: Sequence[Position], kinds: Sequence[str]) -> list[Position]:
    """The positions in streams of these kinds; raises ForeignReceipt if there are others only."""
    ours = [position for position in after if position.stream.partition("/")[0] in kinds]
    if after and not ours:
        raise ForeignReceipt(f"this answer knows of {', '.join(kinds)} only")
    return ours


async def caught_up(
    wanted: Sequence[Position],
    versions: Versions,
    wait_s: float = WAIT_S,
    longest_pause_s: float = LONGEST_PAUSE_S,
) -> None:
    """Return once the view has seen all `wanted`; raises NotCaughtUp. A store that is dear to ask is asked less often
    by a longer `longest_pause_s`.
    """
    deadline, pause, missing = monotonic() + wait_s, FIRST_PAUSE_S, tuple(wanted)
    while missing := await _missing(missing, versions):
        if monotonic() + pause > deadline:
            raise NotCaughtUp(missing)
        await asyncio.sleep(pause)
        pause = min(2 * pause, longest_pause_s)


async def _missing(wanted: tuple[Position, ...], versions: Versions) -> tuple[Position, ...]:
    if not wanted:
        return ()
    seen = await versions([position.stream for position in wanted])
    return tuple(position for position in wanted if seen.get(position.stream, 0) < position.version)
