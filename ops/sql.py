"""`./daybook sql`: questions in SQL over the events, by DuckDB on an export that it first brings up to date."""

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import fields
from datetime import date, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, Literal

import duckdb
import pyarrow as pa
import typer
from confluent_kafka import KafkaException

from ops import export
from ops.cli import fail, say
from ops.export import ExportFailed, Manifest
from ops.replay import exported, with_kafka
from ops.settings import Settings
from schemas.language import AGGREGATES
from schemas.meta import EventMeta
from schemas.topics import Topics
from streams.columns import arrow_schema
from streams.replay import KafkaLog, ReplayFailed
from streams.schema_registry import SchemaRegistry

VIEWS = Path(__file__).parent / "views.sql"
EVENTS = tuple(event for aggregate in AGGREGATES.values() for event in aggregate.events)
MEMORY_MAX = "1GB"
PAGE = 1_000
"""Rows that are held at once."""
CELL_MAX = 60
INSTANT = pa.timestamp("us", "UTC")

Format = Literal["table", "csv", "json"]


class BadQuery(Exception):
    """Why DuckDB cannot answer a question, mostly in its own words."""


def sql(
    query: Annotated[str, typer.Argument(help='Such as "select status, count(*) from orders group by all".')],
    *,
    export_: Annotated[
        Path | None,
        typer.Option("--export", help="A directory that replay -o made; it is read as it is, without Kafka."),
    ] = None,
    format_: Annotated[Format, typer.Option("--format")] = "table",
) -> None:
    """Ask in SQL: views orders, stock_movements, payments, events, and one for each type of event (OrderPlaced, …).

    What is new in the log is exported first, into a cache below .daybook. Nothing can be changed. "show tables" and
    "describe orders" say what there is. Exit 1 if the question cannot be answered.
    """
    try:
        with (
            _export(export_) as (directory, manifest),
            closing(connection_to(directory, manifest)) as connection,
        ):
            _print(answer(connection, query), format_)
    except (ExportFailed, ReplayFailed) as failed:
        fail(str(failed), 1)
    except BadQuery as bad:
        fail(f"DuckDB cannot answer this: {bad}", 1)
    except KafkaException as error:
        fail(f"Kafka: {error}", 1)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read us has seen enough
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@contextmanager
def _export(named: Path | None) -> Iterator[tuple[Path, Manifest]]:
    """An export, and nobody changes it meanwhile. Raises ExportFailed."""
    if named is not None and export.read_manifest(named) is None:
        raise ExportFailed(f"{named} holds no export; ./daybook replay --format parquet -o {named} makes one")
    directory = named or _up_to_date(with_kafka("sql"))
    with export.locked(directory, alone=False):
        manifest = export.read_manifest(directory)
        assert manifest is not None, "it was just written"
        yield directory, manifest


def _up_to_date(found: Settings) -> Path:
    """The cache, with what is new. One of another log or another release is made anew: it is only a copy."""
    directory = found.home / "export" / found.topic_prefix
    topics = Topics(found.topic_prefix)
    query = export.events_of(topics)
    with closing(KafkaLog(found.kafka)) as log:
        blank = Manifest(log.identity(query.topics), export.shapes(query), repr(query))
        with ExitStack() as ends:
            if not ends.enter_context(export.locked(directory, alone=True)):
                say("daybook: another question is being asked; what is new since then is left out")
                return directory
            before = export.read_manifest(directory)
            if before is not None and not before.continues(blank):
                say("daybook: the cache is of another log or another release; it is made anew")
                export.delete(directory)
        done = exported(log, query, directory, SchemaRegistry(found.kafka, topics).schemas)
    if before is None or done.records != before.records:
        say(f"daybook: {done.records:,} events in {directory}")
    return directory


def connection_to(directory: Path, manifest: Manifest) -> duckdb.DuckDBPyConnection:
    """A database of views alone, which reads the export and can touch nothing else."""
    # Without a temporary directory, which otherwise is ".tmp" wherever we are, with most of the disk to fill.
    connection = duckdb.connect(":memory:", config={"memory_limit": MEMORY_MAX, "temp_directory": ""})
    for event in EVENTS:
        _make_view(connection, directory, event, manifest.files.get(event.__name__, []))
    connection.execute("CREATE VIEW events AS " + " UNION ALL ".join(map(_events_of, EVENTS)))
    connection.execute(VIEWS.read_text("utf-8"))
    connection.execute("SET allowed_directories = [" + _quoted(str(directory)) + "]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _make_view(
    connection: duckdb.DuckDBPyConnection, directory: Path, event: type, files: Sequence[str]
) -> None:
    name, schema = event.__name__, arrow_schema(event)
    source = f"read_parquet([{', '.join(_quoted(str(directory / file)) for file in files)}])"
    if not files:
        source = _without_rows(connection, name, schema)
    # Without DuckDB's extension for time zones hardly a function knows what to do with an instant: UTC as plain time.
    instants = [field.name for field in schema if field.type == INSTANT]
    plain = ", ".join(f"make_timestamp(epoch_us({column})) AS {column}" for column in instants)
    connection.execute(f"CREATE VIEW {name} AS SELECT * REPLACE ({plain}) FROM {source}")  # noqa: S608  # our own classes' names


def _without_rows(connection: duckdb.DuckDBPyConnection, name: str, schema: Any) -> str:
    """An event that never happened has its columns all the same; its empty table stands where nobody looks."""
    connection.register("blank", schema.empty_table())
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS never; CREATE TABLE never.{name} AS SELECT * FROM blank")  # noqa: S608  # our own classes' names
    connection.unregister("blank")
    return f"never.{name}"


def _events_of(event: type) -> str:
    """What all events have in common; the rest is a JSON document, made only where it is asked for."""
    meta = ", ".join(field.name for field in fields(EventMeta))
    own = ", ".join(f"{field.name} := {field.name}" for field in fields(event))
    name = event.__name__
    return f"""SELECT '{name}' AS type, topic, partition, "offset", {meta}, to_json(struct_pack({own})) AS body FROM {name}"""  # noqa: S608  # our own classes' names


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def answer(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
    """The names of the columns, and the rows. Raises BadQuery."""
    with _in_our_words():
        asked = connection.extract_statements(query)
        if len(asked) != 1 or asked[0].type != duckdb.StatementType.SELECT:
            raise BadQuery("one question at a time, and nothing but questions: SELECT, DESCRIBE, SHOW")
        found = connection.execute(asked[0])
        return [column[0] for column in found.description or ()], _rows(found)


def _rows(found: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    with _in_our_words():
        while page := found.fetchmany(PAGE):
            yield from page


@contextmanager
def _in_our_words() -> Iterator[None]:
    """What DuckDB advises where memory runs out are settings, and those are locked."""
    try:
        yield
    except duckdb.InterruptException:
        raise KeyboardInterrupt from None
    except duckdb.OutOfMemoryException as error:
        raise BadQuery(
            f"it takes more than {MEMORY_MAX} of memory; ask for less at a time, or narrow it with where"
        ) from error
    except duckdb.Error as error:
        raise BadQuery(str(error)) from error


def _print(found: tuple[list[str], Iterator[tuple[Any, ...]]], format_: Format) -> None:
    names, rows = found
    match format_:
        case "csv":
            csv.writer(sys.stdout).writerows(
                chain([names], ([_cell(value) for value in row] for row in rows))
            )
        case "json":
            _print_json(names, rows)
        case "table":
            _print_table(names, rows)


def _print_json(names: Sequence[str], rows: Iterator[tuple[Any, ...]]) -> None:
    """An array of objects, a line each."""
    before = "["
    for row in rows:
        sys.stdout.write(before + json.dumps(dict(zip(names, row, strict=True)), default=_plain))
        before = ",\n "
    sys.stdout.write("[]\n" if before == "[" else "]\n")


def _print_table(names: Sequence[str], rows: Iterator[tuple[Any, ...]]) -> None:
    """As wide as the first thousand rows are; numbers to the right."""
    first = list(islice(rows, PAGE))
    numeric = [all(isinstance(row[n], int | float | None) for row in first) for n in range(len(names))]
    shown = [[_short(value) for value in row] for row in first]
    widths = [max(map(len, column)) for column in zip(names, *shown, strict=True)]
    count = 0
    for cells in chain(
        [names, ["-" * width for width in widths]], shown, ([*map(_short, row)] for row in rows)
    ):
        count += 1
        padded = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, numeric, strict=True)
        )
        sys.stdout.write("  ".join(padded).rstrip() + "\n")
    say(f"{count - 2:,} row{'s' * (count != 3)}")


def _short(value: object) -> str:
    cell = _cell(value).replace("\n", " ")
    return cell if len(cell) <= CELL_MAX else cell[: CELL_MAX - 1] + "…"


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list | dict):
        return json.dumps(value, default=_plain)
    return _plain(value)


def _plain(value: object) -> str:
    """What JSON has no word for."""
    if isinstance(value, datetime | date):
        return value.isoformat().replace("+00:00", "Z")
    return value.hex() if isinstance(value, bytes) else str(value)
