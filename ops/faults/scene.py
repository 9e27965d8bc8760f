"""A scene: what one row of the matrix has to play with, and what it notes down for the report."""

import gc
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from ops.audit.breaches import HOLDS
from ops.demo.progress import Teller
from ops.demo.stage import settings_of, staged
from ops.faults.callers import Callers, Habits, Reply, Street, flood, open_shop
from ops.faults.checkers import Books, examine
from ops.faults.floor import Floor
from ops.faults.history import History
from ops.faults.house import House, mb_max
from ops.faults.shop import CHECKED, Shop
from ops.faults.verdict import CLOCK, RowIsRed, demand, until
from ops.local_stack import Addresses, LocalStack
from ops.settings import Settings

GREEN_WITHIN_S = 60.0
TRADE_WITHIN_S = 60.0
CATCH_UP_S = 10.0
"""So long after all is green again what had waited for it may still be late."""
USUAL = Habits()


class Stage:
    """Servers for all rows, and one Daybook that is brought up when a row first wants it; all ends with `close`.

    Shops use the servers that the environment names, if it names all three; a Daybook that is to be killed has its own.
    """

    def __init__(self, around: Settings, teller: Teller) -> None:
        self.teller = teller
        self._around = around
        self._ends = ExitStack()
        self._house: House | None = None
        self.history = History()
        self.away_s = 0.0
        """The longest that anything was away on the present Daybook: a deadline waits for who keeps it."""

    @cached_property
    def folder(self) -> Path:
        """For state and logs of processes that belong to one row; gone at the end."""
        return Path(self._ends.enter_context(TemporaryDirectory(prefix="daybook-faults-")))

    @property
    def house(self) -> House:
        if self._house is None:
            wanted = settings_of(replace(self._around, kafka="", cassandra="", redis=""), "faults")
            ready = self._ends.enter_context(staged(wanted, self.teller, keep=False))
            self._house = House(ready, self.teller.update)
            self.history, self.away_s = History(), 0.0
            gc.collect()  # clients of the preparation would complain on standard error of a broker that is killed
            open_shop(Street.at(ready.api, ready.jwks, self.history, USUAL))
        return self._house

    @property
    def servers(self) -> Addresses:
        around = self._around
        if around.kafka and around.cassandra and around.redis:
            return Addresses(around.kafka, around.cassandra, around.redis)
        found = self.house.settings
        return Addresses(found.kafka, found.cassandra, found.redis)

    def set_logs_aside(self, row: str) -> Path:
        """What every process said while a row turned red, for whoever looks into it; the last time's are gone."""
        kept = self._around.home / "faults" / "red" / row
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        places = [self.folder, *([self._house.settings.home] if self._house else [])]
        for log in (found for place in places for found in _logs_below(place)):
            shutil.copyfile(log, kept / "-".join(log.parts[-2:]))
        return kept

    def close(self) -> None:
        self._ends.close()
        self._house = None
        self._ends = ExitStack()
        self.__dict__.pop("folder", None)


def _logs_below(place: Path) -> Iterator[Path]:
    """What processes say, not what they keep: Kafka's segments are called logs too, and go while we look."""
    for folder, below, files in os.walk(place):
        below[:] = [name for name in below if name not in ("data", "state", "red")]
        yield from (Path(folder) / name for name in files if name.endswith(".log"))


@dataclass
class Scene:
    """What one row has: shops of its own, floors, the Daybook, callers; `seed` decides what they do."""

    stage: Stage
    seed: int
    late: list[str] = field(default_factory=list)
    """What took longer than it may, and was excused."""
    injected: list[str] = field(default_factory=list)
    checkers: set[str] = field(default_factory=set)
    green_s: float | None = None
    figures: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)  # noqa: S311  # chooses faults, keeps no secret
        self._injected_at = time.monotonic()
        self._since: float | None = None

    def say(self, message: str) -> None:
        self.stage.teller.update(message)

    def inject(self, what: str) -> None:
        self.injected.append(what)
        self._injected_at = time.monotonic()
        self.heal()
        self.stage.teller.say(f"    {what}")

    def heal(self) -> None:
        """From here on it is measured how long it takes until all is green; who does not heal counts from the fault."""
        self._since = time.monotonic()

    def all_is_well(self) -> float:
        """Seconds since the heal, or since the fault where nobody heals; counted once, and the slowest is told."""
        took = 0.0 if self._since is None else time.monotonic() - self._since
        if self._since is not None:
            self._since = None
            self.green_s = round(max(took, self.green_s or 0.0), 1)
        return took

    def checked(self, *names: str) -> None:
        self.checkers.update(names)

    # One aggregate's worth of trade.

    @contextmanager
    def shop(self, kafka: str = "", *, lawful: bool = True) -> Iterator[Shop]:
        """Topics of its own; at the end the law book must hold, unless the row itself broke it."""
        folder = self.stage.folder / f"shop-{time.time_ns()}"
        folder.mkdir()
        shop = Shop(kafka or self.stage.servers.kafka, folder)
        try:
            yield shop
            self.all_is_well()
            if lawful:
                broken = shop.laws()
                demand(not broken, f"laws: {broken}")
                self.checked(*CHECKED)
        finally:
            shop.close()

    @contextmanager
    def floor(self, *, lawful: bool = True) -> Iterator[Floor]:
        """A shop with its read side."""
        with self.shop(lawful=lawful) as shop:
            floor = Floor(shop, self.stage.servers, shop.folder)
            try:
                yield floor
                self.all_is_well()
            finally:
                floor.clear()

    @contextmanager
    def broker(self) -> Iterator[LocalStack]:
        """A Kafka that only this row uses; its data go with it."""
        others = {"cassandra": self.stage.servers.cassandra, "redis": self.stage.servers.redis}
        stack = LocalStack(self.stage.folder / f"broker-{time.time_ns()}", others)
        try:
            yield stack
        finally:
            stack.stop()
            shutil.rmtree(stack.root, ignore_errors=True)

    # A whole Daybook.

    @property
    def house(self) -> House:
        return self.stage.house

    @contextmanager
    def trading(self, habits: Habits = USUAL) -> Iterator[History]:
        """While callers trade over HTTP; at the end they have all been answered, or have given up."""
        house = self.house
        history = self.stage.history
        street = Street.at(house.settings.api, house.settings.jwks, history, habits)
        with Callers(street, self.random.getrandbits(32)):
            yield history

    def flood(self, count: int) -> list[Reply]:
        """So many writes at once, and what each was told."""
        settings = self.house.settings
        return flood(Street.at(settings.api, settings.jwks, self.stage.history, USUAL), count)

    def trade_on(self, writes: int = 60, within_s: float = TRADE_WITHIN_S) -> None:
        """Until so many more writes were answered."""
        history = self.stage.history
        before = _answered(history)
        self.house.weigh()
        what = f"{writes} more writes"
        until(lambda: _answered(history) - before >= writes, within_s, what, self.say)
        self.house.weigh()

    def await_within(self, what: str, holds: Callable[[], object], within_s: float) -> float:
        """Seconds until it holds; red when it is later than the machine excuses."""
        took = until(holds, within_s, what, self.say)
        self._bound(what, took, within_s)
        return took

    def _bound(self, what: str, took: float, within_s: float) -> None:
        if took > within_s:
            self.late.append(f"{what} after {took:.1f} s, which must be {within_s:.0f}")

    def wait(self, seconds: float) -> None:
        """A fault lasts so long, by the clock: nothing else says when it has lasted long enough."""
        ends_at = time.monotonic() + seconds
        while (rest := ends_at - time.monotonic()) > 0:
            self.say(f"{self.injected[-1]}: {rest:.0f} s more")
            time.sleep(min(2.0, rest))

    def await_green(self, within_s: float = GREEN_WITHIN_S) -> None:
        """Since the heal, or the fault where nobody heals; the slowest counts."""
        self.house.await_green(within_s)
        self.stage.away_s = max(self.stage.away_s, time.monotonic() - self._injected_at)
        self._bound("all green", self.all_is_well(), within_s)

    @property
    def _catch_up_s(self) -> float:
        return CATCH_UP_S * CLOCK.patience

    def judge(self, skip: Sequence[str] = ()) -> None:
        """The Daybook at rest against all that callers were told since it was brought up."""
        self.all_is_well()
        self.house.await_quiet()
        books = Books(
            self.house.side, self.stage.history, self.house.ledger, self.stage.away_s + self._catch_up_s
        )
        found = examine(books, self.say, skip)
        self.figures |= {"told": self.stage.history.counts(), "decided": found.decided}
        self.figures |= {"rss_mb_max": self.house.heaviest()}
        broken = {name: said for name, said in found.verdicts.items() if said != HOLDS}
        if broken:
            raise RowIsRed("; ".join(f"{name}: {said}" for name, said in broken.items()))
        self.checked(*found.verdicts)
        heavy = {name: mb for name, mb in self.house.heaviest().items() if mb > mb_max(name)}
        demand(not heavy, f"heavier than they may be: {heavy}")


def _answered(history: History) -> int:
    return sum(told.outcome == "ok" for told in history.commands.copy().values())


Play = Callable[[Scene], None]


@dataclass(frozen=True)
class Row:
    """One row of the matrix; `optional` where a kernel may lack the means, so that it may be not shown."""

    name: str
    sentence: str
    play: Play
    optional: bool = False
