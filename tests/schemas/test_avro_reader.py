"""The compiled readers: what they read is what fastavro reads, and whatever is malformed is undecodable."""

import io
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import timedelta
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from fastavro import parse_schema, schemaless_reader
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.avro import schema_of
from schemas.avro_reader import INSTANTS_MAX, compile_reader
from schemas.catalog import PublishProduct
from schemas.codec import HEADER_BYTES, Codec, Decoded, UndecodableError
from schemas.inventory import StockEvent, StockItem, StockReserved
from schemas.language import META_OF, STATES
from schemas.meta import EventMeta, Micros
from tests.messages import COMMAND, EVENT, instances, meta_for, spoilings, streams_heads

CODEC = Codec()
UNHURRIED = timedelta(seconds=60)
RESERVED = StockReserved("85123A", "main", 100, 1, 2, 3, "order", 7, "claim", 6, Micros(1))
PUBLISHED = PublishProduct("~sku~", "lamp", "", ("~a~", "~b~"), "", 300, "~GBP~", stocked=True)

every_message = pytest.mark.parametrize("message", META_OF, ids=lambda message: message.__name__)


@every_message
@settings(max_examples=10, deadline=UNHURRIED)
@given(data=st.data())
def test_every_message_is_read_as_fastavro_reads_it(message: type, data: st.DataObject):
    body, meta = data.draw(instances(message)), data.draw(instances(META_OF[message]))
    value = CODEC.encode(body, vars(meta), *data.draw(streams_heads(message)))

    decoded: Decoded[Any] = CODEC.decode(value)

    assert decoded == by_fastavro(message, value)
    assert vars(decoded.body) == vars(body)
    assert vars(decoded.meta) == vars(meta)


@every_message
@settings(max_examples=15, deadline=UNHURRIED)
@given(data=st.data())
def test_a_spoilt_message_is_read_as_fastavro_reads_it_or_undecodable(message: type, data: st.DataObject):
    """What fastavro would let pass is refused only where no writer would have written it so."""
    value = CODEC.encode(data.draw(instances(message)), vars(meta_for(message)))
    spoilt = value[:HEADER_BYTES] + data.draw(spoilings(value[HEADER_BYTES:]))
    try:
        decoded: Decoded[Any] = CODEC.decode(spoilt)
    except UndecodableError:
        other = by_fastavro(message, spoilt)
        assert other is None or as_written(other) != spoilt
    else:
        assert decoded == by_fastavro(message, spoilt)


@pytest.mark.parametrize("message", [RESERVED, PUBLISHED, StockItem(1, 2, 3, 4, 5, 6)], ids=type)
def test_a_message_is_undecodable_wherever_it_is_cut(message: Any):
    value = CODEC.encode(message, vars(meta_for(type(message))))
    for length in range(len(value)):
        with pytest.raises(UndecodableError):
            CODEC.decode(value[:length])
    with pytest.raises(UndecodableError):
        CODEC.decode(value + b"\x00")


SKU, CATEGORIES, PRICE = b"\x0a~sku~", b"\x04\x06~a~\x06~b~\x00", b"\xd8\x04\x0a~GBP~"
STOCKED, EXPECTED = b"\x0a~GBP~\x01", b"\x00\x02\x06\x02\x54order/"
ENDLESS = b"\xfe" + b"\xff" * 8 + b"\x01"
"""2**63 - 1."""
LOWEST = b"\xff" * 9 + b"\x01"

MALFORMED: dict[str, tuple[bytes, bytes]] = {
    "text of -1 bytes": (SKU, b"\x01~sku~"),
    "text of -70 bytes": (SKU, b"\x8b\x01~sku~"),
    "text of -2**63 bytes": (SKU, LOWEST + b"~sku~"),
    "text longer than the message": (SKU, b"\xfe\x7f~sku~"),
    "text of 2**63 - 1 bytes": (SKU, ENDLESS + b"~sku~"),
    "text whose length is written too long": (SKU, b"\x8a\x00~sku~"),
    "text that is no UTF-8": (SKU, b"\x0a~s\xffu~"),
    "text that ends within a letter": (SKU, b"\x0a~sku\xc3"),
    "text that is half a surrogate pair": (SKU, b"\x0a~\xed\xa0\x80~"),
    "long text that is no UTF-8": (SKU, b"\x80\x01" + b"\xff" * 64),
    "long written too long": (PRICE, b"\xd8\x84\x00\x0a~GBP~"),
    "long of 65 bits": (PRICE, b"\xff" * 9 + b"\x02\x0a~GBP~"),
    "long of eleven bytes": (PRICE, b"\x80" * 10 + b"\x01\x0a~GBP~"),
    "long without an end": (PRICE, b"\x80" * 100_000),
    "branch that there is not": (EXPECTED, b"\x00\x04\x06\x02\x54order/"),
    "branch below 0": (EXPECTED, b"\x00\x01\x06\x02\x54order/"),
    "branch of many bytes": (EXPECTED, b"\x00\x82\x00\x06\x02\x54order/"),
    "neither true nor false": (STOCKED, b"\x0a~GBP~\x02"),
    "more items than there are": (CATEGORIES, b"\x06\x06~a~\x06~b~\x00"),
    "more items than bytes": (CATEGORIES, b"\x80\x7d\x06~a~\x06~b~\x00"),
    "2**63 - 1 items": (CATEGORIES, ENDLESS + b"\x06~a~\x06~b~\x00"),
    "2**63 items in a sized block": (CATEGORIES, LOWEST + b"\x0e\x06~a~\x06~b~\x00"),
    "list without an end": (CATEGORIES, b"\x04\x06~a~\x06~b~"),
    "list whose end is written too long": (CATEGORIES, b"\x04\x06~a~\x06~b~\x80\x00"),
}


@pytest.mark.parametrize("shape", MALFORMED)
def test_what_is_malformed_is_undecodable(shape: str):
    right, wrong = MALFORMED[shape]
    value = CODEC.encode(PUBLISHED, vars(COMMAND))
    assert value.count(right) == 1
    assert CODEC.decode(value).body == PUBLISHED

    with pytest.raises(UndecodableError, match="PublishProduct"):
        CODEC.decode(value.replace(right, wrong))


@pytest.mark.parametrize(
    "blocks",
    [
        b"\x02\x06~a~\x02\x06~b~\x00",
        b"\x03\x10\x06~a~\x06~b~\x00",
        b"\x01\x08\x06~a~\x01\x08\x06~b~\x00",
        b"\x01\x08\x06~a~\x02\x06~b~\x00",
    ],
)
def test_a_list_may_come_in_blocks_with_or_without_their_size(blocks: bytes):
    value = CODEC.encode(PUBLISHED, vars(COMMAND)).replace(CATEGORIES, blocks)

    assert CODEC.decode(value) == Decoded(COMMAND, PUBLISHED) == by_fastavro(PublishProduct, value)


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 5_000])
def test_a_list_of_any_length_is_read(count: int):
    published = replace(PUBLISHED, categories=("☃",) * count)

    assert CODEC.decode(CODEC.encode(published, vars(COMMAND))).body == published


@pytest.mark.parametrize("bits", range(64))
def test_numbers_and_instants_of_every_size_are_read(bits: int):
    for number in (2**bits - 1, -(2**bits)):
        reserved = replace(RESERVED, quantity=number, expires_at=Micros(number))
        assert CODEC.decode(CODEC.encode(reserved, vars(EVENT))).body == reserved


def test_more_instants_than_are_remembered_are_all_read_right():
    instants = range(EVENT.recorded_at, EVENT.recorded_at + INSTANTS_MAX + 2)
    many = [replace(RESERVED, expires_at=Micros(instant)) for instant in instants] * 2

    assert [CODEC.decode(CODEC.encode(one, vars(EVENT))).body for one in many] == many


def test_a_reader_that_mixes_two_fields_up_is_caught():
    @dataclass(frozen=True)
    class Mixed(StockEvent):
        order_id: str
        quantity: int
        claim_id: str
        line: int
        expires_at: Micros

    mixed = compile_reader(Mixed, EventMeta, Decoded, HEADER_BYTES, is_state=False)

    assert vars(mixed(CODEC.encode(RESERVED, vars(EVENT))).body) != vars(RESERVED)


def by_fastavro(message: type, value: bytes) -> Decoded[Any] | None:
    """The message as fastavro reads it and as its dataclass's own `__init__` makes it; None if it is malformed."""
    stream = io.BytesIO(value)
    stream.seek(HEADER_BYTES)
    try:
        datum: Any = schemaless_reader(stream, parsed_schema(message), None)
    except Exception:  # noqa: BLE001  # fastavro raises whatever the bytes make it trip over
        return None
    if stream.tell() != len(value):
        return None
    head = (datum["version"], datum["hash"]) if message in STATES else (0, b"")
    return Decoded(made(META_OF[message], datum["meta"]), made(message, datum), *head)


@cache
def parsed_schema(message: type) -> Any:
    return parse_schema(schema_of(message, logical=False), named_schemas={})


def made(hint: Any, datum: Any) -> Any:
    if is_dataclass(hint) and isinstance(hint, type):
        hints = get_type_hints(hint)
        return hint(**{field.name: made(hints[field.name], datum[field.name]) for field in fields(hint)})
    if get_origin(hint) is tuple:
        return tuple(made(get_args(hint)[0], item) for item in datum)
    branches = [branch for branch in get_args(hint) if branch is not type(None)]
    return made(branches[0], datum) if branches and datum is not None else datum


def as_written(decoded: Decoded[Any]) -> bytes:
    return CODEC.encode(decoded.body, vars(decoded.meta), decoded.version, decoded.hash)
