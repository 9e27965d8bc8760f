"""The console as a process: what it is told, how it says it is, its signals, its end."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import uvicorn

from api.security import Keys, Verifier
from ops.audit.kept import LISTED
from ops.console.app import create_app
from ops.console.archive import Archive
from ops.console.live import stores_of
from ops.console.sources import Sources
from ops.settings import Settings, from_environment
from projections.cassandra_store import CassandraReader, CassandraSettings
from projections.redis_store import RedisReader, RedisSettings
from schemas import telemetry
from schemas.topics import Topics
from streams.replay import KafkaLog
from streams.role_status import RoleStatus
from streams.schema_registry import SchemaRegistry

REDIS_TIMEOUT_S = 0.9
CASSANDRA_TIMEOUT_S = 1.8
SAY_EVERY_S = 5.0
GRACE_S = 5


def main() -> None:
    """Serve until SIGTERM or SIGINT, then exit 0."""
    telemetry.configure("console")
    settings = from_environment()
    # Uvicorn raises the signal again once it has finished: this is who hears it.
    for told in (signal.SIGTERM, signal.SIGINT):
        signal.signal(told, lambda *_: sys.exit(0))
    host, _, port = settings.console.rpartition(":")
    app = create_app(lambda: opened(settings), Verifier(Keys(settings.jwks)))
    config = uvicorn.Config(
        app,
        host=host.strip("[]"),
        port=int(port),
        access_log=False,  # neither who came nor with what
        server_header=False,
        proxy_headers=False,
        log_config=None,
        ws="none",
        timeout_graceful_shutdown=GRACE_S,
    )
    uvicorn.Server(config).run()


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Sources]:
    """The sources, and meanwhile a word now and then of how we are."""
    sources = sources_at(settings)
    saying = asyncio.create_task(_say(settings, sources))
    try:
        yield sources
    finally:
        saying.cancel()
        with suppress(asyncio.CancelledError):
            await saying
        await sources.close()


def sources_at(settings: Settings) -> Sources:
    topics = Topics(settings.topic_prefix, settings.partitions)
    hosts = tuple(settings.cassandra.split(","))
    cassandra = replace(
        CassandraSettings.from_environment(),
        hosts=hosts,
        keyspace=settings.keyspace,
        timeout_s=CASSANDRA_TIMEOUT_S,
    )
    return Sources(
        RedisReader(RedisSettings(settings.redis, topics.prefix, REDIS_TIMEOUT_S)),
        CassandraReader(cassandra),
        Archive(lambda: KafkaLog(settings.kafka), SchemaRegistry(settings.kafka, topics).schemas),
        topics,
        settings.run,
        settings.state("auditor") / LISTED,
    )


async def _say(settings: Settings, sources: Sources) -> None:
    status = RoleStatus("console", settings.run)
    while True:
        away = [name for name, answers in (await stores_of(sources)).items() if not answers]
        detail = f"{' and '.join(away)} cannot be read" if away else ""
        status.write("degraded" if away else "ok", detail, address=f"http://{settings.console}/console")
        await asyncio.sleep(SAY_EVERY_S)


if __name__ == "__main__":
    main()
