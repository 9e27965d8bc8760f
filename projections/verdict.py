"""Is the next generation fit to go live? Compared row by row, at one position, with the live one or with the log.

The witness is the live generation: it was made by other hands, at another time. Where it has not come as far as the log (its
store was emptied, or its projections stand still), or is none of this version, the log is folded a second time instead,
beside the store; also where the two differ, to say which of them is wrong, and where a row changes too often to be compared.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from projections.building import Build, Rebuildable
from projections.compare import Difference, FoldOfLog, digest
from projections.scratch import TOGETHER, Scratch
from projections.view import Partition, View

DIFFERENCES_MAX = 1_000
"""So many are looked into; then the comparison ends."""

LOOKS = 4
"""So often a row that differs is looked at again, if it keeps changing; then the log is asked about it."""

CUT_WITHIN_S = 10.0
STANDS_STILL_S = 2.0
LOOK_AGAIN_S = 0.1


@dataclass(frozen=True)
class Verdict:
    """`wrong` is where the next generation contradicts the log, `spoilt` where the live one does and the next does not.

    `witness` is what it was compared with.
    """

    witness: Literal["live", "log", "none"]
    wrong: tuple[Difference, ...] = ()
    spoilt: tuple[Difference, ...] = ()

    def allows(self, accepted: str) -> bool:
        """What contradicts the log never goes live; what contradicts the live one does if somebody says why."""
        return not self.wrong and (not self.spoilt or bool(accepted))


class _Pair(NamedTuple):
    """What a row holds in both generations, as digests; empty where there is none."""

    next: bytes
    live: bytes


class _Compared(NamedTuple):
    """`differing` from the live generation, for good; whether it said something of every row, is `throughout`."""

    differing: list[Difference]
    throughout: bool


class _LiveFellBehind(Exception):  # it is no error
    """The live generation does not come as far as the next one any more."""


@dataclass
class Judge:
    """`shown` is the view in the version that readers are shown, `live` that version's live generation.

    Bounded: digests lie in `scratch`, and no more than DIFFERENCES_MAX rows that differ are in memory.
    """

    build: Build
    generation: int
    store: Rebuildable
    shown: View[Any]
    live: int
    scratch: Scratch

    async def verdict(self) -> Verdict:
        """Raises StoreUnavailable, KafkaException, sqlite3.Error."""
        try:
            differing, throughout = await self._against_live()
        except _LiveFellBehind:
            differing, throughout = [], False
        if throughout and not differing:
            return Verdict("live")
        wrong = await self._against_log()
        named = {one.name for one in wrong}
        spoilt = [one for one in differing if one.name not in named]
        return Verdict("live" if throughout else "log", tuple(sorted(wrong)), tuple(sorted(spoilt)))

    async def _against_live(self) -> _Compared:
        """Raises _LiveFellBehind."""
        if not await self._live_has_come():
            raise _LiveFellBehind
        await self._scan("next", self.build.view, self.generation, self._judged)
        await self._scan("live", self.shown, self.live, self._judged)
        found, throughout = list[Difference](), True
        for names in self.scratch.differing("next", "live"):
            differing, settled = await self._confirmed(names)
            found, throughout = found + differing, throughout and settled
            if len(found) >= DIFFERENCES_MAX:
                break
        return _Compared(found, throughout)

    async def _confirmed(self, names: Iterable[str]) -> _Compared:
        """A row differs for good if it is the same, in both, before and after a cut that both have passed: what was
        read before it cannot be newer, and what is read after it cannot be older. Of one that is another at each look
        nothing is known, least of all that it is right.
        """
        found: list[Difference] = []
        suspects = await self._pairs(list(names))
        for _ in range(LOOKS):
            if not suspects:
                break
            await self._pass_a_cut()
            now = await self._pairs(list(suspects))
            found += [_difference(name, *pair) for name, pair in now.items() if pair == suspects[name]]
            suspects = {name: pair for name, pair in now.items() if pair != suspects[name]}
        return _Compared(found, throughout=not suspects)

    async def _pairs(self, names: list[str]) -> dict[str, _Pair]:
        """Of these rows those that differ."""
        live = await self.store.held(self.shown, self.live, names)
        ours = await self.store.held(self.build.view, self.generation, names)
        pairs = {
            name: _Pair(*(digest(held) if held else b"" for held in self._both(name, ours[name], live[name])))
            for name in names
        }
        return {name: pair for name, pair in pairs.items() if pair.next != pair.live}

    def _both(self, name: str, *held: bytes | None) -> list[bytes | None]:
        return [content and self._judged(name, content) for content in held]

    def _judged(self, name: str, content: bytes) -> bytes | None:
        """What of a row must be the same: between versions of the view, what has not been declared to be new."""
        if self.shown.version == self.build.view.version:
            return content
        return self.store.undeclared(self.build.view, name, content)

    async def _pass_a_cut(self) -> None:
        await self.build.catch_up()
        if not await self._live_has_come():
            raise _LiveFellBehind

    async def _live_has_come(self) -> bool:
        """Whether the live one has applied all that the next one has. It is waited for as long as it moves."""
        began = moved = time.monotonic()
        before: Mapping[Partition, int] = {}
        while True:
            places = await self.store.places(self.shown, self.live, self.build.at)
            if not any(places.values()):
                return not any(self.build.at.values())
            if not await asyncio.to_thread(self._lacks, places):
                return True
            now = time.monotonic()
            moved = now if places != before else moved
            if now - moved > STANDS_STILL_S or now - began > CUT_WITHIN_S:
                return False
            before = places
            await asyncio.sleep(LOOK_AGAIN_S)

    def _lacks(self, places: Mapping[Partition, int]) -> bool:
        """Blocking. Whether there are records between where it stands and where the next one does, not marks alone."""
        return any(
            record.offset < end
            for partition, end in self.build.at.items()
            if places[partition] < end
            for batch in self.build.source.batches(partition, places[partition], end)
            for record in batch.records
        )

    async def _against_log(self) -> list[Difference]:
        """Where the next generation is not what the log says, up to where it stands. A row may have expired by now."""
        self.build.course.stage, self.build.course.rows = "reading the log again", 0
        fold = FoldOfLog(
            self.store,
            self.build.view,
            self.scratch.digests("log"),
            self.scratch.documents("expiries"),
            self.scratch.documents("documents"),
        )
        await self._fold_log(fold)
        ours = await self._scan("next", self.build.view, self.generation, lambda _name, content: content)
        now, found = time.time_ns() // 1_000, list[Difference]()
        for names in self.scratch.differing("next", "log"):
            for name in names:
                one = _difference(name, fold.digests.get(name, b""), ours.get(name, b""))
                if one.kind != "missing" or fold.expiries.get(name, now + 1) > now:
                    found.append(one)
            if len(found) >= DIFFERENCES_MAX:
                break
        return found

    async def _fold_log(self, fold: FoldOfLog) -> None:
        """To exactly where the next generation stands: a batch may hold more."""
        for partition, end in self.build.at.items():
            batches = self.build.source.batches(partition, 0, end) if end else iter(())
            while batch := await asyncio.to_thread(next, batches, None):
                fold.add([record for record in batch.records if record.offset < end])
                self.build.course.rows += len(batch.records)

    async def _scan(
        self, table: str, view: View[Any], generation: int, judged: Callable[[str, bytes], bytes | None]
    ) -> Mapping[str, bytes]:
        course, rows = self.build.course, self.scratch.digests(table)
        course.stage, course.rows, some = "comparing", 0, list[tuple[str, bytes]]()
        async for name, held in self.store.rows(view, generation):
            course.rows += 1
            if (content := judged(name, held)) is not None:
                some.append((name, digest(content)))
            if len(some) == TOGETHER:
                rows.put(some)
                some.clear()
        rows.put(some)
        return rows


def _difference(name: str, should: bytes, held: bytes) -> Difference:
    """`held` is what is judged; one of the two may be empty."""
    return Difference(name, "missing" if not held else "extra" if not should else "differs", held)
