"""What callers were told: every request with its answer, and what each write's sender may believe in the end."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Outcome: TypeAlias = Literal["ok", "fail", "unknown"]

ANSWERED_WITHIN_S = 1.0
BY_RECEIPT = "after a receipt of"
UNSENT = frozenset({"not-ready", "overloaded"})
"""Problems that promise: nothing was sent."""

SERVER_ERROR, UNAVAILABLE = 500, 503


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request: `at_s` on the monotonic clock, `status` 0 where no answer came, `retry_after` as the header says."""

    route: str
    at_s: float
    took_s: float
    status: int
    retry_after: bool = False

    @property
    def is_read(self) -> bool:
        return self.route.startswith("GET ")

    @property
    def in_time(self) -> bool:
        return 0 < self.status < SERVER_ERROR and self.took_s <= ANSWERED_WITHIN_S

    @property
    def is_good(self) -> bool:
        """A read that was answered in time, a write that was answered or refused as it may be."""
        return self.in_time if self.is_read else self.status > 0 and self.fails_as_it_may

    @property
    def fails_as_it_may(self) -> bool:
        """A write that was not answered: only as 503 with Retry-After."""
        return self.status < SERVER_ERROR or (self.status == UNAVAILABLE and self.retry_after)


@dataclass(slots=True)
class Told:
    """What one command's sender was told so far; `positions` (`stream@version`) are its receipt's."""

    command_id: str
    route: str
    outcome: Outcome = "unknown"
    positions: tuple[str, ...] = ()
    doubtful: bool = False
    """Some attempt may have been sent, and nobody said what became of it."""

    def accept(self, positions: Iterable[str]) -> None:
        self.outcome, self.positions = "ok", tuple(positions)

    def refuse(self, *, by_writer: bool) -> None:
        """Not accepted; what no writer said speaks of this attempt only."""
        if self.outcome == "ok":
            return
        if by_writer or not self.doubtful:
            self.outcome = "fail"

    def doubt(self) -> None:
        if self.outcome != "ok":
            self.outcome, self.doubtful = "unknown", True


@dataclass(slots=True)
class History:
    """Written by the callers' one thread; read when they have ended."""

    attempts: list[Attempt] = field(default_factory=list)
    commands: dict[str, Told] = field(default_factory=dict)
    backwards: list[str] = field(default_factory=list)
    """Where a caller saw time run backwards, or did not see what he had written."""

    def excuse(self, since: int) -> None:
        """Of what was noted from there on: a store that lost its latest shows less until it is posted again.

        Who came with a receipt is promised what he wrote even then.
        """
        self.backwards[since:] = [one for one in self.backwards[since:] if BY_RECEIPT in one]

    def told(self, command_id: str, route: str) -> Told:
        return self.commands.setdefault(command_id, Told(command_id, route))

    def of(self, outcome: Outcome) -> Iterator[Told]:
        return (told for told in self.commands.values() if told.outcome == outcome)

    def acknowledged(self) -> list[str]:
        return [position for told in self.of("ok") for position in told.positions]

    def counts(self) -> dict[str, int]:
        return dict(Counter(told.outcome for told in self.commands.values()))


@dataclass(frozen=True, slots=True)
class Outage:
    """While it lasted (monotonic seconds), reads of these routes could not be answered."""

    from_s: float
    to_s: float
    routes: Collection[str]

    def covers(self, attempt: Attempt) -> bool:
        return (
            self.from_s <= attempt.at_s + attempt.took_s and attempt.at_s <= self.to_s and self._hits(attempt)
        )

    def _hits(self, attempt: Attempt) -> bool:
        return "*" in self.routes or attempt.route in self.routes


@dataclass(slots=True)
class Share:
    """Of one route: how many requests there were, and how many were answered as they should."""

    requests: int = 0
    good: int = 0

    @property
    def share(self) -> float:
        return self.good / self.requests if self.requests else 1.0


def shares(attempts: Iterable[Attempt], outages: Collection[Outage] = ()) -> dict[str, Share]:
    """By route: of reads those that were answered within a second, where their part was not broken on purpose; of
    writes those that were answered, or refused by 503 with Retry-After.
    """
    found: dict[str, Share] = defaultdict(Share)
    for attempt in attempts:
        if any(outage.covers(attempt) for outage in outages):
            continue
        share = found[attempt.route]
        share.requests += 1
        share.good += attempt.is_good
    return dict(sorted(found.items()))
