"""The compiled reader of evidence: what it reads is what fastavro reads, and it refuses what is malformed."""

import io
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from hypothesis import given
from hypothesis import strategies as st

from ops.evidence import datum_reader
from ops.evidence.datum_reader import KNOWN_MAX, MALFORMED, compile_datum_reader
from schemas.avro import schema_of
from schemas.codec import HEADER_BYTES, Codec
from schemas.inventory import StockEvent, StockReserved
from schemas.language import META_OF
from schemas.meta import EventMeta, Micros
from tests.messages import instances, meta_for, spoilings

CODEC = Codec()
RESERVED = StockReserved("85123A", "main", 100, 1, 2, 3, "order", 7, "claim", 6, Micros(1))
STOCK_EVENTS = [message for message in META_OF if issubclass(message, StockEvent)]
LISTS = {
    "type": "record",
    "name": "Lists",
    "fields": [
        {"name": "some", "type": {"type": "array", "items": ["null", "string"]}},
        {"name": "flags", "type": {"type": "array", "items": "boolean"}},
    ],
}
MAPS = {"type": "record", "name": "Maps", "fields": [{"name": "m", "type": {"type": "map", "values": "int"}}]}


def by_fastavro(schema: Any, value: bytes, begin: int) -> Any:
    """The datum, or None where the bytes are none, or more."""
    stream = io.BytesIO(value)
    stream.seek(begin)
    try:
        datum = schemaless_reader(stream, parse_schema(schema, named_schemas={}), None)
    except Exception:  # noqa: BLE001  # whatever the bytes make it trip over
        return None
    return datum if stream.tell() == len(value) else None


def stock_values() -> st.SearchStrategy[tuple[type, bytes]]:
    def values(event: type) -> st.SearchStrategy[tuple[type, bytes]]:
        return st.builds(
            lambda body, meta: (event, CODEC.encode(body, dict(vars(meta)))),
            instances(event),
            instances(EventMeta),
        )

    return st.sampled_from(STOCK_EVENTS).flatmap(values)


@given(stock_values())
def test_every_stock_event_is_read_as_fastavro_reads_it(event_and_value: tuple[type, bytes]):
    event, value = event_and_value
    schema = schema_of(event, logical=False)
    read = compile_datum_reader(schema, HEADER_BYTES)(value)
    assert read == by_fastavro(schema, value, HEADER_BYTES)
    assert list(read) == [field["name"] for field in schema["fields"]]


@given(st.data())
def test_spoilt_bytes_are_read_as_fastavro_reads_them_or_refused(data: st.DataObject):
    value = CODEC.encode(RESERVED, vars(meta_for(StockReserved)))
    spoilt = value[:HEADER_BYTES] + data.draw(spoilings(value[HEADER_BYTES:]))
    schema = schema_of(StockReserved, logical=False)
    should = by_fastavro(schema, spoilt, HEADER_BYTES)
    try:
        read = compile_datum_reader(schema, HEADER_BYTES)(spoilt)
    except MALFORMED:
        assert should is None or any(abs(number) >> 63 for number in numbers_of(should))
    else:
        assert read == should


@given(
    st.integers(-(2**63), 2**63 - 1) | st.builds(int.__lshift__, st.sampled_from([1, -1]), st.integers(0, 62))
)
def test_every_long_is_read(number: int):
    schema = {"type": "record", "name": "At", "fields": [{"name": "at", "type": "long"}]}
    assert compile_datum_reader(schema, 0)(written(schema, {"at": number})) == {"at": number}


def test_a_long_ends_with_its_tenth_byte():
    schema = {"type": "record", "name": "At", "fields": [{"name": "at", "type": "long"}]}
    read = compile_datum_reader(schema, 0)
    assert read(b"\xff" * 9 + b"\x01") == {"at": -(2**63)}
    for malformed in (b"\xff" * 9 + b"\x7f", b"\xff" * 10 + b"\x01", b"\xff" * 2_000_000):
        with pytest.raises(MALFORMED):
            read(malformed)


def test_what_stands_in_source_as_a_name_is_no_name_of_a_field():
    with pytest.raises(ValueError, match="no text"):
        compile_datum_reader(
            {"type": "record", "name": "At", "fields": [{"name": float("inf"), "type": "long"}]}, 0
        )


@given(st.data())
def test_spoilt_lists_are_read_as_fastavro_reads_them_or_refused(data: st.DataObject):
    spoilt = data.draw(spoilings(written(LISTS, {"some": ["a", None, "b"], "flags": [True, False]})))
    should = by_fastavro(LISTS, spoilt, 0)
    try:
        read = compile_datum_reader(LISTS, 0)(spoilt)
    except MALFORMED:
        return
    assert read == should


@given(
    st.fixed_dictionaries({
        "some": st.lists(st.none() | st.text(max_size=200), max_size=80),
        "flags": st.lists(st.booleans(), max_size=3),
    })
)  # fmt: skip
def test_lists_and_what_may_be_missing_are_read(datum: dict[str, Any]):
    assert compile_datum_reader(LISTS, 0)(written(LISTS, datum)) == datum


@given(st.dictionaries(st.text(max_size=5), st.integers(-9, 9), max_size=3))
def test_a_type_that_no_schema_of_ours_has_is_left_to_fastavro(entries: dict[str, int]):
    read, value = compile_datum_reader(MAPS, 0), written(MAPS, {"m": entries})
    assert read(value) == {"m": entries}
    for malformed in (value[:-1], value + b"\0"):
        with pytest.raises(MALFORMED):
            read(malformed)


def test_instants_are_remembered_and_do_not_pile_up():
    schema = {"type": "record", "name": "At", "fields": [{"name": "at", "type": "long"}]}
    read = compile_datum_reader(schema, 0)
    for second in range(2 * KNOWN_MAX):
        at = 1_700_000_000_000_000 + second * 1_300_001
        assert read(written(schema, {"at": at})) == {"at": at} == read(written(schema, {"at": at}))
    assert len(datum_reader._known) <= KNOWN_MAX


def written(schema: Any, datum: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    schemaless_writer(stream, parse_schema(schema, named_schemas={}), datum)
    return stream.getvalue()


def numbers_of(datum: dict[str, Any]) -> list[int]:
    return [value for one in (datum, datum["meta"]) for value in one.values() if isinstance(value, int)]
