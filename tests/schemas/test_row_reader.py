"""Rows read from bytes say what the codec's messages say, field by field."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.avro_reader import MALFORMED
from schemas.cart import CartExpired
from schemas.codec import HEADER_BYTES, Codec
from schemas.language import AGGREGATES, META_OF
from schemas.meta import EventMeta
from schemas.personal import VEILED, SealedContact
from schemas.row_reader import compile_rows
from tests.messages import EVENT, instances

CODEC = Codec()
MESSAGES = [m for a in AGGREGATES.values() for m in (*a.events, *a.commands)]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.__name__)
@settings(max_examples=2)
@given(data=st.data())
def test_a_row_says_what_the_message_says(message: type, data: st.DataObject):
    metas = st.just(EVENT) if META_OF[message] is type(EVENT) else instances(META_OF[message])
    some = [(data.draw(instances(message)), data.draw(metas)) for _ in range(3)]

    rows = read(message, [CODEC.encode(body, vars(meta)) for body, meta in some])

    assert rows == [(*map(flat, vars(meta).values()), *map(flat, vars(body).values())) for body, meta in some]


def test_events_of_other_commands_between_those_of_one_are_told_apart():
    metas = [EVENT, EVENT, replace(EVENT, command_id="another"), replace(EVENT, batch_id="b"), EVENT]

    rows = read(CartExpired, [CODEC.encode(CartExpired("cart"), vars(meta)) for meta in metas])

    assert rows == [(*map(flat, vars(meta).values()), b"cart") for meta in metas]


def test_what_is_malformed_is_told_by_the_rows_before_it():
    value = CODEC.encode(CartExpired("cart"), vars(EVENT))
    rows: list[Any] = []
    with pytest.raises(MALFORMED):
        compile_rows(CartExpired, EventMeta, HEADER_BYTES)([value, value, value[:-1]], rows)
    assert len(rows) == 2


def read(message: type, values: list[bytes]) -> list[Any]:
    rows: list[Any] = []
    compile_rows(message, META_OF[message], HEADER_BYTES)(values, rows)
    return rows


def flat(value: Any) -> Any:
    """As a row has it: text as bytes, records as tuples, what is personal veiled."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, tuple):
        return tuple(map(flat, value))
    if isinstance(value, SealedContact):
        return (flat(value.key_id), *[VEILED.encode()] * 3)
    return tuple(map(flat, vars(value).values())) if hasattr(value, "__dict__") else value
