"""The auditor folds a log as it grows: killed or not, it finds what is broken, names it once, and raises no false alarm."""

import random
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from ops.audit import auditor, comparison
from ops.audit.auditor import Auditor, Ledgers
from ops.audit.comparison import Comparison
from ops.audit.desk import Place
from ops.audit.follower import Piece, Read
from ops.audit.kept import read_listed
from ops.audit.law_book import LAWS_OF_THE_LOG
from ops.audit.laws import LAWS
from ops.audit.mirror import Mirror
from ops.audit.role import told
from ops.audit.tables import KeptBooks
from ops.audit.wire import AvscReader
from ops.bench.copies import copies, template
from projections import stock
from projections.cassandra_store import CassandraSettings, CassandraStore
from projections.compare import FoldOfLog
from projections.heal import heal
from projections.redis_store import RedisSettings, RedisStore
from projections.registry import CASSANDRA_VIEWS, REDIS_VIEWS
from projections.store import Folded
from projections.view import Batch, Partition, Recorded, fold, offered
from schemas.codec import Codec
from schemas.topics import Topics
from tests.ops.test_laws import Shelf, charge, place, shelf_of, tell
from tests.written_log import AGGREGATES, SECOND, Written

TOPICS = Topics("t", 1)
CODEC = Codec()
READER = AvscReader()
PLACES = [(f"t.{kind}.{name}", 0) for kind in ("events", "decisions") for name in AGGREGATES.values()]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditor, "CUT_EVERY_S", 0.0)
    monkeypatch.setattr(comparison, "CUT_WITHIN_S", 0.2)
    monkeypatch.setattr(comparison, "LOOK_AGAIN_S", 0.01)


@dataclass
class Broker:
    """What lies in Kafka: `hidden` records are written and their transaction is still open."""

    records: list[Written]
    hidden: int = 0

    def at(self, place: Place) -> list[Written]:
        return [record for record in self.records if (record.topic, record.partition) == place]


@dataclass
class Source:
    """The log as the auditor sees it, from memory; a piece is what is there."""

    kafka: Broker
    next: dict[Place, int] = field(default_factory=dict)

    def read(self, wait_s: float = 0) -> Piece:
        records: list[Read] = []
        for at in PLACES:
            committed = self.kafka.at(at)[
                : len(self.kafka.at(at)) - (self.kafka.hidden if at[0] == HIDING else 0)
            ]
            start = self.next.get(at, 0)
            records += [Read(at, n, b"", record.value) for n, record in enumerate(committed) if n >= start]
            self.next[at] = len(committed)
        return Piece(records, dict(self.next))

    def ends(self, places: Iterable[Place] | None = None) -> dict[Place, int]:
        return {at: len(self.kafka.at(at)) for at in places or PLACES}


HIDING = "t.events.inventory"


@dataclass
class Audit:
    """An auditor over a log in memory, that can be killed and started again."""

    folder: Path
    kafka: Broker
    names: RedisStore

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.ledgers = Ledgers(self.folder / "ledgers", "a log", self.folder / "found.jsonl", READER)
        self.mirror = Mirror(stock.VIEW, self.names, self.ledgers.books)
        source = Source(self.kafka, {at: self.ledgers.position(at) for at in PLACES})
        self.auditor = Auditor(self.ledgers, source, CODEC.adopt, [self.mirror], PLACES)

    def kill(self) -> None:
        """What was not committed is gone."""
        self.ledgers.close()

    async def catch_up(self) -> list[str]:
        """What is found once all is read, looked at and judged."""
        for _ in range(3):
            await self.auditor.turn(0)
        return self.found

    @property
    def found(self) -> list[str]:
        return [one["what"] for one in self.listed]

    @property
    def listed(self) -> list[dict[str, Any]]:
        return list(read_listed(self.folder / "found.jsonl"))


@pytest.fixture
async def names() -> AsyncIterator[RedisStore]:
    """Never connected: it only knows how rows are called."""
    store = RedisStore(RedisSettings("127.0.0.1:1"), (stock.VIEW,))
    yield store
    await store.close()


@pytest.fixture
def shelf() -> Shelf:
    return shelf_of(10)


@pytest.fixture
async def audit(tmp_path: Path, shelf: Shelf, names: RedisStore) -> AsyncIterator[Audit]:
    audit = Audit(tmp_path, Broker(shelf.log.records), names)
    yield audit
    audit.ledgers.close()


def trade(shelf: Shelf) -> None:
    """An order from the shelf to the door."""
    place(shelf.log, "o", 500)
    shelf.reserve("o", 3)
    charge(shelf.log, "o")
    shelf.allocate("o", 3, from_reserved=3)
    shelf.ship("o", 3)


# ── the laws, as the log grows ────────────────────────────────────────────────────────────────────────────


async def test_a_log_that_keeps_the_laws_is_found_whole(audit: Audit, shelf: Shelf):
    trade(shelf)
    assert await audit.catch_up() == []
    assert audit.ledgers.counted("events") == sum(".events." in one.topic for one in shelf.log.records)


async def test_a_killed_auditor_goes_on_where_it_was(audit: Audit, shelf: Shelf):
    shelf.reserve("o", 3)
    await audit.catch_up()
    shelf.release("o", 3)
    audit.ledgers.book.feed("t.events.inventory", 0, shelf.log.records[-2].value)  # read, not written down
    audit.kill()
    audit.start()
    trade(shelf)
    assert await audit.catch_up() == []
    assert audit.ledgers.counted("events") == sum(".events." in one.topic for one in shelf.log.records)


async def test_a_breach_is_named_once_with_the_chain_that_leads_to_it(audit: Audit, shelf: Shelf):
    shelf.reserve("o", 11)
    shelf.log.records[-2].datum["meta"]["correlation_id"] = "request-7"
    assert await audit.catch_up() == ["stock/A/main@2 grants 11 units where 10 are available"]
    (one,) = audit.listed
    assert {name: one[name] for name in ("law", "correlation_id", "command_id", "stream", "version")} == {
        "law": "2",
        "correlation_id": "request-7",
        "command_id": "command-2",
        "stream": "stock/A/main",
        "version": 2,
    }
    audit.kill()
    audit.start()
    assert len(await audit.catch_up()) == 1


async def test_what_is_broken_stays_known_over_a_restart(audit: Audit, shelf: Shelf):
    shelf.reserve("o", 11)
    await audit.catch_up()
    audit.kill()
    audit.start()
    assert (
        told(audit.ledgers.breaches.laws_broken, {}, []) == "breaches: 1 of law 2; ./daybook audit breaches"
    )


async def test_a_changed_byte_in_a_copy_of_the_log_is_named(audit: Audit, shelf: Shelf):
    for order in ("a", "b"):
        shelf.reserve(order, 1)
    shelf.log.records[2].datum["meta"]["actor_id"] = "mallory"
    assert await audit.catch_up() == ["stock/A/main@3 does not chain to the event before it"]


async def test_a_transaction_is_torn_only_when_the_cut_is_passed(audit: Audit, shelf: Shelf):
    log = shelf.log
    log.transact(
        shelf.move("StockReceived", {"quantity": 1}, sellable=1), ("cart/1", "CartCreated", {"cart_id": "1"})
    )
    audit.kafka.hidden = 1  # as long as one partition's marker has not come, nobody can tell
    assert await audit.catch_up() == []
    audit.kafka.hidden = 0
    assert await audit.catch_up() == []
    del log.records[-3]
    audit.kill()
    audit.folder = audit.folder / "another"
    audit.start()
    assert any("is torn: 1 of 2 events" in what for what in await audit.catch_up())


async def test_an_effect_that_no_decision_accepted_is_named(audit: Audit, shelf: Shelf):
    shelf.receive(1)
    del shelf.log.records[-1]
    assert await audit.catch_up() == ["stock/A/main@2 is the effect of command-2, which no decision accepted"]


async def test_an_order_charged_without_confirmation_is_named(audit: Audit, shelf: Shelf):
    place(shelf.log, "o", 500)
    charge(shelf.log, "o")
    shelf.log.records = audit.kafka.records = [
        one for one in shelf.log.records if one.name != "OrderConfirmed"
    ]
    assert "order/o was placed, never confirmed, and charged 500" in await audit.catch_up()


async def test_a_reservation_that_never_ends_is_named_by_the_logs_own_time(audit: Audit, shelf: Shelf):
    shelf.reserve("o", 1)
    for _ in range(80):  # its writer is awake, and passes it by
        shelf.log.after(9)
        shelf.receive(1)
    assert await audit.catch_up() == ["stock/A/main: the reservation of order o line 1 never ended"]


async def test_what_was_due_while_no_writer_was_there_is_nobodys_fault(audit: Audit, shelf: Shelf):
    shelf.reserve("o", 1)
    shelf.log.after(5 * 3600)
    shelf.receive(1)
    shelf.expire("o", 1)
    assert await audit.catch_up() == []


async def test_an_order_that_asks_no_more_is_named_by_the_logs_own_time(audit: Audit, shelf: Shelf):
    for order in ("o", "settled"):
        place(shelf.log, order)
        tell(shelf.log, order, "OrderRejected", reason="stock", money="none", cart="reopen")
    tell(shelf.log, "settled", "OrderSettled")
    assert await audit.catch_up() == []
    audit.kill()
    audit.start()
    for _ in range(12):  # its writer is awake, and passes it by
        shelf.log.after(9)
        tell(shelf.log, "settled", "OrderContactErased")
    assert await audit.catch_up() == ["order/o has ended and is not settled, and does not ask again"]


async def test_an_order_that_goes_on_asking_is_no_breach_and_a_writer_that_was_away_asks_late(
    audit: Audit, shelf: Shelf
):
    place(shelf.log, "o")
    tell(shelf.log, "o", "OrderRejected", reason="stock", money="none", cart="reopen")
    for seconds in (60, 61, 62, 5 * 3600, 60):
        shelf.log.after(seconds)
        tell(shelf.log, "o", "OrderReturnRequested", money="none", cart="reopen")
    assert await audit.catch_up() == []


async def test_an_order_half_way_is_no_breach(audit: Audit, shelf: Shelf):
    place(shelf.log, "o", 500)
    shelf.reserve("o", 3)
    tell(shelf.log, "o", "OrderRejected", reason="payment", money="none")
    assert await audit.catch_up() == []


async def test_ledgers_of_another_log_are_begun_anew(audit: Audit, shelf: Shelf):
    await audit.catch_up()
    audit.kill()
    audit.ledgers = Ledgers(audit.folder / "ledgers", "another log", audit.folder / "found.jsonl", READER)
    assert audit.ledgers.position(("t.events.inventory", 0)) == 0


async def test_decisions_that_were_deleted_before_it_came_are_not_asked_for(audit: Audit, shelf: Shelf):
    shelf.receive(1)
    assert audit.ledgers.begin_at({("t.decisions.inventory", 0): 2})
    audit.kill()
    audit.start()
    shelf.receive(1)
    assert await audit.catch_up() == []


# ── the views ─────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class StoreInMemory:
    """A store of the view `stock` that projects when it is told to, and whose rows anybody can change."""

    kafka: Broker
    names: RedisStore
    held_rows: dict[str, bytes] = field(default_factory=dict)
    at: int = 0

    def project(self) -> None:
        """Apply what the log holds."""
        documents: dict[str, Any] = {}
        facts, _ = offered(stock.VIEW, self._records())
        fold(stock.VIEW, documents, facts)
        folded = Folded(dict.fromkeys(documents), documents, ())
        self.held_rows = {
            row.name: row.content for row in self.names.rows_of(stock.VIEW, folded) if row.content
        }
        self.at = len(self.kafka.at(("t.events.inventory", 0)))

    def _records(self) -> list[Recorded]:
        written = self.kafka.at(("t.events.inventory", 0))
        return [
            Recorded("t.events.inventory", 0, n, b"A", CODEC.decode(record.value))
            for n, record in enumerate(written)
        ]

    async def live(self, view: Any) -> int:
        return 1

    async def held(self, view: Any, generation: int, names: Iterable[str]) -> dict[str, bytes | None]:
        return {name: self.held_rows.get(name) for name in names}

    async def rows(self, view: Any, generation: int) -> AsyncIterator[tuple[str, bytes]]:
        for row in list(self.held_rows.items()):
            yield row

    def rows_of(self, view: Any, folded: Folded) -> Iterable[Any]:
        return self.names.rows_of(view, folded)

    async def positions(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return dict.fromkeys(partitions, self.at)

    async def overwrite(
        self, view: Any, generation: int, folded: Folded, held: Mapping[str, bytes | None]
    ) -> None:
        for row in self.names.rows_of(view, folded):
            if self.held_rows.get(row.name) == held.get(row.name, b"") and row.content:
                self.held_rows[row.name] = row.content

    async def close(self) -> None: ...

    def ends(self, topics: Iterable[str]) -> dict[Partition, int]:
        return {(topic, 0): len(self._records()) for topic in topics}

    def batches(self, partition: Partition, start: int, end: int) -> Iterator[Batch]:
        yield Batch(*partition, start, end, self._records()[start:end])


@dataclass
class Compared:
    audit: Audit
    store: StoreInMemory
    comparison: Comparison

    async def sweep(self) -> list[str]:
        await self.audit.catch_up()
        await self.comparison.sweep(_no_pause)
        return [f"{drift.name} {drift.kind}" for drift in self.audit.ledgers.breaches.drifts()]


async def _no_pause() -> None: ...


@pytest.fixture
def compared(audit: Audit, names: RedisStore) -> Compared:
    store = StoreInMemory(audit.kafka, names)
    ledgers = audit.ledgers
    found = Comparison(audit.mirror, store, TOPICS, audit.auditor, ledgers.books, ledgers.breaches)
    return Compared(audit, store, found)


LEVEL, DEMAND = "{A/main}", "index:{demand} A"


async def test_a_view_that_is_what_the_log_says_does_not_drift(compared: Compared, shelf: Shelf):
    shelf.reserve("o", 3)
    compared.store.project()
    assert await compared.sweep() == []
    assert compared.comparison.compared == 2


async def test_a_view_that_lags_has_not_drifted(compared: Compared, shelf: Shelf):
    compared.store.project()
    shelf.reserve("o", 3)
    assert await compared.sweep() == []


@pytest.mark.parametrize(
    ("corrupt", "kind"),
    [
        (lambda rows: rows.update({LEVEL: b'2\n{"sku":"A","sellable":999}'}), f"{LEVEL} differs"),
        (lambda rows: rows.update({LEVEL: rows[LEVEL].replace(b"2\n", b"7\n")}), f"{LEVEL} differs"),
        (lambda rows: rows.pop(LEVEL), f"{LEVEL} missing"),
        (lambda rows: rows.update({"{B/main}": b"1\n{}"}), "{B/main} extra"),
        (lambda rows: rows.update({DEMAND: b"99.0"}), f"{DEMAND} differs"),
    ],
    ids=["wrong content", "version too high", "missing", "extra", "index"],
)
async def test_a_row_that_differs_is_named(compared: Compared, shelf: Shelf, corrupt: Any, kind: str):
    shelf.reserve("o", 3)
    compared.store.project()
    corrupt(compared.store.held_rows)
    assert await compared.sweep() == [kind]


async def test_drift_is_found_by_sample_among_what_changed_last(compared: Compared, shelf: Shelf):
    compared.store.project()
    compared.store.held_rows[LEVEL] = b"1\n{}"
    await compared.audit.catch_up()
    await compared.comparison.sample(random.Random(7))
    assert [drift.name for drift in compared.audit.ledgers.breaches.drifts()] == [LEVEL]


async def test_a_drifted_row_names_the_request_behind_it_and_is_gone_once_healed(
    compared: Compared, shelf: Shelf
):
    shelf.reserve("o", 3)
    compared.store.project()
    right, compared.store.held_rows[LEVEL] = compared.store.held_rows[LEVEL], b"9\n{}"
    assert await compared.sweep() == [f"{LEVEL} differs"]
    compared.audit.ledgers.commit()
    (one,) = compared.audit.listed
    assert (one["row"], one["stream"], one["version"]) == (LEVEL, "stock/A/main", 2)
    assert (one["command_id"], one["wrong_now"]) == ("command-2", True)
    healed = await heal(stock.VIEW, "stock/A/main", compared.store, compared.store, TOPICS)
    assert [(change.was, change.right) for change in healed.changes] == [(b"9\n{}", right)]
    assert healed.refused == ()
    assert await compared.sweep() == []
    compared.audit.ledgers.commit()
    assert [one["wrong_now"] for one in compared.audit.listed] == [False]


def test_documents_of_every_view_are_kept_as_the_view_keeps_them(tmp_path: Path):
    books = KeptBooks(tmp_path / "ledgers")
    log = [(one.topic, one.partition, one.value) for one in islice(copies(template(), Topics("t", 2)), 675)]
    redis = RedisStore(RedisSettings("127.0.0.1:1"), REDIS_VIEWS)
    cassandra = CassandraStore(CassandraSettings(("127.0.0.1:1",)), CASSANDRA_VIEWS)
    mirrors = [Mirror(view, redis, books) for view in REDIS_VIEWS]
    mirrors += [Mirror(view, cassandra, books) for view in CASSANDRA_VIEWS]
    for mirror in mirrors:
        for n, (topic, partition, value) in enumerate(log):
            if mirror.view.reads(topic):
                mirror.fold([Recorded(topic, partition, n, b"", CODEC.decode(value))])
                books.commit()
                mirror._documents._young.clear()  # so that the next event finds its document on the disk
        should = FoldOfLog(mirror._names, mirror.view)
        for n, (topic, partition, value) in enumerate(log):
            if mirror.view.reads(topic):
                should.add([Recorded(topic, partition, n, b"", CODEC.decode(value))])
        held = {name: row.digest for name in mirror.names_from("") if (row := mirror.row(name))}
        assert held == should.digests
        assert should.digests
    books.close()


def test_the_state_of_the_laws_is_one_line():
    assert told({}, {}, []) == "laws hold, views agree"
    assert told({"2": 1}, {"stock": 3}, ["order"]) == (
        "breaches: 1 of law 2; rows that drifted: 3 of stock; ./daybook audit breaches; order cannot be read"
    )


def test_deadlines_are_asked_with_more_patience_than_a_takeover_takes():
    assert auditor.GRACE_US > 12 * SECOND


def test_every_law_that_is_asked_is_declared():
    assert set(LAWS) == {*LAWS_OF_THE_LOG, "7"}
