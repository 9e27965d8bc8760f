"""What the sandbox tells unasked: in what words, and the table in which it waits until somebody has heard it."""

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid5

from ops.payment_sandbox.laws import NAMESPACE, Account, Ask, amount_of, made_id

TOLD = frozenset({"succeeded", "declined"})
"""What else is refused, the caller has heard; there is nothing to tell of it."""

# `due_at` is in seconds since 1970. A row goes when it has been heard.
SCHEMA = """
CREATE TABLE IF NOT EXISTS notices (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL UNIQUE, key TEXT NOT NULL,
    body TEXT NOT NULL, tries INTEGER NOT NULL DEFAULT 0, due_at REAL NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS notices_due ON notices (due_at, seq);
"""


@dataclass(frozen=True, slots=True)
class Notice:
    """One row: `event_id` and `body` are the same however often it is told; `tries` counts the tellings."""

    seq: int
    event_id: str
    key: str
    body: str
    tries: int


def event_id_of(ask: Ask) -> str:
    """The id of the event that `ask` was answered; derived from its key, as all ids here are."""
    return f"evt_{uuid5(NAMESPACE, f'event of {ask.key}').hex}"


def words_of(ask: Ask, account: Account, outcome: str, at: str) -> str:
    """The JSON that tells of it."""
    data = {
        "payment_id": account.payment_id,
        "order_id": account.order_id,
        "key": ask.key,
        "reference": made_id(ask) if outcome == "succeeded" else "",
        "amount": amount_of(ask, account),
        "currency": account.currency,
    }
    return json.dumps({"type": f"{ask.verb}.{outcome}", "timestamp": at, "data": data})


class Outbox:
    """The table's other side: what is due, and what became of it. To be asked by one thread.

    To mark what was heard waits for the ledger's flush, a few milliseconds.
    """

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        # A mark that a power cut takes is a notice told twice, which is allowed; the rows themselves are flushed.
        self._db.execute("PRAGMA synchronous=NORMAL")

    def close(self) -> None:
        self._db.close()

    def due(self, now: float, limit: int) -> list[Notice]:
        """The oldest that are due."""
        query = "SELECT seq, event_id, key, body, tries FROM notices WHERE due_at <= ? ORDER BY due_at, seq LIMIT ?"
        with closing(self._db.execute(query, (now, limit))) as rows:
            return [Notice(*row) for row in rows]

    def next_due(self) -> float | None:
        """When the next one is due; None where none waits."""
        [(due_at,)] = self._db.execute("SELECT min(due_at) FROM notices").fetchall()
        return None if due_at is None else float(due_at)

    def waiting(self) -> int:
        [(count,)] = self._db.execute("SELECT count(*) FROM notices").fetchall()
        return int(count)

    def holds(self, key: str) -> bool:
        """Whether what was asked under `key` is still to be told."""
        return bool(self._db.execute("SELECT 1 FROM notices WHERE key = ?", (key,)).fetchall())

    def settle(self, heard: Iterable[int], again: Iterable[tuple[float, int]]) -> None:
        """Forget the rows that were `heard`; tell `again` (due at, row)."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany("DELETE FROM notices WHERE seq = ?", [(seq,) for seq in heard])
            self._db.executemany("UPDATE notices SET tries = tries + 1, due_at = ? WHERE seq = ?", again)
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
