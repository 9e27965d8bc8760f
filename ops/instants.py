"""Instants as people write them, in microseconds since 1970: a day, or a day and a time; UTC unless they say otherwise."""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def instant(text: str) -> int:
    """Of a day its beginning. Raises ValueError."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text} is no time; write it as 2010-12-31 or 2010-12-31T18:00:00") from None
    return (found.replace(tzinfo=found.tzinfo or UTC) - EPOCH) // timedelta(microseconds=1)


def instant_behind(text: str) -> int:
    """The first instant after what is meant: behind a whole day, or the instant itself. Raises ValueError."""
    is_day = len(text) == len("2010-12-31")
    return instant(text) + (86_400_000_000 if is_day else 0)


def moment(micros: int) -> datetime:
    return EPOCH + timedelta(microseconds=micros)


def told(micros: int) -> str:
    return moment(micros).isoformat(timespec="microseconds").replace("+00:00", "Z")
