"""RFC 6962's Merkle tree: leaves in order, one hash over all of them, and short proofs of what was in it and when.

A *subtree* here is perfect and aligned: (level, index) covers the leaves from `index << level`, 2^level of them. Every
tree, and every gap between leaves, is a row of such subtrees, which is all that has to be remembered of it.
"""

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import TypeAlias

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()

Subtree: TypeAlias = tuple[int, int]
"""Level and index."""

NodeOf: TypeAlias = Callable[[int, int], bytes]
"""The hash of the subtree at a level and an index."""


class ProofFailed(Exception):
    """A proof does not lead to the root that it should lead to."""


def leaf_hash(value: bytes) -> bytes:
    return sha256(b"\x00" + value).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """A tree that only grows: the row of its largest subtrees, one for each bit that is set in its size."""

    def __init__(self) -> None:
        self.size = 0
        self._row: list[bytes] = []

    def append(self, leaf: bytes) -> None:
        """The next leaf, by its hash: `append_subtree(0, leaf)` without a question, for there are a million of them."""
        row, bits = self._row, self.size
        while bits & 1:
            leaf = sha256(b"\x01" + row.pop() + leaf).digest()
            bits >>= 1
        row.append(leaf)
        self.size += 1

    def append_subtree(self, level: int, node: bytes) -> None:
        """The next 2^`level` leaves at once. Raises ValueError where they would not be aligned."""
        if self.size & (1 << level) - 1:
            raise ValueError(f"a subtree of level {level} cannot stand at leaf {self.size}")
        row, bits = self._row, self.size >> level
        while bits & 1:
            node = sha256(b"\x01" + row.pop() + node).digest()
            bits >>= 1
        row.append(node)
        self.size += 1 << level

    def root(self) -> bytes:
        return _folded(self._row) if self._row else EMPTY_ROOT


def _folded(row: Sequence[bytes]) -> bytes:
    """One hash over a row of subtrees that become smaller and smaller."""
    *lefts, root = row
    for left in reversed(lefts):
        root = node_hash(left, root)
    return root


def subtrees(begin: int, end: int) -> Iterator[Subtree]:
    """The fewest subtrees that cover the leaves from `begin` up to, not including, `end`, from left to right."""
    while begin < end:
        level = (end - begin).bit_length() - 1
        if begin:
            level = min(level, (begin & -begin).bit_length() - 1)
        yield level, begin >> level
        begin += 1 << level


def root_of(node: NodeOf, begin: int, end: int) -> bytes:
    """The hash over the leaves from `begin` up to `end`, as a tree of its own (`MTH` of the RFC).

    `begin` must be a multiple of the largest power of two below the number of leaves, as every part of a tree's is.
    """
    return _folded([node(level, index) for level, index in subtrees(begin, end)])


def inclusion_proof(node: NodeOf, leaf: int, size: int) -> list[bytes]:
    """The audit path of a leaf: its neighbours on the way to the root, lowest first."""
    return _path(node, leaf, 0, size)


def consistency_proof(node: NodeOf, old: int, new: int) -> list[bytes]:
    """That the tree of `new` leaves begins with the tree of `old` ones; empty where there is nothing to prove."""
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {new} leaves does not begin with {old}")
    return [] if old in (0, new) else _growth(node, old, 0, new, is_whole=True)


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Raises ProofFailed unless the leaf of this hash stands at `index` in the tree of this root."""
    if not 0 <= index < size:
        raise ProofFailed(f"leaf {index} is not in a tree of {size}")
    found, position, last = leaf, index, size - 1
    for neighbour in path:
        if not last:
            raise ProofFailed("the path is too long")
        if position & 1 or position == last:
            found = node_hash(neighbour, found)
            while not position & 1 and position:  # a lonely right edge is lifted
                position, last = position >> 1, last >> 1
        else:
            found = node_hash(found, neighbour)
        position, last = position >> 1, last >> 1
    if last or found != root:
        raise ProofFailed("the path is too short" if last else f"leaf {index} does not lead to the root")


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Raises ProofFailed unless the tree of `new` leaves begins with that of `old` leaves."""
    if old > new:
        raise ProofFailed(f"a tree of {new} leaves does not begin with {old}")
    if old in (0, new):
        if proof:
            raise ProofFailed("a proof of nothing has to be empty")
        if old_root != (new_root if old else EMPTY_ROOT):
            raise ProofFailed(f"two trees of {old} leaves have different roots")
        return
    before, after = _climbed(old, new, old_root, proof)
    if before != old_root:
        raise ProofFailed(f"the proof does not lead to the root of {old} leaves")
    if after != new_root:
        raise ProofFailed(f"the proof does not lead to the root of {new} leaves")


def _climbed(old: int, new: int, old_root: bytes, proof: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Both roots, as the proof has them (RFC 9162, 2.1.4.2)."""
    position, last = old - 1, new - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    if position:  # else the old tree is a subtree of the new one, and where the proof begins
        if not proof:
            raise ProofFailed("the proof is empty")
        old_root, *proof = proof
    before = after = old_root
    for neighbour in proof:
        if not last:
            raise ProofFailed("the proof is too long")
        if position & 1 or position == last:
            before, after = node_hash(neighbour, before), node_hash(neighbour, after)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            after = node_hash(after, neighbour)
        position, last = position >> 1, last >> 1
    if last:
        raise ProofFailed("the proof is too short")
    return before, after


def _split(leaves: int) -> int:
    """The largest power of two below the number of leaves."""
    return 1 << (leaves - 1).bit_length() - 1


def _path(node: NodeOf, leaf: int, begin: int, end: int) -> list[bytes]:
    if end - begin <= 1:
        return []
    middle = begin + _split(end - begin)
    if leaf < middle:
        return [*_path(node, leaf, begin, middle), root_of(node, middle, end)]
    return [*_path(node, leaf, middle, end), root_of(node, begin, middle)]


def _growth(node: NodeOf, old: int, begin: int, end: int, *, is_whole: bool) -> list[bytes]:
    """`SUBPROOF` of the RFC over the leaves from `begin` to `end`; `is_whole`: they began as one of the old tree's."""
    if old == end:
        return [] if is_whole else [root_of(node, begin, end)]
    middle = begin + _split(end - begin)
    if old <= middle:
        return [*_growth(node, old, begin, middle, is_whole=is_whole), root_of(node, middle, end)]
    return [*_growth(node, old, middle, end, is_whole=False), root_of(node, begin, middle)]
