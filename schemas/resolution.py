"""Whether data of one schema can be read with another, found from the two schemas alone, without data."""

import io
from collections.abc import Iterator
from typing import Any

from fastavro import parse_schema, schemaless_writer

from schemas.avro import Schema, fingerprint_of, without_logical_types
from schemas.codec import MARKER


def unreadable(writer: Schema, reader: Schema) -> list[str]:
    """Why a reader with `reader` cannot read what `writer` wrote, as Avro's schema resolution has it.

    Stricter in two points: a value's type stays what it is (Avro would read a string as bytes), and so does what it
    means (its logical type).
    """
    return list(_mismatches(_spelled_out(writer, {}), _spelled_out(reader, {}), writer["name"]))


def _mismatches(writer: Schema, reader: Schema, at: str) -> Iterator[str]:
    if isinstance(writer, list):
        for branch in writer:
            yield from _mismatches(branch, reader, at)
    elif isinstance(reader, list):
        if all(any(_mismatches(writer, branch, at)) for branch in reader):
            yield f"{at} may be {_word(writer)}"
    elif _kind(writer) == _kind(reader) == "record":
        yield from _field_mismatches(writer, reader, at)
    elif _kind(writer) == _kind(reader) == "array":
        yield from _mismatches(writer["items"], reader["items"], f"{at}[]")
    elif writer != reader:
        yield f"{at} is {_word(writer)}, not {_word(reader)}"


def _field_mismatches(writer: Schema, reader: Schema, at: str) -> Iterator[str]:
    if writer["name"] != reader["name"]:
        yield f"{at} is a {writer['name']}, not a {reader['name']}"
    written = {field["name"]: field for field in writer["fields"]}
    for field in reader["fields"]:
        name = field["name"]
        if name in written:
            yield from _mismatches(written[name]["type"], field["type"], f"{at}.{name}")
        elif "default" not in field:
            yield f"{at}.{name} is missing and has no default"


def _spelled_out(schema: Schema, named: dict[str, Schema]) -> Schema:
    """The same schema, each use of a named type replaced by its definition (none of ours contains itself)."""
    if isinstance(schema, str):
        return named.get(schema.rpartition(".")[2], schema)
    if isinstance(schema, list):
        return [_spelled_out(branch, named) for branch in schema]
    if schema["type"] == "array":
        return schema | {"items": _spelled_out(schema["items"], named)}
    if schema["type"] != "record":
        return schema
    fields = [field | {"type": _spelled_out(field["type"], named)} for field in schema["fields"]]
    named[schema["name"]] = spelled = schema | {"fields": fields}
    return spelled


def _kind(schema: Schema) -> str:
    return str(schema["type"]) if isinstance(schema, dict) else str(schema)


def _word(schema: Schema) -> str:
    return str(schema.get("logicalType", schema["type"])) if isinstance(schema, dict) else str(schema)


_VALUES: dict[str, tuple[Any, Any]] = {
    "null": (None, None),
    "string": ("", "eighty-four ½"),
    "long": (0, -(2**40)),
    "boolean": (False, True),
    "bytes": (b"", b"\x00\xff"),
}


def samples_of(schema: Schema) -> list[Any]:
    """Two data: the barest (empty lists, the first branch of each union), and one with something everywhere."""
    plain = _spelled_out(without_logical_types(schema), {})
    return [_sample(plain, rich=False), _sample(plain, rich=True)]


def _sample(schema: Schema, *, rich: bool) -> Any:
    if isinstance(schema, list):
        return _sample(schema[-1 if rich else 0], rich=rich)
    if isinstance(schema, str):
        return _VALUES[schema][rich]
    if schema["type"] == "array":
        return [_sample(schema["items"], rich=rich)] * (2 if rich else 0)
    return {field["name"]: _sample(field["type"], rich=rich) for field in schema["fields"]}


def encode_sample(schema: Schema, datum: Any) -> bytes:
    """The Kafka value of a datum of this schema."""
    out = io.BytesIO(MARKER + fingerprint_of(schema))
    out.seek(0, io.SEEK_END)
    schemaless_writer(out, parse_schema(without_logical_types(schema), named_schemas={}), datum)
    return out.getvalue()
