"""Receipts: the points in streams at which a write stands, as headers say them."""

from collections.abc import Iterable
from urllib.parse import quote, unquote

from schemas.values import Position

POSITIONS_MAX = 100
_PLAIN = "/:-_.~ "


def written(positions: Iterable[Position]) -> str:
    """`cart/…@3, order/…@1`; what would break the header (a comma in a SKU, say) is percent-encoded."""
    return ", ".join(f"{quote(p.stream, safe=_PLAIN)}@{p.version}" for p in positions)


def read(receipt: str) -> tuple[Position, ...]:
    """The inverse; empty for an empty receipt. ValueError where it is none, or of over 100 positions."""
    parts = [part.strip() for part in receipt.split(",") if part.strip()]
    if len(parts) > POSITIONS_MAX:
        raise ValueError(f"more than {POSITIONS_MAX} positions")
    return tuple(_position(part) for part in parts)


def _position(part: str) -> Position:
    stream, at, version = part.rpartition("@")
    if not (stream and at and version.isascii() and version.isdigit() and len(version) <= 18):
        raise ValueError(f"{part[:80]!r} is not stream@version")
    return Position(unquote(stream), int(version))
