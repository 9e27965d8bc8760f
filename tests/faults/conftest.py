"""A shop for each test, on a machine that is busy with other things."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.faults.shop import Shop
from ops.faults.verdict import CLOCK
from ops.local_stack import Addresses


@pytest.fixture(scope="package", autouse=True)
def patience() -> Iterator[None]:
    """Tests run beside each other; how soon all is well again is measured by `./daybook faults`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CLOCK, "patience", 4.0)
        yield


@pytest.fixture
def shop(stack: Addresses, tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(stack.kafka, tmp_path)
    try:
        yield shop
    finally:
        shop.close()
