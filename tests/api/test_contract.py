"""What the API's document promises holds, whatever is sent, by whomever and in whatever order; also with a store down."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import schemathesis
from schemathesis import BaseSchema

from ops.faults.kafka_proxy import ApiKey, Held, KafkaProxy
from ops.faults.tcp_proxy import TcpProxy
from ops.settings import REPOSITORY, Settings
from tests.api.contract import (
    FORGER,
    NOBODY,
    Asked,
    Contract,
    ask_all,
    credentials,
    examples_of_all,
    first_example,
    opened,
    rightful,
    stock_the_shelf,
    takes_nothing,
    walk,
)
from tests.api.promises import AT_ONCE_S, KEPT, AnyCase, is_served, is_served_or_asked_to_come_again
from tests.api.test_process import Process, free_port, until
from tests.end_to_end.conftest import daybook  # noqa: F401  # a whole Daybook is the same here as there

EXAMPLES = 200
IN_VAIN = 12
"""Requests at a time to an API that waits for a store that is down."""


say = sys.stdout.write


@pytest.fixture(scope="module")
def contract(daybook: Settings, tmp_path_factory: pytest.TempPathFactory) -> Contract:  # noqa: F811  # the fixture
    elsewhere = tmp_path_factory.mktemp("forger") / "jwks.json"
    who = credentials(daybook.jwks, daybook.webhook_secrets, elsewhere)
    contract = opened(f"http://{daybook.api}", who, patient=True)
    stock_the_shelf(contract)
    return contract


def test_every_operation_keeps_its_promises(contract: Contract):
    ask_all(contract, examples_of_all(contract, 4, seeded=True), [*KEPT, is_served])

    assert contract.seen["POST /v1/carts", 201]


def test_a_shop_is_walked_by_the_links_of_the_document(contract: Contract):
    walk(contract, 3, 10, [*KEPT, is_served], seeded=True)

    assert contract.seen["POST /v1/carts", 201]


def test_a_write_without_a_key_is_a_400(contract: Contract):
    for case in map(first_example, contract.writes()):
        case.headers.pop("Idempotency-Key", None)
        answered = contract.ask(case, rightful(case.operation))
        assert (answered.status_code, answered.json()["type"]) == (400, "/problems/idempotency-key-missing")


def test_who_is_nobody_or_a_forger_is_turned_away(contract: Contract):
    guarded = [one for one in contract.operations() if one.definition.raw.get("security")]
    for case in map(first_example, guarded):
        assert [contract.ask(case, who).status_code for who in (NOBODY, FORGER)] == [401, 401]


@pytest.fixture(scope="module")
def examples(contract: Contract) -> list[Asked]:
    """Made once, for they are asked of every API again."""
    return examples_of_all(contract, EXAMPLES)


@pytest.mark.deep
def test_every_operation_keeps_its_promises_in_200_examples(contract: Contract, examples: list[Asked]):
    ask_all(contract, examples, [*KEPT, is_served])

    say(f"{contract.table()}\n")
    for operation in contract.operations():
        assert contract.tried(operation) >= (1 if takes_nothing(operation) else EXAMPLES), operation.label


@pytest.mark.deep
def test_a_hundred_walks_find_no_way_out_of_the_document(contract: Contract):
    walk(contract, 100, 30, [*KEPT, is_served], seeded=False)

    say(f"{contract.table()}\n")
    for operation, status in [
        ("POST /v1/carts/{cart_id}/items", 200),
        ("POST /v1/carts/{cart_id}/checkout", 201),
        ("GET /v1/orders/{order_id}", 200),
        ("POST /v1/orders/{order_id}/cancellation", 200),
    ]:
        assert contract.seen[operation, status], operation


@pytest.fixture
def document(contract: Contract) -> BaseSchema:
    return contract.schema


@pytest.mark.deep
@schemathesis.pytest.from_fixture("document").parametrize()
def test_every_boundary_of_the_document_is_kept(contract: Contract, case: AnyCase):
    contract.hold(case, contract.ask(case, rightful(case.operation)), [*KEPT, is_served])


# A store is down.


class Store:
    """Between an API and one of its stores: it can be cut off, and it can fall silent."""

    def __init__(self, name: str, server: str, ends: ExitStack) -> None:
        self.name = name
        self._own = ends.enter_context(ExitStack())
        proxy: KafkaProxy | TcpProxy = KafkaProxy(server) if name == "kafka" else TcpProxy(server)
        self._own.enter_context(proxy)
        self._proxy = proxy

    @property
    def address(self) -> str:
        return self._proxy.address

    def cut(self) -> None:
        self._own.close()

    def fall_silent(self) -> None:
        if isinstance(self._proxy, TcpProxy):
            self._proxy.stall(3_600)
        else:
            for _ in range(5_000):
                self._proxy.add(Held(ApiKey.PRODUCE))


@contextmanager
def window_on(daybook: Settings, store: Store, folder: Path) -> Iterator[str]:  # noqa: F811  # the fixture
    """An API process of its own, which reaches one store through ours."""
    address = f"127.0.0.1:{free_port()}"
    own = {f"DAYBOOK_{store.name.upper()}": store.address, "DAYBOOK_API": address, "DAYBOOK_RUN": str(folder)}
    popen = subprocess.Popen(
        [sys.executable, "-m", "api.main"],
        cwd=REPOSITORY,
        env={**os.environ, **daybook.environment("api"), **own},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    process = Process(popen, f"http://{address}", folder)
    try:
        until(lambda: process.status_of("/health/ready") == 200 and all(process.parts().values()))
        yield process.url
        assert popen.poll() is None, "it ended"
    finally:
        popen.kill()
        popen.wait()


NEEDED_BY = {
    "kafka": "POST /v1/carts",
    "redis": "GET /v1/products/{sku}",
    "cassandra": "GET /v1/orders/{order_id}",
}


@pytest.mark.deep
@pytest.mark.parametrize("fault", [Store.cut, Store.fall_silent])
@pytest.mark.parametrize("name", NEEDED_BY)
def test_while_a_store_is_down_it_is_503_at_once_and_nothing_worse(
    daybook: Settings,  # noqa: F811  # the fixture
    contract: Contract,
    examples: list[Asked],
    tmp_path: Path,
    name: str,
    fault: Callable[[Store], None],
):
    with ExitStack() as ends:
        store = Store(name, getattr(daybook, name), ends)
        url = ends.enter_context(window_on(daybook, store, tmp_path))
        blind = opened(url, contract.who, patient=False)
        fault(store)
        took_s = ask_all(blind, examples, [*KEPT, is_served_or_asked_to_come_again], IN_VAIN)

    in_time = sum(one <= AT_ONCE_S for one in took_s) / len(took_s)
    say(
        f"{blind.table()}\n{len(took_s)} asked, slowest {max(took_s):.2f} s, {in_time:.2%} within {AT_ONCE_S} s\n"
    )
    assert blind.seen[NEEDED_BY[name], 503]
    assert in_time >= 0.99
