"""All views, by the store they live in, and the projections that write them."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from projections import cart, command, ledger, order, product, stock
from projections.building import Course, Log, Rebuildable
from projections.cassandra_store import CassandraSettings, CassandraStore, CassandraView
from projections.rebuild import Rebuilding
from projections.redis_store import RedisSettings, RedisStore, RedisView
from projections.view import View, topics_of
from schemas.topics import Topics

REDIS_VIEWS = (product.VIEW, stock.VIEW, cart.VIEW, command.VIEW)
CASSANDRA_VIEWS = (order.VIEW, ledger.VIEW)


@dataclass(frozen=True)
class Projection:
    """What one source feeds: views of a store, in turns that begin `pace_s` apart where each batch costs much, whatever
    it holds (docs/adr/0016, 0024), in the process of a role (docs/adr/0025).
    """

    name: str
    store: Literal["redis", "cassandra"]
    views: tuple[View[Any], ...]
    pace_s: float = 0.0
    role: Literal["projections", "ledger"] = "projections"

    def topics(self, topics: Topics) -> list[str]:
        return topics_of(self.views, topics)


PROJECTIONS = (
    Projection("redis", "redis", REDIS_VIEWS),
    Projection("order", "cassandra", (order.VIEW,), 0.2),
    Projection("ledger", "cassandra", (ledger.VIEW,), 0.6, "ledger"),
)
POSTERS = tuple(dict.fromkeys(one.role for one in PROJECTIONS))
"""The roles that post views."""


def redis_store() -> RedisStore:
    return RedisStore(RedisSettings.from_environment(), REDIS_VIEWS)


def cassandra_store() -> CassandraStore:
    return CassandraStore(CassandraSettings.from_environment(), CASSANDRA_VIEWS)


def view_named(name: str) -> RedisView[Any] | CassandraView[Any]:
    """Raises KeyError for a view that there is not."""
    return {view.name: view for view in (*REDIS_VIEWS, *CASSANDRA_VIEWS)}[name]


def role_of(name: str) -> str:
    """The role that posts a view; raises KeyError for a view that there is not."""
    return {view.name: one.role for one in PROJECTIONS for view in one.views}[name]


def rebuilding(name: str, topics: Topics, log: Log, course: Course) -> Rebuilding:
    """What `rebuild VIEW` works with; raises KeyError."""
    view = view_named(name)
    return Rebuilding(view, tuple(view.topics(topics)), partial(_of_generation, view), log, course)


def _of_generation(view: RedisView[Any] | CassandraView[Any], generation: int | None) -> Rebuildable:
    if isinstance(view, RedisView):
        return RedisStore(RedisSettings.from_environment(), (view,), generation)
    return CassandraStore(CassandraSettings.from_environment(), (view,), generation)
