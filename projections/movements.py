"""Movements of stock as a table: a column for each value, and CSV of it."""

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

from schemas.instants import written

Kind: TypeAlias = Literal["text", "int", "time"]
"""Of the values of a column; times are micros."""

_BALANCES = ("sellable", "reserved", "allocated", "shipped")
COLUMNS: Mapping[str, Kind] = {
    "sku": "text",
    "location": "text",
    "version": "int",
    "type": "text",
    "occurred_at": "time",
    "recorded_at": "time",
    **{f"{name}_{when}": "int" for when in ("before", "after") for name in _BALANCES},
    "quantity": "int",
    "reason": "text",
    "note": "text",
    "document": "text",
    "order_id": "text",
    "line": "int",
    "corrects": "text",
    "actor_kind": "text",
    "actor_id": "text",
    "command_id": "text",
    "correlation_id": "text",
    "causation_id": "text",
    "event_id": "text",
    "traceparent": "text",
}

_FORMULA = tuple("=+-@\t\r")
"""A text that begins so is run by spreadsheets as a formula."""


def flat(sku: str, location: str, movement: Mapping[str, Any]) -> dict[str, Any]:
    """One row: the values of COLUMNS, of a movement as the ledger shows it."""
    values = {"sku": sku, "location": location, **movement}
    for when in ("before", "after"):
        values |= {f"{name}_{when}": units for name, units in values.pop(when).items()}
    return {name: values[name] for name in COLUMNS}


def csv_header(columns: Mapping[str, Kind] = COLUMNS) -> str:
    return _csv([columns])


def csv_of(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, Kind] = COLUMNS) -> str:
    """Lines of CSV (RFC 4180), times in RFC 3339; text that a spreadsheet would run gets an apostrophe in front."""
    return _csv([_cell(kind, row[name]) for name, kind in columns.items()] for row in rows)


def shown(kind: Kind, value: Any) -> Any:
    """A value as a person reads it; what is not there (None) is empty."""
    if value is None:
        return ""
    return written(value) if kind == "time" else value


def _csv(lines: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(lines)
    return text.getvalue()


def _cell(kind: Kind, value: Any) -> Any:
    cell = shown(kind, value)
    return f"'{cell}" if kind == "text" and cell.startswith(_FORMULA) else cell
