"""The export: whole at every moment, adding what is new, and saying in SQL what the audit says of the same log."""

import errno
import fcntl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from ops import export as exports
from ops.audit.law_book import LawBook
from ops.export import ExportFailed, Manifest, events_of, export, locked, read_manifest, shapes
from ops.sql import BadQuery, answer, connection_to, sql
from schemas.codec import Codec
from schemas.meta import SECOND
from schemas.order import CancelOrder, ShipOrder
from schemas.personal import SealedContact
from tests import generations
from tests.in_memory_shop import Shop
from tests.replayed import TOPICS, WrittenLog, log_of

QUERY = events_of(TOPICS)


@pytest.fixture(scope="module")
def shop() -> Shop:
    """Six lamps come in; four customers want two each; the first changes her mind, and the second's are sent."""
    shop = Shop()
    shop.receive("85123A", 6)
    shop.receive("22423", 40)
    contact = SealedContact("key-of-anna", b"ANNA'S NAME", b"ANNA'S MAIL", b"ANNA'S STREET")
    orders = [
        shop.check_out(name, "anna", {"85123A": 2, "22423": n}, contact=None if n == 4 else contact)
        for n, name in enumerate("abcd", start=1)
    ]
    shop.quiesce()
    shop.act("order", orders[0], CancelOrder(orders[0], "too late"), "customer", "anna")
    shop.act("order", orders[1], ShipOrder(orders[1]), "merchant")
    shop.quiesce()
    shop.pass_time(3_600 * SECOND)
    shop.quiesce()
    return shop


@pytest.fixture(scope="module")
def log(shop: Shop) -> WrittenLog:
    return log_of(shop)


@pytest.fixture(scope="module")
def exported(log: WrittenLog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("export")
    bring_up_to_date(log, directory)
    return directory


@pytest.fixture(scope="module")
def ask(exported: Path) -> Iterator[Any]:
    manifest = read_manifest(exported)
    assert manifest is not None
    with closing(connection_to(exported, manifest)) as connection:
        yield lambda query: list(answer(connection, query)[1])


def test_units_are_in_sql_what_they_are_in_the_audit(ask: Any, log: WrittenLog):
    changes = "sum(sellable_change), sum(reserved_change), sum(allocated_change), sum(shipped_change)"
    by_sql = {row[0]: row[1:] for row in ask(f"select sku, {changes} from stock_movements group by sku")}
    shelves = {
        stream.split("/")[1]: (shelf.sellable, shelf.reserved, shelf.allocated, shelf.shipped)
        for stream, shelf in rows_of(audited(log)._stock._shelves).items()
    }
    assert by_sql == shelves
    assert by_sql["85123A"] == (4, 0, 2, 2)


def test_money_is_in_sql_what_it_is_in_the_audit(ask: Any, log: WrittenLog):
    by_sql = {
        row[0]: dict(zip(("authorization", "capture", "void", "refund"), row[1:], strict=True))
        for row in ask("select payment_id, authorized, captured, voided, refunded from payments")
    }
    assert by_sql == {
        one: dict(payment.moved) for one, payment in rows_of(audited(log)._trade._payments).items()
    }
    assert sum(moved["capture"] for moved in by_sql.values()) > 0
    assert sum(moved["refund"] for moved in by_sql.values()) > 0


def test_orders_have_the_ends_that_the_audit_found(ask: Any, log: WrittenLog):
    audited_orders = rows_of(audited(log)._trade._orders)
    by_sql = {
        row[0]: row[1:] for row in ask("select order_id, status, amount, captured - returned from orders")
    }
    assert {one: row[:2] for one, row in by_sql.items()} == {
        one: ("completed" if row[0] == "completed" else order.state, order.amount)
        for (one, order), row in zip(
            sorted(audited_orders.items()), dict(sorted(by_sql.items())).values(), strict=True
        )
    }
    assert sorted(row[0] for row in by_sql.values()) == ["cancelled", "completed", "confirmed", "rejected"]
    assert [row[2] for row in by_sql.values() if row[0] == "cancelled"] == [0]


def test_events_are_all_there_with_their_bodies(ask: Any, log: WrittenLog):
    assert ask("select count(*), count(distinct event_id) from events") == [
        (len(log.records), len(log.records))
    ]
    assert ask("select distinct body->>'sku' from events where type = 'StockReserved' order by 1") == [
        ("22423",),
        ("85123A",),
    ]


def test_what_is_personal_is_veiled(ask: Any):
    veiled = {"key_id": "key-of-anna", "name": "[personal]", "email": "[personal]", "address": "[personal]"}
    for event in ("OrderPlaced", "CartCheckedOut"):
        found = [row[0] for row in ask(f"select contact from {event} order by contact is null")]
        assert found == [veiled, veiled, veiled, None]
    bodies = ask("select cast(body as varchar) from events where body->>'contact' is not null")
    assert len(bodies) == 6
    assert not any("ANNA" in body for (body,) in bodies)


def test_an_event_that_never_happened_is_a_view_without_rows(ask: Any):
    assert ask("select count(*) from CartExpired") == [(0,)]
    names = {row[0] for row in ask("show tables")}
    assert {"orders", "events", "stock_movements", "payments", "CartExpired"} <= names


@pytest.mark.parametrize(
    "query",
    [
        "select nothing from orders",
        "delete from orders",
        "copy orders to 'stolen.csv'",
        "select * from read_csv('/etc/passwd')",
        "select 1; select 2",
        "attach 'other.db'",
        "set enable_external_access = true",
        "this is no sql",
        "",
    ],
)
def test_what_is_no_question_is_refused_in_words(ask: Any, query: str):
    with pytest.raises(BadQuery, match=r"\w+ \w+"):
        ask(query)


def test_only_the_export_may_be_touched(ask: Any, exported: Path):
    settings = "select current_setting('allowed_directories'), current_setting('temp_directory')"
    assert ask(settings) == [([f"{exported}/"], "")]


def test_a_question_too_large_for_the_memory_is_refused_in_a_sentence_and_leaves_nothing_on_the_disk(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("ops.sql.MEMORY_MAX", "30MB")
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(sql)
    large = "select count(*) from (select distinct hash(n) from range(4_000_000) numbers(n))"

    told = CliRunner().invoke(app, [large, "--export", str(exported)])

    assert told.exit_code == 1
    assert told.output == (
        "daybook: DuckDB cannot answer this: it takes more than 30MB of memory; ask for less at a time,"
        " or narrow it with where\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_what_is_new_is_added_and_nothing_twice(log: WrittenLog, tmp_path: Path):
    early = WrittenLog()
    for record in log.records[: len(log.records) // 2]:
        early.write(record.topic, (record.key or b"").decode(), record.value)

    first = bring_up_to_date(early, tmp_path)
    second = bring_up_to_date(log, tmp_path)
    third = bring_up_to_date(log, tmp_path)

    assert (first.records, second.records) == (len(early.records), len(log.records))
    assert (third.records, third.files, third.segments) == (second.records, second.files, 2)
    assert rows_in(tmp_path) == len(log.records)


def test_a_long_export_counts_step_by_step(log: WrittenLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(exports, "SEGMENT_RECORDS", 20)
    monkeypatch.setattr("streams.columns.ROWS_MAX", 2)
    monkeypatch.setattr(exports, "FILES_MAX", 2)

    done = bring_up_to_date(log, tmp_path)

    assert (done.records, rows_in(tmp_path)) == (len(log.records), len(log.records))
    assert done.segments > 2
    assert max(map(len, done.files.values())) <= 2, "many files were merged into one"


def test_an_interrupted_export_is_whole_and_goes_on(
    log: WrittenLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(exports, "SEGMENT_RECORDS", 20)
    monkeypatch.setattr("streams.columns.ROWS_MAX", 2)

    def interrupt(told: int) -> None:
        if told > 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bring_up_to_date(log, tmp_path, interrupt)
    left = read_manifest(tmp_path)
    assert left is not None
    assert 0 < left.records == rows_in(tmp_path) < len(log.records)
    assert files_in(tmp_path) == {path for paths in left.files.values() for path in paths}

    assert bring_up_to_date(log, tmp_path).records == rows_in(tmp_path) == len(log.records)


def test_what_a_killed_export_left_behind_is_swept(log: WrittenLog, tmp_path: Path):
    done = bring_up_to_date(log, tmp_path)
    for leftover in ("000099.parquet", "000100.parquet.part", "mine.parquet"):
        (tmp_path / "OrderPlaced" / leftover).write_bytes(b"half a file")

    bring_up_to_date(log, tmp_path)

    ours = {path for paths in done.files.values() for path in paths}
    assert files_in(tmp_path) == ours | {"OrderPlaced/mine.parquet"}


def test_a_full_disk_is_named_and_leaves_what_was_there(
    log: WrittenLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(pq.ParquetWriter, "write_batch", full)
        with pytest.raises(ExportFailed, match="no space is left; what it held before is whole"):
            bring_up_to_date(log, tmp_path)
    assert files_in(tmp_path) == set()
    assert bring_up_to_date(log, tmp_path).records == len(log.records)


def test_an_export_of_another_log_is_not_added_to(log: WrittenLog, tmp_path: Path):
    bring_up_to_date(log, tmp_path)
    with pytest.raises(ExportFailed, match="holds another export"):
        export(
            tmp_path, Manifest("other", shapes(QUERY), "all"), lambda _: log.replay(QUERY), lambda _: quiet
        )


def test_a_directory_of_somebody_else_is_left_alone(log: WrittenLog, tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ExportFailed, match="is not empty and holds no export"):
        bring_up_to_date(log, tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_manifest_that_nobody_can_read_is_named(log: WrittenLog, tmp_path: Path):
    bring_up_to_date(log, tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ExportFailed, match=r"manifest.json is damaged"):
        bring_up_to_date(log, tmp_path)


def test_one_writes_while_nobody_reads(tmp_path: Path):
    with (
        locked(tmp_path, alone=False),
        locked(tmp_path, alone=False) as both,
        locked(tmp_path, alone=True) as alone,
    ):
        assert both
        assert not alone
    with locked(tmp_path, alone=True) as alone, (tmp_path / ".lock").open() as other:
        assert alone
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_three_generations_of_an_event_are_one_table(tmp_path: Path):
    log = WrittenLog()
    log.write(TOPICS.events("inventory"), "85123A", *generations.values())
    manifest = export(
        tmp_path,
        Manifest("log", shapes(QUERY), "all"),
        lambda at: log.replay(QUERY, Codec(), schemas=generations.schemas, resume=at),
        lambda _: quiet,
    )
    with closing(connection_to(tmp_path, manifest)) as connection:
        told = answer(
            connection, "select version, sellable_change, reason, note from stock_movements order by version"
        )
        assert list(told[1]) == [
            (1, 7, "unknown", "found behind the door"),
            (2, -2, "damaged", "rain"),
            (3, 1, "found", "again"),
        ]


def test_anybody_reads_the_files_without_us(exported: Path):
    paths = str(exported / "StockReceived" / "*.parquet")
    with duckdb.connect() as connection:
        found = connection.execute(f"select sum(quantity) from read_parquet('{paths}')").fetchall()
    assert found == [(46,)]


def bring_up_to_date(
    log: WrittenLog, directory: Path, progress: exports.Progress = lambda _: None
) -> Manifest:
    blank = Manifest("log", shapes(QUERY), "all")
    return export(directory, blank, lambda at: log.replay(QUERY, resume=at), lambda _: progress)


def quiet(_told: int) -> None:
    pass


def rows_in(directory: Path) -> int:
    return sum(pq.read_metadata(directory / name).num_rows for name in files_in(directory))


def files_in(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.glob("*/*")}


def rows_of(table: Any) -> dict[str, Any]:
    return {key: table.get(key) for key in table}


def audited(log: WrittenLog) -> LawBook:
    book = LawBook()
    for record in log.records:
        book.feed(record.topic, record.partition, record.value)
    return book
