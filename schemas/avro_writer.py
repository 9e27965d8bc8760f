"""Avro's binary encoding, compiled: one straight function for each message class.

fastavro walks the schema again for every message, and the command worker writes three records for each command:
walking took a third of its time. What these functions write is what fastavro writes, byte for byte; a property test
over every message class says so (docs/adr/0010).
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import count
from typing import Any

from schemas.avro import Schema

LONGS_MAX = 16_384
"""Numbers that are remembered with their encoding; beyond it all are forgotten at once."""

Write = Callable[[Any, Mapping[str, Any], int, bytes], bytes]
"""(instance, datum of its meta, version, hash) → header and datum; the last two are written for state records only."""


class _Longs(dict[int, bytes]):
    """Zigzag varints by number. A batch writes the same instants, versions and lengths again and again."""

    def __missing__(self, number: int) -> bytes:
        if not -(1 << 63) <= number < 1 << 63:
            raise OverflowError(f"{number} is no Avro long")
        if len(self) >= LONGS_MAX:
            self.clear()
        encoded = self[number] = _varint(number << 1 ^ number >> 63)
        return encoded


def _varint(rest: int) -> bytes:
    out = bytearray()
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    out.append(rest)
    return bytes(out)


_LONGS = _Longs()
_NULL, _SOME = b"\x00", b"\x02"
"""The branches of a union of null and something."""


def _array(write: Callable[[Any], bytes], items: Any) -> bytes:
    """One block, as fastavro writes it, and the empty one that ends every array."""
    return b"".join((_LONGS[len(items)], *map(write, items), b"\x00")) if items else b"\x00"


def compile_writer(schema: Schema, header: bytes, *, is_state: bool) -> Write:
    """The writer of a message's record (see `schemas.avro.schema_of`): `meta` first, of a state `version` and `hash`,
    then its own fields. `schema` has no logical types.
    """
    return _Compiler(header).message(schema, is_state=is_state)


class _Compiler:
    """Turns a schema into source; every piece of it is an expression of type bytes, and a record joins them."""

    def __init__(self, header: bytes) -> None:
        self._names: dict[str, Any] = {
            "join": b"".join,
            "longs": _LONGS,
            "booleans": (b"\x00", b"\x01"),
            "array": _array,
            "null": _NULL,
            "some": _SOME,
            "header": header,
        }
        self._functions: dict[str, str] = {}
        self._numbers = count()

    def message(self, schema: Schema, *, is_state: bool) -> Write:
        meta, *own = schema["fields"]
        parts = ["header", *self._record(meta["type"], lambda name: f'meta["{name}"]')]
        if is_state:
            parts += ["longs[version]", "longs[len(hash)]", "hash"]
            own = own[2:]
        for field in own:
            parts += self._parts(field["type"], f"body.{field['name']}")
        self._define("write", "body, meta, version, hash", parts)
        write: Write = self._names["write"]
        return write

    def _parts(self, schema: Schema, value: str) -> list[str]:
        """Expressions whose results, one after the other, are `value` encoded."""
        match schema:
            case "long":
                return [f"longs[{value}]"]
            case "boolean":
                return [f"booleans[{value}]"]
            case "bytes":
                return [f"longs[len({value})]", value]
            case "string":
                text = self._fresh()
                return [f"longs[len({text} := {value}.encode())]", text]
            case ["null", branch]:
                some = self._fresh()
                inner = ", ".join(self._parts(branch, some))
                return [f"(null if ({some} := {value}) is None else join((some, {inner})))"]
            case {"type": "array", "items": items}:
                return [f"array({self._function(items)}, {value})"]
            case _:
                return [f"{self._function(schema)}({value})"]

    def _record(self, schema: Schema, place: Callable[[str], str]) -> list[str]:
        return [
            part for field in schema["fields"] for part in self._parts(field["type"], place(field["name"]))
        ]

    def _function(self, schema: Schema) -> str:
        """The name of a function of one value; a record's is made once, where the schema defines it."""
        if isinstance(schema, str) and schema in self._functions:
            return self._functions[schema]
        name = self._fresh()
        if isinstance(schema, dict) and schema["type"] == "record":
            self._functions[f"{schema['namespace']}.{schema['name']}"] = name
            parts = self._record(schema, lambda field: f"value.{field}")
        else:
            parts = self._parts(schema, "value")
        self._define(name, "value", parts)
        return name

    def _define(self, name: str, arguments: str, parts: Iterable[str]) -> None:
        source = f"def {name}({arguments}):\n    return join(({', '.join(parts)},))\n"
        exec(source, self._names)  # noqa: S102  # the source comes from our own classes' names, from nobody else

    def _fresh(self) -> str:
        return f"_{next(self._numbers)}"
