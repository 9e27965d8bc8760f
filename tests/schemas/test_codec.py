"""The codec: what was said is read again, and what nobody said is refused."""

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader
from fastavro.schema import load_schema
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.avro import AVSC, fingerprint_of, released_files, schema_of, without_logical_types
from schemas.codec import HEADER_BYTES, Codec, Decoded, UndecodableError, UnknownFingerprintError
from schemas.decisions import Decisions
from schemas.inventory import StockItem, StockReserved
from schemas.language import META_OF
from schemas.meta import Micros
from schemas.order import OrderPlaced
from schemas.resolution import encode_sample, samples_of
from schemas.topics import RECORD_BYTES_MAX
from schemas.values import LINES_MAX, PricedLine
from tests.messages import EVENT, RECORD, instances

CODEC = Codec()
UNHURRIED = timedelta(seconds=60)
"""No example may take longer, also on a busy machine: a decoder that hangs is caught."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RESERVED = StockReserved(
    "85123A", "main", 100, 1, 2, 3, "order", 7, "claim", 6, Micros(1_291_192_560_000_000)
)
LONG_AGO = json.loads(released_files()["StockAdjusted", "83bcb11195981b41"].read_text("utf-8"))
ADJUSTED_LONG_AGO = encode_sample(LONG_AGO, samples_of(LONG_AGO)[1])

every_message = pytest.mark.parametrize("message", META_OF, ids=lambda message: message.__name__)


@every_message
@settings(max_examples=10, deadline=UNHURRIED)
@given(data=st.data())
def test_an_outside_reader_needs_only_fastavro_and_the_checked_in_schema(message: type, data: st.DataObject):
    body, meta = data.draw(instances(message)), data.draw(instances(META_OF[message]))
    value = CODEC.encode(body, vars(meta))
    schema = load_schema(str(AVSC / f"{message.__name__}.avsc"))

    datum = schemaless_reader(io.BytesIO(value[HEADER_BYTES:]), schema, None)

    assert value[:HEADER_BYTES] == b"\xc3\x01" + fingerprint_of(schema)
    assert isinstance(datum, dict)
    assert next(iter(datum)) == "meta"
    assert _plain(datum["meta"]) == vars(meta)
    assert {name: _plain(datum[name]) for name in vars(body)} == {
        name: _as_datum(value) for name, value in vars(body).items()
    }


@every_message
@settings(max_examples=3, deadline=UNHURRIED)
@given(data=st.data())
def test_what_another_reader_has_read_becomes_the_message_that_is_decoded(message: type, data: st.DataObject):
    body, meta = data.draw(instances(message)), data.draw(instances(META_OF[message]))
    value = CODEC.encode(body, vars(meta))
    schema = parse_schema(without_logical_types(load_schema(str(AVSC / f"{message.__name__}.avsc"))))
    datum: Any = schemaless_reader(io.BytesIO(value[HEADER_BYTES:]), schema, None)

    assert CODEC.adopt(value, datum) == CODEC.decode(value)


def test_an_outside_reader_sees_times_as_datetimes():
    value = CODEC.encode(RESERVED, vars(EVENT))
    schema = load_schema(str(AVSC / "StockReserved.avsc"))

    datum: Any = schemaless_reader(io.BytesIO(value[HEADER_BYTES:]), schema, None)

    assert datum["expires_at"] == datetime(2010, 12, 1, 8, 36, tzinfo=UTC)
    assert datum["meta"]["recorded_at"] == datetime(2010, 12, 1, 8, 26, 0, 123456, tzinfo=UTC)


def test_an_order_of_the_most_lines_there_may_be_fits_into_a_record():
    lines = tuple(
        PricedLine(n, f"8{n:04}A", "ÉDITION LIMITÉE ☃ " * 2, 1_000_000, 999_999, n, stocked=True)
        for n in range(1, LINES_MAX + 1)
    )
    order = OrderPlaced("o", "c", "owner", "p", lines, 2**40, "GBP", "tok_ok", Micros(1))

    value = CODEC.encode(order, vars(EVENT))

    assert CODEC.decode(value).body == order
    assert len(value) < RECORD_BYTES_MAX


@settings(max_examples=500, deadline=UNHURRIED)
@given(place=st.integers(HEADER_BYTES, 400), bit=st.integers(0, 7), length=st.integers(0, 400))
def test_what_is_left_of_a_message_of_another_release_is_one_or_undecodable(
    place: int, bit: int, length: int
):
    value = bytearray(ADJUSTED_LONG_AGO)
    assert CODEC.decode(bytes(value)).body.reason == "unknown"
    value[place % len(value)] ^= 1 << bit
    _decodes_or_refuses(bytes(value))
    _decodes_or_refuses(bytes(value[:length]))


@settings(max_examples=500, deadline=UNHURRIED)
@given(value=st.binary(max_size=200))
def test_random_bytes_are_undecodable(value: bytes):
    with pytest.raises(UndecodableError):
        CODEC.decode(value)
    with pytest.raises(UndecodableError):
        CODEC.peek(value, "meta")


@settings(max_examples=500, deadline=UNHURRIED)
@given(place=st.integers(HEADER_BYTES, 400), bit=st.integers(0, 7))
def test_a_flipped_bit_yields_a_message_or_is_undecodable(place: int, bit: int):
    value = bytearray(CODEC.encode(RESERVED, vars(EVENT)))
    value[place % len(value)] ^= 1 << bit
    _decodes_or_refuses(bytes(value))


@pytest.mark.parametrize("count", [2**62, -(2**62), 2**31, -(2**63)])
def test_a_list_that_claims_to_be_endless_is_undecodable_at_once(count: int):
    value = CODEC.encode(Decisions(b"", ()), vars(RECORD))
    assert value.endswith(b"\x00\x00")  # no ids; the list ends at once

    with pytest.raises(UndecodableError):
        CODEC.decode(value[:-1] + _zigzag(count))


@pytest.mark.parametrize(
    "value", [b"", b"\xc3", b"\xc3\x01", b"\xc3\x01" + bytes(7), b"\x00" * 5_000_000, None]
)
def test_what_is_no_single_object_is_undecodable(value: Any):
    with pytest.raises(UndecodableError) as refused:
        CODEC.decode(value)
    assert not isinstance(refused.value, UnknownFingerprintError)


def test_an_unknown_fingerprint_says_which():
    with pytest.raises(UnknownFingerprintError) as refused:
        CODEC.decode(b"\xc3\x01" + b"\x01\x02\x03\x04\x05\x06\x07\x08" + b"datum")
    assert refused.value.fingerprint.hex() == "0102030405060708"


@settings(max_examples=50, deadline=UNHURRIED)
@given(ids=st.binary(max_size=320), meta=instances(type(RECORD)), spoilt=st.binary(max_size=40))
def test_a_peek_shows_the_beginning_and_never_looks_at_the_rest(ids: bytes, meta: Any, spoilt: bytes):
    value = CODEC.encode(Decisions(ids, ()), vars(meta))

    assert CODEC.peek(value, "ids") == (vars(meta), ids)
    assert CODEC.peek(value[:-1] + spoilt, "ids") == (vars(meta), ids)
    with pytest.raises(UndecodableError):
        CODEC.peek(value[: HEADER_BYTES + 1], "ids")


def test_a_peek_for_what_a_message_has_not_is_refused():
    with pytest.raises(UndecodableError, match="has no field ids"):
        CODEC.peek(CODEC.encode(RESERVED, vars(EVENT)), "ids")


def test_a_newer_release_is_understood_once_its_schema_is_learned():
    newer = schema_of(StockItem)
    newer = newer | {
        "fields": [*newer["fields"], {"name": "shelf", "type": ["null", "string"], "default": None}]
    }
    item = StockItem(1, 2, 3, 4, 5, 6)
    value = encode_sample(
        newer, vars(item) | {"meta": vars(RECORD), "version": 9, "hash": b"#", "shelf": "B7"}
    )
    codec = Codec()

    with pytest.raises(UnknownFingerprintError):
        codec.decode(value)
    codec.learn(newer)
    codec.learn(newer)

    assert codec.decode(value) == Decoded(RECORD, item, 9, b"#")
    assert codec.peek(value, "sellable") == (vars(RECORD), 1)


def test_a_schema_that_cannot_be_read_as_ours_makes_its_messages_undecodable_and_nothing_else():
    foreign = schema_of(StockItem)
    foreign = foreign | {"fields": [f for f in foreign["fields"] if f["name"] != "reserved"]}
    codec = Codec()
    codec.learn(foreign)
    codec.learn({"type": "record", "name": "Stranger", "fields": []})
    datum = dict.fromkeys(vars(StockItem(1, 2, 3, 4, 5, 6)), 1)

    with pytest.raises(UndecodableError, match="StockItem"):
        codec.decode(encode_sample(foreign, datum | {"meta": vars(RECORD), "version": 9, "hash": b""}))


def test_every_schema_has_a_fingerprint_of_its_own():
    assert len({fingerprint for fingerprint, _ in CODEC.schemas()}) == len(META_OF)
    for fingerprint, schema in CODEC.schemas():
        assert fingerprint_of(parse_schema(schema, named_schemas={})) == fingerprint


def _decodes_or_refuses(value: bytes) -> None:
    try:
        decoded: Decoded[Any] = CODEC.decode(value)
    except UndecodableError:
        return
    again = CODEC.encode(decoded.body, vars(decoded.meta), decoded.version, decoded.hash)
    assert CODEC.decode(again) == decoded


def _zigzag(number: int) -> bytes:
    """A long as Avro writes it."""
    rest, out = (number << 1) ^ (number >> 63), bytearray()
    rest &= 2**64 - 1
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*out, rest])


def _plain(value: Any) -> Any:
    """Datetimes as the microseconds that they stand for."""
    if isinstance(value, datetime):
        return (value - EPOCH) // timedelta(microseconds=1)
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def _as_datum(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_as_datum(inner) for inner in value]
    return (
        {name: _as_datum(inner) for name, inner in vars(value).items()}
        if hasattr(value, "__dict__")
        else value
    )
