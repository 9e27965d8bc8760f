"""The runner of the fault matrix is itself tried: whatever is planted must turn red."""

import struct
from collections.abc import Iterable
from pathlib import Path

import pytest
import typer

from ops.audit.log_reader import Value
from ops.audit.wire import AvscReader
from ops.demo.progress import Teller
from ops.faults import cli, house
from ops.faults.checkers import (
    SAFE,
    Evidence,
    SagaOrder,
    acknowledged,
    at_most_once,
    is_owed,
    no_other_effect,
    not_applied,
    unsafe_settings,
)
from ops.faults.history import Attempt, History, Outage, shares
from ops.faults.house import House
from ops.faults.kafka_proxy import without_topic
from ops.faults.matrix import ROWS
from ops.faults.power_loss import CHECKPOINT, batches, lose_power
from ops.faults.runner import Played, is_well, play_all, summary
from ops.faults.scene import Row, Scene, Stage
from ops.faults.verdict import NotShown, RowIsRed, demand, until
from ops.running import RunsAlready
from ops.settings import from_environment
from schemas.topics import Topics
from tests.written_log import Log


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("DAYBOOK_HOME", str(tmp_path))
    return tmp_path


def played(*rows: Row) -> list[Played]:
    """By the real runner, on a stage where nobody starts anything."""
    return play_all(rows, Stage(from_environment(), Teller()), 1, lambda _: None)


def shows(_: Scene) -> None:
    demand(1 + 1 == 2, "arithmetic")


def breaks(scene: Scene) -> None:
    scene.inject("a planted failure")
    demand(1 + 1 == 3, "one and one are not three")


def trips(_: Scene) -> None:
    raise KeyError("a bug of the row's own")


def breaks_late(scene: Scene) -> None:
    (scene.stage.folder / "shop").mkdir()
    (scene.stage.folder / "shop" / "worker-0.log").write_text("last words")
    breaks(scene)


def lacks(_: Scene) -> None:
    raise NotShown("no such kernel")


GREEN, RED, BUG = Row("F1", "", shows), Row("F2", "", breaks), Row("F3", "", trips)
MISSING, EXCUSED = Row("F4", "", lacks), Row("F25", "", lacks, optional=True)


def test_a_planted_failure_and_a_bug_of_a_row_are_red_and_say_why():
    green, red, bug = played(GREEN, RED, BUG)
    assert (green.result, red.result, bug.result) == ("green", "red", "red")
    assert red.why.startswith("RowIsRed: one and one are not three")
    assert red.injected == ("a planted failure",)
    assert "KeyError" in bug.why


def test_what_everybody_said_while_a_row_turned_red_is_kept(home: Path):
    (red,) = played(Row("F2", "", breaks_late))
    kept = home / "faults" / "red" / "F2" / "shop-worker-0.log"
    assert str(kept.parent) in red.why
    assert kept.read_text() == "last words"


def test_the_time_to_green_counts_from_the_fault_or_the_heal_and_the_slowest_counts(home: Path):
    scene = Scene(Stage(from_environment(), Teller()), 1)
    assert scene.all_is_well() == 0.0
    scene.inject("one")
    first = scene.all_is_well()
    assert scene.green_s == round(first, 1)
    scene.green_s = 7.0
    scene.inject("another")
    scene.heal()
    scene.all_is_well()
    assert scene.green_s == 7.0


@pytest.mark.parametrize(
    ("row", "well"), [(GREEN, True), (RED, False), (BUG, False), (MISSING, False), (EXCUSED, True)]
)
def test_all_is_well_only_if_all_is_green_or_excused(row: Row, well: bool):
    assert is_well(played(GREEN, row), [GREEN, row]) is well


def test_the_summary_counts_results_and_says_what_the_checkers_that_looked_are_for():
    looked = Row("F9", "", lambda scene: scene.checked("C1"))
    lines = list(summary(played(looked, GREEN, RED)))
    assert lines == ["2 green, 1 red", "C1  what was acknowledged stands in the log"]


def test_the_verb_ends_with_1_when_a_row_is_red(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(cli, "ROWS", {"F2": RED})
    monkeypatch.setattr(cli, "be_interrupted_once", lambda: None)
    with pytest.raises(typer.Exit) as ended:
        cli.faults(["f2"], seed=1, rounds=0, patience=1, report=tmp_path / "report.json")
    assert ended.value.exit_code == 1
    assert '"result": "red"' in (tmp_path / "report.json").read_text()


def test_two_runs_at_once_are_refused(tmp_path: Path):
    with cli.alone(tmp_path), pytest.raises(RunsAlready), cli.alone(tmp_path):
        pass


def test_the_matrix_has_all_its_rows_and_excuses_two_at_most():
    assert list(ROWS) == [f"F{number}" for number in range(1, 32)]
    assert {row.name for row in ROWS.values() if row.optional} <= {"F23", "F25"}


def test_what_does_not_come_in_time_is_red():
    with pytest.raises(RowIsRed, match="the impossible"):
        until(lambda: False, 0.1, "the impossible")


# Checkers of the history, each with what it is there for.


def evidence(
    effects: dict[str, set[str]] | None = None,
    outcomes: dict[str, str] | None = None,
    asked: Iterable[str] = (),
) -> Evidence:
    """The n-th command that was asked for stands at t[0]@n."""
    positions = {f"stock/{command}@1" for command in effects or {}}
    spots = {command: {("t", 0, offset)} for offset, command in enumerate(asked, 1)}
    return Evidence(
        AvscReader(), effects=effects or {}, positions=positions, outcomes=outcomes or {}, asked=spots
    )


def history(command: str, outcome: str) -> History:
    found = History()
    told = found.told(command, "POST /x")
    match outcome:
        case "ok":
            told.accept([f"stock/{command}@1"])
        case "fail":
            told.refuse(by_writer=True)
        case _:
            told.doubt()
    return found


def test_c1_what_was_acknowledged_and_is_not_in_the_log_is_lost():
    kept = evidence({"a": {"batch"}}, {"a": "accepted"})
    assert list(acknowledged(history("a", "ok"), kept)) == []
    assert list(acknowledged(history("a", "ok"), evidence())) != []
    assert list(acknowledged(history("a", "unknown"), evidence())) == []


def test_c2_a_second_effect_is_seen():
    assert list(at_most_once(evidence({"a": {"batch"}}))) == []
    assert list(at_most_once(evidence({"a": {"batch", "another"}}))) != []


def test_c3_an_effect_of_what_was_rejected_is_seen_and_so_is_what_nobody_decides():
    done = evidence({"a": {"batch"}}, {"a": "accepted"}, "a")
    assert list(no_other_effect(history("a", "fail"), done)) != []
    assert list(no_other_effect(history("a", "unknown"), done)) == []
    assert list(no_other_effect(history("a", "unknown"), evidence(asked="a"))) != []
    assert list(no_other_effect(history("a", "unknown"), evidence())) == []


def test_c15_an_authorization_before_the_stock_is_secured_is_seen():
    order = SagaOrder()
    order.feed("PaymentAuthorizationRequested", {"order_id": "1", "meta": {"recorded_at": 5}})
    assert list(order.breaches()) != []
    order.feed("OrderStockSecured", {"order_id": "1", "meta": {"recorded_at": 4}})
    assert list(order.breaches()) == []


def test_c16_silence_about_a_command_is_seen_and_a_letter_without_a_reason_too():
    letter = {"consumer": "commands", "reason": "poison", "topic": "t", "partition": 0, "offset": 1}
    assert list(not_applied(evidence(asked="a"), [])) != []
    assert list(not_applied(evidence(asked="a"), [letter])) == []
    assert list(not_applied(evidence(), [letter | {"reason": ""}])) != []


def test_c16_letters_about_other_records_excuse_no_silence():
    letters = [
        {"consumer": "commands", "reason": "poison", "topic": "t", "partition": 0, "offset": offset}
        for offset in (7, 8)
    ]
    letters.append({"consumer": "sagas", "reason": "poison", "topic": "t", "partition": 0, "offset": 1})
    assert list(not_applied(evidence(asked="ab"), letters)) == [
        "a at t[0]@1 was neither decided nor lettered",
        "b at t[0]@2 was neither decided nor lettered",
    ]


HOUR_MS = 3600 * 1000
SET = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "unclean.leader.election.enable": "false",
}


@pytest.mark.parametrize(
    ("kind", "least"), [("events", -1), ("commands", -1), ("dead-letters", -1), ("decisions", 48 * HOUR_MS)]
)
def test_c17_a_topic_that_keeps_what_is_written_for_less_than_it_must_is_seen(kind: str, least: int):
    assert list(unsafe_settings(kind, SET)) == []
    assert list(unsafe_settings(kind, SET | {"retention.ms": str(least)})) == []
    assert list(unsafe_settings(kind, SET | {"retention.ms": str(47 * HOUR_MS)})) != []
    assert list(unsafe_settings(kind, SET | {"retention.bytes": "1000"})) != []
    assert list(unsafe_settings(kind, SET | {"cleanup.policy": "compact"})) != []


def test_c17_looks_at_every_kind_of_topic_that_there_is():
    assert {spec.name.split(".")[1] for spec in Topics("t").wanted()} == SAFE.keys()
    for spec in Topics("t").wanted():
        assert list(unsafe_settings(spec.name.split(".")[1], SET | dict(spec.settings))) == []


def test_c12_a_store_that_forgot_excuses_those_without_a_receipt_only():
    found = History(backwards=["/a@1 after @2", "/b@1 after @2", "/c@1 after a receipt of @2"])
    found.excuse(1)
    assert found.backwards == ["/a@1 after @2", "/c@1 after a receipt of @2"]


def test_a_doubt_stays_one_until_a_writer_has_spoken():
    found = history("a", "unknown")
    (told,) = found.commands.values()
    told.refuse(by_writer=False)
    assert found.counts() == {"unknown": 1}
    told.refuse(by_writer=True)
    assert found.counts() == {"fail": 1}


# At rest.


class AHouse(House):
    """One that stands still at once, and owes something as often as it was told to."""

    owed = 0

    def _await_still(self) -> None:
        pass

    def _is_owed(self) -> bool:
        self.owed -= 1
        return self.owed >= 0


def test_stillness_is_no_rest_while_an_order_waits_for_its_reminder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(house, "STILL_FOR_S", 0.0)
    found = AHouse(from_environment(), lambda _: None)
    found.owed = 3
    found.await_quiet()
    assert found.owed == -1


def test_what_is_owed_for_ever_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(house, "SETTLED_WITHIN_S", 0.0)
    monkeypatch.setattr(house, "STILL_FOR_S", 0.0)
    found = AHouse(from_environment(), lambda _: None)
    found.owed = 1_000
    found.await_quiet()
    assert found.owed >= 998


def test_an_order_is_owed_something_until_it_is_settled_and_a_cart_until_it_is_closed():
    log = Log()
    assert not owes(log)
    log.transact(("cart/c", "CartCheckedOut", {"cart_id": "c", "order_id": "o"}))
    assert owes(log)
    log.transact(("cart/c", "CartReopened", {"cart_id": "c", "order_id": "o"}))
    assert not owes(log)
    log.transact(("order/o", "OrderRejected", {"order_id": "o"}))
    assert owes(log)
    log.transact(("order/o", "OrderSettled", {"order_id": "o"}))
    assert not owes(log)


def owes(log: Log) -> bool:
    events = [one for one in log.records if ".events." in one.topic]
    return is_owed(Value(one.topic, one.partition, one.value, offset) for offset, one in enumerate(events))


# What was answered.


def test_reads_count_within_a_second_and_not_while_their_part_is_broken_on_purpose():
    attempts = [
        Attempt("GET /x", 0.0, 0.1, 200),
        Attempt("GET /x", 10.0, 0.1, 503),
        Attempt("GET /x", 20.0, 1.5, 200),
        Attempt("GET /y", 10.0, 0.1, 200),
    ]
    found = shares(attempts, [Outage(9.0, 12.0, ("GET /x",))])
    assert (found["GET /x"].requests, found["GET /x"].good) == (2, 1)
    assert found["GET /y"].share == 1.0


@pytest.mark.parametrize(
    ("status", "retry_after", "good"),
    [(201, False, 1), (409, False, 1), (503, True, 1), (503, False, 0), (0, False, 0)],
)
def test_a_write_may_fail_only_by_a_503_that_says_when_to_come_again(
    status: int, retry_after: bool, good: int
):
    assert shares([Attempt("POST /x", 0.0, 0.1, status, retry_after)])["POST /x"].good == good


# Instruments.


def a_fetch(*topics: bytes) -> bytes:
    """A request in version 16, as librdkafka writes it, for two partitions of each topic."""
    partitions = b"\x03" + bytes(33) * 2
    head = struct.pack(">hhih", 1, 16, 7, 2) + b"me" + b"\x00" + bytes(21)
    return (
        head + bytes([len(topics) + 1]) + b"".join(t + partitions + b"\x00" for t in topics) + b"\x01\x01\x00"
    )


def test_a_fetch_without_one_topic_is_the_fetch_that_never_asked_for_it():
    one, other = b"1" * 16, b"2" * 16
    assert without_topic(a_fetch(one, other), one) == a_fetch(other)
    assert without_topic(a_fetch(one), other) == a_fetch(one)
    assert without_topic(a_fetch(one), one) == a_fetch()


def a_batch(offset: int, size: int) -> bytes:
    return struct.pack(">qi", offset, size) + bytes(size)


def test_a_power_loss_takes_what_lies_behind_the_recovery_point_and_nothing_else(tmp_path: Path):
    for name in ("shop.events-0", "shop.events-1", "__cluster_metadata-0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{0:020}.log").write_bytes(a_batch(0, 100) + a_batch(5, 70) + a_batch(9, 30))
    (tmp_path / CHECKPOINT).write_text("0\n1\nshop.events 0 9\n", "ascii")
    assert lose_power(tmp_path) == {"shop.events-0": 42, "shop.events-1": 100 + 70 + 30 + 3 * 12}
    kept = tmp_path / "shop.events-0" / f"{0:020}.log"
    assert [offset for offset, _ in batches(kept)] == [0, 5]
