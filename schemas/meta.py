"""What every message says about itself: who asked, what caused it, when, and where it stands in its stream."""

from hashlib import sha1
from typing import Literal, NewType
from uuid import UUID

from schemas.frozen import frozen

Micros = NewType("Micros", int)
"""An instant: microseconds since 1970-01-01 UTC."""

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

FOR_EVER = Micros(253_402_300_799 * SECOND)
"""The last second of the year 9999: calendars know no later one."""

ActorKind = Literal["customer", "merchant", "auditor", "analyst", "operator", "saga", "deadline", "provider"]

NO_HASH = bytes(32)
"""`previous` of the first event of a stream."""

_DAYBOOK = UUID("6f1b6a52-0d5e-5c4e-9d5e-6a8e0f0c9b7a").bytes
_BEGUN = sha1(_DAYBOOK, usedforsecurity=False)
_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))
"""A UUID says in two bits of this digit how it is laid out."""


@frozen
class CommandMeta:
    """`stream` is the aggregate that is asked; after `not_after` the command can have no effect any more."""

    command_id: str
    stream: str
    traceparent: str
    issued_at: Micros
    not_after: Micros
    occurred_at: Micros | None
    expected_version: int | None
    reply_to: str | None
    correlation_id: str
    causation_id: str
    actor_kind: str
    actor_id: str
    fingerprint: str


@frozen
class EventMeta:
    """`occurred_at` is when it happened, `recorded_at` when the writer wrote it down (never backwards in a stream).

    `batch_index` counts the events of one transaction, over all its partitions, from 0 to `batch_size` - 1, so
    that a reader can prove that no transaction is torn. `previous` is the SHA-256 of the Kafka value of the stream's
    previous event.
    """

    event_id: str
    stream: str
    version: int
    occurred_at: Micros
    recorded_at: Micros
    command_id: str
    correlation_id: str
    causation_id: str
    actor_kind: str
    actor_id: str
    batch_id: str
    batch_index: int
    batch_size: int
    traceparent: str
    previous: bytes


@frozen
class RecordMeta:
    """Of a state record or a decisions record: the stream (or, of decisions, the partition) it speaks of."""

    stream: str
    recorded_at: Micros
    batch_id: str


def derived_id(*causes: str) -> str:
    """The id that always follows from the same causes (UUID v5), so that asking twice names one thing."""
    # `str(uuid.uuid5(...))` says the same and takes four times as long; every event needs one.
    digest = _BEGUN.copy()
    digest.update("\x1f".join(causes).encode())
    digits = digest.hexdigest()
    return (
        f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:32]}"
    )


def event_id(command_id: str, index: int) -> str:
    """The id of the `index`-th event that a command caused, counted from 0."""
    return derived_id(command_id, str(index))
