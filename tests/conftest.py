"""What every room's tests may ask for: the real servers, started once."""

import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from ops.local_stack import Addresses, LocalStack
from ops.settings import servers_elsewhere

# Machines are shared: how long an example takes says nothing about what it shows.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")

TEST_STACK = Path(__file__).parent.parent / ".daybook" / os.environ.get("DAYBOOK_TEST_STACK", "test")
AFTERWARDS = Path(__file__).parent / "ops"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "servers: asks for Kafka, Cassandra or Redis; set by itself")
    config.addinivalue_line(
        "markers", "afterwards: runs in the second lane, when its other tests are over; set by itself"
    )


@pytest.hookimpl(tryfirst=True)  # before pytest selects by mark
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks each test that asks for the servers, itself or through a fixture: they are a lane of their own."""
    for item in items:
        if isinstance(item, pytest.Function) and "stack" in item.fixturenames:
            item.add_marker("servers")
            if AFTERWARDS in item.path.parents:
                item.add_marker("afterwards")


@pytest.fixture(scope="session")
def stack() -> Iterator[Addresses]:
    """Kafka, Cassandra and Redis: those that the environment names, else our own, which end with the session.

    A stack that an earlier, killed session left behind is taken over.
    """
    elsewhere = servers_elsewhere(os.environ)
    if elsewhere.keys() >= {field.name for field in fields(Addresses)}:
        yield Addresses(**elsewhere)
        return
    local = LocalStack(TEST_STACK, elsewhere)
    try:
        yield local.addresses() or local.start(print)
    finally:
        local.stop()
