"""The stock ledger's rows in memory, read as its pages read them from Cassandra."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from projections import as_of, history, ledger
from projections.store import Folded
from projections.view import Offered, fold
from schemas.codec import Decoded
from schemas.meta import EventMeta, Micros
from schemas.values import Position
from tests.projections.shop import received
from tests.projections.story import Story


@dataclass(frozen=True)
class Moved:
    """An entry: when it was recorded and when it had happened (micros), and the balances after it."""

    recorded_at: int
    occurred_at: int
    sellable: int = 0
    reserved: int = 0


def entries(*moves: Moved, sku: str = "A", actor: str = "anna") -> list[Decoded[EventMeta]]:
    """The events of one stock item that say so."""
    story = Story()
    for moved in moves:
        story.tell(received(sku, 1, moved.sellable, reserved=moved.reserved), actor=actor)
    return [
        replace(message, meta=replace(message.meta, recorded_at=at, occurred_at=Micros(moved.occurred_at)))
        for message, moved in zip(story.messages, moves, strict=True)
        if (at := Micros(moved.recorded_at))
    ]


@dataclass
class Ledger:
    """Stands where a `CassandraReader` is; `selects` counts what was read."""

    tables: dict[str, dict[tuple[Any, ...], tuple[Any, ...]]] = field(default_factory=dict)
    documents: dict[str, Any] = field(default_factory=dict)
    selects: list[int] = field(default_factory=list)

    def post(self, messages: Sequence[Decoded[EventMeta]], size: int = 7) -> "Ledger":
        """What the store does with batches of so many events."""
        for start in range(0, len(messages), size):
            self._apply(messages[start : start + size])
        return self

    def _apply(self, messages: Sequence[Decoded[EventMeta]]) -> None:
        before, steps = dict(self.documents), list[tuple[Any, Any]]()
        facts = [Offered(0, fact) for message in messages for fact in ledger.VIEW.facts(message)]
        assert not fold(ledger.VIEW, self.documents, facts, lambda head, fact: steps.append((head, fact)))
        for row in ledger.rows(Folded(before, self.documents, steps)):
            width = len(row.insert.key)
            self.tables.setdefault(row.insert.table, {})[row.values[:width]] = row.values[width:]

    async def caught_up(self, after: Sequence[Position], *views: Any) -> None:
        assert not after

    async def document(self, view: Any, stream: str) -> Any | None:
        found = self.tables.get("stock_heads", {}).get(view.key_of(stream))
        return view.load(dict(zip(ledger.HEAD.columns, found, strict=True))) if found else None

    async def select(self, view: Any, cql: str, arguments: Sequence[Any] = ()) -> list[dict[str, Any]]:
        found = self._SELECTS[cql](self, *arguments)
        self.selects.append(len(found))
        return found

    def _page(
        self, bucket: int, month: int, sku: str, at: str, below: int, limit: int
    ) -> list[dict[str, Any]]:
        keys = [key for key in self.tables["stock_ledger"] if key[:4] == (bucket, month, sku, at)]
        keys = sorted((key for key in keys if key[4] < below), reverse=True)[:limit]
        text = self.tables["stock_ledger"]
        return [{"month": key[1], "version": key[4], "movement": text[key][0]} for key in keys]

    def _entries(
        self, bucket: int, month: int, sku: str, at: str, above: int, last: int
    ) -> list[dict[str, Any]]:
        return [
            {"movement": text[0]}
            for key, text in self.tables["stock_ledger"].items()
            if key[:4] == (bucket, month, sku, at) and above < key[4] <= last
        ]

    def _folios(
        self, bucket: int, sku: str, at: str, above: int, last: int, limit: int
    ) -> list[dict[str, Any]]:
        folios = self.tables.get("stock_folios", {})
        keys = sorted(key for key in folios if key[:3] == (bucket, sku, at) and above < key[3] <= last)
        return [{"folio": folios[key][0]} for key in keys[:limit]]

    _SELECTS: ClassVar[Mapping[str, Callable[..., list[dict[str, Any]]]]] = {
        history._MONTH: _page,
        as_of._ENTRIES: _entries,
        as_of._FOLIOS: _folios,
    }
