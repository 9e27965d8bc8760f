"""`verify`: a bundle of a million stock records proved true, beside a loop that only reads them and follows the hashes."""

import io
import json
import resource
import tempfile
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from fastavro import parse_schema, schemaless_reader
from fastavro.schema import fingerprint, to_parsing_canonical_form

from ops.bench.contest import BenchFailed, Figure, Measure, Pair, in_turn
from ops.bench.stock_history import StockHistory
from ops.evidence.assembly import Part
from ops.evidence.bundle import Bundle, Manifest, Question, Tree, written
from ops.evidence.checkpoint import Checkpoint, Note, PrivateKey
from ops.evidence.export import Choice
from ops.evidence.log import Record
from ops.evidence.merkle import leaf_hash
from ops.evidence.tree_file import TreeFile
from ops.evidence.values import HEADER_BYTES, LAYOUTS, Shapes
from ops.evidence.verify import Bad, Trust, verify
from schemas.avro import AVSC
from schemas.meta import NO_HASH
from schemas.topics import partition_of

RECORDS = 1_000_000
PARTITIONS = 2
SKUS = 3_000
CHECKPOINT_EVERY = 10_000
WITHIN_S = 20.0


@dataclass
class SealedLog:
    """One partition as a sealer would have sealed it: the raw material of a bundle, without a Kafka.

    `spool` holds the values one after the other, so that a million of them need no memory.
    """

    origin: str
    tree: TreeFile
    spool: Path
    notes: dict[int, Note] = field(default_factory=dict)
    keys: list[bytes] = field(default_factory=list)
    lengths: "array[int]" = field(default_factory=lambda: array("q"))

    def records(self) -> Iterator[Record]:
        """As a consumer would get them; every transaction's marker takes an offset too."""
        with self.spool.open("rb") as file:
            for leaf, (key, length) in enumerate(zip(self.keys, self.lengths, strict=True)):
                yield Record(2 * leaf, key, file.read(length))


def sealed_logs(
    values: Iterable[tuple[str, bytes]], folder: Path, key: PrivateKey, partitions: int, every: int
) -> list[SealedLog]:
    """The values in their partitions, with a checkpoint after every so many records and one at the end."""
    logs = [
        SealedLog(
            f"{key.name}/bench.events.inventory/{n}",
            TreeFile(folder / f"{n}.tree", 0),
            folder / f"{n}.values",
        )
        for n in range(partitions)
    ]
    with ExitStack() as ends:
        spools = [ends.enter_context(log.spool.open("wb")) for log in logs]
        for sku, value in values:
            number = partition_of(sku, partitions)
            log = logs[number]
            spools[number].write(value)
            log.keys.append(sku.encode())
            log.lengths.append(len(value))
            log.tree.append([leaf_hash(value)])
            if log.tree.size % every == 0:
                _sign(log, key)
    for log in logs:
        log.tree.flush()
        _sign(log, key)
    return [log for log in logs if log.notes]


def _sign(log: SealedLog, key: PrivateKey) -> None:
    if log.tree.size and log.tree.size not in log.notes:
        checkpoint = Checkpoint(log.origin, log.tree.size, log.tree.root())
        log.notes[log.tree.size] = checkpoint.note().signed(key)


def bundle_of(question: Question, logs: Sequence[SealedLog], path: Path, others: Sequence[Any] = ()) -> None:
    """What `audit export` would write of these logs; `others` are schemas of other releases than this."""
    schemas = [*stock_schemas(), *others]
    with written(path) as bundle:
        trees: list[Tree] = []
        for log in logs:
            choice = Choice(question, Shapes(schemas))
            for leaf, record in enumerate(log.records()):
                choice.look(leaf, record)
            part = Part(log.origin, log.tree, log.notes, choice.wanted(max(log.notes)))
            if part.wanted:
                bundle.checkpoints(len(trees), part.checkpoints())
                bundle.records(len(trees), _rows(log, part))
                bundle.proof(len(trees), part.proof())
                trees.append(Tree(log.origin, len(part.wanted), choice.asked))
        for schema in schemas:
            bundle.schema(_print_of(schema), schema)
        bundle.manifest(Manifest(question, "2010-12-31T00:00:00+00:00", tuple(trees)))


def _rows(log: SealedLog, part: Part) -> Iterator[dict[str, Any]]:
    wanted = set(part.wanted)
    for leaf, record in enumerate(log.records()):
        if leaf in wanted:
            yield part.record(leaf, record.offset, record.value)


def stock_schemas() -> list[Any]:
    return [json.loads((AVSC / f"{name}.avsc").read_text("utf-8")) for name in LAYOUTS]


def _print_of(schema: Any) -> str:
    return str(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))


class Verify:
    """One bundle of a period, whole, verified by us and looked through by the peer in the same rounds."""

    name = "verify"

    def __init__(self, records: int = RECORDS) -> None:
        self._records = records
        self._folder = tempfile.TemporaryDirectory(prefix="daybook-bench-")
        self._bundle = Path(self._folder.name) / "bundle.zip"
        self._key = PrivateKey.generate("bench.example")
        rate = f"whole, of {records:,} records; everything checked"
        self.measures: Sequence[Measure] = (
            Measure(
                "verify",
                "records/s",
                f"signatures, proofs, chains, balances and laws {rate}",
                "fastavro's schemaless_reader and hashlib: values and hash chains only",
                floor=RECORDS / WITHIN_S,
                of="figure",
            ),
            Measure("verify, one core", "records/s", "the same in one process", "the same"),
        )

    def warm_up(self) -> None:
        """Makes the bundle; whoever measures does not write it."""
        folder = Path(self._folder.name)
        history = StockHistory(self._records, min(SKUS, self._records // 10))
        logs = sealed_logs(history, folder, self._key, PARTITIONS, CHECKPOINT_EVERY)
        bundle_of(Question("period", begin=0, end=1 << 60), logs, self._bundle)
        for log in logs:
            log.tree.close()

    def round(self) -> Mapping[str, Pair]:
        ours, alone, peers = in_turn(
            [lambda: self._verified(2), lambda: self._verified(1), self._looked_through]
        )
        return {"verify": Pair(ours, peers), "verify, one core": Pair(alone, peers)}

    def proof(self) -> Mapping[str, int]:
        """The verifier must not have become blind: one bit of one record is another than it was sealed."""
        folder = Path(self._folder.name) / "tampered"
        folder.mkdir()
        logs = sealed_logs(StockHistory(200, 4), folder, self._key, 1, 50)
        spoilt = bytearray(logs[0].spool.read_bytes())
        spoilt[len(spoilt) // 2] ^= 1
        logs[0].spool.write_bytes(spoilt)
        bundle_of(Question("period", begin=0, end=1 << 60), logs, folder / "bundle.zip")
        logs[0].tree.close()
        try:
            verify(folder / "bundle.zip", Trust(self._key.public))
        except Bad:
            return {"tampered_bundles_that_passed": 0}
        return {"tampered_bundles_that_passed": 1}

    def close(self) -> None:
        self._folder.cleanup()

    def _verified(self, processes: int) -> Figure:
        began, cpu = time.perf_counter(), _cpu_s()
        verdict = verify(self._bundle, Trust(self._key.public), processes)
        if verdict.records != self._records:
            raise BenchFailed(f"{verdict.records} of {self._records} records were verified")
        return self._figure(began, cpu, f"{processes} processes")

    def _looked_through(self) -> Figure:
        began, cpu = time.perf_counter(), _cpu_s()
        if naive(self._bundle) != self._records:
            raise BenchFailed("the peer did not see every record")
        return self._figure(began, cpu, "one process")

    def _figure(self, began: float, cpu: float, how: str) -> Figure:
        per_record_us = (_cpu_s() - cpu) * 1e6 / self._records
        return Figure(self._records / (time.perf_counter() - began), {"verifier": per_record_us}, how)


def naive(path: Path) -> int:
    """How one would look through a bundle at first: decode each value, see that each chains to the one before it."""
    shapes, ends, records = dict[bytes, Any](), dict[str, bytes](), 0
    bundle = Bundle(path)
    with closing(bundle):
        for schema in bundle.schemas():
            shapes[bytes.fromhex(_print_of(schema))] = parse_schema(schema, named_schemas={})
        for tree in range(len(bundle.manifest().trees)):
            for record in bundle.records(tree):
                value = record["value"]
                event: Any = schemaless_reader(
                    io.BytesIO(value[HEADER_BYTES:]), shapes[value[2:HEADER_BYTES]], None
                )
                stream = event["meta"]["stream"]
                if event["meta"]["previous"] != ends.get(stream, NO_HASH):
                    raise BenchFailed(f"{stream} does not chain")
                ends[stream] = sha256(value).digest()
                records += 1
    return records


def _cpu_s() -> float:
    """Of this process, and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
