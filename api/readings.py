"""A reading: one read as it was asked for, and how a stored document answers it."""

from dataclasses import dataclass

from fastapi import Request, Response

from api import receipts
from api.problems import MalformedRequestError, NotFoundError
from api.security import Guard, Principal
from api.shapes import JSON
from projections.cassandra_store import CassandraReader
from projections.redis_store import RedisReader
from projections.view import Served
from schemas.values import Position


@dataclass(frozen=True, slots=True)
class Views:
    """The two stores that views are read from."""

    redis: RedisReader
    cassandra: CassandraReader

    async def close(self) -> None:
        await self.redis.close()
        await self.cassandra.close()


@dataclass(frozen=True, slots=True)
class Reading:
    """What is to be seen at least (`after`), and what the caller has already."""

    views: Views
    after: tuple[Position, ...]
    has: str

    @property
    def redis(self) -> RedisReader:
        return self.views.redis

    @property
    def cassandra(self) -> CassandraReader:
        return self.views.cassandra

    def shown(self, served: Served | None) -> Response:
        """The stored bytes as they are; 304 for who has them already; raises NotFoundError."""
        if served is None:
            raise NotFoundError("There is no such thing, or it is somebody else's.")
        if not served.version:
            return Response(served.body, media_type=JSON)
        headers = {"ETag": served.etag}
        if self._has(served.etag):
            return Response(status_code=304, headers=headers)
        return Response(served.body, headers=headers, media_type=JSON)

    def _has(self, etag: str) -> bool:
        has = (one.strip().removeprefix("W/") for one in self.has.split(","))
        return bool(self.has) and any(one in (etag, "*") for one in has)


@dataclass(frozen=True, slots=True)
class OwnReading(Reading):
    """A reading of which it is known who reads."""

    principal: Principal

    def of_owner(self, served: Served | None) -> Served | None:
        """The document, if it belongs to who reads."""
        if served is None or self._sees_all:
            return served
        return served if self.may_see(served.document()["owner"]) else None

    def may_see(self, owner: str) -> bool:
        """A customer sees nobody else's."""
        return self._sees_all or self.principal.subject == owner

    @property
    def _sees_all(self) -> bool:
        return self.principal.role != "customer"


async def open_reading(request: Request) -> Reading:
    """Anybody's."""
    return Reading(request.app.state.views, *_headers(request))


class ReadingOf(Guard):
    """A reading, if the caller's role is one of these."""

    async def __call__(self, request: Request) -> OwnReading:
        principal = self.admit(request)
        return OwnReading(request.app.state.views, *_headers(request), principal)


def _headers(request: Request) -> tuple[tuple[Position, ...], str]:
    headers = request.headers
    try:
        after = receipts.read(headers.get("daybook-after", ""))
    except ValueError as error:
        raise MalformedRequestError(f"Daybook-After is no receipt: {error}") from None
    return after, headers.get("if-none-match", "")
