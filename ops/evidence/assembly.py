"""What of one tree stands in a bundle: its checkpoints with their proofs, and what lies between the wanted leaves."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ops.evidence.bundle import between
from ops.evidence.checkpoint import Note, Submission
from ops.evidence.merkle import consistency_proof
from ops.evidence.tree_file import TreeFile


@dataclass(frozen=True)
class Part:
    """`notes` are the signed checkpoints by size, `wanted` the leaves, rising, all below the last checkpoint's size."""

    origin: str
    tree: TreeFile
    notes: Mapping[int, Note]
    wanted: Sequence[int]

    @property
    def size(self) -> int:
        return max(self.notes)

    def checkpoints(self) -> Iterator[str]:
        old = 0
        for size, note in sorted(self.notes.items()):
            yield str(Submission(old, tuple(consistency_proof(self.tree.node, old, size)), note))
            old = size

    def proof(self) -> Iterator[bytes]:
        cuts, reached = sorted(self.notes), 0
        for leaf in [*self.wanted, self.size]:
            for level, index in between(reached, leaf, cuts):
                yield self.tree.node(level, index)
            reached = leaf + 1

    def record(self, leaf: int, offset: int, value: bytes) -> dict[str, Any]:
        """A record as the bundle has it."""
        return {"leaf": leaf, "offset": offset, "hash": self.tree.node(0, leaf), "value": value}
