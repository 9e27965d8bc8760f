"""An errand: one write as it was asked for, from the headers of its request to the answer of its writer."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from secrets import token_hex
from typing import Any
from uuid import UUID

from fastapi import Request
from pydantic import TypeAdapter

from api.intake import Intake
from api.problems import (
    ForbiddenError,
    IdempotencyKeyMissingError,
    InvalidRequestError,
    MalformedRequestError,
)
from api.security import Guard, Principal
from schemas.decisions import Decided
from schemas.language import Message as Command
from schemas.meta import SECOND, CommandMeta, Micros, derived_id

NOT_AFTER = 30 * SECOND
CLOCKS_APART = 1 * SECOND
_KEY = re.compile(r"[\x21-\x7e]{1,200}")
_VERSION = re.compile(r'(?:W/)?"?([0-9]{1,18})"?')
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_BODY: TypeAdapter[Any] = TypeAdapter(Any)


@dataclass(frozen=True, slots=True)
class Errand:
    """Who asks for what, under which id. Times are UTC microseconds."""

    intake: Intake
    principal: Principal
    method: str
    path: str
    command_id: str
    traceparent: str
    expected_version: int | None
    occurred_at: Micros | None

    @property
    def new_id(self) -> str:
        """The id of what this errand creates: the same one however often it is sent."""
        return derived_id(self.command_id)

    async def send(self, aggregate: str, key: str, command: Command, body: object = None) -> Decided | None:
        """What becomes of the command (None: not known yet). `body` is what the caller said, in its canonical form;
        what was resolved here (prices) is no part of it.
        """
        meta = self._meta(command.stream, self._fingerprint(body))
        return await self.intake.ask(aggregate, key, command, meta)

    def _fingerprint(self, body: object) -> str:
        said = _BODY.dump_json(body) if body is not None else b""
        return sha256(b"%b\n%b\n%b" % (self.method.encode(), self.path.encode(), said)).hexdigest()

    def _meta(self, stream: str, fingerprint: str) -> CommandMeta:
        now = _now()
        return CommandMeta(
            command_id=self.command_id,
            stream=stream,
            traceparent=self.traceparent,
            issued_at=now,
            not_after=Micros(now + NOT_AFTER),
            occurred_at=self.occurred_at,
            expected_version=self.expected_version,
            reply_to=self.intake.reply_to,
            correlation_id=str(UUID(self.traceparent[3:35])),
            causation_id=self.command_id,
            actor_kind=self.principal.role,
            actor_id=self.principal.subject,
            fingerprint=fingerprint,
        )


class ErrandOf(Guard):
    """What a write depends on: its errand, if the caller's role is one of these."""

    async def __call__(self, request: Request) -> Errand:
        principal = self.admit(request)
        headers, path = request.headers, request.scope["path"]
        key = _idempotency_key(headers)
        return Errand(
            intake=request.app.state.intake,
            principal=principal,
            method=request.method,
            path=path,
            command_id=derived_id(principal.name, request.method, path, key),
            traceparent=traceparent_of(headers),
            expected_version=_expected_version(headers),
            occurred_at=_occurred_at(headers, principal),
        )


def _idempotency_key(headers: Mapping[str, str]) -> str:
    key = headers.get("idempotency-key", "")
    if not _KEY.fullmatch(key):
        raise IdempotencyKeyMissingError(
            "A write needs an Idempotency-Key of 1 to 200 visible ASCII characters."
        )
    return key


def traceparent_of(headers: Mapping[str, str]) -> str:
    """The caller's, if it is one; else the beginning of a new trace."""
    given = headers.get("traceparent", "")
    return given if _TRACEPARENT.fullmatch(given) else f"00-{token_hex(16)}-{token_hex(8)}-01"


def _expected_version(headers: Mapping[str, str]) -> int | None:
    given = headers.get("if-match")
    if given is None:
        return None
    match = _VERSION.fullmatch(given.strip())
    if match is None:
        raise MalformedRequestError('If-Match is the version of a stream, as in "3".')
    return int(match[1])


def _occurred_at(headers: Mapping[str, str], principal: Principal) -> Micros | None:
    given = headers.get("daybook-occurred-at")
    if given is None:
        return None
    if not principal.backdate:
        raise ForbiddenError("Daybook-Occurred-At is for tokens with the claim backdate.")
    try:
        at = datetime.fromisoformat(given)
        occurred_at = Micros(round(at.timestamp() * SECOND))
    except (ValueError, OverflowError):
        raise InvalidRequestError("Daybook-Occurred-At is no RFC 3339 time.") from None
    if at.tzinfo is None or not 0 <= occurred_at <= _now() + CLOCKS_APART:
        raise InvalidRequestError("Daybook-Occurred-At needs an offset from UTC, and lies not in the future.")
    return occurred_at


def _now() -> Micros:
    return Micros(time.time_ns() // 1_000)
