"""A shop for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.faults.shop import Shop
from ops.local_stack import Addresses


@pytest.fixture
def shop(stack: Addresses, tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(stack.kafka, tmp_path)
    try:
        yield shop
    finally:
        shop.close()
