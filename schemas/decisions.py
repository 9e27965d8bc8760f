"""What became of a command: the dedupe window, the caller's answer and the saga's answer in one record."""

from typing import Literal

from schemas.frozen import frozen
from schemas.meta import Micros
from schemas.values import Position, RefusedLine

Outcome = Literal["accepted", "refused", "rejected"]
"""accepted: its events stand (or it was so already); refused: an event says what could not be granted;
rejected: it has no effect."""

RejectionKind = Literal["not_found", "conflict", "unprocessable", "precondition", "expired", "internal"]


ALREADY = "already"
"""The status of a command that was accepted and changed nothing, unless its decider has a word of its own."""


@frozen
class Rejected:
    """`type` names the rejection (`CartIsEmpty`), `kind` is what a caller may do about it."""

    type: str
    kind: str
    detail: str


@frozen
class Decided:
    """One command's outcome. `stream` is whom it asked, `lines` the order's lines it spoke of, `status` a word of
    the decider's own (a payment's `pending`, `done`, `nothing`, `failed`), `positions` the streams it stands in.
    `sender` is who sent it through the API, as "role/subject", and may ask for it; empty for a saga's or deadline's.
    """

    command_id: str
    type: str
    stream: str
    lines: tuple[int, ...]
    attempt: int
    reply_to: str | None
    fingerprint: str
    outcome: str
    status: str
    refused: tuple[RefusedLine, ...]
    rejection: Rejected | None
    positions: tuple[Position, ...]
    correlation_id: str
    traceparent: str
    occurred_at: Micros | None
    recorded_at: Micros
    sender: str = ""


@frozen
class Decisions:
    """All commands that one transaction decided in one command partition. `ids` are their 16-byte ids in a row, so
    that a window can be restored without decoding the rest.
    """

    ids: bytes
    decided: tuple[Decided, ...]
