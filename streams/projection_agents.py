"""The projection agents: one source, one group and one agent for each projection, so that a store that is down stops no
other, and the ledger, which is written seldom, keeps no order waiting.
"""

from collections.abc import Callable, Mapping, Sequence

from projections.registry import PROJECTIONS, Projection, cassandra_store, redis_store
from projections.view import ViewStore
from streams.faust_app import Feed, Kit, Role, run
from streams.settings import from_environment

PARTITIONS_MAX = 8
"""So many partitions of a projection are written at once: a batch is mostly waiting for the store."""


_STORES: Mapping[str, Callable[[], ViewStore]] = {"redis": redis_store, "cassandra": cassandra_store}


def projecting(
    role: str, kit: Kit, stores: Mapping[str, ViewStore], projections: Sequence[Projection]
) -> Role:
    """A store says where it stands, and is the body of the agents of its projections."""
    feeds = [
        Feed(
            kit.source(
                f"views.{one.name}",
                one.topics(kit.settings.topics),
                stores[one.store].positions,
                pace_s=one.pace_s,
            ),
            stores[one.store].apply,
            concurrency=PARTITIONS_MAX,
            in_turn=True,
        )
        for one in projections
    ]
    return Role(role, kit, tuple(feeds), tuple(store.close for store in stores.values()))


def main() -> None:
    """All views but the ledger."""
    _run("projections")


def ledger() -> None:
    """The stock ledger, which is most of the work, in a process of its own."""
    _run("ledger")


def _run(role: str) -> None:
    projections = [one for one in PROJECTIONS if one.role == role]
    stores: dict[str, ViewStore] = {one.store: _STORES[one.store]() for one in projections}
    run(projecting(role, Kit.of(from_environment()), stores, projections))
