"""Every released generation beside today's: whatever one of them wrote, the other reads."""

import io
import json
from copy import deepcopy
from datetime import timedelta
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.avro import Schema, fingerprint_of, released_files, schema_of, without_logical_types
from schemas.codec import HEADER_BYTES, Codec, Decoded
from schemas.language import META_OF
from schemas.resolution import _spelled_out, encode_sample, unreadable
from schemas.upcasting import OLD_READERS_MUST_GO, UPCASTS, Shape
from tests.messages import LONGS, instances

CODEC = Codec()
UNHURRIED = timedelta(seconds=60)
CLASSES = {message.__name__: message for message in META_OF}
OLD = {
    shape: json.loads(file.read_text("utf-8"))
    for shape, file in released_files().items()
    if shape[1] != fingerprint_of(schema_of(CLASSES[shape[0]])).hex()
}
each_old = pytest.mark.parametrize("shape", OLD, ids="-".join)
any_value = settings(max_examples=40, deadline=UNHURRIED)

_PLAIN: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "string": st.text(max_size=20),
    "long": LONGS,
    "boolean": st.booleans(),
    "bytes": st.binary(max_size=20),
}


def values(schema: Schema) -> st.SearchStrategy[Any]:
    """Any datum of a schema that is spelled out."""
    if isinstance(schema, list):
        return st.one_of(*map(values, schema))
    if isinstance(schema, str):
        return _PLAIN[schema]
    if schema["type"] == "array":
        return st.lists(values(schema["items"]), max_size=3)
    if schema["type"] == "record":
        return st.fixed_dictionaries({f["name"]: values(f["type"]) for f in schema["fields"]})
    return values(schema["type"])


def spelled_out(schema: Schema) -> Schema:
    return _spelled_out(without_logical_types(schema), {})


def as_seen_by(reader: Schema, datum: Any) -> Any:
    """What a reader makes of it: the fields it knows, and its own defaults where the writer knew none."""
    if isinstance(datum, list):
        return [as_seen_by(_branch(reader, "array")["items"], item) for item in datum]
    if isinstance(datum, dict):
        fields = _branch(reader, "record")["fields"]
        return {
            f["name"]: as_seen_by(f["type"], datum[f["name"]]) if f["name"] in datum else f["default"]
            for f in fields
        }
    return datum


def _branch(schema: Schema, kind: str) -> Any:
    branches = schema if isinstance(schema, list) else [schema]
    return next(one for one in branches if isinstance(one, dict) and one["type"] == kind)


def as_datum(value: Any) -> Any:
    """Dataclasses as dicts, tuples as lists: what fastavro gives."""
    if isinstance(value, tuple | list):
        return [as_datum(item) for item in value]
    inner = value if isinstance(value, dict) else getattr(value, "__dict__", None)
    return value if inner is None else {name: as_datum(item) for name, item in inner.items()}


def whole_datum(decoded: Decoded[Any], schema: Schema) -> dict[str, Any]:
    head = {"meta": decoded.meta, "version": decoded.version, "hash": decoded.hash}
    names = {field["name"] for field in schema["fields"]}
    return {name: as_datum(v) for name, v in (head | vars(decoded.body)).items() if name in names}


def test_there_are_generations_to_compare():
    assert {"Payment", "StockAdjusted"} <= {message for message, _ in OLD}
    assert OLD.keys() >= UPCASTS.keys()


@each_old
@any_value
@given(data=st.data())
def test_what_an_older_release_wrote_is_read_in_todays_shape(shape: Shape, data: st.DataObject):
    datum = data.draw(values(spelled_out(OLD[shape])))
    today = spelled_out(schema_of(CLASSES[shape[0]]))

    decoded: Decoded[Any] = CODEC.decode(encode_sample(OLD[shape], deepcopy(datum)))

    assert type(decoded.body) is CLASSES[shape[0]]
    assert whole_datum(decoded, today) == as_seen_by(
        today, UPCASTS[shape](datum) if shape in UPCASTS else datum
    )


@each_old
@any_value
@given(data=st.data())
def test_what_is_written_today_is_read_by_whoever_has_an_older_schema(shape: Shape, data: st.DataObject):
    assert shape not in OLD_READERS_MUST_GO, "then say here who had to go"
    message = CLASSES[shape[0]]
    body, meta = data.draw(instances(message)), data.draw(instances(META_OF[message]))
    value = CODEC.encode(body, vars(meta), 7, b"#")
    today, old = spelled_out(schema_of(message)), spelled_out(OLD[shape])

    seen = schemaless_reader(io.BytesIO(value[HEADER_BYTES:]), *parsed(schema_of(message), OLD[shape]))

    assert seen == as_seen_by(old, whole_datum(CODEC.decode(value), today))


def parsed(*schemas: Schema) -> list[Any]:
    return [parse_schema(without_logical_types(schema), named_schemas={}) for schema in schemas]


# Generations that are still to come: whatever the gate lets pass, Avro reads.

ADDED = [
    {"name": "added", "type": ["null", "string"], "default": None},
    {"name": "added", "type": "long", "default": 7},
    {"name": "added", "type": {"type": "array", "items": "string"}, "default": []},
    {"name": "added", "type": "string"},
]


@st.composite
def next_generations(draw: st.DrawFn, schema: Schema) -> Schema:
    """The schema with a few of its own fields gone, moved, renamed or of another type, and perhaps a new one."""
    fields = deepcopy(schema["fields"])
    for _ in range(draw(st.integers(0, 2))):
        field = draw(st.sampled_from(fields))
        match draw(st.sampled_from(["gone", "moved", "renamed", "another type", "optional"])):
            case "gone" if len(fields) > 1:
                fields.remove(field)
            case "moved":
                fields.remove(field)
                fields.append(field)
            case "renamed":
                field["name"] += "_of_old"
            case "another type":
                field["type"] = draw(st.sampled_from([*_PLAIN]))
            case "optional" if not isinstance(field["type"], list):
                field.update(type=["null", field["type"]], default=None)
    added = draw(st.none() | st.sampled_from(ADDED))
    return schema | {"fields": [*fields, added] if added else fields}


@settings(max_examples=100, deadline=UNHURRIED)
@given(message=st.sampled_from(["StockReserved", "Payment", "OrderPlaced", "StockItem"]), data=st.data())
def test_whatever_the_gate_lets_pass_is_read_without_loss(message: str, data: st.DataObject):
    today = schema_of(CLASSES[message])
    other = data.draw(next_generations(today))
    for writer, reader in ((today, other), (other, today)):
        if unreadable(writer, reader):
            continue
        datum = data.draw(values(spelled_out(writer)))
        value = encode_sample(writer, deepcopy(datum))
        seen = schemaless_reader(io.BytesIO(value[HEADER_BYTES:]), *parsed(writer, reader))
        assert seen == as_seen_by(spelled_out(reader), datum)
