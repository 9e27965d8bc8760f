"""A log written by hand, event by event, with the checked-in schemas and nothing of Daybook's code."""

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from fastavro import parse_schema, schemaless_writer
from fastavro.schema import fingerprint, to_parsing_canonical_form

from ops.audit.law_book import LawBook
from ops.audit.wire import AvscReader

AVSC = Path(__file__).parents[1] / "schemas" / "avsc"
SECOND = 1_000_000
AGGREGATES = {
    "product": "catalog",
    "cart": "cart",
    "order": "order",
    "stock": "inventory",
    "payment": "payment",
}

Fields = dict[str, Any]


class Written(NamedTuple):
    """A record as it stands in a topic."""

    topic: str
    partition: int
    name: str
    datum: Fields

    @property
    def value(self) -> bytes:
        return encode(self.name, self.datum)


@dataclass
class Log:
    """`transact` appends events as a writer would: versions, hashes, batches, decisions. `records` may be tampered with."""

    now: int = 1_000_000 * SECOND
    records: list[Written] = field(default_factory=list)
    _ends: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    _count: int = 0

    def transact(
        self, *events: tuple[str, str, Fields], outcome: str = "accepted", command_id: str = ""
    ) -> list[Written]:
        """One transaction of one command: `events` are (stream, name, fields). Its decision is written with it."""
        self._count += 1
        command_id = command_id or f"command-{self._count}"
        batch = {"command_id": command_id, "batch_id": f"batch-{self._count}", "batch_size": len(events)}
        written = [
            self._append(stream, name, fields, batch | {"batch_index": index})
            for index, (stream, name, fields) in enumerate(events)
        ]
        streams = dict.fromkeys(stream for stream, _, _ in events)
        for aggregate in dict.fromkeys(aggregate_of(stream) for stream in streams):
            own = [
                {"stream": stream, "version": self._ends[stream][0]}
                for stream in streams
                if aggregate_of(stream) == aggregate
            ]
            self.decide(aggregate, command_id, outcome, own)
        return written

    def _append(self, stream: str, name: str, fields: Fields, batch: Fields) -> Written:
        version, previous = self._ends.get(stream, (0, bytes(32)))
        meta = (
            blank("EventMeta")
            | batch
            | {"stream": stream, "version": version + 1, "recorded_at": self.now, "occurred_at": self.now}
            | {"event_id": f"{stream}@{version + 1}", "previous": previous}
        )
        written = Written(f"t.events.{aggregate_of(stream)}", 0, name, {"meta": meta, **fields})
        self._ends[stream] = (version + 1, sha256(written.value).digest())
        self.records.append(written)
        return written

    def decide(self, aggregate: str, command_id: str, outcome: str, positions: list[Fields]) -> None:
        decided = blank("Decided") | {"command_id": command_id, "outcome": outcome, "positions": positions}
        datum = {"meta": blank("RecordMeta"), "ids": b"", "decided": [decided]}
        self.records.append(Written(f"t.decisions.{aggregate}", 0, "Decisions", datum))

    def after(self, seconds: float) -> None:
        """Let time pass."""
        self.now += int(seconds * SECOND)

    def verdicts(self, **judged: Any) -> dict[str, str]:
        return verdicts_of(self.records, self.now, **judged)

    def broken(self, **judged: Any) -> dict[str, str]:
        """The laws that do not hold, and why."""
        return {law: verdict for law, verdict in self.verdicts(**judged).items() if verdict != "holds"}


_READER = AvscReader()


def verdicts_of(records: Iterable[Written], now: int, **judged: Any) -> dict[str, str]:
    book = LawBook(_READER)
    for record in records:
        book.feed(record.topic, record.partition, record.value)
    return book.finish(now, **judged)


def aggregate_of(stream: str) -> str:
    return AGGREGATES[stream.split("/", maxsplit=1)[0]]


def encode(name: str, datum: Fields) -> bytes:
    header, schema, defaults = _writer(name)
    out = io.BytesIO()
    out.write(header)
    schemaless_writer(out, schema, defaults | datum)
    return out.getvalue()


def blank(record: str) -> Fields:
    """A datum of the named nested record with nothing in it."""
    holder = {"EventMeta": "CartCleared", "RecordMeta": "Decisions", "Decided": "Decisions"}[record]
    return next(_blank_fields(found) for found in _records(_schema(holder)) if found["name"] == record)


@cache
def _writer(name: str) -> tuple[bytes, Any, Fields]:
    schema = _schema(name)
    header = b"\xc3\x01" + bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))
    return header, parse_schema(_plain(schema), named_schemas={}), _blank_fields(schema)


@cache
def _schema(name: str) -> Any:
    return json.loads((AVSC / f"{name}.avsc").read_text())


def _records(schema: Any) -> Iterable[Any]:
    if isinstance(schema, list):
        for branch in schema:
            yield from _records(branch)
    elif isinstance(schema, dict):
        if schema["type"] == "record":
            yield schema
            for each in schema["fields"]:
                yield from _records(each["type"])
        elif schema["type"] == "array":
            yield from _records(schema["items"])


def _blank_fields(record: Any) -> Fields:
    return {each["name"]: _blank(each["type"]) for each in record["fields"]}


def _blank(kind: Any) -> Any:
    if isinstance(kind, dict):
        return [] if kind["type"] == "array" else {} if kind["type"] == "record" else _blank(kind["type"])
    if isinstance(kind, list):
        return None
    return {"string": "", "long": 0, "boolean": False, "bytes": b""}.get(kind)


def _plain(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_plain(branch) for branch in schema]
    if isinstance(schema, dict):
        return {key: _plain(value) for key, value in schema.items() if key != "logicalType"}
    return schema
