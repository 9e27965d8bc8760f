"""The sandbox's ledger: key, fingerprint, ledger row and answer are one SQLite transaction.

The sandbox plays another company's system, so it shares no code with our client of it: what both
got wrong in the same way would never be seen. Where it tells of what it did (webhooks), the notice is
a row in that same transaction, so that nothing is told that did not happen, and nothing kept back.
"""

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ops.payment_sandbox import notices
from ops.payment_sandbox.laws import (
    Account,
    Answer,
    Ask,
    Token,
    Verb,
    amount_of,
    made_id,
    refusal_of,
    refused,
    succeeded,
)

STUMBLES_OF_SERVER_ERROR = 2

# The amount laws stand in the tables too, so that no mistake in the code above them can break one.
SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, fingerprint BLOB NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stumbles (key TEXT PRIMARY KEY, times INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS authorizations (
    authorization_id TEXT PRIMARY KEY,
    payment_id TEXT NOT NULL, order_id TEXT NOT NULL, currency TEXT NOT NULL,
    authorized INTEGER NOT NULL CHECK (authorized > 0),
    captured INTEGER NOT NULL DEFAULT 0 CHECK (captured BETWEEN 0 AND authorized),
    voided INTEGER NOT NULL DEFAULT 0 CHECK (voided = 0 OR (voided = 1 AND captured = 0))
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS captures (
    capture_id TEXT PRIMARY KEY,
    authorization_id TEXT NOT NULL REFERENCES authorizations,
    taken INTEGER NOT NULL CHECK (taken > 0),
    refunded INTEGER NOT NULL DEFAULT 0 CHECK (refunded BETWEEN 0 AND taken)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ledger (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, verb TEXT NOT NULL, key TEXT NOT NULL UNIQUE,
    payment_id TEXT NOT NULL, order_id TEXT NOT NULL,
    authorization_id TEXT NOT NULL, capture_id TEXT NOT NULL,
    amount INTEGER NOT NULL, currency TEXT NOT NULL, outcome TEXT NOT NULL
);
"""

ACCOUNT_OF_AUTHORIZATION = """
SELECT payment_id, order_id, authorization_id, '' AS capture_id, currency, authorized, captured, voided,
       0 AS taken, 0 AS refunded
FROM authorizations WHERE authorization_id = ?
"""
ACCOUNT_OF_CAPTURE = """
SELECT payment_id, order_id, authorization_id, capture_id, currency, authorized, captured, voided,
       taken, refunded
FROM captures JOIN authorizations USING (authorization_id) WHERE capture_id = ?
"""


# A refused request for something unknown still has its row, with nothing to name.
NO_ACCOUNT = Account("", "", "", "", "", authorized=0)


class Ledger:
    """The sandbox's only state. One thread at a time may call `answer_all`; anyone may read."""

    def __init__(self, path: Path, *, tells: bool = False) -> None:
        """`tells`: each answer that somebody may hear of unasked leaves a notice."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._tells = tells
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(SCHEMA + notices.SCHEMA)

    def close(self) -> None:
        """Fold the write-ahead log into the file and let go of it."""
        self._db.close()

    def answer_all(self, asks: Sequence[Ask]) -> list[Answer]:
        """Do all of `asks` in one durable transaction; on `sqlite3.Error` none of them was done.

        One that raised would take the whole batch with it, so what is malformed is refused
        before it gets here.
        """
        at = datetime.now(UTC).isoformat(timespec="microseconds")
        self._db.execute("BEGIN IMMEDIATE")
        try:
            answers = [self._answer(ask, at) for ask in asks]
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        return answers

    def knows(self, key: str) -> bool:
        """Whether `key` has an answer already."""
        with closing(self._reader()) as db:
            return db.execute("SELECT 1 FROM answers WHERE key = ?", (key,)).fetchone() is not None

    def page(self, cursor: int, limit: int) -> list[dict[str, Any]]:
        """At most `limit` ledger rows after `seq` = `cursor`, in order."""
        with closing(self._reader()) as db:
            db.row_factory = sqlite3.Row
            rows = db.execute("SELECT * FROM ledger WHERE seq > ? ORDER BY seq LIMIT ?", (cursor, limit))
            return [dict(row) for row in rows]

    def _reader(self) -> sqlite3.Connection:
        return sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True)

    def _answer(self, ask: Ask, at: str) -> Answer:
        replay = self._replay_of(ask)
        if replay is not None:
            return replay
        if ask.token == Token.SERVER_ERROR and self._stumbles(ask.key):
            return refused("server_error")
        account = self._account_of(ask)
        code = refusal_of(ask, account)
        if account is None or code:
            return self._record(ask, at, refused(code), account, code)
        account = self._move(ask, account)
        return self._record(ask, at, succeeded(ask, account), account, "succeeded")

    def _replay_of(self, ask: Ask) -> Answer | None:
        query = "SELECT fingerprint, status, body FROM answers WHERE key = ?"
        stored = self._db.execute(query, (ask.key,)).fetchone()
        if stored is None:
            return None
        fingerprint, status, body = stored
        same = fingerprint == ask.fingerprint
        return Answer(status, body, replayed=True) if same else refused("idempotency_key_reused")

    def _stumbles(self, key: str) -> bool:
        counted = self._db.execute(
            "INSERT INTO stumbles VALUES (?, 1)"
            " ON CONFLICT (key) DO UPDATE SET times = times + 1 RETURNING times",
            (key,),
        ).fetchall()
        return bool(counted[0][0] <= STUMBLES_OF_SERVER_ERROR)

    def _account_of(self, ask: Ask) -> Account | None:
        if ask.verb is Verb.AUTHORIZATION:
            return Account(ask.payment_id, ask.order_id, "", "", ask.currency, ask.amount)
        query = ACCOUNT_OF_CAPTURE if ask.verb is Verb.REFUND else ACCOUNT_OF_AUTHORIZATION
        row = self._db.execute(query, (ask.reference,)).fetchone()
        return None if row is None else Account(*row)

    def _move(self, ask: Ask, account: Account) -> Account:
        """Write what `ask` does to `account`, which the laws allow; the account with the new ids."""
        match ask.verb:
            case Verb.AUTHORIZATION:
                return self._authorize(replace(account, authorization_id=made_id(ask)))
            case Verb.CAPTURE:
                return self._capture(ask.amount, replace(account, capture_id=made_id(ask)))
            case Verb.VOID:
                void = "UPDATE authorizations SET voided = 1 WHERE authorization_id = ?"
                self._db.execute(void, (account.authorization_id,))
            case Verb.REFUND:
                refund = "UPDATE captures SET refunded = refunded + ? WHERE capture_id = ?"
                self._db.execute(refund, (ask.amount, account.capture_id))
        return account

    def _authorize(self, account: Account) -> Account:
        self._db.execute(
            "INSERT INTO authorizations (authorization_id, payment_id, order_id, currency, authorized)"
            " VALUES (?, ?, ?, ?, ?)",
            (
                account.authorization_id,
                account.payment_id,
                account.order_id,
                account.currency,
                account.authorized,
            ),
        )
        return account

    def _capture(self, amount: int, account: Account) -> Account:
        self._db.execute(
            "UPDATE authorizations SET captured = captured + ? WHERE authorization_id = ?",
            (amount, account.authorization_id),
        )
        self._db.execute(
            "INSERT INTO captures (capture_id, authorization_id, taken) VALUES (?, ?, ?)",
            (account.capture_id, account.authorization_id, amount),
        )
        return account

    def _record(self, ask: Ask, at: str, answer: Answer, account: Account | None, outcome: str) -> Answer:
        """Keep the answer for every replay, and the row for whoever audits us."""
        account = account or NO_ACCOUNT
        self._db.execute(
            "INSERT INTO answers VALUES (?, ?, ?, ?)", (ask.key, ask.fingerprint, answer.status, answer.body)
        )
        self._db.execute(
            "INSERT INTO ledger (at, verb, key, payment_id, order_id, authorization_id, capture_id,"
            " amount, currency, outcome) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                at,
                ask.verb,
                ask.key,
                account.payment_id,
                account.order_id,
                account.authorization_id,
                account.capture_id,
                amount_of(ask, account),
                account.currency,
                outcome,
            ),
        )
        if self._tells and outcome in notices.TOLD:
            self._leave_notice(ask, notices.words_of(ask, account, outcome, at))
        return answer

    def _leave_notice(self, ask: Ask, words: str) -> None:
        row = (notices.event_id_of(ask), ask.key, words, time.time())
        self._db.execute("INSERT INTO notices (event_id, key, body, due_at) VALUES (?, ?, ?, ?)", row)
