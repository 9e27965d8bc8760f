"""The tables that an audit's books consist of: in memory for a run that ends, in RocksDB for one that does not."""

import heapq
import marshal
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast

from rocksdict import Rdict, WriteBatch

from streams.state_store import bounded_options

V = TypeVar("V")

FORMAT = f"2/{sys.version_info.major}.{sys.version_info.minor}"
"""What lies on the disk was written by this code: marshal promises nothing to another Python."""

REMEMBERED_BYTES = 1 << 20
"""So much of a table is kept decoded, per generation of its memory, as it is encoded."""

BLOCK_CACHE_BYTES = 16 << 20
WRITE_BUFFER_BYTES = 8 << 20


class Form(NamedTuple, Generic[V]):
    """How a document becomes bytes, and back."""

    dump: Callable[[V], bytes]
    load: Callable[[bytes], V]


class Table(Protocol[V]):
    """Documents by key. What `get` returns may be changed in place, and is kept as it was left."""

    def get(self, key: str, /) -> V | None: ...

    def __setitem__(self, key: str, document: V, /) -> None: ...

    def pop(self, key: str, default: None, /) -> V | None: ...

    def __iter__(self) -> Iterator[str]:
        """The keys in their order."""


class Books(Protocol):
    """All tables of one audit."""

    def table(self, name: str, kind: type[V] | None = None) -> Table[V]:
        """`kind` is a dataclass; without it a document is a tuple, list or dict of plain values."""


class TableInMemory(dict[str, V]):
    """A dict whose keys come in order."""

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(super().__iter__()))


class BooksInMemory:
    """For a run that ends: nothing is kept."""

    def table(self, name: str, kind: type[V] | None = None) -> Table[V]:  # noqa: ARG002  # a dict holds anything
        return cast("Table[V]", TableInMemory())


class KeptBooks:
    """Tables in one RocksDB; `commit` writes all that was touched, in one step. The directory is ours alone."""

    def __init__(self, folder: Path) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._db = Rdict(str(folder), options=bounded_options(BLOCK_CACHE_BYTES, WRITE_BUFFER_BYTES))
        self._tables: dict[str, KeptTable[Any]] = {}

    def table(self, name: str, kind: type[V] | None = None) -> "KeptTable[V]":
        return self.table_in(name, form_of(kind))

    def table_in(self, name: str, form: "Form[V]") -> "KeptTable[V]":
        """A table whose documents have a form of their own."""
        return cast("KeptTable[V]", self._tables.setdefault(name, KeptTable(self._db, name, form)))

    def commit(self) -> None:
        """What follows a commit that was not reached never happened: the process goes on from the one before."""
        batch = WriteBatch(raw_mode=True)
        for table in self._tables.values():
            for key, value in table.drain():
                if value is None:
                    batch.delete(key)
                else:
                    batch.put(key, value)
        if len(batch):
            self._db.write(batch)

    def close(self) -> None:
        self._db.close()


class KeptTable(Generic[V]):
    """A table of `KeptBooks`. What was touched since the last commit is staged; what was used lately is remembered."""

    def __init__(self, db: Rdict, name: str, form: Form[V]) -> None:
        self._db = db
        self._prefix = f"{name}/".encode()
        self._dump, self._load = form
        self._size = 0
        self._staged: dict[str, V | None] = {}
        self._absent: set[str] = set()
        self._young: dict[str, V] = {}
        self._old: dict[str, V] = {}

    def get(self, key: str, /) -> V | None:
        found = self._staged.get(key)
        if found is not None:
            return found
        if key in self._absent or key in self._staged:
            return None
        found = self._find(key)
        if found is None:
            self._absent.add(key)
        else:
            self._staged[key] = found
        return found

    def peek(self, key: str) -> V | None:
        """As `get`, for who only looks: nothing is written because of it."""
        return self._staged[key] if key in self._staged else self._find(key)

    def __setitem__(self, key: str, document: V, /) -> None:
        self._staged[key] = document

    def pop(self, key: str, default: None = None, /) -> V | None:
        found = self.get(key)
        if key in self._absent:
            self._staged.pop(key, None)  # it never was on the disk: most of what is opened is closed at once
        elif found is not None:
            self._staged[key] = None
        return found if found is not None else default

    def __iter__(self) -> Iterator[str]:
        staged = sorted(key for key, document in self._staged.items() if document is not None)
        gone = {key for key, document in self._staged.items() if document is None}
        for key, _ in groupby(heapq.merge(self.keys_from(""), staged)):
            if key not in gone:
                yield key

    def keys_from(self, key: str) -> Iterator[str]:
        """The keys from this one on, as of the last commit."""
        keys: Any = self._db.keys(from_key=self._prefix + key.encode())  # typed as if they were not raw
        for found in keys:
            if not found.startswith(self._prefix):
                return
            yield found[len(self._prefix) :].decode()

    def drain(self) -> Iterable[tuple[bytes, bytes | None]]:
        """What is to be written; after that nothing is staged."""
        staged, self._staged = self._staged, {}
        self._absent.clear()
        for key, document in staged.items():
            value = None if document is None else self._dump(document)
            self._remember(key, document, len(value or b""))
            yield self._prefix + key.encode(), value

    def _remember(self, key: str, document: V | None, size: int) -> None:
        self._old.pop(key, None)
        if document is None:
            self._young.pop(key, None)
            return
        self._size += 0 if key in self._young else size
        self._young[key] = document
        if self._size > REMEMBERED_BYTES:
            self._old, self._young, self._size = self._young, {}, 0

    def _find(self, key: str) -> V | None:
        found = self._young.get(key)
        if found is None:
            found = self._old.get(key)
        if found is not None:
            return found
        value: Any = self._db.get(self._prefix + key.encode())
        return None if value is None else self._load(value)


def form_of(kind: type[V] | None) -> Form[V]:
    """A dataclass (of two fields or more) as the tuple of its fields; what is none as it is."""
    if kind is None or not is_dataclass(kind):
        return Form(marshal.dumps, marshal.loads)
    values = attrgetter(*(field.name for field in fields(kind)))
    return Form(
        lambda document: marshal.dumps(values(document)),
        lambda value: kind(*marshal.loads(value)),  # noqa: S302  # written by ourselves
    )
