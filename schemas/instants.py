"""Instants as people write them: a day, or a time with its offset from UTC (RFC 3339)."""

import re
from datetime import UTC, datetime, timedelta

from schemas.meta import DAY, Micros

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_MICROSECOND = timedelta(microseconds=1)


class BadInstant(ValueError):
    """No day and no time with an offset, or one outside the years 1 to 9999 in UTC; the message says so of the text."""


def first_moment(text: str) -> Micros:
    """The instant; of a day, its first microsecond in UTC. Raises BadInstant."""
    if _DAY.fullmatch(text):
        text += "T00:00:00Z"
    elif not _DAY.match(text):
        raise _bad(text)
    try:
        at = datetime.fromisoformat(text)
        is_in_calendar = _FIRST <= at <= _LAST  # its offset may take it out
    except (ValueError, TypeError, OverflowError):  # TypeError: it has no offset
        raise _bad(text) from None
    if not is_in_calendar:
        raise BadInstant(f"{text[:40]!r} lies outside the years 1 to 9999 in UTC")
    return Micros((at - _EPOCH) // _MICROSECOND)


def last_moment(text: str) -> Micros:
    """The instant; of a day, its last microsecond in UTC, so that a day is meant whole. Raises BadInstant."""
    return Micros(first_moment(text) + (DAY - 1 if _DAY.fullmatch(text) else 0))


def written(at: int) -> str:
    """As a person reads it: `2010-12-01T08:26:00.000000Z`."""
    return (_EPOCH + timedelta(microseconds=at)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _bad(text: str) -> BadInstant:
    return BadInstant(
        f"{text[:40]!r} is no day (2010-12-31) and no time with an offset (2010-12-31T18:00:00Z)"
    )
