"""A shop for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.local_stack import Addresses
from tests.faults.bench_shop import Shop


@pytest.fixture
def shop(stack: Addresses, tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(stack.kafka, tmp_path)
    try:
        yield shop
    finally:
        shop.close()
