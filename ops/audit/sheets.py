"""Rows written as a table, CSV, JSON or Parquet; a file appears under its name only when it is whole."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from projections.movements import Kind, csv_header, csv_of, shown

Form = Literal["table", "csv", "json", "parquet"]
Columns: TypeAlias = Mapping[str, Kind]
Row: TypeAlias = Mapping[str, Any]

ROWS_AT_ONCE = 5_000
_TYPES: Mapping[Kind, pa.DataType] = {
    "text": pa.string(),
    "int": pa.int64(),
    "time": pa.timestamp("us", "UTC"),
}


def write(rows: Iterable[Row], columns: Columns, form: Form, output: Path | None) -> None:
    """All rows, a few thousand in memory at a time; to standard output if there is no path. Raises OSError."""
    if output is None:
        for part in _parts(rows, columns, form):
            sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
        return
    with whole(output) as file:
        if form == "parquet":
            _write_parquet(rows, columns, file)
        else:
            file.writelines(_parts(rows, columns, form))


@contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """A file that is there when all of it was written and flushed to the disk, or not at all. Raises OSError."""
    draft = path.with_name(f".{path.name}.part")
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _write_parquet(rows: Iterable[Row], columns: Columns, file: IO[bytes]) -> None:
    schema = pa.schema([(name, _TYPES[kind]) for name, kind in columns.items()])
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for some in _few(rows):
            cells = {name: [row[name] for row in some] for name in columns}
            writer.write_table(pa.table(cells, schema))


def _parts(rows: Iterable[Row], columns: Columns, form: Form) -> Iterator[bytes]:
    return (text.encode() for text in _WRITTEN[form](rows, columns))


def _few(rows: Iterable[Row]) -> Iterator[Sequence[Row]]:
    left = iter(rows)
    while some := list(islice(left, ROWS_AT_ONCE)):
        yield some


def _as_csv(rows: Iterable[Row], columns: Columns) -> Iterator[str]:
    yield csv_header(columns)
    for some in _few(rows):
        yield csv_of(some, columns)


def _as_json(rows: Iterable[Row], columns: Columns) -> Iterator[str]:
    """An array, a row on each line."""
    before = "["
    for row in rows:
        cells = {name: _json_of(kind, row[name]) for name, kind in columns.items()}
        yield f"{before}\n {json.dumps(cells, ensure_ascii=False)}"
        before = ","
    yield "[]\n" if before == "[" else "\n]\n"


def _json_of(kind: Kind, value: Any) -> Any:
    return None if value is None else shown(kind, value)


def _as_table(rows: Iterable[Row], columns: Columns) -> Iterator[str]:
    """Columns as wide as the first few thousand rows need."""
    some = _few([str(shown(kind, row[name])) for name, kind in columns.items()] for row in rows)  # type: ignore[misc]
    first: Any = next(some, [])
    widths = [max(map(len, cells)) for cells in zip(list(columns), *first, strict=True)]
    fits = [str.rjust if kind == "int" else str.ljust for kind in columns.values()]
    for cells in chain([list(columns)], first, chain.from_iterable(some)):
        padded = (fit(cell, width) for fit, cell, width in zip(fits, cells, widths, strict=True))
        yield "  ".join(padded).rstrip() + "\n"


_WRITTEN: Mapping[Form, Callable[[Iterable[Row], Columns], Iterator[str]]] = {
    "table": _as_table,
    "csv": _as_csv,
    "json": _as_json,
}
