"""One tree and its seal: leaves come in, checkpoints go out, and none that contradicts the one before it."""

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ops.evidence.checkpoint import (
    BadSignature,
    Checkpoint,
    NotANote,
    PrivateKey,
    Submission,
    Unsigned,
    sealed,
    split,
)
from ops.evidence.merkle import EMPTY_ROOT, ProofFailed, consistency_proof, leaf_hash, verify_consistency
from ops.evidence.tree_file import TreeFile
from ops.evidence.whole_file import flush_names, replace_file

RECORDS = 1_000
SECONDS = 10.0
TAIL_BYTES = 64_000
"""The last checkpoint of a file is within so many bytes of its end."""


class LogChanged(Exception):
    """The log is not the one that was sealed: it ends earlier, or says something else. Nothing is signed any more."""


class Seal:
    """The tree of one partition. The folder holds the tree, up to where it was read, and every checkpoint signed.

    Tree and position follow from the log and are made anew when they are lost or damaged; what is never given up is
    the last checkpoint: what is signed next has to begin with it.
    """

    def __init__(
        self, folder: Path, origin: str, key: PrivateKey, published: Submission | None = None
    ) -> None:
        """`published` is the last checkpoint of this origin that is known elsewhere, in case our file is lost."""
        self.origin = origin
        self.unsealed_since: float | None = None
        self.next = 0
        """The offset to read from."""
        self._key = key
        self._folder = folder
        self._from_the_log = False
        folder.mkdir(parents=True, exist_ok=True)
        _cut_half_a_line(folder / "checkpoints")
        signed = signed_by(key, origin, last_in(folder / "checkpoints"))
        known = [one for one in (signed, signed_by(key, origin, published)) if one]
        self.last = max(known, key=lambda one: Checkpoint.of(one.note).size, default=None)
        self._tree = self._opened()
        self._check_last()

    @property
    def size(self) -> int:
        return self._tree.size

    @property
    def unsealed(self) -> int:
        """Records that no checkpoint covers yet; negative while the tree is read anew."""
        return self._tree.size - self._sealed.size

    def append(self, values: Iterable[bytes], next_offset: int, now: float) -> None:
        """The next records of the partition, in order, and where the log goes on; `now` is a monotonic clock's."""
        self._tree.append(map(leaf_hash, values))
        self.next = next_offset
        if self.unsealed > 0 and self.unsealed_since is None:
            self.unsealed_since = now

    def due(self, now: float) -> bool:
        """Whether it is time: after 1,000 records, or 10 s after the first."""
        since = self.unsealed_since
        return since is not None and (self.unsealed >= RECORDS or now - since >= SECONDS)

    def sign(self) -> Submission:
        """The next checkpoint, with the proof that it begins with the last; it is in our file before it is anywhere.

        Raises LogChanged; where only the local tree can be to blame, that is begun anew first (`next` is 0 then).
        """
        last, size, root = self._sealed, self._tree.size, self._tree.root()
        proof = consistency_proof(self._tree.node, last.size, size)
        try:
            verify_consistency(last.size, size, last.root, root, proof)
        except ProofFailed as error:
            self._doubt(str(error))
        self.save()
        submission = sealed(Checkpoint(self.origin, size, root), last.size, proof, self._key)
        _append(self._folder / "checkpoints", str(submission))
        self.last, self.unsealed_since = submission, None
        return submission

    def save(self) -> None:
        """Tree first, then how much of it counts."""
        self._tree.flush()
        replace_file(self._folder / "position", json.dumps({"size": self._tree.size, "next": self.next}))

    def close(self) -> None:
        self.save()
        self._tree.close()

    @property
    def _sealed(self) -> Checkpoint:
        return Checkpoint.of(self.last.note) if self.last else Checkpoint(self.origin, 0, EMPTY_ROOT)

    def _opened(self) -> TreeFile:
        with suppress(
            OSError, ValueError, KeyError, TypeError
        ):  # lost, torn or cut short: the log has it all
            position = json.loads((self._folder / "position").read_text("utf-8"))
            tree = TreeFile(self._folder / "tree", position["size"])
            self.next = position["next"]
            return tree
        return self._begun_anew()

    def _begun_anew(self) -> TreeFile:
        self.next, self.unsealed_since, self._from_the_log = 0, None, True
        return TreeFile(self._folder / "tree", 0)

    def _check_last(self) -> None:
        """A tree on the disk that does not begin with the last checkpoint is read anew: the log has the last word."""
        last = self._sealed
        if last.size and self._tree.size >= last.size and self._tree.root(last.size) != last.root:
            self._tree.close()
            self._tree = self._begun_anew()

    def _doubt(self, why: str) -> None:
        if not self._from_the_log:
            self._tree.close()
            self._tree = self._begun_anew()
        raise LogChanged(f"{self.origin}: {why}")


def signed_by(key: PrivateKey, origin: str, submission: Submission | None) -> Submission | None:
    """The submission if it is of this origin and by this key: whoever can write the topic proves nothing."""
    if submission is None:
        return None
    with suppress(NotANote, Unsigned, BadSignature):
        submission.note.verify(key.public)
        if Checkpoint.of(submission.note).origin == origin:
            return submission
    return None


def last_in(path: Path) -> Submission | None:
    """The last whole checkpoint of the file; what a crash left half-written at its end is passed over."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        text = file.read().decode(errors="replace")
    for part in reversed(split(text)):
        with suppress(NotANote):
            return Submission.parse(part)
    return None


def _append(path: Path, text: str) -> None:
    """On the disk, with the file's name, when that is done; torn only by a crash, or where the disk is full."""
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    flush_names(path.parent)


def _cut_half_a_line(path: Path) -> None:
    """What a crash left behind the last whole line goes, else the next checkpoint would be glued to it and lost.

    Nothing that counts is cut: a checkpoint counts when all of it is on the disk, and then a line ends the file.
    """
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        start = file.seek(max(0, end - TAIL_BYTES))
        whole = start + file.read().rfind(b"\n") + 1
        if whole < end:
            file.truncate(whole)
            os.fsync(file.fileno())
