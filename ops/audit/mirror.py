"""The auditor's own fold of every read model: what each row should hold, kept beside the law book."""

import marshal
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any, cast

from ops.audit.tables import Form, KeptBooks, KeptTable
from projections.cassandra_store import CassandraView
from projections.compare import Comparable, digest
from projections.redis_store import RedisView
from projections.store import Folded
from projections.view import Fact, Recorded, View, fold, offered

RECENT_MAX = 256
"""So many of the rows that changed last can be drawn for a sample."""


@dataclass(slots=True)
class Row:
    """What a row should hold, as a digest; as of which version of which stream, and when it may go (micros; 0: never)."""

    digest: bytes
    stream: str
    version: int
    expires_at: int


class Mirror:
    """One view, folded by its own `evolve` (which C11 may use) into tables of ours."""

    def __init__(self, view: View[Any], names: Comparable, books: KeptBooks) -> None:
        self.view = view
        self.recent: deque[str] = deque(maxlen=RECENT_MAX)
        self._names = names
        self._documents: KeptTable[Any] = books.table_in(f"documents-{view.title}", _form_of(view))
        self._rows: KeptTable[Row] = books.table(f"rows-{view.title}", Row)
        self._stuck: KeptTable[tuple[str]] = books.table(f"stuck-{view.title}")

    def row(self, name: str) -> Row | None:
        return self._rows.peek(name)

    def names_from(self, name: str) -> Iterator[str]:
        """The names of all rows that there should be, from this one on, as of the last commit."""
        return self._rows.keys_from(name)

    def forget(self, name: str) -> None:
        """A row whose time is up, and its document."""
        row = self._rows.pop(name)
        if row is not None:
            self._documents.pop(row.stream)

    def is_stuck(self, stream: str) -> bool:
        """Whether a record of the stream cannot be applied: what follows it is not comparable."""
        return self._stuck.peek(stream) is not None

    def fold(self, records: Iterable[Recorded]) -> None:
        """Records in the order of each partition."""
        facts, _ = offered(self.view, records)
        steps: defaultdict[str, list[tuple[Any, Fact]]] = defaultdict(list)
        documents = cast("MutableMapping[str, Any]", self._documents)
        for poison in fold(
            self.view, documents, facts, lambda before, fact: steps[fact.stream].append((before, fact))
        ):
            self._stuck[poison.stream] = (poison.reason,)
        for stream, taken in steps.items():
            self._expect(stream, taken)

    def _expect(self, stream: str, steps: list[tuple[Any, Fact]]) -> None:
        after: Any = self._documents.get(stream)
        folded = Folded({stream: steps[0][0]}, {stream: after}, steps)
        for expected in self._names.rows_of(self.view, folded):
            self.recent.append(expected.name)
            if expected.content is None:
                self._rows.pop(expected.name)
            else:
                row = Row(digest(expected.content), stream, after.version, expected.expires_at or 0)
                self._rows[expected.name] = row


def _form_of(view: View[Any]) -> Form[Any]:
    """How the view itself keeps its documents."""
    if isinstance(view, RedisView):
        return Form(view.dump, view.load)
    assert isinstance(view, CassandraView)
    rows, load, own = view.rows, view.load, view.inserts[0]
    names = (*own.key, *own.columns)

    def dump(document: Any) -> bytes:
        written = rows(Folded({"": None}, {"": document}, ()))
        return marshal.dumps(next(row.values for row in written if row.insert is own))

    return Form(
        dump,
        lambda value: load(dict(zip(names, marshal.loads(value), strict=True))),  # noqa: S302  # our own
    )
