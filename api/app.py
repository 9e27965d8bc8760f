"""The API, wired: every part of it and every route, on one screen."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from fastapi import FastAPI

from api import cart, catalog, commands, console, explanations, health, inventory, order, payment, problems
from api.documented import describe
from api.intake import Intake
from api.limits import BodyLimit, RequestLimit
from api.personal import Vault
from api.personal_keys import PersonalKeys
from api.readings import Views, parameters_of
from api.role_status import RoleStatus
from api.security import Keys, Verifier
from api.settings import Settings
from api.signatures import Secrets, WebhookVerifier
from projections.cassandra_store import CassandraReader, CassandraSettings
from projections.redis_store import RedisReader, RedisSettings
from schemas.codec import Codec

REDIS_TIMEOUT_S = 0.9
CASSANDRA_TIMEOUT_S = 1.8
"""A reader hears within 2 s that a store is down; a call to Redis is tried twice."""


def create_app(settings: Settings) -> FastAPI:
    """The application; it reaches for Kafka when its life begins, and for the stores when they are asked."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        intake = app.state.intake = Intake(settings.kafka, settings.topics, Codec())
        views = app.state.views = views_of(settings)
        keys = Keys(settings.jwks)
        app.state.verifier = Verifier(keys)
        vault = app.state.vault = Vault(PersonalKeys(settings.personal, settings.personal_key))
        app.state.webhooks = WebhookVerifier(Secrets(settings.webhook_secrets))
        app.state.health = health.Health(intake, views, keys)
        intake.start()
        status = asyncio.create_task(keep_status(settings, intake, app.state.health))
        yield
        status.cancel()
        with suppress(asyncio.CancelledError):
            await status
        await intake.stop()
        await views.close()
        await vault.close()

    app = FastAPI(
        title="Daybook",
        summary="Trade written down once, in order.",
        version="1",
        lifespan=life,
        redirect_slashes=False,
        # Their pages load scripts from somebody else's server; `/openapi.json` is read by any viewer.
        docs_url=None,
        redoc_url=None,
        # It would look at every request whether somebody measures; our traces travel with the commands.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    for room in (cart, order, inventory, catalog, payment, commands, health, explanations, console):
        # One flat list: FastAPI matches an included router's routes twice, a third of a request's CPU.
        app.router.routes.extend(room.routes.routes)
    app.state.console = settings.console
    app.state.parameters = parameters_of(app.routes)
    app.add_middleware(BodyLimit)
    app.add_middleware(RequestLimit)
    problems.map_problems(app)
    describe(app)
    return app


def views_of(settings: Settings) -> Views:
    redis = RedisSettings(settings.redis, settings.topics.prefix, REDIS_TIMEOUT_S)
    cassandra = replace(
        CassandraSettings.from_environment(),  # replicas and datacenter: whoever comes first lays the keyspace out
        hosts=tuple(settings.cassandra.split(",")),
        keyspace=settings.keyspace,
        timeout_s=CASSANDRA_TIMEOUT_S,
    )
    return Views(RedisReader(redis), CassandraReader(cassandra))


async def keep_status(settings: Settings, intake: Intake, state: health.Health) -> None:
    if settings.run:
        await RoleStatus(settings.run, f"http://{settings.host}:{settings.port}", intake, state).keep()
