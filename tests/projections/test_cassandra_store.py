"""The ledgers on a real Cassandra: rows by version, whatever arrives late or twice; pages; lists; positions."""

from typing import Any

import pytest
from cassandra.cqltypes import BooleanType, Int32Type, LongType, UTF8Type
from cassandra.protocol import ColumnMetadata
from cassandra.query import PreparedStatement

from projections import history, ledger, order
from projections.as_of import Cutoff, standing
from projections.cassandra_store import (
    BATCH_BYTES_MAX,
    PROTOCOL,
    ROWS_MAX,
    CassandraReader,
    CassandraSettings,
    CassandraStore,
    CassandraView,
    Row,
    _binder,
    batches,
)
from projections.compare import FoldOfLog, against_log
from projections.cursor import BadCursor
from projections.generations import first_generation
from projections.history import Wanted
from projections.receipt import ForeignReceipt, NotCaughtUp
from projections.registry import CASSANDRA_VIEWS
from projections.store import Folded, Stand
from projections.view import PositionMoved, StoreUnavailable
from schemas.meta import DAY
from schemas.order import OrderConfirmed, OrderLinesAllocated, OrderPaymentAuthorized, OrderStockSecured
from schemas.values import Position
from tests.projections.a_ledger import Moved, entries
from tests.projections.shop import adjusted, lines, placed, received, reserved, step
from tests.projections.story import NOVEMBER, TOPICS, Story, deliver
from tests.projections.test_as_of import fold_of


@pytest.fixture
async def emptied(cassandra_store: CassandraStore) -> CassandraStore:
    """The same keyspace, nothing in it: as after a loss of everything."""
    for view in CASSANDRA_VIEWS:
        await cassandra_store.prepare(view, 1)
        for insert in view.inserts:
            await cassandra_store._connection.execute(f"TRUNCATE {insert.table}_{view.tables(1)}")
    for table in ("view_positions", "live_generations"):
        await cassandra_store._connection.execute(f"TRUNCATE {table}")
    return cassandra_store


def a_month() -> Story:
    story = Story()
    for n in range(8):
        story.tell(received(f"S{n}", 50, 50), reserved(f"S{n}", 50, 1), adjusted(f"S{n}", 50, 49))
        story.tell(placed(f"O{n}", "S1", "S2"), step(OrderStockSecured, f"O{n}", "S1", "S2", token="t"))
    story.tell(OrderPaymentAuthorized("O1", "payment-1", 1180))
    story.tell(step(OrderConfirmed, "O1", "S1", "S2", remind_at=9))
    return story.tell(OrderLinesAllocated("O1", lines("S1")), OrderLinesAllocated("O1", lines("S2")))


async def against(
    store: CassandraStore, view: CassandraView[Any], story: Story, generation: int = 1
) -> set[tuple[str, str]]:
    should = FoldOfLog(store, view)
    should.add(record for record in story.records if view.reads(record.topic))
    assert should.digests
    return {(one.kind, one.name) for one in await against_log(should, generation, 0)}


async def test_every_row_equals_the_fold_of_the_log_however_it_is_cut(emptied: CassandraStore) -> None:
    story = a_month()
    assert await deliver(emptied, story, size=5) == []
    for view in CASSANDRA_VIEWS:
        assert await against(emptied, view, story) == set()


async def test_a_planted_wrong_missing_or_extra_row_is_named(emptied: CassandraStore) -> None:
    story = a_month()
    await deliver(emptied, story)
    placed_at = next(m.meta.occurred_at for m in story.messages if m.meta.stream == "order/O2")
    gone = f"owner = 'anna' AND placed_at = {placed_at} AND order_id = 'O2'"
    for cql in (
        "UPDATE orders_v2_g1 USING TIMESTAMP 99 SET status = 'completed' WHERE order_id = 'O1'",
        f"DELETE FROM customer_orders_v2_g1 WHERE {gone}",
        "INSERT INTO orders_v2_g1 (order_id, version, lines) VALUES ('O99', 1, '[]')",
    ):
        await emptied._connection.execute(cql)
    found = await against(emptied, order.VIEW, story)
    assert ("differs", 'orders.version ["O1"]') in found
    assert ("extra", 'orders.version ["O99"]') in found
    assert ("extra", 'orders.lines ["O99"]') in found
    assert {kind for kind, name in found if name.startswith("customer_orders")} == {"missing"}
    assert len(found) == 4


async def test_a_stale_writer_cannot_set_a_row_or_a_position_back(
    emptied: CassandraStore, cassandra_settings: CassandraSettings, cassandra_reader: CassandraReader
) -> None:
    story = Story().tell(placed("O1", "S1"), OrderPaymentAuthorized("O1", "payment-1", 590))
    (partition,) = [at for at, end in story.ends([TOPICS.events("order")]).items() if end]
    one, two = story.batches(partition, 0, 99, size=1)
    await emptied.apply(one)
    stale = CassandraStore(cassandra_settings, CASSANDRA_VIEWS)
    facts = await stale._load(order.VIEW, 1, ["order/O1"])
    await emptied.apply(two)

    for row in (order.LISTED.row_of(facts["order/O1"]), order.ORDER.row_of(facts["order/O1"])):
        await stale._connection.in_thread(lambda session, row=row: stale._write_rows(order.VIEW, 1, [row], session))  # type: ignore[misc]  # fmt: skip
    await stale._put(order.VIEW, one, Folded({}, {}, ()), Stand(1, one.next))

    assert (await emptied.positions([partition]))[partition] == two.next
    assert await against(emptied, order.VIEW, story) == set()
    served = await order.by_id(cassandra_reader, "O1")
    assert served
    assert served.document()["payment_status"] == "authorized"
    await stale.close()


async def test_a_batch_that_is_repeated_after_a_crash_before_the_position_changes_nothing(
    emptied: CassandraStore, cassandra_settings: CassandraSettings
) -> None:
    story = a_month()
    await deliver(emptied, story)
    await emptied._connection.execute("TRUNCATE view_positions")
    second = CassandraStore(cassandra_settings, CASSANDRA_VIEWS)
    assert await deliver(second, story) == []
    for view in CASSANDRA_VIEWS:
        assert await against(second, view, story) == set()
    await second.close()


async def test_what_arrives_behind_a_loss_hides_nothing_that_went_with_it(
    emptied: CassandraStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that was on its way when somebody emptied the tables: its heads must not pass for all that was lost."""
    monkeypatch.setattr("projections.cassandra_store.first_generation", first_generation)
    monkeypatch.setattr("projections.cassandra_store.LIVE_S", 0.0)
    story, write = a_month(), emptied._write
    written: list[Any] = []

    async def noted(*what: Any) -> None:
        written.append(what)
        await write(*what)

    monkeypatch.setattr(emptied, "_write", noted)
    await deliver(emptied, story, size=3)
    lost = {view.title: await emptied.live(view) for view in CASSANDRA_VIEWS}
    for view in CASSANDRA_VIEWS:
        for insert in view.inserts:
            await emptied._connection.execute(f"TRUNCATE {insert.table}_{view.tables(lost[view.title])}")
    for table in ("view_positions", "live_generations"):
        await emptied._connection.execute(f"TRUNCATE {table}")
    for what in written[len(written) // 2 :]:
        await write(*what)
    assert await deliver(emptied, story) == []
    for view in CASSANDRA_VIEWS:
        live = await emptied.live(view)
        assert live != lost[view.title]
        assert await against(emptied, view, story, live) == set()


async def test_what_was_written_before_generations_were_drawn_goes_on_being_served(
    emptied: CassandraStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deliver(emptied, a_month())
    await emptied._connection.execute("TRUNCATE live_generations")
    monkeypatch.setattr("projections.cassandra_store.first_generation", lambda: 77)
    assert await emptied.live(order.VIEW) == 1


async def test_a_crash_between_rows_and_their_document_is_made_good(
    emptied: CassandraStore, cassandra_settings: CassandraSettings
) -> None:
    """The document's own row is written last; without it, everything is written again."""
    story = a_month()
    await deliver(emptied, story)
    for cql in (
        "DELETE FROM orders_v2_g1 USING TIMESTAMP 0 WHERE order_id = 'O1'",
        "TRUNCATE orders_v2_g1",
        "TRUNCATE stock_heads_v2_g1",
        "TRUNCATE view_positions",
    ):
        await emptied._connection.execute(cql)
    second = CassandraStore(cassandra_settings, CASSANDRA_VIEWS)
    assert await deliver(second, story) == []
    for view in CASSANDRA_VIEWS:
        assert await against(second, view, story) == set()
    await second.close()


async def test_a_store_that_lost_everything_sends_the_source_back(emptied: CassandraStore) -> None:
    story = Story().tell(received("S1", 5, 5), received("S1", 5, 10))
    (partition,) = [at for at, end in story.ends([TOPICS.events("inventory")]).items() if end]
    first, second = story.batches(partition, 0, 99, size=1)
    await emptied.apply(first)
    await emptied._connection.execute("TRUNCATE view_positions")
    with pytest.raises(PositionMoved) as moved:
        await emptied.apply(second)
    assert moved.value.next == 0


async def test_an_order_is_served_with_its_lines_and_its_version(
    emptied: CassandraStore, cassandra_reader: CassandraReader
) -> None:
    await deliver(emptied, a_month())
    served = await order.by_id(cassandra_reader, "O1", [Position("order/O1", 6)])
    assert served
    shown = served.document()
    assert (served.etag, shown["status"], shown["fulfilment_status"]) == ('"6"', "confirmed", "allocated")
    assert [line["sku"] for line in shown["lines"]] == ["S1", "S2"]
    assert shown["refused"] == []
    assert await order.by_id(cassandra_reader, "O99") is None


async def test_an_order_of_two_thousand_lines_is_stored_and_served(
    emptied: CassandraStore, cassandra_reader: CassandraReader
) -> None:
    skus = [f"SKU{n}" for n in range(2_000)]
    story = Story().tell(placed("big", *skus), OrderPaymentAuthorized("big", "payment-1", 1))
    assert await deliver(emptied, story) == []
    served = await order.by_id(cassandra_reader, "big")
    assert served
    assert [line["sku"] for line in served.document()["lines"]] == skus


async def test_a_customers_orders_come_newest_first_page_by_page(
    emptied: CassandraStore, cassandra_reader: CassandraReader
) -> None:
    await deliver(emptied, a_month().tell(placed("bertas", "S1", owner="berta")))
    cursor, seen = "", []
    while True:
        page = (await order.of_customer(cassandra_reader, "anna", cursor, limit=3)).document()
        seen.append([one["order_id"] for one in page["orders"]])
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == [["O7", "O6", "O5"], ["O4", "O3", "O2"], ["O1", "O0"]]
    with pytest.raises(BadCursor):
        await order.of_customer(cassandra_reader, "anna", "nonsense")


async def test_history_is_read_newest_first_across_months(
    emptied: CassandraStore, cassandra_reader: CassandraReader
) -> None:
    story = Story()
    for month in range(4):
        story.now = NOVEMBER + month * 62 * DAY  # every other month has nothing
        story.tell(received("S1", 1, month * 2 + 1), received("S1", 1, month * 2 + 2), received("S10", 1, 1))
    await deliver(emptied, story)
    cursor, seen = "", []
    while True:
        found = await history.of_item(cassandra_reader, "S1", cursor, limit=3)
        assert found
        page = found.served().document()
        seen.append([(row["version"], row["before"]["sellable"]) for row in page["movements"]])
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == [[(8, 7), (7, 6), (6, 5)], [(5, 4), (4, 3), (3, 2)], [(2, 1), (1, 0)]]
    assert await history.of_item(cassandra_reader, "S99") is None


async def test_the_past_is_read_from_folios_and_history_by_what_is_wanted(
    emptied: CassandraStore, cassandra_reader: CassandraReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "FOLIO_MAX", 4)
    moves = [
        Moved(at, at - (20 * DAY if n % 7 == 3 else 0), sellable=n * n)
        for n, at in enumerate(range(NOVEMBER, NOVEMBER + 40 * DAY, DAY))
    ]
    story = Story().tell(*(received("S1", 1, 0) for _ in moves))
    story.records = [
        record._replace(message=message)
        for record, message in zip(story.records, entries(*moves, sku="S1"), strict=True)
    ]
    await deliver(emptied, story)
    assert await against(emptied, ledger.VIEW, story) == set()
    for cutoff in (
        Cutoff(),
        Cutoff(version=17),
        Cutoff(as_of=NOVEMBER + 11 * DAY),
        Cutoff(NOVEMBER + 9 * DAY, NOVEMBER + 30 * DAY),
    ):
        assert await standing(cassandra_reader, "S1", cutoff) == fold_of(moves, cutoff)

    monkeypatch.setattr(history, "ROWS_AT_ONCE", 3)
    monkeypatch.setattr(history, "ROWS_MAX", 9)
    period = Wanted(NOVEMBER - 30 * DAY, NOVEMBER + 2 * DAY, actor="merchant/anna")
    cursor, seen, pages = "", list[int](), 0
    while (found := await history.of_item(cassandra_reader, "S1", cursor, 2, wanted=period)) and pages < 9:
        seen += [one["version"] for one in found.served().document()["movements"]]
        cursor, pages = found.next, pages + 1
        if not cursor:
            break
    wanted = [n for n, moved in enumerate(moves, 1) if moved.occurred_at <= NOVEMBER + 2 * DAY]
    assert (seen, pages > 4) == (wanted[::-1], True)


async def test_a_read_waits_for_its_receipt(
    emptied: CassandraStore, cassandra_reader: CassandraReader
) -> None:
    await deliver(emptied, a_month())
    seen = [Position("stock/S1/main", 3), Position("cart/1", 7)]
    assert await history.of_item(cassandra_reader, "S1", after=seen)
    with pytest.raises(NotCaughtUp):
        await order.of_customer(cassandra_reader, "anna", after=[Position("order/O1", 7)])
    with pytest.raises(ForeignReceipt):
        await order.by_id(cassandra_reader, "O1", after=seen)


async def test_a_server_that_is_not_there_is_unavailable_again_and_again() -> None:
    nobody = CassandraSettings(("127.0.0.1:1",), "nobody", timeout_s=1)
    store, reader = CassandraStore(nobody, CASSANDRA_VIEWS), CassandraReader(nobody)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await store.positions([(TOPICS.events("order"), 0)])
        with pytest.raises(StoreUnavailable):
            await reader.ping()
    await store.close()
    await reader.close()


def test_rows_of_one_partition_are_batched_within_bounds() -> None:
    def row(bucket: int, version: int, note: str = "") -> Row:
        return Row(ledger.MOVEMENT, (bucket, 201011, "S", "main", version, note), version)

    small = list(batches([row(version % 2, version) for version in range(4 * ROWS_MAX)]))
    assert [len(batch) for batch in small] == [ROWS_MAX] * 4
    assert all(len({one.partition for one in batch}) == 1 for batch in small)
    large = [row(1, version, "x" * (BATCH_BYTES_MAX // 2)) for version in range(4)]
    assert [len(batch) for batch in batches([*large, row(1, 5, "y")])] == [1, 1, 1, 2]


def a_statement() -> Any:
    types = {
        "bucket": Int32Type,
        "sku": UTF8Type,
        "version": LongType,
        "settled": BooleanType,
        "note": UTF8Type,
    }
    columns = [ColumnMetadata("shop", "rows", name, type_) for name, type_ in types.items()]
    return PreparedStatement(columns, b"id", [0], "INSERT", "shop", PROTOCOL, None, None)


def test_rows_are_bound_as_the_driver_binds_them():
    row = (-7, "85123Ä", 1 << 62, True, None)
    assert _binder(a_statement())(row).values == a_statement().bind(row).values


@pytest.mark.parametrize("row", [(1 << 31, "", 1, True, ""), ("1", "", 1, True, "")])
def test_a_value_that_does_not_fit_is_an_error_of_the_row_as_the_driver_has_it(row: tuple[Any, ...]):
    with pytest.raises(TypeError):
        a_statement().bind(row)
    with pytest.raises(TypeError):
        _binder(a_statement())(row)
