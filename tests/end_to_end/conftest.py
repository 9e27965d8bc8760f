"""One whole Daybook for all stories: every role a process under a supervisor, on the real servers."""

import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from ops import settings
from ops.clearing import clear
from ops.demo.frontend import Frontend, open_session
from ops.local_stack import HOST, Addresses, free_ports
from ops.running import bring_up, take_down
from ops.settings import Settings
from tests.end_to_end.shop import Shop


@pytest.fixture(scope="package")
def daybook(stack: Addresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    name = uuid.uuid4().hex[:8]
    api, provider = free_ports(2)
    wanted = replace(
        settings.from_environment({}).at(stack),
        home=tmp_path_factory.mktemp("daybook"),
        api=f"{HOST}:{api}",
        provider=f"http://{HOST}:{provider}",
        topic_prefix=f"story-{name}",
        keyspace=f"story_{name}",
    )
    try:
        yield bring_up(wanted, print)
    finally:
        take_down(wanted, print)
        clear(wanted)


@pytest.fixture
async def shop(daybook: Settings) -> AsyncIterator[Shop]:
    async with open_session() as session:
        yield Shop(Frontend(session, daybook.api), daybook.jwks)
