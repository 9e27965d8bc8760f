"""The compiled writers: what they write is what fastavro writes, byte for byte."""

import io
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_writer
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.avro import fingerprint_of, schema_of
from schemas.avro_writer import LONGS_MAX, compile_writer
from schemas.codec import HEADER_BYTES, Codec
from schemas.inventory import StockItem, StockReserved
from schemas.language import META_OF, STATES
from schemas.meta import Micros
from tests.messages import EVENT, RECORD, instances, streams_heads

CODEC = Codec()
UNHURRIED = timedelta(seconds=60)
RESERVED = StockReserved("85123A", "main", 100, 1, 2, 3, "order", 7, "claim", 6, Micros(1))


@pytest.mark.parametrize("message", META_OF, ids=lambda message: message.__name__)
@settings(max_examples=30, deadline=UNHURRIED)
@given(data=st.data())
def test_every_message_is_written_as_fastavro_writes_it(message: type, data: st.DataObject):
    body, meta = data.draw(instances(message)), data.draw(instances(META_OF[message]))
    version, hash_ = data.draw(streams_heads(message))

    assert CODEC.encode(body, vars(meta), version, hash_) == by_fastavro(body, meta, version, hash_)


def test_numbers_at_the_edge_of_64_bits_are_written_and_beyond_it_refused():
    edge = StockItem(2**63 - 1, -(2**63), 0, -1, 63, 64)

    assert CODEC.decode(CODEC.encode(edge, vars(RECORD))).body == edge
    for beyond in (2**63, -(2**63) - 1):
        with pytest.raises(OverflowError):
            CODEC.encode(replace(edge, sellable=beyond), vars(RECORD))


def test_text_that_is_long_and_not_ascii_is_counted_in_bytes():
    reserved = replace(RESERVED, sku="☃" * 5_000)

    assert CODEC.decode(CODEC.encode(reserved, vars(EVENT))).body == reserved


def test_more_numbers_than_are_remembered_are_all_written_right():
    many = [replace(RESERVED, quantity=number) for number in range(2**40, 2**40 + LONGS_MAX + 2)]
    values = [CODEC.encode(reserved, vars(EVENT)) for reserved in many]

    assert [CODEC.decode(value).body for value in (values[0], values[-1])] == [many[0], many[-1]]


@pytest.mark.parametrize("wrong", [{"sku": 7}, {"quantity": "7"}, {"quantity": None}])
def test_a_value_of_another_type_is_refused(wrong: dict[str, Any]):
    with pytest.raises((TypeError, AttributeError)):
        CODEC.encode(replace(RESERVED, **wrong), vars(EVENT))


def test_a_writer_that_mixes_two_fields_up_is_caught():
    schema = schema_of(StockReserved, logical=False)
    *first, one, other = schema["fields"]
    mixed = compile_writer(schema | {"fields": [*first, other, one]}, b"", is_state=False)

    assert mixed(RESERVED, vars(EVENT), 0, b"") != by_fastavro(RESERVED, EVENT)[HEADER_BYTES:]


def by_fastavro(body: Any, meta: Any, version: int = 0, hash_: bytes = b"") -> bytes:
    cls: type = type(body)
    schema = schema_of(cls, logical=False)
    datum = {"meta": vars(meta)} | {name: as_datum(value) for name, value in vars(body).items()}
    if cls in STATES:
        datum |= {"version": version, "hash": hash_}
    out = io.BytesIO()
    schemaless_writer(out, parse_schema(schema, named_schemas={}), datum)
    return b"\xc3\x01" + fingerprint_of(schema) + out.getvalue()


def as_datum(value: Any) -> Any:
    """Nested dataclasses as dicts, tuples as lists: what fastavro takes."""
    if isinstance(value, tuple):
        return [as_datum(item) for item in value]
    return (
        {name: as_datum(item) for name, item in vars(value).items()} if hasattr(value, "__dict__") else value
    )
