"""The projection agents: one source, one group and one agent for each projection, so that a store that is down stops no
other, and the ledger, which is written seldom, keeps no order waiting.
"""

from collections.abc import Mapping, Sequence

from projections.registry import PROJECTIONS, Projection, cassandra_store, redis_store
from projections.view import ViewStore
from streams.faust_app import Feed, Kit, Role, run
from streams.settings import from_environment

PARTITIONS_MAX = 8
"""So many partitions of a projection are written at once: a batch is mostly waiting for the store."""


def projecting(
    kit: Kit, stores: Mapping[str, ViewStore], projections: Sequence[Projection] = PROJECTIONS
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
    return Role("projections", kit, tuple(feeds), tuple(store.close for store in stores.values()))


def main() -> None:
    stores: Mapping[str, ViewStore] = {"redis": redis_store(), "cassandra": cassandra_store()}
    run(projecting(Kit.of(from_environment()), stores))


if __name__ == "__main__":
    main()
