"""Messages as bytes: Avro single-object encoding, each record with its `meta` first."""

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

from fastavro import parse_schema, schemaless_reader, schemaless_writer

from schemas.avro import Schema, fingerprint_of, schema_of
from schemas.language import META_OF, STATES, Message
from schemas.meta import CommandMeta, EventMeta, RecordMeta
from schemas.upcasting import upcast

MARKER = b"\xc3\x01"
HEADER_BYTES = 10

Meta = TypeVar("Meta", bound=CommandMeta | EventMeta | RecordMeta)
Datum = dict[str, Any]


class UndecodableError(Exception):
    """The bytes are no message of ours."""


class UnknownFingerprintError(UndecodableError):
    """Single-object encoded, but by a schema that we have not seen (yet)."""

    def __init__(self, fingerprint: bytes) -> None:
        super().__init__(f"no schema with fingerprint {fingerprint.hex()}")
        self.fingerprint = fingerprint


@dataclass(frozen=True)
class Decoded(Generic[Meta]):
    """A message with what it says about itself; `version` and `hash` are the stream's (state records only)."""

    meta: Meta
    body: Message
    version: int = 0
    hash: bytes = b""


class _Class:
    """How one message class is written and read."""

    def __init__(self, cls: type) -> None:
        schema = schema_of(cls, logical=False)
        self.cls = cls
        self.name = cls.__name__
        self.schema = parse_schema(schema, named_schemas={})
        self.fingerprint = fingerprint_of(schema)
        self.header = MARKER + self.fingerprint
        self.to_datum = _writer_of(cls)
        self.from_datum = _reader_of(cls)
        self.meta_from_datum = _reader_of(META_OF[cls])
        self.is_state = cls in STATES


class Codec:
    """Encodes by the classes of this code; decodes whatever schema it has been taught (`learn`).

    All of today's schemas are known from the start; those of other releases come from `daybook.schemas`.
    """

    def __init__(self) -> None:
        self._classes = {cls: _Class(cls) for cls in META_OF}
        self._by_name = {c.name: c for c in self._classes.values()}
        self._prefixes: dict[tuple[bytes, str], Schema] = {}
        self._writers: dict[bytes, tuple[_Class, Schema]] = {
            c.fingerprint: (c, c.schema) for c in self._classes.values()
        }

    def schemas(self) -> Iterable[tuple[bytes, Schema]]:
        """The schemas this code writes, by fingerprint, with their logical types."""
        return [(c.fingerprint, schema_of(c.cls)) for c in self._classes.values()]

    def learn(self, schema: Schema) -> None:
        """Decode from now on also what was written with this schema of another release."""
        fingerprint = fingerprint_of(schema)
        name = schema["name"].rpartition(".")[2]
        if fingerprint not in self._writers and name in self._by_name:
            plain = parse_schema(without_logical_types(schema), named_schemas={})
            self._writers[fingerprint] = (self._by_name[name], plain)

    def encode(self, body: Message, meta: Datum, version: int = 0, hash: bytes = b"") -> bytes:
        """The Kafka value of a message. `meta` is the datum of its meta class (`vars(meta)`)."""
        how = self._classes[type(body)]
        datum = how.to_datum(body)
        datum["meta"] = meta
        if how.is_state:
            datum["version"], datum["hash"] = version, hash
        out = io.BytesIO()
        out.write(how.header)
        schemaless_writer(out, how.schema, datum)
        return out.getvalue()

    def decode(self, value: bytes) -> Decoded[Any]:
        """The message in a Kafka value, in today's shape.

        Raises UnknownFingerprintError for a schema not learned, UndecodableError for anything else.
        """
        how, datum = self._read(value)
        meta = how.meta_from_datum(datum.pop("meta"))
        version, hash_ = (datum.pop("version"), datum.pop("hash")) if how.is_state else (0, b"")
        return Decoded(meta, how.from_datum(datum), version, hash_)

    def peek(self, value: bytes, last: str) -> tuple[Datum, Any]:
        """The datum of `meta`, and the field `last`, of a message; what comes after `last` is not looked at."""
        how, schema = self._writer(value)
        prefix = self._prefixes.get((how.fingerprint, last))
        if prefix is None:
            prefix = self._prefixes[how.fingerprint, last] = _prefix_of(schema, last)
        datum: Datum = schemaless_reader(io.BytesIO(value[HEADER_BYTES:]), prefix, None)  # type: ignore[assignment]
        return datum["meta"], datum[last]

    def _read(self, value: bytes) -> tuple[_Class, Datum]:
        how, schema = self._writer(value)
        stream = io.BytesIO(value)
        stream.seek(HEADER_BYTES)
        try:
            datum: Datum = schemaless_reader(stream, schema, None)  # type: ignore[assignment]
            if schema is not how.schema:
                datum = upcast(how.name, value[2:HEADER_BYTES], datum)
        except Exception as error:  # fastavro raises whatever the bytes make it trip over
            raise UndecodableError(f"{how.name}: {type(error).__name__}: {error}") from error
        if stream.tell() != len(value):
            raise UndecodableError(f"{how.name}: {len(value) - stream.tell()} bytes too many")
        return how, datum

    def _writer(self, value: bytes) -> tuple[_Class, Schema]:
        if value[:2] != MARKER or len(value) < HEADER_BYTES:
            raise UndecodableError("not Avro single-object encoding")
        fingerprint = value[2:HEADER_BYTES]
        try:
            return self._writers[fingerprint]
        except KeyError:
            raise UnknownFingerprintError(fingerprint) from None


def _prefix_of(schema: Schema, last: str) -> Schema:
    names = [field["name"] for field in schema["fields"]]
    return parse_schema(schema | {"fields": schema["fields"][: names.index(last) + 1]}, named_schemas={})


def without_logical_types(schema: Schema) -> Schema:
    """The same schema (and fingerprint) with times as plain longs."""
    if isinstance(schema, list):
        return [without_logical_types(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("logicalType") == "timestamp-micros":
        return "long"
    return {
        key: without_logical_types(value) if key in ("type", "items", "fields") else value
        for key, value in schema.items()
    }


def _writer_of(cls: type) -> Callable[[Message], Datum]:
    """Instance → datum. Nested dataclasses are found once, here; a flat instance costs one dict copy."""
    nested = {name: convert for name, convert in _conversions(cls, _writer_of).items() if convert}
    if not nested:
        return lambda body: dict(body.__dict__)

    def write(body: Message) -> Datum:
        datum = dict(body.__dict__)
        for name, convert in nested.items():
            datum[name] = convert(datum[name])
        return datum

    return write


def _reader_of(cls: type) -> Callable[[Datum], Message]:
    """Datum → instance, without the cost of a frozen dataclass's `__init__`; the datum becomes its `__dict__`."""
    nested = {name: convert for name, convert in _conversions(cls, _reader_of, tuple).items() if convert}
    new = object.__new__

    def read(datum: Datum) -> Message:
        for name, convert in nested.items():
            datum[name] = convert(datum[name])
        body = new(cls)
        body.__dict__.update(datum)
        return body

    return read


Convert = Callable[[Any], Any]


def _conversions(
    cls: type, of: Callable[[type], Convert], collect: Callable[[Iterable[Any]], Any] | None = None
) -> Mapping[str, Convert | None]:
    hints = get_type_hints(cls)
    return {f.name: _conversion(hints[f.name], of, collect) for f in fields(cls)}


def _conversion(
    hint: Any, of: Callable[[type], Convert], collect: Callable[[Iterable[Any]], Any] | None
) -> Convert | None:
    if is_dataclass(hint) and isinstance(hint, type):
        return of(hint)
    if get_origin(hint) is tuple:
        item = _conversion(get_args(hint)[0], of, collect)
        if item is None:
            return collect and tuple
        return lambda values: (collect or list)([item(value) for value in values])
    inner = [arg for arg in get_args(hint) if arg is not type(None) and is_dataclass(arg)]
    if inner:
        convert = of(inner[0])
        return lambda value: None if value is None else convert(value)
    return None
