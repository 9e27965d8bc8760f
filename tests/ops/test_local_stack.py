"""The local stack: what it starts it ends, and nothing else; what runs elsewhere it only uses."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ops import local_stack, processes
from ops.local_stack import Addresses, AlreadyRunning, LocalStack, StackFailed
from ops.maven import JarRefused, LockedJar, fetch, read_lock
from ops.supervisor import SupervisedServer
from tests.sandbox_process import until

WITHIN_S = 60.0
NOT_ASKED_FOR = {"kafka": "127.0.0.1:1", "cassandra": "127.0.0.1:2"}


def silent(_: str) -> None:
    pass


@pytest.fixture
def redis_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalStack]:
    """A stack that is quick to start: only Redis is its own; the others are said to be elsewhere, and believed."""
    for name in NOT_ASKED_FOR:
        server = local_stack.SERVERS[name]
        believed = local_stack.Server(server.ports, server.command, lambda _: True)
        monkeypatch.setitem(local_stack.SERVERS, name, believed)
    own = LocalStack(tmp_path, NOT_ASKED_FOR)
    yield own
    own.stop()


def test_all_three_servers_answer_where_the_stack_says(stack: Addresses) -> None:
    assert local_stack.kafka_answers(stack.kafka)
    assert local_stack.cassandra_answers(stack.cassandra)
    assert local_stack.redis_answers(stack.redis)


def test_nobody_answers_where_nobody_listens() -> None:
    nobody = f"127.0.0.1:{local_stack.free_ports(1)[0]}"
    assert not local_stack.kafka_answers(nobody)
    assert not local_stack.cassandra_answers(nobody)
    assert not local_stack.redis_answers(nobody)


def test_starting_twice_is_refused_and_leaves_the_first_alone(redis_only: LocalStack) -> None:
    addresses = redis_only.start(silent)
    with pytest.raises(AlreadyRunning, match="redis"):
        redis_only.start(silent)
    assert redis_only.addresses() == addresses
    assert local_stack.redis_answers(addresses.redis)


def test_a_start_while_another_is_under_way_is_refused(redis_only: LocalStack) -> None:
    with redis_only._alone(), pytest.raises(AlreadyRunning, match="under way"):
        redis_only.start(silent)


def test_another_start_finds_the_same_ports_again(redis_only: LocalStack) -> None:
    first = redis_only.start(silent)
    redis_only.stop()
    assert redis_only.start(silent) == first


def test_ports_lie_below_the_ephemeral_ones_and_only_this_machine_is_served(redis_only: LocalStack) -> None:
    redis_only.start(silent)
    [started] = redis_only.running()
    listening = [
        c.laddr for c in psutil.Process(started.pid).net_connections() if c.status == psutil.CONN_LISTEN
    ]
    assert [address.ip for address in listening] == ["127.0.0.1"]
    assert all(address.port < 32768 for address in listening)


def test_stop_ends_what_was_started(redis_only: LocalStack) -> None:
    redis_only.start(silent)
    [started] = redis_only.running()
    assert redis_only.stop() == []
    assert not processes.alive(started)
    assert redis_only.running() == []
    assert redis_only.addresses() is None


def test_a_server_that_was_killed_is_started_again_where_it_was_and_one_that_was_stopped_is_not(
    redis_only: LocalStack,
) -> None:
    address = redis_only.start(silent).redis
    supervised = SupervisedServer("redis", redis_only)
    (first,) = redis_only.running()
    os.kill(first.pid, signal.SIGKILL)
    assert processes.wait_until_gone([first], WITHIN_S) == []
    supervised.step(time.monotonic())
    (second,) = redis_only.running()
    assert second.pid != first.pid
    until(lambda: local_stack.redis_answers(address), WITHIN_S)
    assert redis_only.ended() == []

    redis_only.stop()
    supervised.step(time.monotonic())
    assert redis_only.running() == []


def test_stop_leaves_a_stranger_alone_who_got_the_pid_of_ours(redis_only: LocalStack, tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        born = psutil.Process(stranger.pid).create_time() - 60
        processes.write_record(tmp_path / "processes.json", [processes.Started("redis", stranger.pid, born)])
        redis_only.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.communicate()


def test_a_server_that_ends_while_starting_is_named_with_its_last_words(
    redis_only: LocalStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = [sys.executable, "-c", "import sys; sys.exit('no space left')"]
    server = local_stack.Server(("PORT",), lambda home, jars, progress: dying, local_stack.redis_answers)
    monkeypatch.setitem(local_stack.SERVERS, "redis", server)
    with pytest.raises(StackFailed, match=r"(?s)redis ended while starting.*no space left"):
        redis_only.start(silent)
    assert redis_only.running() == []


def test_a_server_elsewhere_that_does_not_answer_stops_the_start(tmp_path: Path) -> None:
    nobody = f"127.0.0.1:{local_stack.free_ports(1)[0]}"
    with pytest.raises(StackFailed, match="address given by the environment"):
        LocalStack(tmp_path, dict.fromkeys(local_stack.SERVERS, nobody)).start(silent)


def test_every_locked_jar_has_a_coordinate_and_a_hash() -> None:
    for name in ("kafka", "cassandra"):
        jars = read_lock(local_stack.TEMPLATES / f"{name}.lock")
        assert len(jars) > 40
        assert all(len(jar.sha256) == 64 for jar in jars)


def test_a_jar_that_is_not_the_locked_one_never_reaches_the_class_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jar = LockedJar("org.example", "thing", "1.0", "", "0" * 64)
    torn = tmp_path / "org/example/thing/1.0/thing-1.0.jar"
    torn.parent.mkdir(parents=True)
    torn.write_bytes(b"half of it")
    monkeypatch.setattr("jgo.maven.PythonResolver.download", lambda resolver, artifact: None)
    with pytest.raises(JarRefused, match=r"org\.example:thing:1\.0"):
        fetch([jar], tmp_path, silent)
    assert not torn.exists()
