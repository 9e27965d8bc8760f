"""Messages of every class with generated fields, and a few written by hand."""

import types
import typing
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from schemas.language import META_OF, STATES
from schemas.meta import NO_HASH, CommandMeta, EventMeta, Micros, RecordMeta

LONGS = st.integers(-(2**63), 2**63 - 1)
INSTANTS = st.integers(0, 253_402_300_799_999_999).map(Micros)
"""What a datetime can hold, from 1970 on."""

_PLAIN: dict[object, st.SearchStrategy[Any]] = {
    str: st.text(max_size=40),
    int: LONGS,
    bool: st.booleans(),
    bytes: st.binary(max_size=40),
    Micros: INSTANTS,
}

COMMAND = CommandMeta(
    command_id="0b1c6ff6-4d1d-5d0e-8f6a-0a1b2c3d4e5f",
    stream="stock/85123A/main",
    traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    issued_at=Micros(1_291_191_960_000_000),
    not_after=Micros(1_291_191_990_000_000),
    occurred_at=None,
    expected_version=3,
    reply_to="order/5a5e4c1e-0000-5000-8000-000000000001",
    correlation_id="c0rrelat-e000-5000-8000-000000000001",
    causation_id="ca05ed00-0000-5000-8000-000000000001",
    actor_kind="saga",
    actor_id="checkout",
    fingerprint="",
)
EVENT = EventMeta(
    event_id="e0e0e0e0-0000-5000-8000-000000000001",
    stream="stock/85123A/main",
    version=4,
    occurred_at=Micros(1_291_191_960_000_000),
    recorded_at=Micros(1_291_191_960_123_456),
    command_id=COMMAND.command_id,
    correlation_id=COMMAND.correlation_id,
    causation_id=COMMAND.command_id,
    actor_kind="saga",
    actor_id="checkout",
    batch_id="ba7c4000-0000-5000-8000-000000000001",
    batch_index=0,
    batch_size=27,
    traceparent=COMMAND.traceparent,
    previous=NO_HASH,
)
RECORD = RecordMeta("stock/85123A/main", Micros(1_291_191_960_123_456), EVENT.batch_id)

METAS = {CommandMeta: COMMAND, EventMeta: EVENT, RecordMeta: RECORD}


def meta_for(message: type) -> Any:
    """A `meta` that a message of this class may carry."""
    return METAS[META_OF[message]]


def instances(cls: type) -> st.SearchStrategy[Any]:
    """Every field of a dataclass drawn by its type."""
    hints = get_type_hints(cls)
    return st.builds(cls, **{field.name: _values(hints[field.name]) for field in fields(cls)})


def streams_heads(message: type) -> st.SearchStrategy[tuple[int, bytes]]:
    """Version and hash, where the message is a state record."""
    return st.tuples(LONGS, st.binary(max_size=32)) if message in STATES else st.just((0, b""))


def _values(hint: Any) -> st.SearchStrategy[Any]:
    if hint in _PLAIN:
        return _PLAIN[hint]
    if get_origin(hint) is tuple:
        return st.lists(_values(get_args(hint)[0]), max_size=3).map(tuple)
    if get_origin(hint) in (typing.Union, types.UnionType):
        return st.one_of(*(st.none() if arg is type(None) else _values(arg) for arg in get_args(hint)))
    assert is_dataclass(hint), hint
    return instances(typing.cast("type", hint))


def spoilings(datum: bytes) -> st.SearchStrategy[bytes]:
    """The datum with some bits flipped, cut short, run on, with bytes put in, or quite another."""
    places = st.integers(0, len(datum) - 1)
    junk = st.binary(min_size=1, max_size=20)
    return st.one_of(
        st.lists(st.tuples(places, st.integers(0, 7)), min_size=1, max_size=3).map(
            lambda flips: _flipped(datum, flips)
        ),
        places.map(lambda place: datum[:place]),
        junk.map(lambda more: datum + more),
        st.tuples(places, places, junk).map(lambda cut: datum[: cut[0]] + cut[2] + datum[cut[1] :]),
        st.binary(max_size=600),
    )


def _flipped(datum: bytes, flips: list[tuple[int, int]]) -> bytes:
    flipped = bytearray(datum)
    for place, bit in flips:
        flipped[place] ^= 1 << bit
    return bytes(flipped)
