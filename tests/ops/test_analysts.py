"""An analyst's day on the real Kafka: replay, export, SQL, the step debugger and the notebook, on one shop's log."""

import csv
import json
import os
import runpy
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import typer
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner

from ops import rebuild, replay, show, sql
from ops.audit.cli import audit
from ops.evidence import seal
from ops.evidence.keys import ensure_key
from ops.settings import REPOSITORY, Settings
from ops.whatif.cli import whatif
from schemas.codec import Codec
from schemas.inventory import ReceiptLine, ReceiveStock
from schemas.meta import SECOND
from schemas.topics import Topics
from schemas.values import MAIN
from tests import generations
from tests.ops.test_evidence import sealed_by_a_sealer
from tests.replayed import RecordingShop, WrittenLog, log_of

Run = Callable[..., Any]

REASONS = ["unknown", "damaged", "found"]
"""Of the three adjustments of 85123A; the first release had none."""


@pytest.fixture
def log(ours: Settings, topics: Topics) -> WrittenLog:
    """A shop's log as its writers leave it: in transactions, of which one came to nothing. One stream is older and
    newer than this code.
    """
    shop = RecordingShop()
    shop.receive("22423", 6)
    for name in ("one", "two"):
        shop.pass_time(SECOND)
        shop.check_out(name, "anna", {"22423": 4})
        shop.quiesce()
    log = log_of(shop)
    log.write("t.events.inventory", "85123A", *generations.values())
    write(ours, topics, log)
    return log


@pytest.fixture
def run(log: WrittenLog, ours: Settings) -> Run:
    """A verb, as the command line would run it, in this process."""
    app = typer.Typer()
    for verb in (replay.replay, sql.sql, show.show, rebuild.rebuild, whatif):
        app.command()(verb)
    return lambda *arguments: CliRunner().invoke(app, list(map(str, arguments)))


def test_the_log_is_told_again_whole_and_nobodys_group_is_touched(
    run: Run, log: WrittenLog, ours: Settings, tmp_path: Path
):
    groups = groups_of(ours)
    told, kept, later = tmp_path / "told.jsonl", tmp_path / "position.json", tmp_path / "later.jsonl"

    first = run("replay", "-o", told, "--resume", kept)
    again = run("replay", "-o", told, "--resume", kept)
    write(ours, Topics(ours.topic_prefix), one_more_delivery())
    second = run("replay", "-o", later, "--resume", kept)

    assert (first.exit_code, second.exit_code) == (0, 0), first.output + second.output
    assert (again.exit_code, "is there already" in again.output) == (1, True)
    assert sorted(line["meta"]["event_id"] for line in lines(told)) == sorted(event_ids(log))
    assert [line["body"]["sku"] for line in lines(later)] == ["47566"] * 3
    assert {file.name for file in tmp_path.iterdir()} >= {"told.jsonl", "later.jsonl", "position.json"}
    assert not list(tmp_path.glob("*.part"))
    assert groups_of(ours) == groups


def test_one_sku_of_one_type_in_a_row_and_what_is_not_there(run: Run, topics: Topics):
    rows = run("replay", "--type", "StockReserved", "--key", "22423", "--format", "table").stdout.splitlines()
    assert len(rows) == 1
    assert "stock/22423/main@4" in rows[0]
    assert "quantity=4" in rows[0]

    commands = run("replay", "--topic", "commands.order", "--type", "PlaceOrder").stdout.splitlines()
    assert [json.loads(line)["topic"] for line in commands] == [topics.commands("order")] * 2
    for wrong, why in (
        (("--topic", "sales"), "no topic is called sales"),
        (("--type", "Nonsense"), "nothing is called Nonsense"),
        (("--from", "yesterday"), "yesterday is no time"),
        (("--format", "parquet"), "Parquet needs -o DIRECTORY"),
    ):
        refused = run("replay", *wrong)
        assert (refused.exit_code, why in refused.output) == (2, True), refused.output


def test_whoever_follows_sees_what_comes_and_ends_with_ctrl_c(
    run: Run, ours: Settings, topics: Topics, tmp_path: Path
):
    told, seen = tmp_path / "told.jsonl", threading.Event()

    def deliver_then_interrupt() -> None:
        write(ours, topics, one_more_delivery())
        part, deadline = tmp_path / "told.jsonl.part", threading.Event()
        while not (part.exists() and b"47566" in part.read_bytes()) and not deadline.wait(0.05):
            pass
        seen.set()
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=deliver_then_interrupt, daemon=True).start()
    done = run("replay", "--follow", "--topic", "inventory", "-o", told)

    assert done.exit_code == 0, done.output
    assert seen.is_set()
    assert [line["body"]["sku"] for line in lines(told)][-3:] == ["47566"] * 3


def test_sql_exports_what_is_new_and_answers(
    run: Run, log: WrittenLog, ours: Settings, topics: Topics, tmp_path: Path
):
    totals = "select count(*) as events, sum(sellable_change)::int as units from stock_movements"
    before = json.loads(run("sql", totals, "--format", "json").stdout)
    write(ours, topics, one_more_delivery())
    after = json.loads(run("sql", totals, "--format", "json").stdout)
    orders = run("sql", "select status, amount, captured from orders order by status", "--format", "csv")
    exported = run("replay", "--format", "parquet", "-o", tmp_path / "winter")
    same = run("sql", totals, "--export", tmp_path / "winter", "--format", "json")
    wrong = run("sql", "select nothing from orders")

    assert after == [{"events": before[0]["events"] + 3, "units": before[0]["units"] + 9}]
    assert orders.stdout.split() == ["status,amount,captured", "confirmed,400,400", "rejected,400,0"]
    assert exported.exit_code == 0, exported.output
    assert json.loads(same.stdout) == after
    assert (wrong.exit_code, 'column "nothing" not found' in wrong.output) == (1, True)


def test_an_order_is_shown_step_by_step_down_to_the_views(run: Run, log: WrittenLog):
    order_id = next(lines_of_orders(log))
    shown = run("show", f"order/{order_id}", "--steps")
    unknown = run("show", "order/nothing")
    early = run("show", f"order/{order_id}", "--at", "1999-12-31")

    assert shown.exit_code == 0, shown.output
    assert "because of PlaceOrder" in shown.stdout
    assert "CheckOutCart to cart/" in shown.stdout
    assert "read in order (Cassandra)" in shown.stdout
    assert (unknown.exit_code, "nothing is known of order/nothing" in unknown.output) == (1, True)
    assert (early.exit_code, "begins later" in early.output) == (1, True)


def test_three_generations_of_an_event_replay_rebuild_and_export_alike(run: Run, tmp_path: Path):
    told = run("replay", "--key", "85123A").stdout.splitlines()
    built = run("rebuild", "stock")
    run("replay", "--key", "85123A", "--format", "parquet", "-o", tmp_path / "old")

    assert [json.loads(line)["body"]["reason"] for line in told] == REASONS
    assert built.exit_code == 0, built.output
    assert "of stock is live" in built.stdout
    assert "cannot apply" not in built.stdout
    assert pq.read_table(tmp_path / "old" / "StockAdjusted")["reason"].to_pylist() == REASONS


def test_three_generations_of_an_event_are_sealed_verified_and_audited_alike(
    log: WrittenLog, ours: Settings, topics: Topics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(seal, "SECONDS", 0.0)
    public = ensure_key(ours.keys, "sealer", "shop.example")
    sealed_by_a_sealer(ours, topics, sum(one.topic == "t.events.inventory" for one in log.records))
    bundle, third = str(tmp_path / "old.zip"), tmp_path / "StockAdjusted.avsc"
    third.write_text(json.dumps(generations.THIRD))

    asked = [
        CliRunner().invoke(audit, argv)
        for argv in (
            ["export", "--sku", "85123A", "-o", bundle],
            ["verify", bundle, "--key", str(public), "--schema", str(third)],
            ["stock", "85123A", "--format", "csv"],
        )
    ]

    assert [one.exit_code for one in asked] == [0, 0, 0], [one.output for one in asked]
    assert "3 records verified" in asked[1].stdout
    strange = CliRunner().invoke(audit, ["verify", bundle, "--key", str(public)])
    assert (strange.exit_code, "StockAdjusted was never released so" in strange.output) == (1, True)
    assert [row["reason"] for row in csv.DictReader(asked[2].stdout.splitlines())] == REASONS


def test_other_rules_are_tried_on_what_callers_asked(run: Run, tmp_path: Path):
    told = run("whatif", "--rules", "ops.whatif.rules:partial_acceptance", "-o", tmp_path / "orders.parquet")
    unknown = run("whatif", "--rules", "ops.whatif.rules:magic")

    figures = {line[:38].strip(): line[38:].split() for line in told.stdout.splitlines()}
    assert figures["units confirmed"] == ["4", "6", "+2"], told.output
    assert (tmp_path / "orders.parquet").exists()
    assert (unknown.exit_code, "no rules are called" in unknown.output) == (2, True)


def test_the_notebook_runs(log: WrittenLog, capsys: pytest.CaptureFixture[str]):
    runpy.run_path(str(REPOSITORY / "docs" / "notebook.py"))
    told = capsys.readouterr().out
    assert "2 orders were placed, for 800 in minor units" in told
    assert "anna: 2 orders, 800" in told


def write(ours: Settings, topics: Topics, log: WrittenLog) -> None:
    """Each topic's records in a transaction of their own; before it one that is aborted."""
    producer = Producer(
        {"bootstrap.servers": ours.kafka, "transactional.id": f"{topics.prefix}-pen", "linger.ms": 0}
    )
    producer.init_transactions()
    for schema in generations.schemas().values():
        producer.begin_transaction()
        producer.produce(topics.schemas, json.dumps(schema).encode(), b"third", 0)
        producer.commit_transaction()
    records = [
        (r.topic.replace("t.", f"{topics.prefix}.", 1), r.value, r.key, r.partition) for r in log.records
    ]
    producer.begin_transaction()
    producer.produce(*records[0])
    producer.flush()
    producer.abort_transaction()
    producer.begin_transaction()
    for record in records:
        producer.produce(*record)
    producer.commit_transaction()


def one_more_delivery() -> WrittenLog:
    shop = RecordingShop()
    shop.act("inventory", "47566", ReceiveStock(MAIN, "late", (ReceiptLine("47566", 9),)), "merchant")
    shop.asked.clear()
    return log_of(shop)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def event_ids(log: WrittenLog) -> Iterator[str]:
    codec = Codec()
    for schema in generations.schemas().values():
        codec.learn(schema)
    yield from (codec.decode(r.value).meta.event_id for r in log.records if ".events." in r.topic)


def lines_of_orders(log: WrittenLog) -> Iterator[str]:
    """The ids of the orders, as keys of their records."""
    yield from ((r.key or b"").decode() for r in log.records if r.topic == "t.events.order")


def groups_of(ours: Settings) -> list[str]:
    found = AdminClient({"bootstrap.servers": ours.kafka}).list_consumer_groups(request_timeout=10).result()
    return sorted(group.group_id for group in found.valid)
