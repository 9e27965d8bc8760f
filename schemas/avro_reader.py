"""Avro's binary encoding, read by compiled functions: bytes straight into a message's frozen dataclasses.

The counterpart of `schemas.avro_writer`. What these functions read, fastavro reads the same; what they refuse breaks
Avro's rules, or is a number that is longer than it need be, which no Avro writer writes. Property tests over every
message class say so (docs/adr/0010).
"""

from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from functools import cache
from itertools import count
from typing import Any, get_args, get_origin, get_type_hints

from schemas.meta import Micros
from schemas.personal import Personal

INSTANTS_MAX = 1_024
"""Instants that are remembered with their encoding; beyond it all are forgotten at once."""

Read = Callable[[bytes], Any]
"""A whole value, header included → what was made of it. Raises one of MALFORMED where the bytes are no message."""

MALFORMED = (LookupError, ValueError)

_INSTANT_BYTES = 8
"""Of every instant from 1978 to 3111."""

_SHORT = (*(byte >> 1 ^ -(byte & 1) for byte in range(128)), *[None] * 128)
"""By its first byte a long; None where more bytes follow."""

_STEP = (*(0 if byte & 1 else 1 + (byte >> 1) for byte in range(128)), *[0] * 128)
"""By the first byte of a text's length how far the text reaches from there; 0 where that byte does not say it."""

_IS_SOME = {0: False, 2: True}
"""The branches of a union of null and something."""


def _long(value: bytes, at: int) -> tuple[int, int]:
    """The long at `at`, and where it ends."""
    byte = value[at]
    number, shift = byte & 127, 0
    while byte > 127:
        at, shift = at + 1, shift + 7
        byte = value[at]
        number |= (byte & 127) << shift
        if number >> 64 or shift > 63 or not byte:
            raise ValueError("a long of more than 64 bits, or longer than it need be")
    return number >> 1 ^ -(number & 1), at + 1


_INSTANTS: dict[bytes, int] = {}


def _instant(value: bytes, at: int) -> tuple[int, int]:
    """As `_long`. The messages of a batch carry the same few instants again and again: they are remembered."""
    instant, end = _long(value, at)
    if end - at == _INSTANT_BYTES:
        if len(_INSTANTS) >= INSTANTS_MAX:
            _INSTANTS.clear()
        _INSTANTS[value[at:end]] = instant
    return instant, end


def _span(value: bytes, at: int) -> tuple[int, int]:
    """Of a text whose length does not fit into a byte: the last byte of its length, and how far it reaches from there."""
    length, end = _long(value, at)
    if length < 0:
        raise ValueError("a length below 0")
    return end - 1, length + 1


def _block(value: bytes, at: int) -> tuple[int, int]:
    """How many items the next block of an array has, and where they begin."""
    number, at = _long(value, at)
    if number < 0:  # then the block's size in bytes comes first, for those who skip it
        number, (_, at) = -number, _long(value, at)
    if number > len(value) - at:
        raise ValueError("more items than bytes")
    return number, at


_BYTES = (
    "if not (n := step[value[at]]): at, n = span(value, at)",
    "{to} = value[at + 1 : (at := at + n)]",
)

PLAIN: dict[object, tuple[str, ...]] = {
    str: (
        "if not (n := step[value[at]]): at, n = span(value, at)",
        "{to} = value[at + 1 : (at := at + n)].decode()",
    ),
    bytes: _BYTES,
    Personal: _BYTES,
    int: (
        "{to} = short[value[at]]",
        "at += 1",
        "if {to} is None:",
        "    if 0 < (n := value[at]) < 128: n, at = value[at - 1] & 127 | n << 7, at + 1; {to} = n >> 1 ^ -(n & 1)",
        "    else: {to}, at = long(value, at - 1)",
    ),
    Micros: (
        f"{{to}} = instants.get(value[at : at + {_INSTANT_BYTES}])",
        f"at += {_INSTANT_BYTES}",
        f"if {{to}} is None: {{to}}, at = instant(value, at - {_INSTANT_BYTES})",
    ),
    bool: ("{to} = booleans[value[at]]", "at += 1"),
}
"""How the value at `at` is read into a variable.

A text may be cut short by the end of the bytes. Then `at` lies behind that end: whatever is read next finds no byte
there, and after the last field `at` is compared with the end.
"""


@cache
def compile_reader(message: type, meta: type, whole: type, begin: int, *, is_state: bool) -> Read:
    """The reader of a message's values, whose datum begins at `begin`: `meta`, of a state `version` and `hash`, then
    its own fields (see `schemas.avro.schema_of`). It makes a `whole` of `meta`, `body`, `version` and `hash`.
    """
    return Compiler().message(message, meta, whole, begin, is_state=is_state)


class Compiler:
    """Turns classes into source: for every value the statements that read it into a variable."""

    plain = PLAIN

    def __init__(self) -> None:
        self._names: dict[str, Any] = {
            "short": _SHORT,
            "booleans": (False, True),
            "is_some": _IS_SOME,
            "step": _STEP,
            "instants": _INSTANTS,
            "long": _long,
            "instant": _instant,
            "span": _span,
            "block": _block,
            "new": object.__new__,
            "adopt": object.__setattr__,
        }
        self._numbers = count()

    def message(self, message: type, meta: type, whole: type, begin: int, *, is_state: bool) -> Read:
        lines = [f"at, version, hash = {begin}, 0, b''", *self._record(meta, "meta")]
        if is_state:
            lines += [*self._value(int, "version"), *self._value(bytes, "hash")]
        lines += [
            *self._record(message, "body"),
            "if at != len(value): raise ValueError(f'{len(value)} bytes, not {at}')",
            *self._made(whole, "whole", {name: name for name in ("meta", "body", "version", "hash")}),
        ]
        return self._function("value", [*lines, "return whole"])  # type: ignore[no-any-return]

    def _record(self, cls: type, to: str) -> list[str]:
        hints = get_type_hints(cls, include_extras=True)
        variables = {field.name: self._fresh() for field in fields(cls)}
        lines = [line for name, variable in variables.items() for line in self._value(hints[name], variable)]
        return lines + self._made(cls, to, variables)

    def _value(self, hint: Any, to: str) -> list[str]:
        if hint in self.plain:
            return [line.format(to=to) for line in self.plain[hint]]
        if get_origin(hint) is tuple:
            return self._array(get_args(hint)[0], to)
        if is_dataclass(hint) and isinstance(hint, type):
            return self._record(hint, to)
        return self._optional(hint, to)

    def _array(self, hint: Any, to: str) -> list[str]:
        items, item = self._fresh(), self._fresh()
        return [
            f"{items} = []",
            "while value[at]:",
            "    if n := step[value[at]]: n, at = n - 1, at + 1",
            "    else: n, at = block(value, at)",
            "    for _ in range(n):",
            *(f"        {line}" for line in self._value(hint, item)),
            f"        {items}.append({item})",
            "at += 1",
            f"{to} = tuple({items})",
        ]

    def _optional(self, hint: Any, to: str) -> list[str]:
        (branch,) = (arg for arg in get_args(hint) if arg is not type(None))
        return [
            "at += 1",
            "if is_some[value[at - 1]]:",
            *(f"    {line}" for line in self._value(branch, to)),
            f"else: {to} = None",
        ]

    def _made(self, cls: type, to: str, variables: dict[str, str]) -> list[str]:
        """An instance without the cost of a frozen dataclass's `__init__`: a dict becomes its `__dict__`."""
        name = self._fresh()
        self._names[name] = cls
        items = ", ".join(f"'{field}': {variable}" for field, variable in variables.items())
        return [f"{to} = new({name})", f"adopt({to}, '__dict__', {{{items}}})"]

    def _function(self, arguments: str, lines: Iterable[str]) -> Any:
        source = "".join(f"    {line}\n" for line in lines)
        exec(f"def read({arguments}):\n{source}", self._names)  # noqa: S102  # from our own classes' names, from nobody else
        return self._names["read"]

    def _fresh(self) -> str:
        return f"_{next(self._numbers)}"
