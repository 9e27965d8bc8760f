"""A witness: remembers the last checkpoint of every tree it has seen, and signs only those that grew out of it."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ops.evidence.checkpoint import (
    BadSignature,
    Checkpoint,
    NotANote,
    Note,
    PrivateKey,
    PublicKey,
    Submission,
    Unsigned,
)
from ops.evidence.merkle import EMPTY_ROOT, ProofFailed, verify_consistency
from ops.evidence.whole_file import replace_file


class Refused(Exception):
    """The checkpoint does not follow from what the witness has seen, or is not by the sealer; the message says why."""


@dataclass(frozen=True)
class Witness:
    """`folder` keeps the last checkpoint of each origin; whoever holds it and the key can say what was never seen."""

    folder: Path
    key: PrivateKey
    sealer: PublicKey
    clock: Callable[[], float] = time.time

    def consider(self, submission: Submission) -> Note:
        """The checkpoint with the witness's signature beside the sealer's; it is remembered before that is told.

        Raises Refused. The first checkpoint of an origin is taken as it is: what came before, nobody has seen.
        """
        checkpoint = self._by_the_sealer(submission.note)
        seen = self.seen(checkpoint.origin)
        if seen.size and checkpoint.size < seen.size:
            raise Refused(f"{checkpoint.origin} has {checkpoint.size} records, {seen.size} were seen before")
        if seen.size:
            _check_growth(seen, checkpoint, submission)
        self._remember(submission.note)
        return submission.note.signed(self.key, int(self.clock()))

    def seen(self, origin: str) -> Checkpoint:
        """The last checkpoint of the origin; an empty tree before the first."""
        for note in self._remembered(origin):
            return Checkpoint.of(note)
        return Checkpoint(origin, 0, EMPTY_ROOT)

    def _by_the_sealer(self, note: Note) -> Checkpoint:
        try:
            note.verify(self.sealer)
            checkpoint = Checkpoint.of(note)
        except (Unsigned, BadSignature, NotANote) as error:
            raise Refused(str(error)) from error
        if not checkpoint.origin.startswith(f"{self.sealer.name}/"):
            raise Refused(f"{checkpoint.origin} is no tree of {self.sealer.name}")
        return checkpoint

    def _remembered(self, origin: str) -> Iterator[Note]:
        with suppress(FileNotFoundError):
            yield Note.parse(self._file(origin).read_text("utf-8"))

    def _remember(self, note: Note) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_file(self._file(Checkpoint.of(note).origin), str(note))

    def _file(self, origin: str) -> Path:
        return self.folder / origin.replace("%", "%25").replace("/", "%2F")


def _check_growth(seen: Checkpoint, checkpoint: Checkpoint, submission: Submission) -> None:
    """Raises Refused unless the proof leads from what was seen to what is asked."""
    if checkpoint.size == seen.size:
        if checkpoint.root != seen.root:
            raise Refused(f"{seen.origin}: two different trees of {seen.size} records were signed")
        return
    if submission.old != seen.size:
        raise Refused(f"{seen.origin}: the proof begins at {submission.old}, {seen.size} records were seen")
    try:
        verify_consistency(seen.size, checkpoint.size, seen.root, checkpoint.root, submission.proof)
    except ProofFailed as error:
        raise Refused(f"{seen.origin}: {error}") from error
