"""A message told to people and programs: as a line of JSON, or as a row."""

from collections.abc import Callable
from dataclasses import is_dataclass
from functools import cache
from typing import Any, TypeAlias, get_type_hints

import orjson

from ops.instants import moment, told
from projections.view import Recorded
from schemas.meta import EventMeta, Micros
from schemas.personal import VEILED, Personal

Line: TypeAlias = Callable[[Recorded], bytes]
_SHOWN = orjson.OPT_UTC_Z | orjson.OPT_PASSTHROUGH_DATACLASS


def as_line(record: Recorded) -> bytes:
    """A line of JSON: where it stands, its type, its `meta` and `body`; instants as text, hashes in hex."""
    place = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
    return orjson.dumps(place | as_document(record.message), _json, _SHOWN | orjson.OPT_APPEND_NEWLINE)


def as_document(message: Any) -> dict[str, Any]:
    return {"type": type(message.body).__name__, "meta": message.meta, "body": message.body}


def as_json(document: Any) -> bytes:
    """Whatever holds messages and their parts, indented."""
    return orjson.dumps(document, _json, _SHOWN | orjson.OPT_INDENT_2)


def as_row(record: Recorded) -> bytes:
    """A row: when it happened, where it stands, who did it, and what."""
    message = record.message
    meta = message.meta
    at = getattr(meta, "occurred_at", None) or getattr(meta, "issued_at", None) or meta.recorded_at
    version = f"@{meta.version}" if isinstance(meta, EventMeta) else ""
    who = f"{meta.actor_kind}/{meta.actor_id}" if hasattr(meta, "actor_kind") else ""
    place = f"{record.topic.rpartition('.')[2]}[{record.partition}]:{record.offset}"
    head = f"{told(at):<27}  {place:<20}  {meta.stream + version:<46}  {type(message.body).__name__:<30}"
    return f"{head}  {who:<24}  {fields_of(message.body)}\n".encode()


def fields_of(record: Any) -> str:
    """The fields of a dataclass in a line: instants as text, of a list only how long it is, what is personal veiled."""
    instants = instants_of(record.__class__)
    return " ".join(
        f"{name}={_word(value, is_instant=name in instants)}" for name, value in _veiled(record).items()
    )


@cache
def instants_of(cls: type) -> frozenset[str]:
    """The fields that are instants, or None."""
    return frozenset(name for name, hint in get_type_hints(cls).items() if hint in (Micros, Micros | None))


@cache
def _veils_of(cls: type) -> dict[str, str]:
    hints = get_type_hints(cls, include_extras=True)
    return {name: VEILED for name, hint in hints.items() if hint == Personal}


def _veiled(record: Any) -> dict[str, Any]:
    """The fields, without what speaks of a person: not even its ciphertext is of use to who reads this."""
    own: dict[str, Any] = vars(record)
    return own | veils if (veils := _veils_of(record.__class__)) else own


def _word(value: Any, *, is_instant: bool) -> str:
    if is_instant and value is not None:
        return told(value)
    if is_dataclass(value):
        return f"({fields_of(value)})"
    return f"({len(value)})" if isinstance(value, tuple) else str(value)


def _json(value: Any) -> Any:
    """What JSON has no word for."""
    if is_dataclass(value) and not isinstance(value, type):
        shown = _veiled(value)
        return shown | {
            name: moment(shown[name]) for name in instants_of(type(value)) if shown[name] is not None
        }
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"{type(value).__name__} has no JSON")
