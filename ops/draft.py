"""A file that appears under its name when it is whole; until then it is a draft, which can be gone on with."""

import errno
import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Self

from streams.replay import Place

KEEP_EVERY_S = 1.0


class DraftFailed(Exception):
    """What was to be written is not there; the message says why."""


class Draft:
    """Writes into `output` (None: the standard output). With `resume`, a file of its own says how far it has got: what
    is asked, the next offset of each partition, and how many bytes of the draft belong to that.

    Whoever is killed goes on there: in a file nothing is missing and nothing twice; on the standard output the last
    second may come twice.
    """

    def __init__(self, output: Path | None, resume: Path | None, asked: str) -> None:
        self._output = output
        self._resume = resume
        self._asked = asked
        self._part = output.with_name(f"{output.name}.part") if output else None
        self._kept_at = time.monotonic()
        self._next: dict[str, int] = {}
        self._bytes = 0
        self.positions: dict[Place, int] = {}

    def __enter__(self) -> Self:
        try:
            self._bytes = self._read_resume()
            self._next = _named(self.positions)
            self._file = self._opened(self._bytes)
        except OSError as error:
            raise DraftFailed(f"{error.filename}: {error.strerror}") from error
        return self

    def write(self, line: bytes) -> None:
        try:
            self._file.write(line)
        except OSError as error:
            raise self._failed(error) from error

    def reached(self, positions: Mapping[Place, int], *, flush: bool = False) -> None:
        """All that was written so far stands for these positions; they are kept every second."""
        bytes_ = self._file.tell() if self._part else 0
        self._next, self._bytes = _named(positions), bytes_
        if flush or time.monotonic() - self._kept_at > KEEP_EVERY_S:
            self._keep()

    def cut(self) -> None:
        """Take out of the file what was written since `reached`: whoever goes on there will tell it."""
        if self._part is None:
            return
        try:
            self._file.seek(self._bytes)
            self._file.truncate()
        except OSError as error:
            raise self._failed(error) from error

    def give_up(self) -> None:
        """Leave nothing behind: no file, and no position that one could go on from."""
        if self._resume is not None:
            self._resume.unlink(missing_ok=True)
            self._resume = None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
            elif self._resume is not None and kind is KeyboardInterrupt:
                self._keep()
        finally:
            self._close()

    def _finish(self) -> None:
        try:
            self._file.flush()
            if self._output is not None and self._part is not None:
                os.fsync(self._file.fileno())
                self._part.replace(self._output)
            self._write_resume(0)
        except OSError as error:
            raise self._failed(error) from error

    def _keep(self) -> None:
        self._kept_at = time.monotonic()
        try:
            self._file.flush()
            self._write_resume(self._bytes)
        except OSError as error:
            raise self._failed(error) from error

    def _close(self) -> None:
        if self._part is not None:
            with suppress(OSError):  # the disk may be full; what is lost belongs to no position
                self._file.close()
            if self._resume is None:
                self._part.unlink(missing_ok=True)

    def _opened(self, bytes_: int) -> BinaryIO:
        if self._part is None:
            return sys.stdout.buffer
        if self._resume is not None and self._output is not None and self._output.exists():
            raise DraftFailed(f"{self._output} is there already; give what follows another name")
        if not bytes_:
            return self._part.open("wb")
        file = self._part.open("r+b")
        file.truncate(bytes_)  # what came after belongs to no position
        file.seek(bytes_)
        return file

    def _read_resume(self) -> int:
        """How much of the draft counts."""
        if self._resume is None or not self._resume.exists():
            return 0
        try:
            kept: dict[str, Any] = json.loads(self._resume.read_text("utf-8"))
            self.positions = {_place(name): int(offset) for name, offset in kept["next"].items()}
            asked, bytes_ = kept["asked"], int(kept["bytes"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DraftFailed(f"{self._resume} says nothing that one could go on from: {error!r}") from error
        if asked != self._asked:
            raise DraftFailed(f"{self._resume} belongs to another question: {asked}")
        return bytes_

    def _write_resume(self, bytes_: int) -> None:
        if self._resume is not None and self._next:
            draft = self._resume.with_name(f"{self._resume.name}.part")
            draft.write_text(
                json.dumps({"asked": self._asked, "next": self._next, "bytes": bytes_}, indent=1)
            )
            draft.replace(self._resume)

    def _failed(self, error: OSError) -> Exception:
        if isinstance(error, BrokenPipeError):
            return error
        where = self._output or "the standard output"
        why = "no space is left on the disk" if error.errno == errno.ENOSPC else error.strerror
        return DraftFailed(f"{where} was not written: {why}")


def _named(positions: Mapping[Place, int]) -> dict[str, int]:
    return {f"{topic}[{number}]": offset for (topic, number), offset in positions.items()}


def _place(name: str) -> Place:
    topic, _, number = name.rpartition("[")
    return topic, int(number.removesuffix("]"))
