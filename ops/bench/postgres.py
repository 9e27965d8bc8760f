"""PostgreSQL from the package index, as a peer: its own server below our home, with Kafka's promise or a stronger one.

The local profile of Kafka acknowledges what is in the page cache: a process that is killed loses nothing, a power cut
may. PostgreSQL with `fsync=off` promises just that, for a commit still writes its WAL before it answers; with
`synchronous_commit=off` a killed server would lose the last moments, which is less than Kafka's promise, and with
`fsync=on` it survives the power cut too, which is more. Everything else is PostgreSQL's default.
"""

import time
import warnings
from pathlib import Path

import psutil
import psycopg

from ops.bench.contest import BenchFailed

KEEPS_UNFLUSHED = "kill -9 loses nothing, a power cut what was not flushed (fsync=off, synchronous_commit=on)"
KEEPS_FLUSHED = "a power cut loses nothing (fsync=on, synchronous_commit=on)"
SETTLED_S = 10.0


class Postgres:
    """One server; it ends with `close`."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it asks for a runtime directory at import
            import pgserver

            folder.mkdir(parents=True, exist_ok=True)
            self._server = pgserver.get_server(folder, cleanup_mode="stop")  # type: ignore[attr-defined]  # its public name
        self.url: str = self._server.get_uri()
        self.process = psutil.Process(self._server.get_pid())

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(self.url, autocommit=True)

    def set_flush(self, *, on: bool) -> None:
        """Whether a commit waits for the disk; returns when new connections see it."""
        word = "on" if on else "off"
        with self.connect() as connection:
            connection.execute(f"ALTER SYSTEM SET fsync = {word}")
            connection.execute("SELECT pg_reload_conf()")
        deadline = time.monotonic() + SETTLED_S
        while self._fsync() != word:
            if time.monotonic() > deadline:
                raise BenchFailed(f"PostgreSQL did not take fsync={word} within {SETTLED_S:.0f} s")
            time.sleep(0.02)

    def _fsync(self) -> str:
        with self.connect() as connection:
            row = connection.execute("SHOW fsync").fetchone()
        return str(row[0]) if row else ""

    def close(self) -> None:
        self._server.cleanup()
