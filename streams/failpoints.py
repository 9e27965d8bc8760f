"""Places where a test may make a process die, fail or freeze: nothing unless DAYBOOK_FAILPOINTS names them."""

import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, assert_never, cast, get_args

FAILPOINTS = "DAYBOOK_FAILPOINTS"
"""For example `before_commit=kill@3,after_call=raise`: at the third time, at the first (without `@`)."""

Effect = Literal["kill", "raise", "stop"]
"""kill: SIGKILL to this process, which no handler sees; stop: SIGSTOP, until somebody sends SIGCONT; raise:
FailpointError."""


class FailpointError(Exception):
    """What a failpoint raises where `raise` was asked of it."""


@dataclass(frozen=True)
class Trigger:
    """What happens at the `hit`-th time (from 1) that the failpoint is passed, and only then."""

    effect: Effect
    hit: int = 1


class Passed(Protocol):
    """Who is asked whenever a failpoint is passed."""

    def hit(self, name: str) -> Effect | None:
        """What must happen now at `name`, if anything."""


class Failpoints:
    """Counts how often each named place was passed; safe from any thread."""

    def __init__(self, triggers: Mapping[str, Trigger]) -> None:
        self._triggers = triggers
        self._hits = dict.fromkeys(triggers, 0)
        self._lock = threading.Lock()

    def hit(self, name: str) -> Effect | None:
        """What must happen now at `name`, if anything."""
        trigger = self._triggers.get(name)
        if trigger is None:
            return None
        with self._lock:
            self._hits[name] += 1
            return trigger.effect if self._hits[name] == trigger.hit else None


def read_triggers(text: str) -> dict[str, Trigger]:
    """`a=kill,b=raise@3` as triggers by name; raises ValueError for anything else."""
    return dict(_read_trigger(part) for part in text.split(",") if part)


def _read_trigger(part: str) -> tuple[str, Trigger]:
    name, _, action = part.strip().partition("=")
    effect, _, hit = action.partition("@")
    if effect not in get_args(Effect) or (hit and not hit.isdecimal()):
        raise ValueError(f"{FAILPOINTS}: {part!r} is not NAME=kill|raise|stop[@HIT]")
    return name, Trigger(cast("Effect", effect), int(hit or 1))


_enabled: Passed = Failpoints(read_triggers(os.environ.get(FAILPOINTS, "")))


def enable(passed: Passed) -> None:
    """Ask this one from now on, instead of the environment: the simulation's."""
    global _enabled  # noqa: PLW0603  # failpoints stand everywhere, and are nobody's argument
    _enabled = passed


def failpoint(name: str) -> None:
    """Die, raise or freeze here if DAYBOOK_FAILPOINTS says so; else nothing (a dict lookup)."""
    effect = _enabled.hit(name)
    if effect is not None:
        _act(effect, name)


def _act(effect: Effect, name: str) -> None:
    match effect:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "raise":
            raise FailpointError(name)
        case _:
            assert_never(effect)
