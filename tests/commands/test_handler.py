"""The handler's promises: one effect per command, whole batches, a chain that links, a copy that can be made anew."""

import hashlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands import inventory
from commands.journal import JournalLostError, LogDamagedError, Output, OutputKind, Partition
from commands.registry import DECIDERS
from commands.rejections import UnknownStockItem
from commands.writer import TEXT_CHARS_MAX, UNFIT_VALUE_BYTES
from ops.faults.log_rows import POISON
from ops.simulate.stores import Disk
from schemas.cart import ClearCart, CreateCart
from schemas.inventory import (
    AdjustStock,
    ExpireReservation,
    ReceiptLine,
    ReceiveStock,
    ReserveStock,
    StockItem,
    claim_path,
    stock_stream,
)
from schemas.meta import DAY, MINUTE, NO_HASH, SECOND, Micros, derived_id
from schemas.topics import RECORD_BYTES_MAX
from schemas.values import MAIN, Line
from tests.commands.in_memory import CODEC, TOPICS, Desk, MemoryJournal, size_of

SKU = "85123A"
HERE = Partition("inventory", TOPICS.partition_of(SKU))
OTHER = next(f"sku-{n}" for n in range(100) if TOPICS.partition_of(f"sku-{n}") != TOPICS.partition_of(SKU))


def receipt(quantity: int, sku: str = SKU) -> ReceiveStock:
    return ReceiveStock(MAIN, "delivery", (ReceiptLine(sku, quantity),))


def reservation(desk: Desk, order: str, quantity: int = 1, sku: str = SKU) -> ReserveStock:
    return ReserveStock(order, MAIN, (Line(1, sku, quantity),), 1, Micros(desk.now + 10 * MINUTE))


def an_id(name: object) -> str:
    return derived_id(str(name))


def test_an_accepted_command_names_the_versions_in_which_it_stands():
    desk = Desk()
    told = desk.ask("inventory", receipt(5), an_id(1))
    assert told.outcome == "accepted"
    assert [str(position) for position in told.positions] == [f"stock/{SKU}/main@3"]


def test_the_same_command_again_gets_the_first_outcome_and_has_no_second_effect():
    desk = Desk()
    first = desk.ask("inventory", receipt(5), an_id(1))
    again = desk.ask("inventory", receipt(5), an_id(1), reply_to="api/another")
    assert again == replace(first, reply_to="api/another")
    assert len(desk.events()) == 3


def test_the_same_command_twice_in_one_batch_has_one_effect():
    desk = Desk()
    for _ in range(2):
        desk.send("inventory", receipt(5), an_id(1))
    desk.handler.turn()
    assert [told.outcome for told in desk.decided()] == ["accepted", "accepted"]
    assert len(desk.events()) == 3


def test_the_same_key_with_another_body_is_refused_and_the_first_outcome_stays_known():
    desk = Desk()
    first = desk.ask("inventory", receipt(5), an_id(1), fingerprint="five")
    other = desk.ask("inventory", receipt(6), an_id(1), fingerprint="six")
    assert (other.outcome, other.rejection and other.rejection.type) == ("rejected", "CommandReused")
    assert desk.ask("inventory", receipt(5), an_id(1), fingerprint="five") == first


def test_an_outcome_names_its_sender_with_the_role_and_none_where_a_saga_asked():
    desk = Desk()
    by_anna = desk.ask("inventory", receipt(5), an_id(1), actor_kind="merchant", actor_id="anna")
    by_saga = desk.ask("inventory", receipt(5), an_id(2), actor_kind="saga", actor_id="checkout")
    assert (by_anna.sender, by_saga.sender) == ("merchant/anna", "")


def test_an_outcome_is_known_for_a_day():
    desk = Desk()
    desk.ask("inventory", receipt(5), an_id(1))
    desk.now = Micros(desk.now + DAY)
    desk.ask("inventory", receipt(5), an_id(1))
    assert len(desk.events()) == 3


def test_the_window_forgets_after_two_days_at_the_latest():
    desk = Desk()
    desk.ask("inventory", receipt(5), an_id(1))
    desk.now = Micros(desk.now + 2 * DAY)
    desk.ask("inventory", receipt(1), an_id(2))
    window = [key for key in desk.store.pairs if key.split(b"/")[2][:1] in (b"w", b"d")]
    assert len(window) == 2


def test_a_command_past_its_time_has_no_effect():
    desk = Desk()
    told = desk.ask("inventory", receipt(5), an_id(1), not_after=desk.now - 1)
    assert told.rejection is not None
    assert told.rejection.type == "CommandExpired"
    assert desk.events() == []


def test_a_command_that_came_too_late_is_decided_when_it_is_sent_again_in_time():
    desk = Desk()
    desk.ask("inventory", receipt(5), an_id(1), not_after=desk.now - 1)
    assert desk.ask("inventory", receipt(5), an_id(1)).outcome == "accepted"
    assert desk.ask("inventory", receipt(5), an_id(1)).outcome == "accepted"
    assert len(desk.events()) == 3


def test_whose_a_cart_is_comes_before_how_far_it_is():
    desk = Desk()
    cart = an_id("cart")
    desk.ask("cart", CreateCart(cart, "alice", "GBP"), an_id(1), actor_kind="customer", actor_id="alice")
    mallory = {"actor_kind": "customer", "actor_id": "mallory", "expected_version": 999}
    told = desk.ask("cart", ClearCart(cart), an_id(2), **mallory)
    assert told.rejection is not None
    assert told.rejection.type == "UnknownCart"


def test_a_command_that_expects_another_version_is_refused():
    desk = Desk()
    desk.ask("inventory", receipt(5), an_id(1))
    told = desk.ask("inventory", receipt(5), an_id(2), expected_version=2)
    assert told.rejection is not None
    assert (told.rejection.type, told.rejection.kind) == ("VersionConflict", "precondition")


def test_a_fault_in_a_decider_costs_that_command_only(monkeypatch: pytest.MonkeyPatch):
    def decide(state: Any, command: Any, context: Any) -> Any:
        if isinstance(command, AdjustStock):
            raise ZeroDivisionError
        return inventory.DECIDER.decide(state, command, context)

    monkeypatch.setitem(DECIDERS, "inventory", replace(inventory.DECIDER, decide=decide))
    desk = Desk()
    desk.send("inventory", receipt(5), an_id(1))
    desk.send("inventory", AdjustStock(SKU, MAIN, 1, "found", "", None), an_id(2))
    desk.send("inventory", receipt(7), an_id(3))
    desk.handler.turn()
    assert [told.rejection and told.rejection.type for told in desk.decided()] == [
        None,
        "InternalError",
        None,
    ]
    assert "ZeroDivisionError" in desk.letters()[0].reason
    assert desk.events()[-1].body.sellable == 12


def test_a_record_that_kafka_would_refuse_costs_that_command_only():
    desk = Desk()
    desk.send("inventory", receipt(5), an_id(1))
    desk.send("inventory", AdjustStock(SKU, MAIN, 1, "found", "x" * 950_000, None), an_id(2))
    desk.ask("inventory", receipt(7, OTHER), an_id(3))
    while len(desk.decided()) < 3:
        desk.handler.turn()
    outcomes = {told.command_id: told.outcome for told in desk.decided()}
    assert outcomes[an_id(2)] == "rejected"
    assert outcomes[an_id(3)] == "accepted"


@pytest.mark.parametrize(
    ("value", "key", "number", "reason"),
    [
        (b"\xc3\x01garbage!", SKU, 0, "fingerprint"),
        (b"not avro", SKU, 0, "single-object"),
        (None, SKU, 0, "a value"),
        (b"\xc3\x01garbage!", None, 0, "a key"),
        (b"\x00" * 960_000, "k" * 12_000, 0, "single-object"),
    ],
    ids=["unknown schema", "random bytes", "no value", "no key", "nearly 1 MB with a long key"],
)
def test_poison_becomes_a_letter_and_the_partition_goes_on(value: bytes, key: str, number: int, reason: str):
    desk = Desk()
    desk.journal.send("inventory", value, key, number)
    assert desk.ask("inventory", receipt(5), an_id(1)).outcome == "accepted"
    (letter,) = desk.letters()
    assert reason in letter.reason


@pytest.mark.parametrize("kind", POISON)
def test_what_f22_writes_among_commands_is_one_letter_also_after_a_restart(kind: str):
    desk = Desk()
    key, value, reason = POISON[kind]
    desk.journal.send("inventory", value, key, HERE.number)
    assert desk.ask("inventory", receipt(5), an_id(1)).outcome == "accepted"
    desk.restart(Disk())
    assert desk.ask("inventory", receipt(5), an_id(2)).outcome == "accepted"
    (letter,) = desk.letters()
    assert reason in letter.reason
    assert (letter.topic, letter.offset) == (TOPICS.commands("inventory"), 0)


@pytest.mark.parametrize(
    "name",
    ["traceparent", "reply_to", "correlation_id", "causation_id", "actor_kind", "actor_id", "fingerprint"],
)
def test_a_command_with_a_longer_text_about_itself_than_any_of_ours_becomes_a_letter(name: str):
    desk = Desk()
    longest: dict[str, Any] = {name: "x" * TEXT_CHARS_MAX}
    assert desk.ask("inventory", receipt(5), an_id(1), **longest).outcome == "accepted"
    desk.send("inventory", receipt(5), an_id(2), **{name: "x" * (TEXT_CHARS_MAX + 1)})
    desk.handler.turn()
    assert [letter.reason for letter in desk.letters()] == [f"its {name} is longer than any of ours"]


def test_a_line_whose_sku_is_longer_than_any_streams_name_makes_a_letter_of_its_command():
    desk = Desk()
    lines = (ReceiptLine(SKU, 1), ReceiptLine("s" * 400_000, 1))
    desk.send("inventory", ReceiveStock(MAIN, "delivery", lines), an_id(1))
    desk.handler.turn()
    assert "400000 characters" in desk.letters()[0].reason


def test_a_record_that_only_its_key_makes_too_large_costs_that_command_only():
    """A claim's path names the order, and so does the claim."""
    desk = Desk()
    desk.ask("inventory", receipt(5), an_id(1))
    told = desk.ask("inventory", reservation(desk, "o" * 800_000), an_id(2))
    assert told.rejection is not None
    assert told.rejection.type == "InternalError"
    assert "larger than" in desk.letters()[0].reason


def test_an_outcome_that_is_too_large_only_when_it_is_repeated_stops_nobody():
    padding = 890_000

    def decide(state: Any, command: Any, context: Any) -> Any:
        return UnknownStockItem("x" * padding)

    def last_size() -> int:
        return len(desk.journal.logs["decisions", HERE][-1].value or b"")

    desk = Desk(deciders={**DECIDERS, "inventory": replace(inventory.DECIDER, decide=decide)})
    desk.ask("inventory", receipt(5), an_id(1))
    padding += RECORD_BYTES_MAX - last_size()
    desk.ask("inventory", receipt(5), an_id(2))
    assert last_size() == RECORD_BYTES_MAX
    elsewhere = "api/" + "another" * 10
    told = desk.ask("inventory", receipt(5), an_id(2), reply_to=elsewhere)
    assert told.rejection is not None
    assert (told.reply_to, told.rejection.type) == (elsewhere, "InternalError")


def test_a_command_without_lines_becomes_a_letter():
    desk = Desk()
    meta = desk.meta(receipt(5), an_id(1))
    body = ReceiveStock(MAIN, "delivery", ())
    desk.journal.send("inventory", CODEC.encode(body, meta), SKU, TOPICS.partition_of(SKU))
    desk.handler.turn()
    assert "no lines" in desk.letters()[0].reason


@pytest.mark.parametrize("kind", ["state", "decisions", "events"])
def test_a_strangers_record_in_our_own_topics_becomes_a_letter_when_they_are_read_back(kind: Any):
    desk = Desk()
    desk.ask("inventory", receipt(5), an_id(1))
    partition = Partition("inventory", TOPICS.partition_of(SKU))
    desk.journal.logs[kind, partition].append(Output(kind, partition, b"k", b"forty random bytes", ()))
    desk.restart(Disk())
    assert desk.ask("inventory", receipt(5), an_id(2)).outcome == "accepted"
    assert [letter.topic for letter in desk.letters()] == [f"test.{kind}.inventory"]


def test_of_a_flood_of_strangers_large_records_only_the_beginnings_are_kept_and_lettered():
    desk = Desk()
    desk.ask("inventory", receipt(5), an_id(1))
    strange = b"\x00" * 900_000
    desk.journal.logs["decisions", HERE] += [Output("decisions", HERE, strange, strange, ())] * 300
    desk.restart(Disk())
    assert desk.ask("inventory", receipt(5), an_id(2)).outcome == "accepted"
    lettered = desk.journal.logs["dead-letters", HERE]
    assert len(lettered) == 300
    assert sum(map(size_of, lettered)) < 2_000_000
    assert all(letter.value == strange[:UNFIT_VALUE_BYTES] for letter in desk.letters())


def test_outcomes_too_large_for_one_record_are_told_one_by_one_or_as_a_fault():
    desk = Desk()
    skus = [chr(0x10400 + n % 40) * 60 + f"{n:04}" for n in range(4_000)]
    lines = tuple(
        Line(n, sku, 1) for n, sku in enumerate((s for s in skus if TOPICS.partition_of(s) == 0), 1)
    )[:1_900]
    body = ReserveStock(an_id("order"), MAIN, lines, 1, Micros(desk.now + MINUTE))
    desk.send("inventory", body, an_id(1))
    desk.send("inventory", receipt(5), an_id(2))
    while len(desk.decided()) < 2:
        desk.handler.turn()
    outcomes = {told.command_id: told.outcome for told in desk.decided()}
    assert outcomes[an_id(2)] == "accepted"
    assert outcomes[an_id(1)] in ("refused", "rejected")


def test_a_backlog_of_large_commands_is_decided_in_batches_that_are_bounded():
    desk = Desk()
    skus = [sku for sku in (f"sku-{n}" for n in range(5_000)) if TOPICS.partition_of(sku) == 0][:2_000]
    lines = tuple(Line(n, sku, 1) for n, sku in enumerate(skus, 1))
    for n in range(30):
        body = ReserveStock(an_id(n), MAIN, lines, 1, Micros(desk.now + MINUTE))
        desk.send("inventory", body, an_id(("large", n)))
    turns = 0
    while len(desk.decided()) < 30:
        desk.handler.turn()
        turns += 1
    assert turns >= 3
    assert max(event.meta.batch_size for event in desk.events()) < 30_000


def test_a_deadline_whose_command_failed_is_tried_again_when_the_fault_is_gone(
    monkeypatch: pytest.MonkeyPatch,
):
    broken = [True]

    def decide(state: Any, command: Any, context: Any) -> Any:
        if isinstance(command, ExpireReservation) and broken[0]:
            raise ZeroDivisionError
        return inventory.DECIDER.decide(state, command, context)

    monkeypatch.setitem(DECIDERS, "inventory", replace(inventory.DECIDER, decide=decide))
    desk = Desk()
    desk.ask("inventory", receipt(5), an_id(1))
    desk.ask("inventory", reservation(desk, an_id("order")), an_id(2))
    desk.now = Micros(desk.now + 10 * MINUTE)
    for _ in range(3):
        desk.handler.turn()
    assert len(desk.letters()) == 1
    broken[0] = False
    desk.now = Micros(desk.now + MINUTE)
    desk.handler.turn()
    assert type(desk.events()[-1].body).__name__ == "StockReservationExpired"


def test_a_command_in_the_wrong_partition_becomes_a_letter_since_its_stream_has_another_writer():
    desk = Desk()
    body = receipt(5)
    wrong = 1 - TOPICS.partition_of(SKU)
    desk.journal.send("inventory", CODEC.encode(body, desk.meta(body, an_id(1))), SKU, wrong)
    desk.handler.turn()
    assert desk.events() == []
    assert "does not live" in desk.letters()[0].reason


def test_a_command_of_another_aggregate_becomes_a_letter():
    desk = Desk()
    body = receipt(5)
    desk.journal.send("cart", CODEC.encode(body, desk.meta(body, an_id(1))), SKU, TOPICS.partition_of(SKU))
    desk.handler.turn()
    assert "no command of cart" in desk.letters()[0].reason


def test_a_batch_that_came_to_nothing_is_decided_again():
    desk = Desk()
    desk.journal.fails = 2
    assert desk.ask("inventory", receipt(5), an_id(1)).outcome == "accepted"
    assert len(desk.events()) == 3


def test_a_batch_that_always_comes_to_nothing_ends_the_process():
    desk = Desk()
    desk.journal.fails = 100
    desk.send("inventory", receipt(5), an_id(1))
    with pytest.raises(JournalLostError):
        desk.handler.turn()


def test_events_of_a_batch_are_counted_over_all_its_partitions():
    desk = Desk()
    desk.send("inventory", receipt(5), an_id(1))
    desk.send("inventory", receipt(5, OTHER), an_id(2))
    desk.handler.turn()
    metas = [event.meta for event in desk.events()]
    assert sorted(meta.batch_index for meta in metas) == list(range(6))
    assert {(meta.batch_id, meta.batch_size) for meta in metas} == {(metas[0].batch_id, 6)}


def test_a_reservation_expires_by_itself_and_only_once():
    desk = Desk()
    desk.ask("inventory", receipt(5), an_id(1))
    desk.ask("inventory", reservation(desk, an_id("order")), an_id(2))
    desk.now = Micros(desk.now + 10 * MINUTE)
    for _ in range(3):
        desk.handler.turn()
    expired = [event for event in desk.events() if type(event.body).__name__ == "StockReservationExpired"]
    assert len(expired) == 1
    assert (expired[0].meta.actor_kind, expired[0].body.reserved) == ("deadline", 0)


def test_a_deadline_survives_a_restart_on_an_empty_disk():
    desk = Desk()
    desk.ask("inventory", receipt(5), an_id(1))
    desk.ask("inventory", reservation(desk, an_id("order")), an_id(2))
    desk.restart(Disk())
    desk.now = Micros(desk.now + 10 * MINUTE)
    desk.handler.turn()
    assert type(desk.events()[-1].body).__name__ == "StockReservationExpired"


def test_the_clock_never_goes_backwards_in_a_partition_also_over_a_restart():
    desk = Desk()
    desk.ask("inventory", receipt(5), an_id(1))
    first = desk.events()[-1].meta.recorded_at
    desk.now = Micros(desk.now - 60 * SECOND)
    desk.restart(Disk())
    desk.ask("inventory", receipt(5), an_id(2), not_after=first)
    assert desk.events()[-1].meta.recorded_at == first


@pytest.mark.parametrize("kind", ["state", "decisions", "events"])
def test_a_partition_that_cannot_be_read_holds_up_no_other_and_is_served_when_it_can(kind: Any):
    desk = Desk()
    desk.ask("inventory", receipt(5), an_id(1))
    held = Partition("inventory", TOPICS.partition_of(SKU))
    desk.journal.held = {(kind, held)}
    desk.restart(Disk(), until=lambda: len(desk.handler.awaited) == 1)
    assert [*desk.handler.awaited] == [held]
    cart = CreateCart(an_id("cart"), "alice", "GBP")
    assert desk.ask("cart", cart, an_id(2), actor_kind="customer", actor_id="alice").outcome == "accepted"
    desk.journal.held = set()
    while desk.handler.awaited:
        desk.handler.turn()
    assert desk.ask("inventory", receipt(5), an_id(1)).outcome == "accepted"
    assert [type(event.body).__name__ for event in desk.events()].count("StockReceived") == 1


def test_a_worker_that_can_read_nothing_for_a_minute_ends_so_that_another_tries():
    desk = Desk()
    desk.ask("inventory", receipt(5), an_id(1))
    desk.journal.held = {("state", Partition("inventory", TOPICS.partition_of(SKU)))}
    desk.restart(Disk(), until=lambda: len(desk.handler.awaited) == 1)
    desk.now = Micros(desk.now + 61 * SECOND)
    with pytest.raises(JournalLostError, match="inventory"):
        desk.handler.turn()


def test_a_state_topic_that_lacks_the_last_batch_is_named_and_nothing_is_served():
    desk = Desk()
    desk.ask("inventory", receipt(5), an_id(1))
    desk.ask("inventory", receipt(5), an_id(2))
    partition = Partition("inventory", TOPICS.partition_of(SKU))
    log = desk.journal.logs["state", partition]
    del log[-2:]  # as a power cut might: the batch's item and its position
    with pytest.raises(LogDamagedError, match=f"stock/{SKU}/main"):
        desk.restart(Disk())


@pytest.mark.parametrize("kind", ["events", "decisions"])
def test_a_topic_that_lost_the_whole_last_transaction_is_named_and_nothing_is_served(kind: Any):
    desk = Desk()
    desk.ask("inventory", receipt(5), an_id(1))
    before = {place: len(log) for place, log in desk.journal.logs.items()}
    desk.ask("inventory", receipt(5), an_id(2))
    partition = Partition("inventory", TOPICS.partition_of(SKU))
    del desk.journal.logs[kind, partition][before[kind, partition] :]
    with pytest.raises(LogDamagedError, match=kind):
        desk.restart(Disk())


class Overtaken(MemoryJournal):
    """While this worker looks where the logs end, it stands still, and another one writes."""

    def __init__(self, like: MemoryJournal, meanwhile: Callable[[], object]) -> None:
        super().__init__()
        self.logs, self.positions = like.logs, like.positions
        self._meanwhile = [meanwhile]

    def ends(self, kind: OutputKind, partition: Partition) -> int:
        end = super().ends(kind, partition)
        if (kind, partition) == ("state", HERE) and self._meanwhile:
            self._meanwhile.pop()()
        return end


def test_a_worker_that_stood_still_while_it_loaded_blames_no_topic_for_what_another_one_wrote():
    desk = Desk()
    desk.ask("inventory", receipt(5), an_id(1))
    late = Overtaken(desk.journal, lambda: desk.ask("inventory", receipt(5), an_id(2)))
    with pytest.raises(JournalLostError, match="was written while it was loaded"):
        Desk(late)


Step = tuple[str, str, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["receive", "reserve", "adjust", "again"]),
        st.sampled_from([SKU, OTHER, "C"]),
        st.integers(1, 5),
        st.integers(0, 9),
    ),
    max_size=40,
)


def play(desk: Desk, steps: list[Step], turns: set[int]) -> None:
    """Send the steps as commands; the loop turns after those whose number is in `turns`, so batches vary."""
    sent: list[tuple[Any, str]] = []
    for n, (what, sku, quantity, order) in enumerate(steps):
        if what == "again" and sent:
            body, command_id = sent[order % len(sent)]
        else:
            body, command_id = _body(desk, what, sku, quantity, order), an_id(("step", n))
        sent.append((body, command_id))
        desk.send("inventory", body, command_id)
        if n in turns:
            desk.handler.turn()
    desk.handler.turn()


def _body(desk: Desk, what: str, sku: str, quantity: int, order: int) -> Any:
    if what == "reserve":
        return reservation(desk, an_id(("order", order)), quantity, sku)
    if what == "adjust":
        return AdjustStock(sku, MAIN, -quantity, "shrinkage", "", None)
    return receipt(quantity, sku)


@settings(deadline=None)
@given(steps=STEPS, turns=st.sets(st.integers(0, 40)))
def test_versions_count_from_one_and_every_hash_links(steps: list[Step], turns: set[int]):
    desk = Desk()
    play(desk, steps, turns)
    ends: dict[str, tuple[int, bytes]] = defaultdict(lambda: (0, NO_HASH))
    for (kind, _), log in desk.journal.logs.items():
        for output in log if kind == "events" else ():
            assert output.value is not None
            meta = CODEC.decode(output.value).meta
            assert (meta.version - 1, meta.previous) == ends[meta.stream]
            ends[meta.stream] = (meta.version, hashlib.sha256(output.value).digest())


@settings(deadline=None)
@given(steps=STEPS, turns=st.sets(st.integers(0, 40)))
def test_each_command_has_one_effect_however_the_batches_fall(steps: list[Step], turns: set[int]):
    desk, one_by_one = Desk(), Desk()
    play(desk, steps, turns)
    play(one_by_one, steps, set(range(40)))
    assert _bodies(desk) == _bodies(one_by_one)
    causes = [(event.meta.command_id, event.meta.event_id) for event in desk.events()]
    assert len(set(causes)) == len(causes)


def _bodies(desk: Desk) -> dict[str, list[Any]]:
    bodies: dict[str, list[Any]] = defaultdict(list)
    for event in desk.events():
        bodies[event.meta.stream].append(event.body)
    return bodies


@settings(deadline=None)
@given(steps=STEPS, turns=st.sets(st.integers(0, 40)))
def test_an_empty_disk_is_restored_from_the_topics_record_for_record(steps: list[Step], turns: set[int]):
    desk = Desk()
    play(desk, steps, turns)
    before = _copy(desk)
    desk.restart(Disk())
    assert _copy(desk) == before


def _copy(desk: Desk) -> dict[bytes, bytes]:
    return {key: value for key, value in desk.store.pairs.items() if not key.endswith(b"/copied")}


@settings(deadline=None)
@given(steps=STEPS, turns=st.sets(st.integers(0, 40)))
def test_replaying_all_events_gives_the_same_state(steps: list[Step], turns: set[int]):
    desk = Desk()
    play(desk, steps, turns)
    replayed: dict[str, Any] = {}
    for event in desk.events():
        replayed.update(inventory.DECIDER.evolve(replayed, event.body))
    assert {path: record for path, record in replayed.items() if record is not None} == _state(desk)


def _state(desk: Desk) -> dict[str, Any]:
    return {
        key.split(b"/", 2)[2][1:].decode(): CODEC.decode(value).body
        for key, value in desk.store.pairs.items()
        if key.startswith(b"inventory/") and key.split(b"/", 2)[2][:1] == b"s"
    }


def test_a_stock_item_and_its_claims_are_records_of_their_own():
    desk = Desk()
    desk.ask("inventory", receipt(5), an_id(1))
    desk.ask("inventory", reservation(desk, an_id("order"), 2), an_id(2))
    state = _state(desk)
    assert state[stock_stream(SKU, MAIN)] == StockItem(5, 2, 0, 0, 0, 0)
    assert state[claim_path(SKU, MAIN, an_id("order"), 1)].quantity == 2
