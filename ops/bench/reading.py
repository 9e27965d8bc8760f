"""`bench replay` and `bench export`: the log read again, beside the loop that one would write oneself."""

import io
import json
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from fastavro import parse_schema, schemaless_reader
from fastavro.schema import fingerprint, to_parsing_canonical_form

from ops import export
from ops.bench.contest import BenchFailed, Figure, Measure, Pair, in_turn
from ops.bench.costs import Costs, listener_at
from ops.bench.trade_log import TradeLog
from ops.export import Manifest
from schemas.avro import AVSC, without_logical_types
from schemas.codec import Codec
from streams.columns import ROWS_MAX, arrow_schema
from streams.kafka_clients import reader_config
from streams.replay import KafkaLog, Replay

ORDERS = 1_000
BATCH = 2_000
WAIT_S = 1.0

OBVIOUS = "the obvious loop: consume, fastavro to dicts (times as numbers)"


class Reading:
    """Both sides read the same topics from their beginning to their end, in one process, one after the other."""

    def __init__(self, log: TradeLog) -> None:
        self._log = log
        self._codec = Codec()
        self._query = export.events_of(log.topics)
        self._schemas = schemas_by_prefix()
        self._broker = listener_at(log.kafka)

    def close(self) -> None:
        self._log.close()

    def _timed(self, read: Callable[[], int]) -> Figure:
        watched = {"client": psutil.Process()} | ({"kafka": self._broker} if self._broker else {})
        costs = Costs(watched)
        began = time.monotonic()
        events = read()
        took = time.monotonic() - began
        if events != self._log.events:
            raise BenchFailed(f"{events:,} of {self._log.events:,} events were read")
        return Figure(events / took, costs.per_event(events))

    def _peer_events(self) -> Iterator[tuple[str, dict[str, Any], Message]]:
        """Each event's type and datum, and its message."""
        for message in messages(self._log.kafka, self._query.topics, self._log.topics.partitions):
            value = message.value() or b""
            name, schema = self._schemas[value[:10]]
            stream = io.BytesIO(value)
            stream.seek(10)
            yield name, schemaless_reader(stream, schema, None), message  # type: ignore[misc]  # a record is a dict


class ReplayContest(Reading):
    name = "replay"
    measures: Sequence[Measure] = (Measure("replay", "events/s", "messages, checked", OBVIOUS, 1, 2),)

    def warm_up(self) -> None:
        self._log.write()
        self.round()

    def round(self) -> Mapping[str, Pair]:
        daybook, peer = in_turn([lambda: self._timed(self._events), lambda: self._timed(self._dicts)])
        return {"replay": Pair(daybook, peer)}

    def proof(self) -> Mapping[str, int]:
        """Versions that one side read and the other did not."""
        ours = Counter((one.message.meta.stream, one.message.meta.version) for one in self._replay())
        theirs = Counter(
            (datum["meta"]["stream"], datum["meta"]["version"]) for _, datum, _ in self._peer_events()
        )
        return {"events_that_differ": (ours - theirs).total() + (theirs - ours).total()}

    def _events(self) -> int:
        return sum(1 for _ in self._replay())

    def _dicts(self) -> int:
        return sum(1 for _ in self._peer_events())

    def _replay(self) -> Iterator[Any]:
        with closing(KafkaLog(self._log.kafka)) as log:
            yield from Replay(log, self._query, self._codec).events()


class ExportContest(Reading):
    name = "export"
    measures: Sequence[Measure] = (
        Measure(
            "export", "events/s", "Parquet (zstd), flushed", f"{OBVIOUS}, Table.from_pylist, Parquet", 2, 3
        ),
    )

    def __init__(self, log: TradeLog, home: Path) -> None:
        super().__init__(log)
        self._ours, self._theirs = home / "export-daybook", home / "export-peer"

    def close(self) -> None:
        super().close()
        for directory in (self._ours, self._theirs):
            shutil.rmtree(directory, ignore_errors=True)

    def warm_up(self) -> None:
        self._log.write()
        self.round()

    def round(self) -> Mapping[str, Pair]:
        for directory in (self._ours, self._theirs):
            shutil.rmtree(directory, ignore_errors=True)
        daybook, peer = in_turn([lambda: self._timed(self._export), lambda: self._timed(self._by_pylist)])
        return {"export": Pair(daybook, peer)}

    def proof(self) -> Mapping[str, int]:
        """Types of events whose table is not the same on both sides."""
        ours, theirs = _tables(self._ours), _tables(self._theirs)
        differ = [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]
        return {"tables_that_differ": len(differ)}

    def _export(self) -> int:
        blank = Manifest("bench", export.shapes(self._query), "all")
        with closing(KafkaLog(self._log.kafka)) as log:
            done = export.export(
                self._ours, blank, lambda _: Replay(log, self._query, self._codec), lambda _: lambda _: None
            )
        return done.records

    def _by_pylist(self) -> int:
        self._theirs.mkdir(parents=True)
        classes = {message.__name__: message for message in export.messages_of(self._query)}
        rows: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        writers: dict[str, Any] = {}
        events = 0

        def write(name: str) -> None:
            table = pa.Table.from_pylist(rows.pop(name), schema=arrow_schema(classes[name]))
            if name not in writers:
                writers[name] = pq.ParquetWriter(self._theirs / f"{name}.parquet", table.schema)
            writers[name].write_table(table)

        for name, datum, message in self._peer_events():
            place = {"topic": message.topic(), "partition": message.partition(), "offset": message.offset()}
            rows[name].append(place | datum.pop("meta") | datum)
            events += 1
            if len(rows[name]) >= ROWS_MAX:
                write(name)
        for name in list(rows):
            write(name)
        for writer in writers.values():
            writer.close()
        return events


def messages(kafka: str, topics: Sequence[str], partitions: int) -> Iterator[Message]:
    consumer = Consumer(reader_config(kafka))
    try:
        consumer.assign([TopicPartition(topic, n, 0) for topic in topics for n in range(partitions)])
        ended = 0
        while ended < len(topics) * partitions:
            for message in consumer.consume(BATCH, WAIT_S):
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended += 1
                else:
                    raise BenchFailed(str(error))
    finally:
        consumer.close()


def schemas_by_prefix() -> dict[bytes, tuple[str, Any]]:
    """The checked-in schemas by how a value begins, as an outsider would load them; without logical types, since
    datetimes would make the peer slower still.
    """
    found = {}
    for file in AVSC.glob("*.avsc"):
        schema = json.loads(file.read_text("utf-8"))
        print_ = bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))
        found[b"\xc3\x01" + print_] = (
            schema["name"],
            parse_schema(without_logical_types(schema), named_schemas={}),
        )
    return found


def _tables(directory: Path) -> dict[str, Any]:
    """The tables by type, in the order of the log."""
    files: defaultdict[str, list[Path]] = defaultdict(list)
    for file in directory.rglob("*.parquet"):
        files[file.stem if file.parent == directory else file.parent.name].append(file)
    order = [(name, "ascending") for name in ("topic", "partition", "offset")]
    return {name: pa.concat_tables(map(pq.read_table, some)).sort_by(order) for name, some in files.items()}
