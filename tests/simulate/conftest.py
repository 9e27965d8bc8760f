"""Simulated processes say nothing: they are killed by the hundred."""

import sys
import warnings
from collections.abc import Iterator

import pytest
import structlog

from ops.simulate.search import quieten
from streams import failpoints


@pytest.fixture
def quiet() -> Iterator[None]:
    configured, passed, hook = structlog.get_config(), failpoints._enabled, sys.unraisablehook
    with warnings.catch_warnings():
        quieten()
        yield
    sys.unraisablehook = hook
    structlog.configure(**configured)
    failpoints.enable(passed)
