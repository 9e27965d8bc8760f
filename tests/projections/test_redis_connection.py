"""The connection that all callers share: answers in order, broken ones opened again, silence bounded."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from ops.local_stack import Addresses
from projections.redis_connection import RedisConnection, UnknownScript
from projections.view import StoreUnavailable


@pytest.fixture
async def connection(stack: Addresses) -> AsyncIterator[RedisConnection]:
    connection = RedisConnection(stack.redis, 5)
    yield connection
    await connection.close()


async def test_each_of_many_callers_gets_its_own_answers(connection: RedisConnection) -> None:
    answers = await asyncio.gather(*(connection.ask([("ECHO", n), ("ECHO", -n)]) for n in range(500)))
    assert answers == [[b"%d" % n, b"%d" % -n] for n in range(500)]


async def test_a_caller_that_leaves_does_not_shift_the_answers_of_others(connection: RedisConnection) -> None:
    await connection.ask([("PING",)])
    leaving = asyncio.create_task(connection.ask([("ECHO", "mine")]))
    staying = asyncio.create_task(connection.ask([("ECHO", "yours")]))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == [b"yours"]


async def test_a_connection_that_the_server_closed_is_opened_again(connection: RedisConnection) -> None:
    (number,) = await connection.ask([("CLIENT", "ID")])
    other = RedisConnection(f"{connection._host}:{connection._port}", 5)
    await other.ask([("CLIENT", "KILL", "ID", number)])
    await other.close()
    (another,) = await connection.ask([("CLIENT", "ID")])
    assert another > number


async def test_one_error_among_the_answers_is_raised_and_the_connection_lives(
    connection: RedisConnection,
) -> None:
    with pytest.raises(StoreUnavailable, match="unknown command"):
        await connection.ask([("PING",), ("NONSENSE",), ("PING",)])
    with pytest.raises(UnknownScript):
        await connection.ask([("EVALSHA", "0" * 40, 0)])
    assert await connection.ask([("PING",)]) == [b"PONG"]


async def test_a_server_that_says_nothing_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = RedisConnection(f"127.0.0.1:{server.getsockname()[1]}", 0.05)
        with pytest.raises(StoreUnavailable, match="did not answer"):
            await connection.ask([("PING",)])
        await connection.close()
