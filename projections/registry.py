"""All views, by the store they live in."""

from projections import cart, command, ledger, order, product, stock
from projections.cassandra_store import CassandraSettings, CassandraStore
from projections.redis_store import RedisSettings, RedisStore

REDIS_VIEWS = (product.VIEW, stock.VIEW, cart.VIEW, command.VIEW)
CASSANDRA_VIEWS = (order.VIEW, ledger.VIEW)


def redis_store() -> RedisStore:
    return RedisStore(RedisSettings.from_environment(), REDIS_VIEWS)


def cassandra_store() -> CassandraStore:
    return CassandraStore(CassandraSettings.from_environment(), CASSANDRA_VIEWS)
