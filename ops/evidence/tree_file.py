"""A Merkle tree in one file that only grows: 32 bytes for every subtree, in the order in which they become known.

Go's checksum database numbers its hashes in the same way. A tree of n leaves takes less than 64 n bytes, any hash is one
read away, and what was written after a crash's last known size is simply cut off.
"""

from collections.abc import Iterable
from pathlib import Path

from ops.evidence.merkle import HASH_BYTES, node_hash, root_of

UNWRITTEN_MAX = 4 << 20


def stored_before(leaves: int) -> int:
    """How many hashes a tree of so many leaves has stored: all its subtrees, of every level."""
    return 2 * leaves - leaves.bit_count()


def place_of(level: int, index: int) -> int:
    """The number of a subtree's hash in the file: it comes right after its last leaf, above the lower levels."""
    last_leaf = (index + 1 << level) - 1
    return stored_before(last_leaf) + level


class TreeFile:
    """One writer. What is appended is on its way to the disk after `flush`."""

    def __init__(self, path: Path, size: int) -> None:
        """Opens the tree at `size` leaves, dropping what the file has beyond. Raises ValueError if it has less."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("r+b" if path.exists() else "w+b")
        self._unwritten = bytearray()
        self._written = stored_before(size)
        self.size = size
        if self._file.seek(0, 2) < self._written * HASH_BYTES:
            self._file.close()
            raise ValueError(f"{path.name} is shorter than a tree of {size} leaves")
        self._file.truncate(self._written * HASH_BYTES)

    def append(self, leaves: Iterable[bytes]) -> None:
        """More leaves, by their hashes."""
        for leaf in leaves:
            self._append(leaf)
        if len(self._unwritten) > UNWRITTEN_MAX:
            self.flush()

    def node(self, level: int, index: int) -> bytes:
        """Raises ValueError where the tree does not have that subtree (yet)."""
        if index + 1 << level > self.size:
            raise ValueError(f"no subtree ({level}, {index}) in a tree of {self.size} leaves")
        return self._stored(place_of(level, index))

    def root(self, size: int | None = None) -> bytes:
        """The root of the first `size` leaves (at least one), or of all."""
        return root_of(self.node, 0, self.size if size is None else size)

    def flush(self) -> None:
        if self._unwritten:
            self._file.seek(self._written * HASH_BYTES)
            self._file.write(self._unwritten)
            self._file.flush()
            self._written += len(self._unwritten) // HASH_BYTES
            self._unwritten.clear()

    def close(self) -> None:
        self.flush()
        self._file.close()

    def _append(self, leaf: bytes) -> None:
        self._unwritten += leaf
        node, index, level = leaf, self.size, 0
        while index & 1:
            node = node_hash(self._stored(place_of(level, index - 1)), node)
            self._unwritten += node
            index, level = index >> 1, level + 1
        self.size += 1

    def _stored(self, place: int) -> bytes:
        if place >= self._written:
            begin = (place - self._written) * HASH_BYTES
            return bytes(self._unwritten[begin : begin + HASH_BYTES])
        self._file.seek(place * HASH_BYTES)
        return self._file.read(HASH_BYTES)
