"""A reading: one read as it was asked for, and how a stored document answers it."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from api import receipts
from api.problems import InvalidRequestError, MalformedRequestError, NotFoundError
from api.security import Guard, Principal
from api.shapes import JSON
from projections.cassandra_store import CassandraReader
from projections.receipt import NotCaughtUp, of_kinds
from projections.redis_store import RedisReader
from projections.view import Served
from schemas.values import Position

Found = TypeVar("Found")
Endpoint: TypeAlias = Callable[..., Any]
Read: TypeAlias = Callable[[Sequence[Position]], Awaitable[Found | None]]
"""A read of one document that waits for these positions first; raises NotCaughtUp."""


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

    async def own(self, stream: str, read: Read[Found], owner_of: Callable[[Found], str]) -> Found | None:
        """The document of `stream` as of the receipt, if it belongs to who reads; raises what `read` raises.

        Another's is waited for in no case: how long that takes would tell its version. Nor is any other stream that
        the receipt names, for it may be another's, and is no part of this document.
        """
        after = self._after(stream)
        if after and self._is_anothers(await read(()), owner_of):
            return None
        try:
            found = await read(after)
        except NotCaughtUp:
            if self._is_anothers(await read(()), owner_of):
                return None
            raise
        return None if self._is_anothers(found, owner_of) else found

    def _is_anothers(self, found: Found | None, owner_of: Callable[[Found], str]) -> bool:
        return found is not None and not self.may_see(owner_of(found))

    def _after(self, stream: str) -> list[Position]:
        """What the receipt says of the stream; raises ForeignReceipt if it knows no stream of this kind."""
        ours = of_kinds(self.after, [stream.partition("/")[0]])
        return [position for position in ours if position.stream == stream]

    def may_see(self, owner: str) -> bool:
        """A customer sees nobody else's."""
        return self.principal.role != "customer" or self.principal.subject == owner


def parameters_of(routes: Iterable[BaseRoute]) -> Mapping[Endpoint, frozenset[str]]:
    """The names in the query that each endpoint knows; those that know none are not among them."""
    known = {
        route.endpoint: frozenset(_parameters_of(route.dependant))
        for route in routes
        if isinstance(route, APIRoute)
    }
    return {endpoint: names for endpoint, names in known.items() if names}


def _parameters_of(dependant: Dependant) -> Iterator[str]:
    yield from (one.alias for one in dependant.query_params)
    for other in dependant.dependencies:
        yield from _parameters_of(other)


async def open_reading(request: Request) -> Reading:
    """Anybody's."""
    _refuse_strange_parameters(request)
    return Reading(request.app.state.views, *_headers(request))


class ReadingOf(Guard):
    """A reading, if the caller's role is one of these."""

    async def __call__(self, request: Request) -> OwnReading:
        principal = self.admit(request)
        _refuse_strange_parameters(request)
        return OwnReading(request.app.state.views, *_headers(request), principal)


def _refuse_strange_parameters(request: Request) -> None:
    """A filter that is misspelt would be answered with what nobody asked for. Where nothing can be asked nothing is refused."""
    known = request.app.state.parameters.get(request.scope["endpoint"])
    if not known or not request.scope["query_string"]:
        return
    if strange := sorted(request.query_params.keys() - known):
        raise InvalidRequestError(f"{strange[0]} is not asked here; there are {', '.join(sorted(known))}.")


def _headers(request: Request) -> tuple[tuple[Position, ...], str]:
    headers = request.headers
    try:
        after = receipts.read(headers.get("daybook-after", ""))
    except ValueError as error:
        raise MalformedRequestError(f"Daybook-After is no receipt: {error}") from None
    return after, headers.get("if-none-match", "")
