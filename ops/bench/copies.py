"""A log of any length: what a simulated shop wrote, copied under other names at later times, with hashes that link."""

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from random import Random
from typing import Any, NamedTuple

from fastavro import parse_schema, schemaless_writer
from structlog.testing import capture_logs

from ops.audit.wire import AVSC, Record
from ops.simulate.callers import Callers, plan_errands
from ops.simulate.clockwork import START, Process
from ops.simulate.faults import FAULTS_UNTIL
from ops.simulate.runs import HEALED_LEAST
from ops.simulate.site import Site
from ops.simulate.testimony import Said, Testimony, testify
from schemas.avro import without_logical_types
from schemas.meta import HOUR
from schemas.topics import Topics
from streams import failpoints

SEED = 7
LASTS = HOUR
"""Between the beginnings of two copies: a copy is at rest before the next begins."""

NAMES = re.compile(r"_id$|^sku$|^key$")
"""Fields that name what a copy must not share with another."""

HEADER_BYTES = 10


class Copied(NamedTuple):
    """A record ready to be written: in which partition of which topic, with which key."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    is_event: bool


def template() -> list[Said]:
    """Events and decisions of one shop's sixteen checkouts, without faults, in the order in which they were written;
    transactions one after the other, since copies may bring into one partition what was in two.
    """
    with capture_logs():  # that its processes come and go is nobody's news
        said = _trade()
    failpoints.enable(failpoints.Failpoints({}))  # the site's own stood there
    began: dict[str, int] = {}
    written = sorted([*said.events, *said.decisions], key=lambda one: one.order)
    for one in written:
        began.setdefault(one.meta["batch_id"], one.order)
    return sorted(written, key=lambda one: began[one.meta["batch_id"]])


def _trade() -> Testimony:
    site = Site(Random(f"copies {SEED}"))  # noqa: S311  # a seed decides everything
    callers = Callers(Process(site.clock, "callers"), site.network, site.topics, site.random)
    site.start()
    callers.send_out(plan_errands(Random(f"copies {SEED}")))  # noqa: S311  # as above
    site.clock.run_until(START + FAULTS_UNTIL)
    site.heal()
    site.clock.run_until(site.clock.now + HEALED_LEAST)
    said = testify(site.broker, set())
    site.close()
    return said


def copies(of: list[Said], topics: Topics) -> Iterator[Copied]:
    """One copy after the other, for ever."""
    names = frozenset(name for said in of for name in _names_in(said.record))
    schemas = {said.value[:HEADER_BYTES]: _schema(said.name) for said in of}
    number = 0
    while True:
        number += 1
        copy, ends = _Copy(names, number), dict[str, bytes]()
        for said in of:
            datum, stream = copy.of(said.record), str(copy.of(said.meta["stream"]))
            is_event = said.topic.split(".")[1] == "events"
            if is_event:
                datum["meta"]["previous"] = ends.get(stream, bytes(32))
            value = _encoded(said.value[:HEADER_BYTES], schemas[said.value[:HEADER_BYTES]], datum)
            if is_event:
                ends[stream] = sha256(value).digest()
            topic, key = f"{topics.prefix}.{said.topic.partition('.')[2]}", _key_of(stream)
            partition = topics.partition_of(key) if is_event else said.partition
            yield Copied(topic, partition, key.encode(), value, is_event)


@dataclass(frozen=True)
class _Copy:
    names: frozenset[str]
    number: int

    def of(self, value: Any) -> Any:
        """The same under other names and later."""
        match value:
            case bool():
                return value
            case str():
                return self._renamed(value)
            case int():
                return value + self.number * LASTS if value >= START else value
            case dict():
                return {name: self.of(inner) for name, inner in value.items()}
            case list():
                return [self.of(inner) for inner in value]
            case _:
                return value

    def _renamed(self, text: str) -> str:
        if text in self.names:
            return f"{text}.{self.number}"
        return "/".join(map(self._renamed, text.split("/"))) if "/" in text else text


def _key_of(stream: str) -> str:
    kind, _, key = stream.partition("/")
    return key.rpartition("/")[0] if kind == "stock" else key


def _names_in(record: Record) -> Iterator[str]:
    for name, value in record.items():
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                yield from _names_in(inner)
            elif isinstance(inner, str) and inner and NAMES.search(name):
                yield inner


def _schema(name: str) -> Any:
    return parse_schema(
        without_logical_types(json.loads((AVSC / f"{name}.avsc").read_text("utf-8"))), named_schemas={}
    )


def _encoded(header: bytes, schema: Any, datum: Record) -> bytes:
    out = io.BytesIO()
    out.write(header)
    schemaless_writer(out, schema, datum)
    return out.getvalue()
