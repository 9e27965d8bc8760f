"""Opaque cursors: where the next page of a list begins."""

from base64 import urlsafe_b64decode, urlsafe_b64encode

import orjson

BIGINT = 2**63


class BadCursor(Exception):
    """Not a cursor that we gave out."""


def cursor_of(*place: int | str) -> str:
    return urlsafe_b64encode(orjson.dumps(place)).decode().rstrip("=")


def place_of(cursor: str, *shape: type) -> tuple[int | str, ...]:
    """What `cursor_of` was given, if it has this shape; raises BadCursor."""
    try:
        place = orjson.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError as error:
        raise BadCursor(cursor[:80]) from error
    if not isinstance(place, list) or [type(part) for part in place] != list(shape):
        raise BadCursor(cursor[:80])
    if any(isinstance(part, int) and abs(part) >= BIGINT for part in place):
        raise BadCursor(cursor[:80])
    return tuple(place)
