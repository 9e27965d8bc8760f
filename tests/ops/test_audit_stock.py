"""What an auditor asks of the stock: read from the log alone, added up anew, and whole or not at all."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import orjson
import pyarrow.parquet as pq
import pytest
import typer
from confluent_kafka import Producer
from typer.testing import CliRunner, Result

from commands.inventory import Head
from ops.audit.cli import audit
from ops.audit.ledger import _cutoff, _standing
from ops.audit.movements import Movement, Movements
from ops.audit.report import Report
from ops.audit.sheets import Form, write
from ops.audit.wire import AvscReader, LearningReader
from ops.settings import Settings
from projections import ledger
from projections.history import EVER, Wanted
from projections.movements import COLUMNS, flat
from projections.view import Fact
from schemas import inventory
from schemas.codec import Codec, Decoded
from schemas.instants import written
from schemas.meta import DAY, EventMeta, Micros
from schemas.topics import Topics
from tests import generations
from tests.projections.a_ledger import Moved, entries
from tests.projections.shop import LATER, adjusted, received, reserved
from tests.projections.story import NOVEMBER, Story


def everything(sku: str = "A") -> Story:
    """An event of every kind that moves something, and one that does not."""

    def balances(sellable: int, reserved: int, allocated: int, shipped: int) -> Head:
        return sku, "main", sellable, reserved, allocated, shipped

    def claim(
        sellable: int, reserved: int, allocated: int, shipped: int, *, quantity: int
    ) -> tuple[str, str, int, int, int, int, str, int, str, int]:
        return (*balances(sellable, reserved, allocated, shipped), "order-1", 1, "claim-1", quantity)

    return Story().tell(
        inventory.StockItemRegistered(*balances(0, 0, 0, 0)),
        received(sku, 10, 10),
        replace(adjusted(sku, 10, 9), corrects="an-earlier-event"),
        reserved(sku, 9, 3, quantity=3),
        inventory.StockReservationExpired(*claim(9, 0, 0, 0, quantity=3)),
        inventory.StockReservationReleased(*claim(9, 0, 0, 0, quantity=0), "cancelled"),
        inventory.StockReservationRefused(*claim(9, 0, 0, 0, quantity=50), 9),
        inventory.StockReserved(*claim(9, 4, 0, 0, quantity=4), LATER),
        inventory.StockAllocated(*claim(9, 0, 4, 0, quantity=4), 4),
        inventory.StockShipped(*claim(5, 0, 0, 4, quantity=4)),
        inventory.StockAllocated(*claim(5, 0, 2, 4, quantity=2), 0),
        inventory.StockAllocationReleased(*claim(5, 0, 0, 4, quantity=2), "cancelled"),
    )


def followed(*messages: Decoded[EventMeta], books: Movements | None = None) -> list[Movement]:
    """The movements that these make once they were written and read as the log's bytes."""
    codec, reader, books = Codec(), AvscReader(), books or Movements()
    read = (reader.read(codec.encode(message.body, vars(message.meta))) for message in messages)
    return [movement for name, event in read if (movement := books.follow(name, event))]


def ledger_of(*messages: Decoded[EventMeta]) -> list[Any]:
    head, rows = None, []
    for message in messages:
        row = ledger.movement(head, Fact(message.meta.stream, message.meta.version, message))
        rows.append(orjson.loads(row.values[-1]))
        head = ledger.evolve(head, message)
    return rows


def report_of(messages: list[Decoded[EventMeta]], period: Wanted) -> Report:
    report = Report(period)
    for movement in followed(*messages):
        report.post(movement)
    return report


def asked(*argv: str) -> Result:
    return CliRunner().invoke(audit, argv)


def test_the_log_read_by_itself_says_what_the_ledger_shows() -> None:
    messages = everything().messages
    assert [movement.shown() for movement in followed(*messages)] == ledger_of(*messages)


def test_what_three_releases_wrote_is_one_ledger_of_an_item() -> None:
    reader, books = LearningReader(lambda: generations.schemas().values()), Movements()
    found = [books.follow(*reader.read(value)) for value in generations.values()]
    shown = [movement.shown() for movement in found if movement]
    assert [(row["version"], row["quantity"], row["reason"]) for row in shown] == [
        (1, 7, "unknown"),
        (2, -2, "damaged"),
        (3, 1, "found"),
    ]
    assert books.breaches == ""


def test_a_correction_names_what_it_corrects() -> None:
    assert [movement.shown()["corrects"] for movement in followed(*everything().messages)][2] == "an-earlier-event"  # fmt: skip


def test_an_event_that_does_not_carry_what_it_says_is_named_once_and_gone_on_from() -> None:
    books, messages = Movements(), everything().messages
    messages[3] = replace(messages[3], body=reserved("A", 8, 3, quantity=3))
    messages[4:] = [replace(one, body=replace(one.body, sellable=one.body.sellable - 1)) for one in messages[4:]]  # fmt: skip
    followed(*messages, books=books)
    assert books.breaches.startswith("stock/A/main@4 says (8, 3, 0, 0)")
    assert "more" not in books.breaches


def test_an_event_that_is_missing_is_named() -> None:
    books, messages = Movements(), everything().messages
    followed(*messages[:5], *messages[6:], books=books)
    assert "stock/A/main@7 follows 5" in books.breaches


def test_a_report_leads_from_the_opening_by_causes_to_the_closing() -> None:
    first, second = everything("A").messages, everything("B").messages
    late = [replace(one, meta=replace(one.meta, occurred_at=Micros(NOVEMBER - DAY))) for one in first[:2]]
    report = report_of([*late, *first[2:], *second], Wanted(since=NOVEMBER - 1))
    rows = {(row["sku"], row["what"]): row for row in report.rows()}
    assert [rows["A", what]["sellable"] for what in ("opening", "adjusted: damaged", "shipped", "closing")] == [10, -1, -4, 5]  # fmt: skip
    assert [rows["(all)", what]["sellable"] for what in ("opening", "received", "closing")] == [10, 10, 10]
    assert rows["(all)", "reserved"] == {
        "sku": "(all)", "location": "", "what": "reserved", "entries": 4,
        "sellable": 0, "reserved": 14, "allocated": 0, "shipped": 0,
    }  # fmt: skip
    assert report.unbalanced() == []


def test_a_report_whose_movements_do_not_make_its_closing_says_where() -> None:
    wrong = [Moved(NOVEMBER, NOVEMBER, sellable=1), Moved(NOVEMBER, NOVEMBER, sellable=7)]
    assert report_of(entries(*wrong, sku="A"), Wanted()).unbalanced() == ["stock/A/main"]


def test_what_happens_after_the_period_is_in_no_report() -> None:
    assert report_of(everything().messages, Wanted(until=NOVEMBER - 1)).is_empty


def test_a_cell_that_a_spreadsheet_would_run_is_text(tmp_path: Path) -> None:
    row = flat("A", "main", ledger_of(*entries(Moved(NOVEMBER, NOVEMBER, 1)))[0])
    write([row | {"note": '=HYPERLINK("x")'}], COLUMNS, "csv", tmp_path / "a.csv")
    (read,) = csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text()))
    assert (read["note"], read["quantity"]) == ('\'=HYPERLINK("x")', "1")


def test_a_file_that_cannot_be_finished_is_not_there(tmp_path: Path) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield flat("A", "main", ledger_of(*entries(Moved(NOVEMBER, NOVEMBER, 1)))[0])
        raise OSError("the disk is full")

    for form in get_args(Form):
        with pytest.raises(OSError, match="full"):
            write(rows(), COLUMNS, form, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["stock", "A", "--known-at", "yesterday"], "'yesterday' is no day"),
        (["stock", "A", "--as-of", "4", "--reason", "damaged"], "ask for balances"),
        (["stock", "A", "--format", "parquet"], "say which by -o"),
        (["stock", "A", "-o", "/nowhere/a.csv"], "could not be written"),
        (["report", "--from", "2011-01-02", "--to", "2011-01-01"], "ends before it begins"),
    ],
)
def test_a_question_that_is_none_is_told_so(argv: list[str], told: str) -> None:
    answered = asked(*argv)
    assert (answered.exit_code, told in answered.stderr) == (2, True), answered.stderr


@pytest.mark.parametrize("version", ["13", str(EVER), "9" * 23, "9" * 5_000])
def test_a_version_that_there_is_not_has_no_balances(
    version: str, capsys: pytest.CaptureFixture[str]
) -> None:
    moves = followed(*everything().messages)
    with pytest.raises(typer.Exit) as ended:
        _standing("A", "main", moves, _cutoff(version, ""))
    assert ended.value.exit_code == 1
    assert "no such version; it goes up to version 12" in capsys.readouterr().err


def test_of_a_version_what_was_not_known_by_then_is_left_out() -> None:
    moves = followed(*entries(Moved(NOVEMBER, NOVEMBER, 1), Moved(NOVEMBER + DAY, NOVEMBER, 2)))
    then = _standing("A", "main", moves, _cutoff("2", written(NOVEMBER)))
    assert (then["entries"], then["version"], then["sellable"]) == (1, 1, 1)


# The verbs, on a real Kafka.


@pytest.fixture
def story(ours: Settings, topics: Topics) -> Story:
    story = everything("A").tell(received("B", 5, 5))
    codec, producer = Codec(), Producer({"bootstrap.servers": ours.kafka})
    for record in story.records:
        key = (record.key or b"").decode()
        value = codec.encode(record.message.body, vars(record.message.meta))
        producer.produce(topics.events("inventory"), value, key, topics.partition_of(key))
    assert producer.flush(20) == 0
    return story


def test_a_sku_is_asked_for_and_the_stock_of_a_period_is_balanced(story: Story, tmp_path: Path) -> None:
    rows = ledger_of(*(one for one in story.messages if one.body.sku == "A"))
    assert json.loads(asked("stock", "A", "--format", "json").stdout)[2]["corrects"] == "an-earlier-event"
    assert asked("stock", "A", "--format", "parquet", "-o", str(tmp_path / "a.parquet")).exit_code == 0
    kept = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [row["version"] for row in kept] == [row["version"] for row in rows]
    assert asked("stock", "A", "--reason", "damaged").stdout.count("\n") == 2

    (then,) = json.loads(asked("stock", "A", "--as-of", "4", "--format", "json").stdout)
    assert (then["entries"], then["sellable"], then["reserved"]) == (4, 9, 3)
    instant = written(rows[1]["occurred_at"])
    assert json.loads(asked("stock", "A", "--as-of", instant, "--format", "json").stdout)[0]["sellable"] == 10

    balanced = asked("report", "--total")
    assert balanced.exit_code == 0
    assert balanced.stdout.splitlines()[-1].split() == ["(all)", "closing", "11", "10", "0", "0", "4"]

    for argv, told in (
        (["stock", "C"], "nothing was ever recorded of the stock of C"),
        (["stock", "A", "--as-of", "2009-12-31"], "has nothing of that time"),
        (["stock", "A", "--as-of", "99"], "it goes up to version 12"),
        (["report", "--to", "2009-12-31"], "no stock had moved by 2009-12-31"),
    ):
        answered = asked(*argv)
        assert (answered.exit_code, told in answered.stderr) == (1, True), answered.stderr
