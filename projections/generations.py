"""The generations of a view beside the live one: which is being built, which can be brought back, which are to go.

    nothing ──begun──► building ──switched──► previous ──begun──► building, and the previous one is doomed
                          │                       │
                          └─ given up: doomed      └─ brought back: it is live, and the one it replaced is previous

Each arrow is one write to the view's own store; those that change what is live are the same write as that. So whoever
is killed between two of them finds out from the store alone where to go on.
"""

import asyncio
import secrets
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, Self

import orjson

from projections.view import Partition, View

FIRST_MAX = 1_000_000
GRACE_S = 2.0
"""Readers may believe in a generation for a second after it was live; so long it is not dropped."""


def first_generation() -> int:
    """The number that the first generation of a view gets, by chance.

    A store may be emptied while a write is on its way to it, or between a batch's rows and its documents. A document
    that came after that would hide that its rows are gone. It belongs to a generation that nobody reads any more.
    """
    return 1 + secrets.randbelow(FIRST_MAX)


@dataclass(frozen=True, slots=True)
class Succession:
    """Generations by number, 0 is none. There are never two of `building` and `previous`, so at most two beside what
    is `doomed`: given up, and to be dropped before anything else is done.

    `since` is when the live one was switched to (micros), `accepted` why, where it differed from the one before it.
    `turn` counts the changes, and begins behind every number that a generation had before there were any.
    """

    turn: int = 0
    building: int = 0
    previous: int = 0
    doomed: tuple[int, ...] = ()
    since: int = 0
    accepted: str = ""

    def begun(self, generation: int) -> Self:
        """What was being built, and what could be brought back, is given up for it."""
        return self._next(
            building=generation, previous=0, doomed=self._and_doomed(self.building, self.previous)
        )

    def given_up(self) -> Self:
        return self._next(building=0, doomed=self._and_doomed(self.building))

    def switched(self, before: int, *, accepted: str = "", keep: bool = True) -> Self:
        """What was live before is kept, unless there is nothing in it."""
        doomed = self.doomed if keep else self._and_doomed(before)
        previous = before if keep else 0
        return self._next(building=0, previous=previous, doomed=doomed, since=_now(), accepted=accepted)

    def cleared(self) -> Self:
        return self._next(doomed=())

    def _and_doomed(self, *generations: int) -> tuple[int, ...]:
        return (*self.doomed, *(one for one in generations if one))

    def _next(self, **changes: Any) -> Self:
        return replace(self, turn=self.turn + 1, **changes)

    def dump(self) -> bytes:
        return orjson.dumps(asdict(self))

    @classmethod
    def load(cls, json: bytes | str) -> Self:
        fields = orjson.loads(json)
        return cls(**fields | {"doomed": tuple(fields["doomed"])})


class Generations(Protocol):
    """What a store knows of a view's generations. All raise StoreUnavailable."""

    async def live(self, view: Any) -> int:
        """The generation that is written; one begins where there is none."""

    async def next_generation(self, view: Any) -> int:
        """A number that no generation had before."""

    async def succession(self, view: Any) -> Succession: ...

    async def keep(self, view: Any, succession: Succession) -> None: ...

    async def switch(
        self, view: Any, generation: int, partitions: Iterable[Partition], then: Succession
    ) -> bool:
        """Make it the live one and keep what is so `then`, in one step, unless the live one is further in any of these
        partitions: then nothing is done.
        """

    async def drop(self, view: Any, generation: int) -> None: ...


async def begun(store: Generations, view: View[Any], *, anew: bool) -> Succession:
    """As it is with a generation that is being built: the one that was begun and never went live, else a new one."""
    await _give_up_older(store, view)
    found = await settled(store, view)
    if found.building and not anew:
        return found
    await store.keep(view, found.begun(await store.next_generation(view)))
    return await settled(store, view)


async def settled(store: Generations, view: View[Any]) -> Succession:
    """As it is once what was given up is gone."""
    found = await store.succession(view)
    if not found.doomed:
        return found
    await asyncio.sleep(max(0.0, GRACE_S - (_now() - found.since) / 1e6))
    for generation in found.doomed:
        await store.drop(view, generation)
    await store.keep(view, found.cleared())
    return found.cleared()


async def _give_up_older(store: Generations, view: View[Any]) -> None:
    """What was begun for an older version of the view is of no use to this one."""
    for version in range(1, view.version):
        older = replace(view, version=version)
        found = await store.succession(older)
        if found.building:
            await store.keep(older, found.given_up())
        await settled(store, older)


def _now() -> int:
    return time.time_ns() // 1_000
