"""The projection agents: one source, one group and one agent for each store, so that one that is down stops no other."""

from projections.registry import cassandra_store, redis_store
from projections.view import ViewStore
from streams.faust_app import Feed, Kit, Role, run
from streams.settings import from_environment

PARTITIONS_MAX = 8
"""So many partitions of a store are written at once: a batch is mostly waiting for the store."""


def projecting(kit: Kit, *stores: ViewStore) -> Role:
    """Each store says what it reads and where it stands, and is the body of its agent."""
    feeds = [
        Feed(
            kit.source(
                f"views.{store.name}",
                store.topics(kit.settings.topics),
                store.positions,
                pace_s=store.pace_s,
            ),
            store.apply,
            concurrency=PARTITIONS_MAX,
            in_turn=True,
        )
        for store in stores
    ]
    return Role("projections", kit, tuple(feeds), tuple(store.close for store in stores))


def main() -> None:
    run(projecting(Kit.of(from_environment()), redis_store(), cassandra_store()))


if __name__ == "__main__":
    main()
