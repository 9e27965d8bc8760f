"""Messages as bytes: Avro single-object encoding, each record with its `meta` first."""

import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

from fastavro import parse_schema, schemaless_reader

from schemas.avro import Schema, fingerprint_of, released_files, schema_of, without_logical_types
from schemas.avro_reader import MALFORMED, Read, compile_reader
from schemas.avro_writer import Write, compile_writer
from schemas.language import META_OF, STATES, Message
from schemas.meta import CommandMeta, EventMeta, RecordMeta
from schemas.upcasting import UPCASTS

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
        self.fields = {field["name"] for field in schema["fields"]}
        self.from_datum = _reader_of(cls)
        self.meta_from_datum = _reader_of(META_OF[cls])
        self.is_state = cls in STATES

    @cached_property
    def write(self) -> Write:
        """Compiled when the first message is written: most processes write few classes."""
        return compile_writer(schema_of(self.cls, logical=False), self.header, is_state=self.is_state)


@dataclass(frozen=True)
class _Shape:
    """A schema that values are written with, and how a value becomes a message of today's class."""

    how: _Class
    schema: Schema
    reader: Schema | None = None
    upcast: Callable[[Datum], Datum] | None = None

    @cached_property
    def read(self) -> Read:
        """Compiled when the first message is read, if the schema is today's; else fastavro's."""
        cls = self.how.cls
        if self.schema is self.how.schema:
            return compile_reader(cls, META_OF[cls], Decoded, HEADER_BYTES, is_state=self.how.is_state)
        return self._read_of_another_release

    def _read_of_another_release(self, value: bytes) -> Decoded[Any]:
        how, stream = self.how, io.BytesIO(value)
        stream.seek(HEADER_BYTES)
        try:
            datum = self._today(schemaless_reader(stream, self.schema, self.reader))  # type: ignore[arg-type]
            meta = how.meta_from_datum(datum.pop("meta"))
            version, hash_ = (datum.pop("version"), datum.pop("hash")) if how.is_state else (0, b"")
            body = how.from_datum(datum)
        except Exception as error:  # fastavro raises whatever the bytes make it trip over
            raise ValueError(f"{type(error).__name__}: {error}") from error
        if stream.tell() != len(value):
            raise ValueError(f"{len(value)} bytes, not {stream.tell()}")
        return Decoded(meta, body, version, hash_)

    def _today(self, datum: Datum) -> Datum:
        if self.upcast is not None:
            datum = self.upcast(datum)
            if datum.keys() != self.how.fields:
                raise ValueError(
                    f"upcast, yet not in today's shape: {sorted(datum.keys() ^ self.how.fields)}"
                )
        return datum


class Codec:
    """Encodes by the classes of this code; decodes whatever schema it knows.

    It knows all of today's and all that were ever released from the start; others (a newer release beside this one)
    come from the topic `schemas` by `learn`.
    """

    def __init__(self) -> None:
        self._classes = {cls: _Class(cls) for cls in META_OF}
        self._by_name = {how.name: how for how in self._classes.values()}
        self._shapes = {how.header: _Shape(how, how.schema) for how in self._classes.values()}
        self._prefixes: dict[tuple[bytes, str], Schema] = {}
        for (_, fingerprint), file in released_files().items():
            if MARKER + bytes.fromhex(fingerprint) not in self._shapes:
                self.learn(json.loads(file.read_text("utf-8")))

    def schemas(self) -> Iterable[tuple[bytes, Schema]]:
        """The schemas this code writes, by fingerprint, with their logical types."""
        return [(how.fingerprint, schema_of(cls)) for cls, how in self._classes.items()]

    def learn(self, schema: Schema) -> None:
        """Decode from now on also what was written with this schema of another release: by an upcast where there is
        one, else by Avro's schema resolution. A schema of no class of ours is passed over.
        """
        header = MARKER + fingerprint_of(schema)
        how = self._by_name.get(schema["name"].rpartition(".")[2])
        if how is None or header in self._shapes:
            return
        plain = parse_schema(without_logical_types(schema), named_schemas={})
        upcast = UPCASTS.get((how.name, header[2:].hex()))
        self._shapes[header] = _Shape(how, plain, None if upcast else how.schema, upcast)

    def encode(self, body: Message, meta: Datum, version: int = 0, hash: bytes = b"") -> bytes:  # noqa: A002  # its name on the wire
        """The Kafka value of a message. `meta` is the datum of its meta class (`vars(meta)`)."""
        return self._classes[type(body)].write(body, meta, version, hash)

    def decode(self, value: bytes) -> Decoded[Any]:
        """The message in a Kafka value, in today's shape.

        Raises UnknownFingerprintError for a schema not known, UndecodableError for anything else.
        """
        shape = self._shape_of(value)
        read = shape.read
        try:
            return read(value)  # type: ignore[no-any-return]
        except MALFORMED as error:
            raise UndecodableError(f"{shape.how.name}: {type(error).__name__}: {error}") from error

    def class_of(self, value: bytes) -> type:
        """The message class of a Kafka value, told by its first bytes; the rest is not looked at. Raises as `decode`."""
        return self._shape_of(value).how.cls

    def is_today(self, value: bytes) -> bool:
        """Whether it was written in the shape that this code writes."""
        shape = self._shape_of(value)
        return shape.schema is shape.how.schema

    def adopt(self, value: bytes, datum: Datum) -> Decoded[Any]:
        """The message in a Kafka value that somebody else has read as `datum`, which becomes part of it. What was
        written with another schema than today's is decoded; raises as `decode` does.
        """
        how = self._shape_of(value).how
        if how.is_state or not self.is_today(value):
            return self.decode(value)
        body = dict(datum)
        return Decoded(how.meta_from_datum(body.pop("meta")), how.from_datum(body))

    def peek(self, value: bytes, last: str) -> tuple[Datum, Any]:
        """The datum of `meta`, and the field `last`, of a message as it was written; what comes after `last` is not
        looked at. Raises as `decode` does.
        """
        prefix = self._prefix_of(value, last)
        stream = io.BytesIO(value)
        stream.seek(HEADER_BYTES)
        try:
            datum: Datum = schemaless_reader(stream, prefix, None)  # type: ignore[assignment]
        except Exception as error:  # as in decode
            raise UndecodableError(f"{type(error).__name__}: {error}") from error
        return datum["meta"], datum[last]

    def _shape_of(self, value: bytes) -> _Shape:
        try:
            return self._shapes[value[:HEADER_BYTES]]
        except (KeyError, TypeError):  # a record may also have no value at all
            if not value or value[:2] != MARKER or len(value) < HEADER_BYTES:
                raise UndecodableError("not Avro single-object encoding") from None
            raise UnknownFingerprintError(value[2:HEADER_BYTES]) from None

    def _prefix_of(self, value: bytes, last: str) -> Schema:
        """The schema of `value` up to its field `last`."""
        shape = self._shape_of(value)
        key = value[:HEADER_BYTES], last
        if key not in self._prefixes:
            fields_ = shape.schema["fields"]
            names = [field["name"] for field in fields_]
            if last not in names:
                raise UndecodableError(f"{shape.how.name}: has no field {last}")
            # fastavro marks what it has parsed ("__…") and would take the marked whole for the prefix.
            unmarked = {name: part for name, part in shape.schema.items() if not name.startswith("__")}
            prefix = unmarked | {"fields": fields_[: names.index(last) + 1]}
            self._prefixes[key] = parse_schema(prefix, named_schemas={})
        return self._prefixes[key]


def _reader_of(cls: type) -> Callable[[Datum], Message]:
    """Datum → instance, without the cost of a frozen dataclass's `__init__`; the datum becomes its `__dict__`."""
    hints = get_type_hints(cls)
    nested = {f.name: convert for f in fields(cls) if (convert := _conversion(hints[f.name]))}
    new, adopt = object.__new__, object.__setattr__

    def read(datum: Datum) -> Message:
        for name, convert in nested.items():
            datum[name] = convert(datum[name])
        body: Message = new(cls)
        adopt(body, "__dict__", datum)
        return body

    return read


def _conversion(hint: Any) -> Callable[[Any], Any] | None:
    """How a field's datum becomes its value; None where it is that already."""
    if is_dataclass(hint) and isinstance(hint, type):
        return _reader_of(hint)
    if get_origin(hint) is tuple:
        item = _conversion(get_args(hint)[0])
        return (lambda values: tuple([item(value) for value in values])) if item else tuple
    inner = [arg for arg in get_args(hint) if is_dataclass(arg) and isinstance(arg, type)]
    if inner:
        convert = _reader_of(inner[0])
        return lambda value: None if value is None else convert(value)
    return None
