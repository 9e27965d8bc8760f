"""Avro schemas derived from the message classes: the checked-in `avsc/` are what this module says."""

import json
import types
import typing
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from fastavro.schema import fingerprint as avro_fingerprint
from fastavro.schema import to_parsing_canonical_form

from schemas.language import META_OF, STATES
from schemas.meta import Micros
from schemas.personal import PERSONAL, Personal

NAMESPACE = "daybook"
AVSC = Path(__file__).parent / "avsc"
RELEASED = Path(__file__).parent / "released"
"""Every schema that ever left the house, `{Type}.{fingerprint}.avsc`; see `schemas.compatibility`."""

Schema = Any
"""A schema as JSON has it: a name, a list (union) or a dict."""

_PRIMITIVES: dict[object, Schema] = {
    str: "string",
    int: "long",
    bool: "boolean",
    bytes: "bytes",
    Micros: {"type": "long", "logicalType": "timestamp-micros"},
    Personal: "bytes",
}


@cache
def schema_of(message: type, *, logical: bool = True) -> Schema:
    """The record of a message class: `meta`, of a state `version` and `hash`, then its own fields.

    Without `logical` times are plain longs: the same fingerprint, and 2.4 times as fast to decode.
    """
    named: set[type] = set()
    own = _record(message, named)
    head = [{"name": "meta", "type": _type(META_OF[message], named)}]
    if message in STATES:
        head += [{"name": "version", "type": "long"}, {"name": "hash", "type": "bytes"}]
    schema = own | {"fields": head + own["fields"]}
    return schema if logical else without_logical_types(schema)


def fingerprint_of(schema: Schema) -> bytes:
    """The 8 bytes of CRC-64-AVRO as they stand on the wire."""
    return _fingerprint(to_parsing_canonical_form(schema))


@lru_cache(maxsize=1_024)
def _fingerprint(canonical: str) -> bytes:
    # fastavro's hex is little-endian already. It computes in Python, over a millisecond each: too long to do it twice.
    return bytes.fromhex(avro_fingerprint(canonical, "CRC-64-AVRO"))


def schema_in(value: bytes | None) -> Schema | None:
    """What a record of the topic `schemas` says, whatever its key is; anybody's garbage there is None, and stops nobody."""
    try:
        schema = json.loads(value or b"")
        fingerprint_of(schema)
    except Exception:  # noqa: BLE001  # fastavro raises whatever the JSON makes it trip over
        return None
    is_record = isinstance(schema, dict) and schema.get("type") == "record"
    return schema if is_record and isinstance(schema.get("name"), str) else None


def write_avsc(folder: Path = AVSC) -> None:
    """Write one file for each message class, and remove what no class stands for any more."""
    folder.mkdir(exist_ok=True)
    wanted = {f"{message.__name__}.avsc": as_text(schema_of(message)) for message in META_OF}
    for stale in {path.name for path in folder.glob("*.avsc")} - wanted.keys():
        (folder / stale).unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text)


def as_text(schema: Schema) -> str:
    return json.dumps(schema, indent=2) + "\n"


def released_files(folder: Path = RELEASED) -> dict[tuple[str, str], Path]:
    """(message, hex fingerprint) → its file, as the file's name has it."""
    return {
        (path.name.split(".")[0], path.name.split(".")[1]): path for path in sorted(folder.glob("*.*.avsc"))
    }


def without_logical_types(schema: Schema) -> Schema:
    """The same schema (and fingerprint) with plain values: a time is its long."""
    if isinstance(schema, list):
        return [without_logical_types(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {
        key: without_logical_types(value) if key in ("type", "items", "values", "fields") else value
        for key, value in schema.items()
        if key != "logicalType"
    }
    return plain["type"] if plain.keys() == {"type"} else plain


def _record(cls: type, named: set[type]) -> dict[str, Any]:
    named.add(cls)
    hints = get_type_hints(cls, include_extras=True)
    return {
        "type": "record",
        "name": cls.__name__,
        "namespace": NAMESPACE,
        "fields": [
            {"name": f.name, "type": _type(hints[f.name], named)}
            | _default(f, hints[f.name])
            | _marks(hints[f.name])
            for f in fields(cls)
        ],
    }


def _default(field: Field[Any], hint: object) -> dict[str, Any]:
    """What a reader puts in when an older writer did not know the field: the class's own default, or null."""
    if _is_optional(hint):
        return {"default": None}
    if field.default is MISSING:
        return {}
    return {"default": list(field.default) if isinstance(field.default, tuple) else field.default}


def _marks(hint: object) -> dict[str, Any]:
    """Properties that Avro does not know, for whoever handles what people may want to have forgotten."""
    return {PERSONAL: True} if hint == Personal else {}


def _is_optional(hint: object) -> bool:
    return get_origin(hint) in (typing.Union, types.UnionType) and type(None) in get_args(hint)


def _type(hint: Any, named: set[type]) -> Schema:
    if hint in _PRIMITIVES:
        return _PRIMITIVES[hint]
    if get_origin(hint) is tuple:
        return {"type": "array", "items": _type(get_args(hint)[0], named)}
    if _is_optional(hint):
        (value,) = (arg for arg in get_args(hint) if arg is not type(None))
        return ["null", _type(value, named)]
    if is_dataclass(hint) and isinstance(hint, type):
        # Avro defines a named type once; from its second use on it is its name.
        return f"{NAMESPACE}.{hint.__name__}" if hint in named else _record(hint, named)
    raise TypeError(f"no Avro type for {hint!r}")


if __name__ == "__main__":
    write_avsc()
