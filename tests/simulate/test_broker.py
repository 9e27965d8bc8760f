"""The in-memory Kafka keeps the promises, and has the weaknesses, of the real one."""

from random import Random

import pytest
from confluent_kafka import KafkaException

from ops.simulate.broker import Broker, Member, Membership
from ops.simulate.clockwork import START, Clock, Process
from schemas.meta import SECOND
from schemas.topics import Topics

PLACE = ("sim.events.cart", 0)
COMMANDS = ("sim.commands.cart", 0)
SECOND_RECORD = [(b"k", b"second", ())]
RECORD = [(b"k", b"first", ())]


@pytest.fixture
def broker() -> Broker:
    return Broker(Clock(), Random(1), Topics("sim", 2))


def pass_time(broker: Broker, seconds: float) -> None:
    broker.clock.run_until(int(broker.clock.now + seconds * SECOND))


def committed(broker: Broker) -> list[bytes | None]:
    return [entry.value for _, _, entry in broker.committed_entries(PLACE[0])]


def test_an_open_transaction_hides_what_stands_behind_it(broker: Broker):
    epoch = broker.register("worker")
    broker.produce("worker", epoch, PLACE, RECORD)
    broker.append(PLACE, SECOND_RECORD)
    assert (broker.logs[PLACE].stable, broker.logs[PLACE].high) == (0, 2)
    assert committed(broker) == []


def test_a_marker_is_a_hole_that_ends_the_wait(broker: Broker):
    epoch = broker.register("worker")
    broker.produce("worker", epoch, PLACE, RECORD)
    broker.end("worker", epoch, "committed")
    pass_time(broker, 1)
    assert (broker.logs[PLACE].stable, broker.logs[PLACE].high) == (2, 2)
    assert committed(broker) == [b"first"]


def test_what_was_aborted_is_never_seen(broker: Broker):
    epoch = broker.register("worker")
    broker.produce("worker", epoch, PLACE, RECORD)
    broker.end("worker", epoch, "aborted")
    pass_time(broker, 1)
    assert committed(broker) == []


def test_a_successor_fences_its_predecessor_and_aborts_its_transaction(broker: Broker):
    old = broker.register("worker")
    broker.produce("worker", old, PLACE, RECORD)
    broker.register("worker")
    with pytest.raises(KafkaException) as refused:
        broker.end("worker", old, "committed")
    assert refused.value.args[0].fatal()
    pass_time(broker, 1)
    assert committed(broker) == []


def test_an_end_that_comes_late_ends_the_next_transaction(broker: Broker):
    epoch = broker.register("worker")
    broker.produce("worker", epoch, PLACE, RECORD)
    broker.end("worker", epoch, "committed")
    pass_time(broker, 1)
    broker.produce("worker", epoch, PLACE, SECOND_RECORD)
    broker.end("worker", epoch, "committed")  # the first one's, sent again
    pass_time(broker, 1)
    assert committed(broker) == [b"first", b"second"]


def test_a_transaction_that_is_open_for_too_long_is_given_up(broker: Broker):
    epoch = broker.register("worker")
    broker.produce("worker", epoch, PLACE, RECORD)
    pass_time(broker, 7)
    with pytest.raises(KafkaException):
        broker.end("worker", epoch, "committed")
    assert broker.logs[PLACE].stable == broker.logs[PLACE].high


def test_offsets_of_an_open_transaction_keep_a_careful_reader_waiting(broker: Broker):
    epoch = broker.register("worker")
    group = broker.groups["workers"]
    process = Process(broker.clock, "worker")
    member = Member("m", "", ["sim.commands.cart"], process, lambda: None, START)
    broker.join("workers", member)
    broker.send_offsets(
        "worker", epoch, Membership("workers", "m", "", group.generation), {COMMANDS: (5, "b")}
    )
    with pytest.raises(KafkaException):
        broker.committed("workers", [COMMANDS], stable=True)
    assert broker.committed("workers", [COMMANDS], stable=False) == {COMMANDS: (-1001, "")}
    broker.end("worker", epoch, "committed")
    pass_time(broker, 1)
    assert broker.committed("workers", [COMMANDS], stable=True) == {COMMANDS: (5, "b")}
