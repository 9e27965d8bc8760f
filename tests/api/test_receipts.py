"""Receipts survive the header they travel in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.receipts import read, written
from schemas.values import Position

SKUS = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="/"), min_size=1, max_size=64)
POSITIONS = st.lists(st.builds(Position, SKUS.map("product/{}".format), st.integers(0, 10**17)), max_size=100)


@given(POSITIONS)
def test_what_was_written_is_read_again(positions: list[Position]):
    receipt = written(positions)

    assert receipt.isascii()
    assert list(read(receipt)) == positions


def test_a_receipt_reads_as_its_streams_and_versions():
    assert (
        written([Position("cart/1", 3), Position("product/BANK CHARGES", 1)])
        == "cart/1@3, product/BANK CHARGES@1"
    )


@pytest.mark.parametrize(
    "receipt", ["cart/1", "cart/1@", "@3", "cart/1@-1", "cart/1@x", "cart/1@" + "9" * 19, "a@1," * 101]
)
def test_what_is_no_receipt_is_refused(receipt: str):
    with pytest.raises(ValueError, match=r"stream@version|more than"):
        read(receipt)
