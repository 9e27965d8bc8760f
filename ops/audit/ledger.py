"""`./daybook audit stock` and `report`: what an auditor asks of the stock, answered from the log itself."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from confluent_kafka import KafkaException

from ops.audit.log_reader import LogNotReadError, LogReader, Value, open_log
from ops.audit.movements import NOTHING, Movement, Movements
from ops.audit.report import COLUMNS as REPORTED
from ops.audit.report import Report
from ops.audit.sheets import Columns, Form, write
from ops.audit.wire import LearningReader, UnreadableError
from ops.cli import adopted, fail, say
from ops.settings import Settings
from projections.as_of import Cutoff
from projections.history import EVER, Period, Wanted
from projections.movements import COLUMNS, flat
from schemas.instants import BadInstant, first_moment, last_moment
from schemas.inventory import stock_stream
from schemas.topics import Topics
from schemas.values import MAIN
from streams.schema_registry import SchemaRegistry

SAY_EVERY_S = 2.0
VERSION_DIGITS_MAX = 18
ON_SCREEN = (
    "version",
    "occurred_at",
    "type",
    "quantity",
    "sellable_after",
    "reserved_after",
    "allocated_after",
    "shipped_after",
    "reason",
    "actor_id",
    "order_id",
    "document",
)
"""The columns of a table; a file has all."""
STANDING: Columns = {
    "sku": "text",
    "location": "text",
    "as_of": "time",
    "known_at": "time",
    "entries": "int",
    "version": "int",
    "sellable": "int",
    "reserved": "int",
    "allocated": "int",
    "shipped": "int",
}

Since = Annotated[str, typer.Option("--from", help="A day (UTC) or a time with its offset; included.")]
Until = Annotated[
    str, typer.Option("--to", help="A day (UTC, to its end) or a time with its offset; included.")
]
By = Annotated[
    Period, typer.Option(help="The period is of when things happened, or of when they were recorded.")
]
Format = Annotated[Form, typer.Option("--format", help="Parquet needs -o.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Into this file, which appears when it is whole.")
]


def stock(
    sku: Annotated[str, typer.Argument(help="As it stands in the catalog.")],
    *,
    location: str = MAIN,
    as_of: Annotated[str, typer.Option(help="What had happened by then: a day, a time, or a version.")] = "",
    known_at: Annotated[str, typer.Option(help="What was recorded by then: a day or a time.")] = "",
    since: Since = "",
    until: Until = "",
    by: By = "occurred",
    reason: str = "",
    actor: Annotated[str, typer.Option(help="`anna`, or `merchant/anna`.")] = "",
    order: str = "",
    form: Format = "table",
    output: Output = None,
) -> None:
    """Show every movement of a SKU with the balances before and after it, or its balances as they stood at a time.

    It reads the log itself and adds up anew. Exit 1 if the SKU is unknown, nothing of it is as old as that, or the
    log does not add up; 2 if it could not be asked.
    """
    with asked(form, output):
        if not sku:
            fail("the SKU is empty", 2)
        if (as_of or known_at) and (since or until or reason or actor or order):
            fail("--as-of and --known-at ask for balances; a period and filters ask for movements", 2)
        wanted = Wanted(*_period(since, until), by, reason, actor, order)
        cutoff = _cutoff(as_of, known_at)
        books = Movements()
        moves = _movements(adopted("audit"), books, sku, location)
        if as_of or known_at:
            write([_standing(sku, location, moves, cutoff)], STANDING, form, output)
        else:
            columns = {name: COLUMNS[name] for name in ON_SCREEN} if form == "table" else COLUMNS
            write(_wanted(sku, location, moves, wanted), columns, form, output)
    _judge(books)


def report(
    *,
    since: Since = "",
    until: Until = "",
    by: By = "occurred",
    total: Annotated[bool, typer.Option("--total", help="Only in all, not by SKU.")] = False,
    form: Format = "table",
    output: Output = None,
) -> None:
    """Tell the opening, the movements by cause, and the closing: by SKU and in all.

    It reads the log itself. Opening and closing are what the events carry, the movements what they say: exit 1 if
    these do not balance, or if nothing had happened by then; 2 if it could not be asked.
    """
    with asked(form, output):
        found, books = Report(Wanted(*_period(since, until), by)), Movements()
        for movement in _movements(adopted("audit"), books):
            found.post(movement)
        if found.is_empty:
            fail(f"no stock had moved {f'by {until}' if until else 'at all'}", 1)
        write(found.rows(only_total=total), REPORTED, form, output)
    if unbalanced := found.unbalanced():
        books.note(f"{len(unbalanced):,} items do not balance: {', '.join(unbalanced[:5])}")
    _judge(books)


def _judge(books: Movements) -> None:
    if books.breaches:
        fail(f"the log does not add up: {books.breaches}", 1)


@contextmanager
def asked(form: Form, output: Path | None) -> Iterator[None]:
    """What may go wrong while one asks, each with its message and exit code."""
    if form == "parquet" and output is None:
        fail("Parquet is for files: say which by -o", 2)
    try:
        yield
    except BadInstant as error:
        fail(str(error), 2)
    except (LogNotReadError, KafkaException) as error:
        fail(f"the log could not be read: {error}", 2)
    except OSError as error:
        fail(f"{output or 'the output'} could not be written: {error}", 2)
    except KeyboardInterrupt:
        say("daybook: interrupted; no file was written")
        raise typer.Exit(130) from None


def _period(since: str, until: str) -> tuple[int, int]:
    begin, end = first_moment(since) if since else 0, last_moment(until) if until else EVER
    if begin > end:
        fail(f"the period ends before it begins: from {since} to {until}", 2)
    return begin, end


def _cutoff(as_of: str, known_at: str) -> Cutoff:
    known = last_moment(known_at) if known_at else EVER
    if as_of.isdecimal():
        return Cutoff(known_at=known, version=_version(as_of))
    return Cutoff(last_moment(as_of) if as_of else EVER, known)


def _version(digits: str) -> int:
    """As many digits as no stream has versions are one that there is not; EVER would mean that none was asked for."""
    return int(digits) if len(digits) <= VERSION_DIGITS_MAX else EVER - 1


def _movements(found: Settings, books: Movements, sku: str = "", location: str = "") -> Iterator[Movement]:
    """All movements, or those of one stock item. Raises LogNotReadError."""
    if not found.kafka:
        fail("nothing is up here, nor named by DAYBOOK_KAFKA; try ./daybook up", 2)
    topics = Topics(found.topic_prefix, found.partitions)
    partition = topics.partition_of(sku) if sku else None
    stream = stock_stream(sku, location)
    reader = LearningReader(lambda: SchemaRegistry(found.kafka, topics).schemas().values())
    with open_log(found.kafka, found.topic_prefix, ("events",), ("inventory",), partition) as log:
        if lost := log.truncated("events"):
            raise LogNotReadError(f"the beginning of {', '.join(lost)} is gone")
        for one in _told(log):
            if sku and one.key != sku.encode():
                continue
            try:
                name, event = reader.read(one.value)
            except UnreadableError as error:
                books.note(f"{one.topic}[{one.partition}], key {one.key!r}: {error}")
                continue
            if sku and event["meta"]["stream"] != stream:
                continue
            if movement := books.follow(name, event):
                yield movement


def _told(log: LogReader) -> Iterator[Value]:
    """The values of the log, and every two seconds a word on how far it is read."""
    end = sum(extent.high - extent.low for extent in log.extents.values())
    said = time.monotonic()
    for count, value in enumerate(log.values(), 1):
        yield value
        if time.monotonic() - said > SAY_EVERY_S:
            said = time.monotonic()
            say(f"read {count:,} records; the log has {end:,} offsets")


def _wanted(
    sku: str, location: str, moves: Iterable[Movement], wanted: Wanted
) -> Iterator[Mapping[str, Any]]:
    """The rows that are asked for; an item that has none at all is unknown."""
    entries = 0
    for entries, movement in enumerate(moves, 1):  # noqa: B007  # counted for below
        row = movement.shown()
        if wanted.fits(row):
            yield flat(sku, location, row)
    if not entries:
        fail(f"nothing was ever recorded of the stock of {sku} at {location}", 1)


def _standing(sku: str, location: str, moves: Iterable[Movement], cutoff: Cutoff) -> Mapping[str, Any]:
    """The balances out of the entries that count."""
    known, entries, version, balances = 0, 0, 0, NOTHING
    for movement in moves:
        meta, known = movement.event["meta"], movement.event["meta"]["version"]
        if cutoff.counts(known, meta["occurred_at"], meta["recorded_at"]):
            entries, version, balances = entries + 1, known, balances.plus(movement.change)
    if not known:
        fail(f"nothing was ever recorded of the stock of {sku} at {location}", 1)
    if known < cutoff.version < EVER:
        fail(f"the ledger of {sku} has no such version; it goes up to version {known}", 1)
    if not entries:
        fail(f"the ledger of {sku} has nothing of that time; it goes up to version {known}", 1)
    asked_for = {
        name: None if at == EVER else at
        for name, at in (("as_of", cutoff.as_of), ("known_at", cutoff.known_at))
    }
    found = {"entries": entries, "version": version, **balances._asdict()}
    return {"sku": sku, "location": location, **asked_for, **found}
