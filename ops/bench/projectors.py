"""Two processes that fold stock events into the same Redis view: Daybook's projection agent, and a stock Faust agent."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import faust
import redis
import redis.asyncio

from ops.roles import collect_rarely, die_with_supervisor, keep_heap_small
from projections import stock
from projections.redis_store import Keys, RedisSettings, RedisStore
from projections.registry import Projection
from schemas.codec import Codec
from streams.faust_app import Kit, run
from streams.projection_agents import projecting
from streams.settings import from_environment


def daybook() -> None:
    """The role as `up` starts it, with the one store and the one view that are measured."""
    store = RedisStore(RedisSettings.from_environment(), [stock.VIEW])
    alone = Projection("redis", "redis", (stock.VIEW,))
    run(projecting("projections", Kit.of(from_environment()), {"redis": store}, [alone]))


def stock_faust() -> None:
    """As Faust's manual has it: an agent over a topic, one event at a time. It decodes and folds by our own code, keeps
    what it has folded in memory, and writes without asking Redis what is there.
    """
    settings, where, codec = from_environment(), RedisSettings.from_environment(), Codec()
    assert settings.state is not None, "whoever starts us says where"
    settings.state.mkdir(parents=True)
    app = faust.App(
        settings.group("stock-faust"),
        broker=f"kafka://{settings.kafka}",
        datadir=str(settings.state),
        topic_partitions=settings.topics.partitions,
        value_serializer="raw",
        web_enabled=False,
    )
    events = app.topic(settings.topics.events("inventory"), value_type=bytes)
    client = redis.asyncio.Redis.from_url(f"redis://{where.address}")
    keys = Keys(where.prefix, stock.VIEW, 1)
    with redis.Redis.from_url(f"redis://{where.address}") as at_once:
        at_once.set(keys.live, 1)  # whoever reads asks for it
    levels: dict[str, stock.StockLevel] = {}

    @app.agent(events)
    async def project_stock(values: Any) -> None:
        async for value in values:
            event = codec.decode(value)
            stream = event.meta.stream
            level = levels[stream] = stock.evolve(levels.get(stream), event)
            async with client.pipeline(transaction=False) as both:
                both.set(keys.document(stream), b"%d\n%b" % (level.version, stock.dump(level)))
                both.zadd(keys.index(stock.DEMAND), {level.sku: level.wanted})
                await both.execute()

    faust.Worker(app, redirect_stdouts=False, loglevel="warning").execute_from_commandline()


MAINS: Mapping[str, Callable[[], None]] = {"daybook": daybook, "stock-faust": stock_faust}

if __name__ == "__main__":
    die_with_supervisor()
    keep_heap_small()
    collect_rarely()
    MAINS[sys.argv[1]]()
