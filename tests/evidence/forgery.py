"""A forger who knows everything but the keys: takes a bundle apart, changes it, and makes all its digests right again."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

from fastavro import parse_schema, schemaless_writer

from ops.bench.evidence import SealedLog, bundle_of, sealed_logs, stock_schemas
from ops.bench.stock_history import StockHistory
from ops.evidence.assembly import Part
from ops.evidence.bundle import Bundle, Manifest, Question, written
from ops.evidence.checkpoint import COSIGNATURE, Checkpoint, Note, PrivateKey
from ops.evidence.merkle import leaf_hash
from ops.evidence.tree_file import TreeFile
from ops.evidence.values import HEADER_BYTES, Shapes

SEALER = PrivateKey.generate("shop.example")
WITNESS = PrivateKey.generate("witness.example", COSIGNATURE)
RECORDS, SKUS, EVERY = 160, 4, 20


@dataclass
class Opened:
    """A bundle in pieces, to be changed and closed again."""

    manifest: Manifest
    schemas: list[Any]
    checkpoints: list[list[str]]
    records: list[list[dict[str, Any]]]
    proofs: list[list[bytes]]

    @classmethod
    def of(cls, path: Path) -> "Opened":
        bundle = Bundle(path)
        try:
            manifest = bundle.manifest()
            numbers = range(len(manifest.trees))
            return cls(
                manifest,
                bundle.schemas(),
                [[bundle.checkpoints(n)] for n in numbers],
                [list(bundle.records(n)) for n in numbers],
                [list(bundle.proof(n)) for n in numbers],
            )
        finally:
            bundle.close()

    def copy(self) -> "Opened":
        return deepcopy(self)

    def close(self, path: Path) -> Path:
        """A bundle again, with every digest and every number as it should be."""
        with written(path) as bundle:
            for number, text in enumerate(self.checkpoints):
                bundle.checkpoints(number, text)
                bundle.records(number, self.records[number])
                bundle.proof(number, self.proofs[number])
            for number, schema in enumerate(self.schemas):
                bundle.schema(str(number), schema)
            bundle.manifest(self.manifest)
        return path

    def tell(self, tree: int, **numbers: Any) -> None:
        """Make the manifest say so of a tree."""
        trees = list(self.manifest.trees)
        trees[tree] = replace(trees[tree], **numbers)
        self.manifest = replace(self.manifest, trees=tuple(trees))


@dataclass
class Scene:
    """A sealed log, the bundles that were made of it, and what a forger may use: all of the log."""

    folder: Path
    logs: list[SealedLog]
    bundles: dict[str, Path] = field(default_factory=dict)
    opened: dict[str, Opened] = field(default_factory=dict)

    def log_of(self, opened: Opened, tree: int) -> SealedLog:
        return next(log for log in self.logs if log.origin == opened.manifest.trees[tree].origin)

    def proof_without(self, opened: Opened, tree: int, leaves: Sequence[int]) -> list[bytes]:
        """The true proof for these leaves, as the exporter would have made it."""
        log = self.log_of(opened, tree)
        return list(Part(log.origin, log.tree, log.notes, leaves).proof())


def scene_in(folder: Path) -> Scene:
    history = list(StockHistory(RECORDS, SKUS, seed=7))
    logs = sealed_logs(history, folder, SEALER, 2, EVERY)
    for log in logs:
        last = max(log.notes)
        log.notes[last] = log.notes[last].signed(WITNESS, 1_300_000_000)
    shapes = Shapes(stock_schemas())
    events = [shapes.read(value)[1] for _, value in history]
    order = next(event["order_id"] for event in events[60:] if "order_id" in event)
    times = [event["meta"]["recorded_at"] for event in events]
    questions = {
        "sku": Question("sku", sku=history[-1][0]),
        "order": Question("order", order=order),
        "period": Question("period", begin=times[50], end=times[110]),
    }
    found = Scene(folder, logs)
    for name, question in questions.items():
        found.bundles[name] = folder / f"{name}.zip"
        bundle_of(question, logs, found.bundles[name])
        found.opened[name] = Opened.of(found.bundles[name])
    return found


class Rewriter:
    """Writes values anew with other contents, by the bundle's own schemas."""

    def __init__(self, schemas: Sequence[Any]) -> None:
        self._shapes = Shapes(schemas)
        self._plain = {schema["name"]: parse_schema(schema, named_schemas={}) for schema in schemas}

    def read(self, value: bytes) -> tuple[str, dict[str, Any]]:
        return self._shapes.read(value)

    def rewritten(self, value: bytes, **changes: Any) -> bytes:
        """`meta__…` changes what the event says about itself."""
        name, event = self.read(value)
        for key, change in changes.items():
            inner = key.removeprefix("meta__")
            (event["meta"] if key.startswith("meta__") else event)[inner] = change
        out = BytesIO()
        out.write(value[:HEADER_BYTES])
        schemaless_writer(out, self._plain[name], event)
        return out.getvalue()


def another_history(scene: Scene, log: SealedLog, leaf: int, value: bytes) -> tuple[TreeFile, Note]:
    """The same log with one other record, sealed by the sealer's own key: the other view that it shows to others."""
    tree = TreeFile(scene.folder / f"other-{leaf}-{id(value)}", 0)
    tree.append(
        leaf_hash(value if number == leaf else record.value) for number, record in enumerate(log.records())
    )
    last = max(log.notes)
    signed = Checkpoint(log.origin, last, tree.root(last)).note().signed(SEALER).signed(WITNESS, 1)
    return tree, signed
