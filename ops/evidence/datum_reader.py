"""Avro data by a schema, read by a function that is compiled for it: the dicts that fastavro would make, in half the
time. It knows the schema's JSON and nothing of `schemas/`, with whose own reader it must share no fault and so no code.
"""

import io
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any, TypeAlias

from fastavro import parse_schema, schemaless_reader

Datum: TypeAlias = dict[str, Any]
Read: TypeAlias = Callable[[bytes], Datum]
"""A whole value, header included → its datum. Raises one of MALFORMED."""

MALFORMED = (LookupError, ValueError)

KNOWN_MAX = 1_024
"""Seconds whose encoding is remembered; beyond it all are forgotten at once."""

_LONG_BITS = 63
"""So many stand before the tenth byte of a long, which is the last."""

_SHORT = (*(byte >> 1 ^ -(byte & 1) for byte in range(128)), *[None] * 128)
"""By its first byte a long; None where more bytes follow."""

_REACH = (*(0 if byte & 1 else 1 + (byte >> 1) for byte in range(128)), *[0] * 128)
"""By the byte of a text's length how far the text reaches from there; 0 where the length is longer, or below 0."""

_known: dict[bytes, int] = {}


def compile_datum_reader(schema: Any, begin: int) -> Read:
    """The reader of a record without logical types, whose datum begins at `begin`. Schemas of ours are compiled; one
    with a type that ours do not have is left to fastavro.
    """
    try:
        return _Compiler().record(schema, begin)
    except _NotOurs:
        return _by_fastavro(schema, begin)


class _NotOurs(Exception):
    """A type that is not compiled."""


def _by_fastavro(schema: Any, begin: int) -> Read:
    parsed = parse_schema(schema, named_schemas={})

    def read(value: bytes) -> Datum:
        stream = io.BytesIO(value)
        stream.seek(begin)
        try:
            datum: Datum = schemaless_reader(stream, parsed, None)  # type: ignore[assignment]
        except Exception as error:  # it raises whatever the bytes make it trip over
            raise ValueError(type(error).__name__) from error
        if stream.tell() != len(value):
            raise ValueError(f"{len(value) - stream.tell()} bytes too many")
        return datum

    return read


def _long(value: bytes, at: int) -> tuple[int, int]:
    """The long at `at`, and where it ends. The instants of a second differ in their first three bytes only: what the
    other five say is remembered.
    """
    if (bits := value[at]) < 128:
        return bits >> 1 ^ -(bits & 1), at + 1
    second = value[at + 1]
    bits = bits & 127 | (second & 127) << 7
    if second < 128:
        end = at + 2
    elif (third := value[at + 2]) < 128:
        bits, end = bits | third << 14, at + 3
    else:
        rest, end = _rest_of_long(value, at + 3)
        bits |= (third & 127) << 14 | rest
    return bits >> 1 ^ -(bits & 1), end


def _rest_of_long(value: bytes, at: int) -> tuple[int, int]:
    """What a long has from its fourth byte on, and where it ends."""
    five = value[at : at + 5]
    bits = _known.get(five)
    if bits is not None:
        return bits, at + 5
    end, bits, shift = at, 0, 21
    while (byte := value[end]) > 127 and shift < _LONG_BITS:
        bits |= (byte & 127) << shift
        end, shift = end + 1, shift + 7
    bits |= byte << shift
    if bits >> 64:
        raise ValueError("a long of more than 64 bits")
    if end - at == 4:
        if len(_known) >= KNOWN_MAX:
            _known.clear()
        _known[five] = bits
    return bits, end + 1


def _span(value: bytes, at: int) -> tuple[int, int]:
    """Of a text whose length takes more than a byte: the last byte of it, and how far the text reaches from there."""
    length, end = _long(value, at)
    if length < 0:
        raise ValueError("a length below 0")
    return end - 1, length + 1


def _block(value: bytes, at: int) -> tuple[int, int]:
    """How many items the next block of an array has, and where they begin."""
    number, at = _long(value, at)
    if number < 0:  # then its size in bytes follows, for those who skip it
        number, (_, at) = -number, _long(value, at)
    if number > len(value) - at:
        raise ValueError("more items than bytes")
    return number, at


_BYTES = "if not (n := reach[value[at]]): at, n = span(value, at)"
_PRIMITIVES: dict[str, tuple[str, ...]] = {
    "string": (_BYTES, "{to} = value[at + 1 : (at := at + n)].decode()"),
    "bytes": (_BYTES, "{to} = value[at + 1 : (at := at + n)]"),
    "long": ("{to} = short[value[at]]", "at += 1", "if {to} is None: {to}, at = long(value, at - 1)"),
    "boolean": ("{to} = booleans[value[at]]", "at += 1"),
}
"""How the value at `at` is read into a variable. A text may be cut short by the end of the bytes: then `at` lies behind
that, the next value finds no byte there, and after the last `at` is compared with the end.
"""


class _Compiler:
    """Turns a schema into source: for every value the statements that read it into a variable."""

    def __init__(self) -> None:
        self._numbers = count()

    def record(self, schema: Any, begin: int) -> Read:
        lines = [
            f"at = {begin}",
            *self._value(schema, "datum"),
            "if at != len(value): raise ValueError(f'{len(value) - at} bytes too many')",
            "return datum",
        ]
        names: dict[str, Any] = {
            "short": _SHORT,
            "reach": _REACH,
            "booleans": (False, True),
            "is_some": {0: False, 2: True},
            "long": _long,
            "span": _span,
            "block": _block,
        }
        exec("def read(value):\n" + "".join(f"    {line}\n" for line in lines), names)  # noqa: S102  # of a schema only field names stand in it, as literals
        return names["read"]  # type: ignore[no-any-return]

    def _value(self, kind: Any, to: str) -> Iterable[str]:
        match kind:
            case str() if kind in _PRIMITIVES:
                return [line.format(to=to) for line in _PRIMITIVES[kind]]
            case {"type": "record", "fields": [*fields]}:
                return self._fields(fields, to)
            case {"type": "array", "items": items}:
                return self._array(items, to)
            case ["null", branch]:
                return self._optional(branch, to)
            case _:
                raise _NotOurs

    def _fields(self, fields: list[Any], to: str) -> Iterable[str]:
        if not all(isinstance(field["name"], str) for field in fields):
            raise ValueError("a field's name is no text")  # JSON also has what stands in source as a name
        variables = {field["name"]: self._fresh() for field in fields}
        for field in fields:
            yield from self._value(field["type"], variables[field["name"]])
        yield f"{to} = {{{', '.join(f'{name!r}: {variable}' for name, variable in variables.items())}}}"

    def _array(self, items: Any, to: str) -> Iterable[str]:
        number, item = self._fresh(), self._fresh()
        yield f"{to} = []"
        yield f"{number}, at = block(value, at)"
        yield f"while {number}:"
        yield f"    for _ in range({number}):"
        yield from (f"        {line}" for line in self._value(items, item))
        yield f"        {to}.append({item})"
        yield f"    {number}, at = block(value, at)"

    def _optional(self, branch: Any, to: str) -> Iterable[str]:
        yield "at += 1"
        yield "if is_some[value[at - 1]]:"
        yield from (f"    {line}" for line in self._value(branch, to))
        yield f"else: {to} = None"

    def _fresh(self) -> str:
        return f"_{next(self._numbers)}"
