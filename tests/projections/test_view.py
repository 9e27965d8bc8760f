"""Law 7: a view is the fold of its streams, however the log is cut into batches and however often it is read."""

from collections.abc import Callable, Iterable, Iterator, MutableMapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projections import cart, ledger, order, product, stock
from projections.view import Offered, Poison, Recorded, View, fold, offered
from schemas.catalog import PriceChanged, ProductRetired
from schemas.order import OrderConfirmed, OrderLinesAllocated, OrderStockSecured
from tests.projections.shop import (
    added,
    adjusted,
    changed,
    created,
    lines,
    placed,
    published,
    received,
    reserved,
    step,
)
from tests.projections.story import Story

Folding = Callable[[View[Any], MutableMapping[str, Any], Iterable[Offered]], list[Poison]]
VIEWS: tuple[View[Any], ...] = (product.VIEW, stock.VIEW, cart.VIEW, order.VIEW, ledger.VIEW)


def a_day() -> Story:
    """Two streams of each kind."""
    story = Story()
    for name in ("A", "B"):
        story.tell(published(name, "tin", "toys"), PriceChanged(name, 100, "GBP", 295), changed(name, "toys"))
        story.tell(received(name, 9, 9), reserved(name, 9, 1), reserved(name, 9, 2), adjusted(name, 9, 8))
        story.tell(created(name), added(name, "A", 1), added(name, "B", 2), added(name, "A", 2, 3))
        story.tell(placed(name, "A", "B"), step(OrderStockSecured, name, "A", "B", token="t"))
        story.tell(step(OrderConfirmed, name, "A", "B", remind_at=9))
        story.tell(OrderLinesAllocated(name, lines("A")), OrderLinesAllocated(name, lines("B")))
    return story.tell(ProductRetired("A"))


def through(
    view: View[Any], batches: Iterable[Iterable[Recorded]], folding: Folding = fold
) -> dict[str, Any]:
    documents: dict[str, Any] = {}
    for batch in batches:
        ours = [record for record in batch if view.reads(record.topic)]
        facts, unreadable = offered(view, ours)
        assert not unreadable
        assert not folding(view, documents, facts)
    return documents


def without_a_guard(
    view: View[Any], documents: MutableMapping[str, Any], facts: Iterable[Offered]
) -> list[Poison]:
    """The planted bug: a fold that believes that it reads everything once."""
    for one in facts:
        documents[one.fact.stream] = view.evolve(documents.get(one.fact.stream), one.fact.what)
    return []


def cut(records: list[Recorded], ends: list[tuple[int, int]]) -> Iterator[list[Recorded]]:
    """Batches that lead from the start to the end, each beginning some records before the last one's end."""
    position = 0
    for end, back in [*sorted(ends), (len(records), 0)]:
        yield records[max(0, position - back) : max(position, end)]
        position = max(position, end)


def check_law_7(view: View[Any], batches: Iterable[Iterable[Recorded]], folding: Folding = fold) -> None:
    assert through(view, batches, folding) == through(view, [a_day().records])


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
@given(ends=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=12))
@settings(max_examples=100, deadline=None)
def test_any_split_with_any_repeats_leaves_the_same_documents(
    view: View[Any], ends: list[tuple[int, int]]
) -> None:
    check_law_7(view, cut(a_day().records, ends))


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_fold_without_a_version_guard_is_caught(view: View[Any]) -> None:
    records = a_day().records
    beginnings = [record for record in records if record.message.meta.version <= 2]
    check_law_7(view, [records, beginnings])
    with pytest.raises(AssertionError):
        check_law_7(view, [records, beginnings], without_a_guard)


def test_a_gap_in_the_versions_is_poison_and_so_is_what_follows_it() -> None:
    story = Story().tell(received("A", 1, 1), received("A", 1, 2), received("A", 1, 3), received("B", 1, 1))
    first, _, third, other = story.records
    facts, _ = offered(stock.VIEW, [first, third, third, other])
    documents: dict[str, Any] = {}

    poisons = fold(stock.VIEW, documents, facts)

    assert [(poison.stream, poison.offset) for poison in poisons] == [("stock/A/main", third.offset)] * 2
    assert "version 3 follows 1" in poisons[0].reason
    assert (documents["stock/A/main"].sellable, documents["stock/B/main"].sellable) == (1, 1)


def test_an_event_of_another_aggregate_is_poison_and_the_partition_goes_on() -> None:
    story = Story().tell(created("1"), published("A"))
    stranger, ours = story.records
    facts, poisons = offered(product.VIEW, [stranger, ours])

    assert [(poison.stream, poison.offset) for poison in poisons] == [("cart/1", stranger.offset)]
    assert [one.fact.stream for one in facts] == ["product/A"]


def test_a_stream_that_does_not_begin_with_its_creation_is_poison() -> None:
    facts, _ = offered(product.VIEW, Story().tell(ProductRetired("A")).records)
    (poison,) = fold(product.VIEW, {}, facts)
    assert "creation" in poison.reason


def test_a_document_sees_each_new_fact_once() -> None:
    story = Story().tell(received("A", 1, 1), received("A", 1, 2))
    facts, _ = offered(stock.VIEW, [*story.records, *story.records])
    steps: list[int] = []
    fold(stock.VIEW, {}, facts, lambda _, fact: steps.append(fact.version))
    assert steps == [1, 2]
