"""The past of a stock item: what had happened by then, and what was known by then, equals the fold of its history."""

from itertools import accumulate
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projections import ledger
from projections.as_of import Cutoff, Standing, standing
from projections.history import EVER
from schemas.meta import DAY, MINUTE
from tests.projections.a_ledger import Ledger, Moved, entries
from tests.projections.story import NOVEMBER

MONTH = 31 * DAY


def fold_of(moves: list[Moved], cutoff: Cutoff) -> Standing:
    """The definition: the changes of all entries that count, one after the other; none for a version that is not there."""
    found, before = Standing(), Moved(0, 0)
    if len(moves) < cutoff.version < EVER:
        return found
    for version, moved in enumerate(moves, 1):
        if cutoff.counts(version, moved.occurred_at, moved.recorded_at):
            change = moved.sellable - before.sellable, moved.reserved - before.reserved
            found = found.plus(Standing(1, version, *change))
        before = moved
    return found


async def test_what_was_entered_late_counts_from_when_it_happened_and_is_known_from_when_it_was_recorded() -> (
    None
):
    monday, tuesday, friday = NOVEMBER, NOVEMBER + DAY, NOVEMBER + 4 * DAY
    counted_late = Moved(friday, tuesday, sellable=7)
    books: Any = Ledger().post(entries(Moved(monday, monday, 10), Moved(friday, friday, 8), counted_late))

    async def sellable(**cutoff: int) -> int:
        found = await standing(books, "A", Cutoff(**cutoff))
        assert found
        return found.sellable

    assert await sellable() == 7
    assert await sellable(as_of=tuesday) == 9
    assert await sellable(as_of=tuesday, known_at=friday - 1) == 10
    assert await sellable(known_at=friday - 1) == 10
    assert await sellable(version=2) == 8
    assert await sellable(version=3, known_at=friday - 1) == 10


async def test_nothing_is_known_of_an_unknown_item_and_nothing_counts_before_the_first_entry() -> None:
    books: Any = Ledger().post(entries(Moved(NOVEMBER, NOVEMBER, 10)))
    assert await standing(books, "B", Cutoff()) is None
    assert await standing(books, "A", Cutoff(as_of=NOVEMBER - 1)) == Standing()
    assert await standing(books, "A", Cutoff(known_at=NOVEMBER - 1)) == Standing()
    assert await standing(books, "A", Cutoff(version=2)) == Standing()


@st.composite
def histories(draw: st.DrawFn) -> list[Moved]:
    """Recorded in order, by the same clock tick now and then; happened at any time before or about then."""
    steps = draw(st.lists(st.sampled_from([0, 1, MINUTE, DAY, 2 * MONTH]), min_size=1, max_size=40))
    late = st.sampled_from([0, 0, 0, 1, MINUTE, DAY + 1, MONTH, 12 * MONTH, -DAY])
    count = st.integers(0, 9)
    return [
        Moved(at, at - draw(late), draw(count), draw(count)) for at in accumulate(steps, initial=NOVEMBER)
    ]


@given(moves=histories(), size=st.integers(1, 9), folio=st.integers(1, 6), data=st.data())
@settings(max_examples=100)
async def test_any_question_of_the_past_is_answered_as_by_the_fold_of_all_entries(
    moves: list[Moved], size: int, folio: int, data: st.DataObject
) -> None:
    at = st.sampled_from([EVER, *(one.occurred_at + by for one in moves for by in (-1, 0))])
    known = st.sampled_from([EVER, *(one.recorded_at + by for one in moves for by in (-1, 0))])
    cutoff = Cutoff(data.draw(at), data.draw(known), data.draw(st.sampled_from([EVER, 1, 3, len(moves)])))
    with patch.object(ledger, "FOLIO_MAX", folio):
        books: Any = Ledger().post(entries(*moves), size)
    assert await standing(books, "A", cutoff) == fold_of(moves, cutoff)


@given(moves=histories(), size=st.integers(1, 9))
@settings(max_examples=30)
def test_the_same_rows_are_posted_however_the_log_is_cut(moves: list[Moved], size: int) -> None:
    with patch.object(ledger, "FOLIO_MAX", 3):
        assert Ledger().post(entries(*moves), size).tables == Ledger().post(entries(*moves), 1).tables


@pytest.mark.parametrize("every", [20, 4_000], ids=lambda every: f"one in {every} is late")
async def test_of_thousands_of_entries_few_are_read_whenever_some_were_entered_late(every: int) -> None:
    moves = [
        Moved(at, at - (MONTH if n % every == 0 else 0), n)
        for n, at in enumerate(range(NOVEMBER, NOVEMBER + 4_000 * 7 * MINUTE, 7 * MINUTE))
    ]
    books: Any = Ledger().post(entries(*moves), 500)
    cutoff = Cutoff(as_of=NOVEMBER + 5 * DAY, known_at=NOVEMBER + 15 * DAY)
    assert await standing(books, "A", cutoff) == fold_of(moves, cutoff)
    folios, *read = books.selects
    assert folios < 4_000 / 128 + 2 * 4_000 / every + 2
    assert sum(read) <= 3 * ledger.FOLIO_MAX
