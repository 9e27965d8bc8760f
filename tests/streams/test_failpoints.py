"""Failpoints: they act where and when they were asked to, and nowhere else."""

import signal
import subprocess
import sys

import pytest

from streams.failpoints import Failpoints, Trigger, read_triggers


def test_a_place_that_nobody_named_does_nothing():
    assert Failpoints({}).hit("anywhere") is None


def test_a_failpoint_acts_at_the_hit_that_was_asked_for_and_only_then():
    points = Failpoints(read_triggers("commit=raise@3"))
    assert [points.hit("commit") for _ in range(5)] == [None, None, "raise", None, None]


def test_triggers_are_read_from_text():
    assert read_triggers("a=kill,b=stop@2") == {"a": Trigger("kill"), "b": Trigger("stop", 2)}


@pytest.mark.parametrize("text", ["a", "a=explode", "a=kill@soon"])
def test_what_is_no_trigger_is_refused(text):
    with pytest.raises(ValueError, match="DAYBOOK_FAILPOINTS"):
        read_triggers(text)


def test_kill_ends_the_process_as_sigkill_does():
    script = "from streams.failpoints import failpoint; failpoint('here')"
    ended = subprocess.run(
        [sys.executable, "-c", script], env={"DAYBOOK_FAILPOINTS": "here=kill"}, check=False, timeout=120
    )
    assert ended.returncode == -signal.SIGKILL
