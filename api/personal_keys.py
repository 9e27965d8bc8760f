"""The keys of persons, one each: destroying a person's key erases whatever was sealed with it, in every copy of the log.

They lie in a small SQLite file, wrapped by a master key that lies elsewhere, so that a copy of the file alone opens
nothing. What was destroyed stays so: `erasures`, a file that only grows, is obeyed whenever the store is opened, also
when that was restored from a backup of the day before (docs/operations.md).
"""

import base64
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from secrets import token_bytes, token_hex
from typing import NamedTuple, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12
BUSY_S = 2.0
"""So long one process waits for another that writes."""

# A rollback journal, not a write-ahead log, which would keep what was deleted. That it is empty again is on the disk too
# before a transaction is over: a power cut brings no key back. Deleted bytes are overwritten.
_PRAGMAS = ("journal_mode = TRUNCATE", "synchronous = FULL", "secure_delete = ON")
_TABLE = """CREATE TABLE IF NOT EXISTS keys (
    person TEXT PRIMARY KEY, key_id TEXT NOT NULL UNIQUE, wrapped BLOB NOT NULL
) STRICT, WITHOUT ROWID"""
_FIND = "SELECT key_id, wrapped FROM keys WHERE person = ?"

T = TypeVar("T")


class KeysUnusable(Exception):
    """The store or the master key is missing, damaged or busy; the message says which, and nothing of a person."""


@dataclass(frozen=True, slots=True)
class PersonalKey:
    key_id: str
    secret: bytes = field(repr=False)


class Erasure(NamedTuple):
    """A key that was destroyed, when, and the SHA-256 of its person's subject."""

    at: str
    key_id: str
    person: str


class PersonalKeys:
    """Blocking, for any thread; opened when it is first needed. Every method raises KeysUnusable."""

    def __init__(self, folder: Path, master: Path) -> None:
        self._folder = folder
        self._master_file = master
        self._turn = threading.Lock()
        self._opened: tuple[sqlite3.Connection, AESGCM] | None = None

    @property
    def erasures(self) -> Path:
        return self._folder / "erasures"

    def key_of(self, person: str) -> PersonalKey | None:
        """The person's key; None where there is none, or none any more."""
        return self._with(lambda db, master: _found(db, master, person))

    def key_for(self, person: str) -> PersonalKey:
        """The same; made, and on the disk, where there is none."""
        return self._with(lambda db, master: _found(db, master, person) or _made(db, master, person))

    def destroy(self, person: str) -> Erasure | None:
        """Nothing that was sealed for this person can be opened any more, once this returns; None where there is no key."""
        return self._with(lambda db, _: self._destroy(db, person))

    def erasures_of(self, person: str) -> list[Erasure]:
        """The keys of this person that were destroyed, the last one last."""
        whose = _digest(person)
        return self._with(lambda *_: [one for one in _read(self.erasures) if one.person == whose])

    def close(self) -> None:
        with self._turn:
            if self._opened:
                self._opened[0].close()
                self._opened = None

    def _destroy(self, db: sqlite3.Connection, person: str) -> Erasure | None:
        """Listed, then deleted: who is interrupted between has it done by whoever opens the store next."""
        row = db.execute(_FIND, (person,)).fetchone()
        if row is None:
            return None
        erasure = Erasure(datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), row[0], _digest(person))
        _append(self.erasures, erasure)
        db.execute("DELETE FROM keys WHERE key_id = ?", (erasure.key_id,))
        # Others look at the file's time to hear of it, and may have looked before the key was gone.
        os.utime(self.erasures, ns=(time.time_ns(), time.time_ns()))
        return erasure

    def _with(self, work: Callable[[sqlite3.Connection, AESGCM], T]) -> T:
        with self._turn, _told_apart():
            if self._opened is None:
                self._opened = self._open()
            return work(*self._opened)

    def _open(self) -> tuple[sqlite3.Connection, AESGCM]:
        master = AESGCM(_master(self._master_file))
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        db = sqlite3.connect(
            self._folder / "keys.db", timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            _set_up(db, _read(self.erasures))
        except BaseException:
            db.close()
            raise
        return db, master


def _set_up(db: sqlite3.Connection, erasures: Iterable[Erasure]) -> None:
    """The table is there, and no key in it that was ever destroyed."""
    for pragma in _PRAGMAS:
        db.execute(f"PRAGMA {pragma}")
    db.execute("BEGIN IMMEDIATE")
    db.execute(_TABLE)
    db.executemany("DELETE FROM keys WHERE key_id = ?", ((erasure.key_id,) for erasure in erasures))
    db.execute("COMMIT")


def new_master() -> bytes:
    """What the file of a master key holds."""
    return base64.b64encode(token_bytes(KEY_BYTES)) + b"\n"


def _master(file: Path) -> bytes:
    key = base64.b64decode(file.read_bytes(), validate=False)
    if len(key) != KEY_BYTES:
        raise KeysUnusable(f"{file} holds no master key")
    return key


@contextmanager
def _told_apart() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise KeysUnusable(f"there is no {error.filename}; ./daybook prepare makes one") from None
    except (sqlite3.Error, OSError, ValueError) as error:
        raise KeysUnusable(f"the keys of persons: {error}") from error
    except InvalidTag:
        raise KeysUnusable("a key of a person was wrapped by another master key") from None


def _found(db: sqlite3.Connection, master: AESGCM, person: str) -> PersonalKey | None:
    row = db.execute(_FIND, (person,)).fetchone()
    if row is None:
        return None
    key_id, wrapped = row
    secret = master.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], _whose(key_id, person))
    return PersonalKey(key_id, secret)


def _made(db: sqlite3.Connection, master: AESGCM, person: str) -> PersonalKey:
    """Of two processes that make one at once, the first one's is kept."""
    key_id, nonce = token_hex(16), token_bytes(NONCE_BYTES)
    wrapped = nonce + master.encrypt(nonce, token_bytes(KEY_BYTES), _whose(key_id, person))
    db.execute("INSERT OR IGNORE INTO keys VALUES (?, ?, ?)", (person, key_id, wrapped))
    kept = _found(db, master, person)
    if kept is None:
        raise KeysUnusable("a key was destroyed in the moment in which it was made")
    return kept


def _whose(key_id: str, person: str) -> bytes:
    """A wrapped key is of use in its own row only."""
    return f"{key_id}\x1f{person}".encode()


def _digest(person: str) -> str:
    return sha256(person.encode()).hexdigest()


def _append(file: Path, erasure: Erasure) -> None:
    with file.open("a", encoding="ascii") as lines:
        lines.write(" ".join(erasure) + "\n")
        lines.flush()
        os.fsync(lines.fileno())
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the file may be new
    finally:
        os.close(folder)


def _read(file: Path) -> list[Erasure]:
    """A last line that was cut short by a power cut was never acted upon."""
    if not file.exists():
        return []
    lines = (line.split() for line in file.read_text("ascii").splitlines())
    return [Erasure(*words) for words in lines if len(words) == len(Erasure._fields)]
