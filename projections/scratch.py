"""A scratch pad on disk: what is compared lies in tables of a temporary file, so that no view is too large for memory."""

import pickle
import sqlite3
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from typing import Any, Generic, TypeVar

V = TypeVar("V")

CACHE_KIB = 16_384
TOGETHER = 500
"""So many names come out at once."""


class Scratch:
    """Tables in a file without a name: it goes with the process, and CACHE_KIB of it are in memory, whatever it holds.

    Not for two threads at a time. Raises sqlite3.Error where the disk is full.
    """

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = OFF", f"cache_size = -{CACHE_KIB}", "temp_store = FILE"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.execute("BEGIN")  # one for ever: nobody else reads it, and nothing is taken back

    def close(self) -> None:
        self._db.close()

    def digests(self, table: str) -> "Table[bytes]":
        """An empty table of bytes, also if there was one of that name."""
        return Table(self._db, table, lambda value: value, lambda value: value)

    def documents(self, table: str) -> "Table[Any]":
        """The same of whatever can be pickled."""
        return Table(self._db, table, lambda value: pickle.dumps(value, 5), pickle.loads)

    def differing(self, one: str, other: str) -> Iterator[list[str]]:
        """The names that do not stand for the same in both tables, some at a time; neither may change meanwhile."""
        found = self._db.execute(
            f"SELECT name FROM {one} a LEFT JOIN {other} b USING (name) WHERE a.value IS NOT b.value"  # noqa: S608  # names of ours
            f" UNION ALL SELECT name FROM {other} b LEFT JOIN {one} a USING (name) WHERE a.value IS NULL"
        )
        while some := found.fetchmany(TOGETHER):
            yield [name for (name,) in some]


class Table(MutableMapping[str, V], Generic[V]):
    """A dict on disk; what it gives out is a copy."""

    def __init__(
        self, db: sqlite3.Connection, name: str, dump: Callable[[V], bytes], load: Callable[[bytes], V]
    ) -> None:
        self._db, self._name, self._dump, self._load = db, name, dump, load
        db.execute(f"DROP TABLE IF EXISTS {name}")
        db.execute(f"CREATE TABLE {name} (name TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")

    def put(self, rows: Iterable[tuple[str, V]]) -> None:
        """Many at once."""
        dump = self._dump
        sql = f"REPLACE INTO {self._name} VALUES (?, ?)"  # noqa: S608  # as above
        self._db.executemany(sql, [(name, dump(value)) for name, value in rows])

    def __getitem__(self, name: str) -> V:
        found = self._db.execute(f"SELECT value FROM {self._name} WHERE name = ?", (name,)).fetchone()  # noqa: S608  # as above
        if found is None:
            raise KeyError(name)
        return self._load(found[0])

    def __setitem__(self, name: str, value: V) -> None:
        self.put([(name, value)])

    def __delitem__(self, name: str) -> None:
        if not self._db.execute(f"DELETE FROM {self._name} WHERE name = ?", (name,)).rowcount:  # noqa: S608  # as above
            raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        for (name,) in self._db.execute(f"SELECT name FROM {self._name}"):  # noqa: S608  # as above
            yield name

    def __len__(self) -> int:
        (count,) = self._db.execute(f"SELECT count(*) FROM {self._name}").fetchone()  # noqa: S608  # as above
        return int(count)
