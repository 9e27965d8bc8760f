"""How the API is: alive, ready for traffic, and what of it works at the moment."""

import asyncio
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field

import orjson
from fastapi import APIRouter, Request, Response

from api.documented import feeling
from api.intake import Intake
from api.problems import UnavailableError
from api.readings import Views
from api.security import Keys
from api.shapes import JSON

ASK_WITHIN_S = 1.0
BELIEVED_FOR_S = 1.0

PARTS = ("kafka", "decisions", "redis", "cassandra", "keys")
Parts = Mapping[str, bool]


@dataclass
class Health:
    """Asks each part at most once a second, however often it is asked itself."""

    intake: Intake
    views: Views
    keys: Keys
    _asked_at: float = float("-inf")
    _parts: Parts = field(default_factory=dict)
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def parts(self) -> Parts:
        async with self._asking:
            if time.monotonic() - self._asked_at >= BELIEVED_FOR_S:
                self._parts = await self._ask()
                self._asked_at = time.monotonic()
            return self._parts

    async def _ask(self) -> Parts:
        kafka, redis, cassandra = await asyncio.gather(
            self.intake.reaches_kafka(ASK_WITHIN_S),
            answers(self.views.redis.ping()),
            answers(self.views.cassandra.ping()),
        )
        found = (kafka, self.intake.hears_decisions, redis, cassandra, bool(self.keys.current()))
        return dict(zip(PARTS, found, strict=True))


async def answers(ping: Awaitable[None], within_s: float = ASK_WITHIN_S) -> bool:
    try:
        await asyncio.wait_for(ping, within_s)
    except Exception:  # noqa: BLE001  # whatever a driver raises: its store does not answer
        return False
    return True


def is_ready(parts: Parts) -> bool:
    """Commands can be taken and answered. A store that is down only degrades what can be read; without keys
    nobody can say who he is, but a new process would have none either.
    """
    return parts["kafka"] and parts["decisions"]


def status_of(parts: Parts) -> str:
    if not is_ready(parts):
        return "failing"
    return "ok" if all(parts.values()) else "degraded"


routes = APIRouter(tags=["health"])


@routes.get("/health", **feeling({"status": "ok", "parts": dict.fromkeys(PARTS, True)}))
@routes.get("/v1/health", include_in_schema=False)
async def tell_health(request: Request) -> Response:
    """200 while commands can be taken, else 503; `parts` says what works."""
    parts = await _health_of(request).parts()
    return _said({"status": status_of(parts), "parts": parts}, well=is_ready(parts))


@routes.get("/health/live", **feeling({"live": True}))
@routes.get("/v1/health/live", include_in_schema=False)
async def tell_live(request: Request) -> Response:
    """200 unless this process can only be helped by a new one."""
    broken = _health_of(request).intake.broken
    return _said({"live": not broken}, well=not broken)


@routes.get("/health/ready", **feeling({"ready": True}))
@routes.get("/v1/health/ready", include_in_schema=False)
async def tell_ready(request: Request) -> Response:
    """200 when Kafka is reached and every answer would be heard."""
    ready = is_ready(await _health_of(request).parts())
    return _said({"ready": ready}, well=ready)


def _said(document: Mapping[str, object], *, well: bool) -> Response:
    return Response(
        orjson.dumps(document), 200 if well else 503, {} if well else UnavailableError.headers, JSON
    )


def _health_of(request: Request) -> Health:
    health: Health = request.app.state.health
    return health
