"""Receipts and cursors: what a caller hands back to us is read strictly."""

from collections.abc import Mapping, Sequence

import pytest

from projections.cursor import BadCursor, cursor_of, place_of
from projections.receipt import ForeignReceipt, NotCaughtUp, caught_up, of_kinds, parse_receipt
from schemas.values import Position


def test_a_receipt_is_a_set_of_positions() -> None:
    assert parse_receipt("cart/1@3, stock/A B/main@12") == (
        Position("cart/1", 3),
        Position("stock/A B/main", 12),
    )


def test_a_sku_may_contain_what_separates_a_version() -> None:
    assert parse_receipt("product/a@b@2") == (Position("product/a@b", 2),)


@pytest.mark.parametrize(
    "text", ["", "cart/1", "cart/1@", "cart/1@-1", "cart/1@x", "@3", "cart@3", "a/1@1,,b/2@1"]
)
def test_anything_else_is_no_receipt(text: str) -> None:
    with pytest.raises(ValueError, match="stream@version"):
        parse_receipt(text)


def test_a_receipt_is_bounded() -> None:
    with pytest.raises(ValueError, match="at most"):
        parse_receipt(",".join(["cart/1@1"] * 101))


def test_streams_of_other_kinds_are_ignored_unless_there_are_no_others() -> None:
    ours, theirs = Position("cart/1", 1), Position("order/1", 1)
    assert of_kinds([ours, theirs], ["cart"]) == [ours]
    assert of_kinds([], ["cart"]) == []
    with pytest.raises(ForeignReceipt):
        of_kinds([theirs], ["cart"])


async def test_a_read_goes_on_as_soon_as_the_view_is_there() -> None:
    seen = iter([0, 2, 3])

    async def versions(streams: Sequence[str]) -> Mapping[str, int]:
        return dict.fromkeys(streams, next(seen))

    await caught_up([Position("cart/1", 3)], versions)


async def test_a_read_says_what_it_waited_for_in_vain() -> None:
    async def versions(_streams: Sequence[str]) -> Mapping[str, int]:
        return {"cart/1": 3}

    wanted = [Position("cart/1", 3), Position("cart/2", 1)]
    with pytest.raises(NotCaughtUp) as late:
        await caught_up(wanted, versions, wait_s=0.01)
    assert late.value.missing == (Position("cart/2", 1),)


async def test_what_was_seen_is_not_asked_for_again() -> None:
    asked: list[Sequence[str]] = []

    async def versions(streams: Sequence[str]) -> Mapping[str, int]:
        asked.append(streams)
        return dict.fromkeys(streams, len(asked))

    await caught_up([Position("cart/1", 1), Position("cart/2", 2)], versions)
    assert asked == [["cart/1", "cart/2"], ["cart/2"]]


def test_a_cursor_gives_back_its_place() -> None:
    assert place_of(cursor_of(12, "order"), int, str) == (12, "order")


@pytest.mark.parametrize(
    "forged",
    ["", "?", "bm9uc2Vuc2U", "é", cursor_of("12", "order"), cursor_of(12), cursor_of(2**63, "order")],
)
def test_a_forged_cursor_is_named(forged: str) -> None:
    with pytest.raises(BadCursor):
        place_of(forged, int, str)
