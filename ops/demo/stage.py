"""The Daybook that a demo, or another verb, has for itself: a home of its own, an empty log at the start, nothing left at the end."""

import fcntl
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from ops.brokers import COPIES, Brokers, three_brokers
from ops.clearing import clear
from ops.demo.progress import Teller
from ops.local_stack import HOST, SERVERS, free_ports
from ops.running import RunsAlready, bring_up, running_supervisor, take_down
from ops.settings import Settings
from schemas.topics import Topics
from streams.topic_admin import ensure_topics


def settings_of(around: Settings, verb: str = "demo") -> Settings:
    """Below the home of the Daybook that `up` starts, and beside it: other ports, other topics, other tables.

    Servers that the environment names are somebody's: there the names are this verb's own, and it takes them away.
    """
    api, provider = free_ports(2)
    own = replace(around, home=around.home / verb, api=f"{HOST}:{api}", provider=f"http://{HOST}:{provider}")
    if not (own.kafka or own.cassandra or own.redis):
        return own
    stamp = f"{time.time_ns() // 1_000_000:x}"
    return replace(own, topic_prefix=f"{verb}-{stamp}", keyspace=f"{verb}_{stamp}")


@contextmanager
def staged(wanted: Settings, teller: Teller, *, keep: bool, brief: bool = True) -> Iterator[Settings]:
    """A running Daybook with nothing in it. With `keep` it is left running, unless something went wrong; a `brief` one
    is made for minutes.

    Raises RunsAlready, StackFailed.
    """
    with _alone(wanted):
        take_down(wanted, teller.update)  # servers that outlived a demo that was killed
        _wipe(wanted)
        finished = False
        try:
            yield bring_up(wanted, teller.update, brief=brief)
            finished = True
        finally:
            if not (keep and finished):
                take_down(wanted, teller.update)
                clear(wanted)


@contextmanager
def on_three_brokers(wanted: Settings, teller: Teller) -> Iterator[tuple[Settings, Brokers]]:
    """A cluster for this stage, with all topics in three copies before anybody makes them in one.

    Raises StackFailed, WrongTopicsError, KafkaException.
    """
    with three_brokers(wanted.home / "brokers", teller.update) as brokers:
        ensure_topics(brokers.addresses, Topics(wanted.topic_prefix, wanted.partitions), COPIES)
        yield replace(wanted, kafka=brokers.addresses), brokers


@contextmanager
def _alone(wanted: Settings) -> Iterator[None]:
    """One at a time; the lock ends with its holder, however it ends."""
    wanted.home.mkdir(parents=True, exist_ok=True)
    with (wanted.home / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunsAlready(f"another {wanted.home.name} is under way") from None
        if running_supervisor(wanted):
            last = f"the last {wanted.home.name}'s Daybook"
            raise RunsAlready(f"{last} still runs; stop it with: {how_to(wanted, 'down')}")
        yield


def how_to(wanted: Settings, verb: str) -> str:
    return f"DAYBOOK_HOME={wanted.home} ./daybook {verb}"


def _wipe(wanted: Settings) -> None:
    """What earlier runs left on disk, save the ports and keys, which may stay the same."""
    for name in SERVERS:
        shutil.rmtree(wanted.stack / name / "data", ignore_errors=True)
    for folder in (wanted.home / "state", wanted.logs, wanted.run):
        shutil.rmtree(folder, ignore_errors=True)
