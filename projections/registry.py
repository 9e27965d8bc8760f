"""All views, by the store they live in."""

from projections import cart, command, product, stock
from projections.redis_store import RedisSettings, RedisStore

REDIS_VIEWS = (product.VIEW, stock.VIEW, cart.VIEW, command.VIEW)


def redis_store() -> RedisStore:
    return RedisStore(RedisSettings.from_environment(), REDIS_VIEWS)
