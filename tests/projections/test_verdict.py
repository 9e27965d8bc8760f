"""What the judge of a rebuild says of rows that will not stand still: nothing that it did not see."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from typing import Any, cast

from projections import cart
from projections.building import Build, Course, Rebuildable
from projections.compare import Difference, Expected, digest
from projections.scratch import Scratch
from projections.store import Folded
from projections.verdict import Judge, Verdict
from projections.view import Partition
from tests.projections.shop import added, created
from tests.projections.story import TOPICS, Story

LIVE, NEXT = 1, 2
HOT = "cart/hot"


@dataclass
class Shelf:
    """Two generations as far as the log. The hot row is another in the live one each time it is looked up."""

    story: Story
    rows_by_generation: dict[int, dict[str, bytes]]
    looks: Iterator[int] = field(default_factory=count)

    async def places(
        self, view: Any, generation: int, partitions: Iterable[Partition]
    ) -> dict[Partition, int]:
        return await self.positions(partitions)

    async def positions(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        ends = self.story.ends(cart.VIEW.topics(TOPICS))
        return {partition: ends[partition] for partition in partitions}

    async def rows(self, view: Any, generation: int) -> AsyncIterator[tuple[str, bytes]]:
        for row in self.rows_by_generation[generation].items():
            yield row

    async def held(self, view: Any, generation: int, names: list[str]) -> Mapping[str, bytes | None]:
        now = {name: self.rows_by_generation[generation].get(name) for name in names}
        if generation == LIVE and HOT in names:
            now[HOT] = b"look %d" % next(self.looks)
        return now

    def rows_of(self, view: Any, folded: Folded) -> Iterable[Expected]:
        return [Expected(stream, _row(document)) for stream, document in folded.after.items()]


def _row(document: Any) -> bytes:
    return b"version %d" % document.version


def carts() -> Story:
    return Story().tell(created("hot"), added("hot", "A", 1), created("cold"))


def told(**instead: bytes) -> dict[str, bytes]:
    """What the log says of the carts."""
    rows = {HOT: b"version 2", "cart/cold": b"version 1"}
    return rows | {f"cart/{name}": row for name, row in instead.items()}


async def verdict_on(*, next_: dict[str, bytes], live: dict[str, bytes]) -> Verdict:
    story = carts()
    shelf = cast("Rebuildable", Shelf(story, {LIVE: live, NEXT: next_}))
    build = Build(cart.VIEW, tuple(cart.VIEW.topics(TOPICS)), shelf, story, Course())
    await build.catch_up()
    with closing(Scratch()) as scratch:
        return await Judge(build, NEXT, shelf, cart.VIEW, LIVE, scratch).verdict()


async def test_a_row_that_is_wrong_and_another_at_each_look_is_found_by_the_log():
    verdict = await verdict_on(next_=told(hot=b"nonsense"), live=told())
    assert verdict.wrong == (Difference(HOT, "differs", digest(b"nonsense")),)
    assert not verdict.allows("whatever it holds")


async def test_a_row_that_is_right_and_another_at_each_look_is_vouched_for_by_the_log():
    assert await verdict_on(next_=told(), live=told(hot=b"version 1")) == Verdict("log")


async def test_a_row_of_the_live_one_that_stands_still_and_is_wrong_is_named_beside_a_busy_one():
    verdict = await verdict_on(next_=told(), live=told(hot=b"version 1", cold=b"nonsense"))
    assert verdict == Verdict("log", spoilt=(Difference("cart/cold", "differs", digest(b"nonsense")),))
    assert (verdict.allows(""), verdict.allows("ticket 12")) == (False, True)


async def test_what_is_alike_throughout_needs_no_log():
    assert await verdict_on(next_=told(), live=told()) == Verdict("live")
