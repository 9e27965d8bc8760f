"""Simulated processes say nothing: they are killed by the hundred."""

from collections.abc import Iterator

import pytest
import structlog

from ops.simulate.search import quieten
from streams import failpoints


@pytest.fixture
def quiet() -> Iterator[None]:
    configured, passed = structlog.get_config(), failpoints._enabled
    quieten()
    yield
    structlog.configure(**configured)
    failpoints.enable(passed)
