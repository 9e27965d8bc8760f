"""What `up` prepares: there after the first time, the same after the second, refused where it is wrong."""

import uuid
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from ops.local_stack import Addresses, StackFailed
from ops.prepare import prepare
from ops.settings import Settings, from_environment
from schemas.codec import Codec
from schemas.topics import Topics
from streams.schema_registry import SchemaRegistry
from streams.topic_admin import delete_topics, ensure_topics


@pytest.fixture
def wanted(stack: Addresses, tmp_path: Path) -> Iterator[Settings]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    environ = {f"DAYBOOK_{key.upper()}": value for key, value in asdict(stack).items()}
    own = {"DAYBOOK_HOME": str(tmp_path), "DAYBOOK_TOPIC_PREFIX": name, "DAYBOOK_KEYSPACE": name}
    yield from_environment(environ | own)
    delete_topics(stack.kafka, name)
    execute(stack.cassandra, f"DROP KEYSPACE IF EXISTS {name}")


def test_everything_is_there_and_twice_is_as_good_as_once(wanted: Settings):
    for _ in range(2):
        prepare(wanted, {})

    published = SchemaRegistry(wanted.kafka, Topics(wanted.topic_prefix, wanted.partitions)).schemas()
    assert published.keys() == {fingerprint.hex() for fingerprint, _ in Codec().schemas()}
    assert wanted.jwks.exists()
    assert wanted.personal_key.stat().st_mode & 0o777 == 0o600
    tables = execute(
        wanted.cassandra,
        f"SELECT table_name FROM system_schema.tables WHERE keyspace_name = '{wanted.keyspace}'",
    )
    assert {"view_positions", "live_generations"} < {row.table_name for row in tables}


def test_a_topic_that_is_wrong_stops_the_start_and_is_named(wanted: Settings):
    ensure_topics(wanted.kafka, Topics(wanted.topic_prefix, wanted.partitions))
    more = replace(wanted, partitions=wanted.partitions + 1)
    with pytest.raises(
        StackFailed, match=rf"{wanted.topic_prefix}\.events\.cart: has 2 partitions, must have 3"
    ):
        prepare(more, {})


def execute(cassandra: str, cql: str) -> list[Any]:
    from cassandra.cluster import Cluster

    host, _, port = cassandra.partition(":")
    cluster = Cluster([host], port=int(port))
    try:
        return list(cluster.connect().execute(cql, timeout=60))
    finally:
        cluster.shutdown()
