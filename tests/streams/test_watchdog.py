"""The watchdog barks at what must turn and does not, and at nothing else."""

import threading

from streams.watchdog import Watchdog


def test_it_barks_when_something_has_not_turned_for_too_long():
    barked = threading.Event()
    dog = Watchdog(limit_s=0.05, bark=barked.set)
    dog.turned("loop")
    dog.start()
    assert barked.wait(60)
    assert dog.stuck() == ["loop"]


def test_what_turns_is_left_alone_and_so_is_what_rests():
    dog = Watchdog(limit_s=60)
    dog.turned("loop")
    with dog.working("agent"):
        pass
    assert dog.stuck() == []


def test_what_rests_owes_nothing():
    dog = Watchdog(limit_s=0)
    dog.turned("agent")
    dog.rests("agent")
    assert dog.stuck() == []
