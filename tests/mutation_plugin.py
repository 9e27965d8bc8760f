"""What mutmut 3.7 asks of pytest's items and pytest 9.2 no longer has; loaded by the runs of docs/mutation.md only."""

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        vars(item)["_nodeid"] = item.nodeid
