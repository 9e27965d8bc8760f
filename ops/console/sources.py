"""What the console reads: both stores of views, the log, and what the roles say of themselves."""

from dataclasses import dataclass
from pathlib import Path

from fastapi import Request

from ops.console.archive import Archive
from projections.cassandra_store import CassandraReader
from projections.redis_store import RedisReader
from schemas.topics import Topics


@dataclass(frozen=True)
class Sources:
    """`run` is where roles say how they are, `found` the file of what the auditor found."""

    redis: RedisReader
    cassandra: CassandraReader
    archive: Archive
    topics: Topics
    run: Path
    found: Path

    async def close(self) -> None:
        await self.redis.close()
        await self.cassandra.close()


def sources_of(request: Request) -> Sources:
    sources: Sources = request.app.state.sources
    return sources
