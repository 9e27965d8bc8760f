"""The log in columns: record batches of Arrow, one message class each, read from bytes without a detour by objects."""

import gc
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from operator import attrgetter
from typing import Any, get_args, get_origin, get_type_hints

import pyarrow as pa

from schemas.avro_reader import MALFORMED
from schemas.codec import HEADER_BYTES
from schemas.language import META_OF
from schemas.meta import Micros
from schemas.personal import Personal
from schemas.row_reader import Row, compile_rows
from streams.replay import Replay, ReplayFailed, Stored, clocks_of

ROWS_MAX = 16_384
BYTES_MAX = 32 * 1024 * 1024
"""So much waits, as bytes, until it is turned into columns: the memory that it takes then is a few times that."""

_PLACE = [("topic", pa.string()), ("partition", pa.int32()), ("offset", pa.int64())]
_TYPES: dict[object, Any] = {
    str: pa.string(),
    int: pa.int64(),
    bool: pa.bool_(),
    bytes: pa.binary(),
    Micros: pa.timestamp("us", "UTC"),
    Personal: pa.string(),  # veiled
}


@cache
def arrow_schema(message: type) -> Any:
    """topic, partition, offset; the fields of the message's `meta`; its own."""
    described = [
        pa.field(field.name, *_type(get_type_hints(cls, include_extras=True)[field.name]))
        for cls in (META_OF[message], message)
        for field in fields(cls)
    ]
    return pa.schema([*(pa.field(name, kind, nullable=False) for name, kind in _PLACE), *described])


def _type(hint: Any) -> tuple[Any, bool]:
    """The Arrow type, and whether a value may be missing."""
    if hint in _TYPES:
        return _TYPES[hint], False
    if get_origin(hint) is tuple:
        return pa.list_(pa.field("item", *_type(get_args(hint)[0]))), False
    if is_dataclass(hint) and isinstance(hint, type):
        hints = get_type_hints(hint, include_extras=True)
        return pa.struct([pa.field(f.name, *_type(hints[f.name])) for f in fields(hint)]), False
    (inner,) = (arg for arg in get_args(hint) if arg is not type(None))
    return _type(inner)[0], True


def record_batches(replay: Replay) -> Iterator[tuple[type, Any]]:
    """Everything that the replay finds, as (message class, record batch) of up to 16,384 rows."""
    waiting = Columns(replay)
    for records in replay.portions():
        waiting.add(records)
        yield from waiting.ready()
    yield from waiting.rest()


class Columns:
    """Records wait here, by the schema that wrote them, until there are enough of them for a record batch."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._waiting: defaultdict[bytes, list[Stored]] = defaultdict(list)
        self._bytes = 0

    def add(self, records: Sequence[Stored]) -> None:
        waiting = self._waiting
        for record in records:
            waiting[record.value[:HEADER_BYTES]].append(record)
        self._bytes += _bytes_of(records)

    def ready(self) -> Iterator[tuple[type, Any]]:
        """What there is enough of; or all, when it comes to too many bytes."""
        if self._bytes > BYTES_MAX:
            yield from self.rest()
        for header in [header for header, some in self._waiting.items() if len(some) >= ROWS_MAX]:
            yield self._taken(header)

    def rest(self) -> Iterator[tuple[type, Any]]:
        for header in list(self._waiting):
            yield self._taken(header)

    def _taken(self, header: bytes) -> tuple[type, Any]:
        records = self._waiting.pop(header)
        self._bytes -= _bytes_of(records)
        message = self._replay.class_of(records[0])
        return message, _Reading(self._replay, message, records).batch()


def _bytes_of(records: Sequence[Stored]) -> int:
    return sum(map(len, map(attrgetter("value"), records)))


@contextmanager
def _no_collector() -> Iterator[None]:
    """Rows are tuples without a cycle: Python's collector would look through all of them, again and again, in vain,
    which is a third of the work.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@dataclass(frozen=True)
class _Reading:
    """Records that one schema wrote, about to become columns."""

    replay: Replay
    message: type
    records: Sequence[Stored]

    def batch(self) -> Any:
        with _no_collector():
            *places, _, values = zip(*self.records, strict=True)
            return self._batch([*places, *zip(*self._rows(values), strict=True)])

    def _batch(self, columns: Sequence[Sequence[Any]]) -> Any:
        schema = arrow_schema(self.message)
        try:
            arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
        except pa.ArrowInvalid as error:  # a text that is no UTF-8
            raise ReplayFailed(f"{self._between()} cannot be read: {error}") from error
        batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
        return batch.filter(self._covered(columns)) if self.replay.query.is_timed else batch

    def _rows(self, values: Sequence[bytes]) -> list[Row]:
        rows: list[Row] = []
        try:
            compile_rows(self.message, META_OF[self.message], HEADER_BYTES)(self._today(values), rows)
        except MALFORMED as error:
            self.replay.decode(self.records[len(rows)])  # says why, in the words of the one reader there is
            raise ReplayFailed(f"{self._between()} cannot be read: {error}") from error
        return rows

    def _today(self, values: Sequence[bytes]) -> Sequence[bytes]:
        """What an older or a newer release wrote is written anew in today's shape first: there is one way to upcast."""
        codec = self.replay.codec
        if codec.is_today(values[0]):
            return values
        messages = map(self.replay.decode, self.records)
        return [codec.encode(message.body, vars(message.meta)) for message in messages]

    def _covered(self, columns: Sequence[Sequence[Any]]) -> Any:
        """Whether each row is of the time that is asked for."""
        meta = META_OF[self.message]
        names = [name for name, _ in _PLACE] + [field.name for field in fields(meta)]
        clocks = [columns[names.index(name)] for name in clocks_of(meta, self.replay.query.by)]
        at = (next(one for one in told if one is not None) for told in zip(*clocks, strict=True))
        return pa.array([self.replay.query.covers(one) for one in at])

    def _between(self) -> str:
        first, last = self.records[0], self.records[-1]
        return f"a {self.message.__name__} between {first.topic} offset {first.offset} and {last.offset}"
