"""A store of the read side is cut off, slow, down or emptied under the projections: nothing is skipped, others go on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from ops.faults.floor import Floor
from ops.faults.shop import Shop
from ops.faults.store_rows import cassandra_cut_off, cassandra_down_at_the_start, cassandra_slow
from ops.faults.tcp_proxy import TcpProxy
from ops.local_stack import Addresses, LocalStack


@pytest.fixture(scope="module")
def trade(stack: Addresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Floor]:
    """One shop with one worker for all tests here: each finds the log that those before it have written."""
    folder = tmp_path_factory.mktemp("trade")
    shop = Shop(stack.kafka, folder)
    floor = Floor(shop, stack, folder)
    try:
        shop.start()
        shop.answer(shop.receive_stock(10), 25)
        yield floor
    finally:
        shop.close()
        floor.clear()


@pytest.fixture
def floor(trade: Floor) -> Iterator[Floor]:
    try:
        yield trade
    finally:
        trade.end_roles()


@pytest.fixture
def cassandra(stack: Addresses) -> Iterator[TcpProxy]:
    with TcpProxy(stack.cassandra) as proxy:
        yield proxy


@pytest.fixture
def own_redis(stack: Addresses, tmp_path: Path) -> Iterator[Addresses]:
    """The servers, with a Redis that nobody else uses."""
    local = LocalStack(tmp_path / "own", {"kafka": stack.kafka, "cassandra": stack.cassandra})
    try:
        yield local.start(print)
    finally:
        local.stop()


def test_f17_while_cassandra_is_cut_off_the_other_views_go_on_and_it_catches_up(
    floor: Floor, cassandra: TcpProxy
):
    projecting = floor.start_projections(DAYBOOK_CASSANDRA=cassandra.address)
    cassandra_cut_off(floor, cassandra, projecting)


def test_f17_a_slow_cassandra_is_waited_for(floor: Floor, cassandra: TcpProxy):
    projecting = floor.start_projections(DAYBOOK_CASSANDRA=cassandra.address)
    cassandra_slow(floor, cassandra, projecting)


def test_f17_a_cassandra_that_is_down_at_the_start_is_waited_for(floor: Floor, cassandra: TcpProxy):
    cassandra_down_at_the_start(floor, cassandra)


@pytest.mark.parametrize("quiet", [True, False], ids=["quiet", "trading"])
def test_f19_a_redis_flushed_in_mid_run_is_filled_again_by_itself(
    floor: Floor, own_redis: Addresses, quiet: bool
):
    mine = floor.at(own_redis)
    projecting = mine.start_projections()
    skus = mine.skus(f"MIRROR {quiet}", 50)
    mine.deliver(skus)
    assert mine.view_errors() == []

    host, _, port = own_redis.redis.rpartition(":")
    with redis.Redis(host=host, port=int(port)) as emptied:
        assert emptied.dbsize() > 0
        emptied.flushall()
    if not quiet:
        mine.deliver(skus)

    mine.await_sellable(skus[-1], 1 if quiet else 2)
    assert mine.view_errors() == []
    assert projecting.lives
