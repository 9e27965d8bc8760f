"""How far the demo is: one line that changes on a terminal, a line every few seconds elsewhere."""

import sys
import time
from typing import TextIO

EVERY_S = 1.9
ERASE_LINE = "\r\x1b[K"


class Teller:
    """Says on `out` what is going on; `say` stays, `update` is replaced by what follows."""

    def __init__(self, out: TextIO = sys.stderr) -> None:
        self._out = out
        self._changes = out.isatty()
        self._updated_at = 0.0

    def say(self, message: str) -> None:
        self._write(f"{ERASE_LINE if self._changes else ''}{message}\n")

    def update(self, message: str) -> None:
        now = time.monotonic()
        if self._changes:
            self._write(f"{ERASE_LINE}{message[:100]}")
        elif now - self._updated_at >= EVERY_S:
            self._updated_at = now
            self._write(f"{message}\n")

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
