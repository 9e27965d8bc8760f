"""The reader of the laws finds what is broken: for each law a log that keeps it, and planted bugs that it names."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from ops.audit.wire import AvscReader, UnreadableError
from tests.written_log import SECOND, Fields, Log, Written, encode, verdicts_of

LIMIT = 600 * SECOND


@dataclass
class Shelf:
    """Writes the stock events of one SKU, with balances that add up unless a test says otherwise."""

    log: Log
    balances: dict[str, int] = field(
        default_factory=lambda: {"sellable": 0, "reserved": 0, "allocated": 0, "shipped": 0}
    )

    def move(
        self, name: str, fields: Fields, told: Fields | None = None, **by: int
    ) -> tuple[str, str, Fields]:
        """An event after which the balances are higher `by` so much; `told` is what it says instead."""
        for balance, units in by.items():
            self.balances[balance] += units
        return (
            "stock/A/main",
            name,
            {"sku": "A", "location": "main", **self.balances, **fields, **(told or {})},
        )

    def receive(self, units: int) -> None:
        self.log.transact(self.move("StockReceived", {"quantity": units}, sellable=units))

    def reserve(self, order: str, units: int, **told: Any) -> None:
        expires = {"expires_at": self.log.now + LIMIT}
        self.log.transact(self.move("StockReserved", claim(order, units) | expires, told, reserved=units))

    def allocate(self, order: str, units: int, from_reserved: int) -> None:
        fields = claim(order, units) | {"from_reserved": from_reserved}
        self.log.transact(self.move("StockAllocated", fields, reserved=-from_reserved, allocated=units))

    def expire(self, order: str, units: int) -> None:
        self.log.transact(self.move("StockReservationExpired", claim(order, units), reserved=-units))

    def release(self, order: str, units: int) -> None:
        fields = claim(order, units) | {"reason": "cancelled"}
        self.log.transact(self.move("StockReservationReleased", fields, reserved=-units))

    def ship(self, order: str, units: int) -> None:
        fields = claim(order, units)
        self.log.transact(self.move("StockShipped", fields, sellable=-units, allocated=-units, shipped=units))

    def refuse(self, order: str, units: int, available: int) -> None:
        fields = claim(order, units) | {"available": available}
        self.log.transact(self.move("StockReservationRefused", fields), outcome="refused")


def claim(order: str, units: int) -> Fields:
    return {"order_id": order, "line": 1, "claim_id": f"claim-{order}", "quantity": units}


def shelf_of(units: int) -> Shelf:
    shelf = Shelf(Log())
    shelf.receive(units)
    return shelf


def place(log: Log, order: str, amount: int = 500) -> None:
    fields = {"order_id": order, "amount": amount, "expires_at": log.now + 60 * SECOND}
    log.transact((f"order/{order}", "OrderPlaced", fields))


def tell(log: Log, order: str, name: str, **fields: Any) -> None:
    """An event of an order; where one says when it asks again, that is in a minute."""
    log.transact((f"order/{order}", name, {"order_id": order, "remind_at": log.now + 60 * SECOND, **fields}))


def pay(log: Log, order: str, name: str, **fields: Any) -> None:
    """A payment event of the order's one payment; a request's key is `{verb}-{order}`."""
    fields = {"payment_id": f"pay-{order}", "order_id": order, "amount": 500, **fields}
    log.transact((f"payment/pay-{order}", name, fields))


def charge(log: Log, order: str, lines: Sequence[Fields] = ()) -> None:
    """`lines` are those to be allocated with the confirmation."""
    pay(log, order, "PaymentAuthorizationRequested", key=f"authorization-{order}")
    pay(log, order, "PaymentAuthorized", key=f"authorization-{order}")
    tell(log, order, "OrderConfirmed", lines=lines)
    pay(log, order, "PaymentCaptureRequested", key=f"capture-{order}")
    pay(log, order, "PaymentCaptured", key=f"capture-{order}")


def row(verb: str, order: str, outcome: str = "succeeded", **told: Any) -> Fields:
    """A row of the provider's ledger."""
    return {
        "verb": verb,
        "key": f"{verb}-{order}",
        "payment_id": f"pay-{order}",
        "amount": 500,
        "outcome": outcome,
        **told,
    }


@pytest.fixture
def shelf() -> Shelf:
    return shelf_of(10)


@pytest.fixture
def log() -> Log:
    return Log()


def test_an_order_from_the_shelf_to_the_door_breaks_no_law(shelf: Shelf):
    log = shelf.log
    place(log, "o")
    shelf.reserve("o", 3)
    charge(log, "o")
    shelf.allocate("o", 3, from_reserved=3)
    shelf.ship("o", 3)
    tell(log, "o", "OrderCaptured", amount=500)
    tell(log, "o", "OrderCartClosed", how="completed")
    log.after(3600)
    assert (
        log.broken(ledger=[row("authorization", "o"), row("capture", "o")], acknowledged=["order/o@2"]) == {}
    )


def test_topics_may_be_read_in_any_order(shelf: Shelf):
    place(shelf.log, "o")
    shelf.reserve("o", 3)
    charge(shelf.log, "o")
    shelf.allocate("o", 3, from_reserved=3)
    by_topic = sorted(shelf.log.records, key=lambda record: record.topic)
    assert set(verdicts_of(by_topic, shelf.log.now).values()) == {"holds"}


# ── law 1 ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("balance", ["sellable", "reserved", "allocated", "shipped"])
def test_a_balance_that_is_not_the_sum_of_its_movements_breaks_law_1(shelf: Shelf, balance: str):
    shelf.reserve("o", 3, **{balance: shelf.balances[balance] + 7})
    assert "movements add up to (10, 3, 0, 0)" in shelf.log.broken()["1"]


def test_a_derived_event_that_moves_units_breaks_law_1(shelf: Shelf):
    shelf.log.transact(shelf.move("StockDepleted", {}, sellable=-1))
    assert set(shelf.log.broken()) == {"1"}


def test_a_negative_balance_breaks_law_1(shelf: Shelf):
    fields = {"before": 10, "after": -1, "reason": "damaged"}
    shelf.log.transact(shelf.move("StockAdjusted", fields, sellable=-11))
    assert "negative balance" in shelf.log.broken()["1"]


def test_an_adjustment_of_another_number_than_lies_there_breaks_law_1(shelf: Shelf):
    shelf.log.transact(shelf.move("StockAdjusted", {"before": 9, "after": 8}, sellable=-2))
    assert "adjusts 9 units where 10 are" in shelf.log.broken()["1"]


def test_one_wrong_balance_is_one_breach_and_not_one_for_each_event_after_it(shelf: Shelf):
    shelf.reserve("o", 3, sellable=11)
    shelf.balances["sellable"] = 11
    shelf.receive(1)
    assert shelf.log.broken()["1"].count("stock/A/main@") == 1


def test_claims_that_do_not_add_up_to_the_balance_break_law_1(shelf: Shelf):
    shelf.reserve("o", 3)
    shelf.log.transact(shelf.move("StockReceived", {"quantity": 0}, reserved=2))
    assert "5 units are active, its claims add up to 3" in shelf.log.broken()["1"]


# ── law 2 ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_exactly_what_is_there_may_be_granted(shelf: Shelf):
    shelf.reserve("first", 10)
    shelf.refuse("second", 1, available=0)
    assert shelf.log.broken() == {}


def test_a_grant_beyond_what_is_available_breaks_law_2(shelf: Shelf):
    shelf.reserve("first", 8)
    shelf.reserve("second", 3)
    assert shelf.log.broken() == {"2": "stock/A/main@3 grants 3 units where 2 are available"}


def test_a_grant_out_of_the_safety_stock_breaks_law_2(shelf: Shelf):
    shelf.log.transact(shelf.move("StockPolicyChanged", {"safety_stock": 8, "low_stock_at": 0}))
    shelf.reserve("o", 3)
    assert "grants 3 units where 2 are available" in shelf.log.broken()["2"]


def test_an_expired_claim_allocated_from_units_that_are_gone_breaks_law_2(shelf: Shelf):
    shelf.reserve("late", 6)
    shelf.log.after(600)
    shelf.expire("late", 6)
    shelf.reserve("other", 6)
    shelf.allocate("late", 6, from_reserved=0)
    assert "grants 6 units where 4 are available" in shelf.log.broken()["2"]


def test_a_refusal_of_units_that_were_there_breaks_law_2(shelf: Shelf):
    place(shelf.log, "o")
    shelf.refuse("o", 10, available=10)
    assert "refuses 10 units where 10 are available" in shelf.log.broken()["2"]


def test_a_reservation_asked_for_too_late_may_be_refused(shelf: Shelf):
    place(shelf.log, "o")
    tell(shelf.log, "o", "OrderRejected", reason="timeout", money="none")
    tell(shelf.log, "o", "OrderSettled")
    shelf.log.after(601)
    shelf.refuse("o", 3, available=10)
    assert shelf.log.broken() == {}


def test_a_refusal_that_counts_wrongly_breaks_law_2(shelf: Shelf):
    shelf.refuse("o", 11, available=9)
    assert "finds 9 units available where 10 are" in shelf.log.broken()["2"]


def test_an_allocation_refused_though_it_was_reserved_breaks_law_2(shelf: Shelf):
    shelf.reserve("o", 3)
    shelf.log.transact(
        shelf.move("StockAllocationRefused", claim("o", 3) | {"available": 0}), outcome="refused"
    )
    assert "refuses to allocate an active claim" in shelf.log.broken()["2"]


def test_an_adjustment_may_uncover_promises_if_it_says_so(shelf: Shelf):
    shelf.reserve("o", 8)
    adjusted = shelf.move("StockAdjusted", {"before": 10, "after": 5, "reason": "damaged"}, sellable=-5)
    shelf.log.transact(adjusted, shelf.move("StockShortfallFound", {"uncovered": 3}))
    assert shelf.log.broken() == {}


def test_an_adjustment_that_uncovers_promises_in_silence_breaks_law_2(shelf: Shelf):
    shelf.reserve("o", 8)
    shelf.log.transact(shelf.move("StockAdjusted", {"before": 10, "after": 5}, sellable=-5))
    assert "does not say so" in shelf.log.broken()["2"]


# ── law 3 ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("end", ["OrderConfirmed", "OrderRejected", "OrderCancelled"])
def test_an_order_may_end_up_to_two_seconds_after_its_deadline(log: Log, end: str):
    place(log, "o")
    log.after(62)
    tell(log, "o", end)
    assert log.broken() == {}


def test_an_order_that_ends_later_breaks_law_3(log: Log):
    place(log, "o")
    log.after(63)
    tell(log, "o", "OrderRejected", money="none")
    assert log.broken() == {"3": "order/o ended 3.0 s after its deadline"}


def test_an_order_that_never_ends_breaks_law_3_once_its_time_is_up(log: Log):
    place(log, "o")
    log.after(62)
    assert log.broken() == {}
    log.after(1)
    assert log.broken() == {"3": "order/o never ended"}


@pytest.mark.parametrize(
    ("first", "second"), [("OrderConfirmed", "OrderRejected"), ("OrderRejected", "OrderConfirmed")]
)
def test_an_order_that_ends_twice_breaks_law_3(log: Log, first: str, second: str):
    place(log, "o")
    tell(log, "o", first)
    tell(log, "o", second)
    assert "and then" in log.broken()["3"]


def test_a_confirmed_order_may_be_cancelled_long_after(log: Log):
    place(log, "o")
    tell(log, "o", "OrderConfirmed")
    log.after(3600)
    tell(log, "o", "OrderCancelled", money="none")
    assert log.broken() == {}


def test_an_order_that_was_never_placed_breaks_law_3(log: Log):
    tell(log, "o", "OrderConfirmed")
    assert log.broken() == {"3": "order/o was never placed"}


# ── law 4 ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_reservation_may_end_up_to_two_seconds_after_its_limit(shelf: Shelf):
    shelf.reserve("o", 3)
    shelf.log.after(602)
    shelf.expire("o", 3)
    assert shelf.log.broken() == {}


def test_a_reservation_that_outlives_its_limit_breaks_law_4(shelf: Shelf):
    shelf.reserve("o", 3)
    shelf.log.after(603)
    shelf.release("o", 3)
    assert shelf.log.broken() == {"4": "stock/A/main@3 ends a reservation 3.0 s after its limit"}


def test_a_reservation_that_never_ends_breaks_law_4(shelf: Shelf):
    shelf.reserve("o", 3)
    shelf.log.after(603)
    assert shelf.log.broken() == {"4": "stock/A/main: the reservation of order o line 1 never ended"}


def test_a_reservation_that_expires_before_its_time_breaks_law_4(shelf: Shelf):
    shelf.reserve("o", 3)
    shelf.expire("o", 3)
    assert "expires before its time" in shelf.log.broken()["4"]


def test_a_released_claim_that_is_allocated_breaks_law_4(shelf: Shelf):
    shelf.reserve("o", 3)
    shelf.release("o", 3)
    shelf.allocate("o", 3, from_reserved=0)
    assert "there is none" in shelf.log.broken()["4"]


def test_a_claim_that_ends_twice_breaks_law_4(shelf: Shelf):
    shelf.reserve("o", 3)
    shelf.allocate("o", 3, from_reserved=3)
    shelf.ship("o", 3)
    shelf.ship("o", 3)
    assert "there is none" in shelf.log.broken()["4"]


def test_a_reservation_shipped_without_allocation_breaks_law_4(shelf: Shelf):
    shelf.reserve("o", 3)
    shelf.ship("o", 3)
    assert "it is active" in shelf.log.broken()["4"]


# ── law 5 ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_order_charged_twice_breaks_law_5(log: Log):
    place(log, "o")
    charge(log, "o")
    pay(log, "o", "PaymentCaptured", key="capture-o")
    assert log.broken() == {"5": "order/o of 500 was charged 1000"}


def test_an_order_charged_through_two_payments_breaks_law_5(log: Log):
    place(log, "o")
    charge(log, "o")
    fields = {"payment_id": "second", "order_id": "o", "amount": 500, "key": "k"}
    log.transact(("payment/second", "PaymentCaptured", fields))
    assert "was charged 1000" in log.broken()["5"]


def test_money_captured_without_confirmation_breaks_law_5(log: Log):
    place(log, "o")
    pay(log, "o", "PaymentCaptured", key="capture-o")
    assert "never confirmed, and charged 500" in log.broken()["5"]


def test_a_rejected_order_that_holds_money_in_silence_breaks_law_5(log: Log):
    place(log, "o")
    pay(log, "o", "PaymentAuthorized", key="authorization-o")
    tell(log, "o", "OrderRejected", reason="stock", money="none")
    assert "holds 500 and does not say it owes it" in log.broken()["5"]


def test_a_rejected_order_may_owe_the_return_if_it_says_so(log: Log):
    place(log, "o")
    pay(log, "o", "PaymentAuthorized", key="authorization-o")
    tell(log, "o", "OrderRejected", reason="timeout", money="void")
    assert log.broken() == {}


def test_money_that_came_late_may_be_owed_as_orphaned(log: Log):
    place(log, "o")
    tell(log, "o", "OrderRejected", reason="timeout", money="none")
    pay(log, "o", "PaymentAuthorized", key="authorization-o")
    tell(log, "o", "OrderPaymentOrphaned", money="void")
    assert log.broken() == {}


def test_a_settled_order_that_holds_money_breaks_law_5(log: Log):
    place(log, "o")
    pay(log, "o", "PaymentAuthorized", key="authorization-o")
    tell(log, "o", "OrderRejected", reason="timeout", money="void")
    tell(log, "o", "OrderSettled")
    assert set(log.broken()) == {"5"}


@pytest.mark.parametrize(
    ("came", "went"), [("PaymentAuthorized", "PaymentVoided"), ("PaymentCaptured", "PaymentRefunded")]
)
def test_a_cancelled_order_whose_money_went_back_holds_none(log: Log, came: str, went: str):
    place(log, "o")
    tell(log, "o", "OrderConfirmed")
    pay(log, "o", came, key="k")
    tell(log, "o", "OrderCancelled", money="void")
    pay(log, "o", went, key="l")
    tell(log, "o", "OrderMoneyReturned", verb="void")
    tell(log, "o", "OrderSettled")
    assert log.broken() == {}


def test_a_charge_that_the_log_never_asked_for_breaks_law_5(log: Log):
    place(log, "o")
    charge(log, "o")
    rows = [row("authorization", "o"), row("capture", "o"), row("capture", "o", key="stray")]
    verdict = log.broken(ledger=rows)["5"]
    assert "never asked for: stray" in verdict
    assert "the provider's capture is 1000, the log's 500" in verdict


def test_a_charge_that_the_provider_does_not_know_breaks_law_5(log: Log):
    place(log, "o")
    charge(log, "o")
    assert "the provider's capture is 0, the log's 500" in log.broken(ledger=[row("authorization", "o")])["5"]


def test_the_provider_may_be_ahead_of_an_answer_that_has_not_come(log: Log):
    place(log, "o")
    pay(log, "o", "PaymentAuthorizationRequested", key="authorization-o")
    assert log.broken(ledger=[row("authorization", "o")]) == {}


def test_a_declined_request_moves_nothing(log: Log):
    place(log, "o")
    pay(log, "o", "PaymentAuthorizationRequested", key="authorization-o")
    pay(log, "o", "PaymentDeclined", key="authorization-o", code="declined")
    tell(log, "o", "OrderRejected", reason="payment", money="none")
    assert log.broken(ledger=[row("authorization", "o", outcome="declined")]) == {}


def test_a_void_that_the_provider_does_not_know_breaks_law_5(log: Log):
    place(log, "o")
    pay(log, "o", "PaymentAuthorizationRequested", key="authorization-o")
    pay(log, "o", "PaymentAuthorized", key="authorization-o")
    pay(log, "o", "PaymentVoided", key="void-o")
    tell(log, "o", "OrderCancelled", money="none")
    assert "the provider's void is 0, the log's 500" in log.broken(ledger=[row("authorization", "o")])["5"]


# ── law 6 ─────────────────────────────────────────────────────────────────────────────────────────────────

THREE_CARTS = [(f"cart/{n}", "CartCreated", {"cart_id": str(n)}) for n in range(3)]


@pytest.mark.parametrize("missing", [{0}, {1}, {2}, {0, 1}, {1, 2}, {0, 2}])
def test_a_torn_transaction_breaks_law_6_whatever_is_missing(log: Log, missing: set[int]):
    log.transact(*THREE_CARTS)
    records = [record for index, record in enumerate(log.records) if index not in missing]
    assert f"is torn: {3 - len(missing)} of 3 events" in verdicts_of(records, log.now)["6"]


def test_a_transaction_may_lie_in_several_partitions(log: Log):
    log.transact(*THREE_CARTS)
    log.records[1] = log.records[1]._replace(partition=1)
    assert log.broken() == {}


def test_a_command_with_a_second_effect_breaks_law_6(log: Log):
    log.transact(("cart/1", "CartCreated", {"cart_id": "1"}), command_id="c")
    log.transact(("cart/2", "CartCreated", {"cart_id": "2"}), command_id="c")
    assert log.broken() == {"6": "c has a second effect: cart/2@1"}


def test_a_key_sent_again_after_its_window_is_another_command(log: Log):
    log.transact(("cart/1", "CartCreated", {"cart_id": "1"}), command_id="c")
    log.after(24 * 3600)
    log.transact(("cart/2", "CartCreated", {"cart_id": "2"}), command_id="c")
    assert log.broken() == {}


def test_a_repeated_answer_is_no_second_effect(log: Log):
    log.transact(("cart/1", "CartCreated", {"cart_id": "1"}), command_id="c")
    log.decide("cart", "c", "accepted", [{"stream": "cart/1", "version": 1}])
    assert log.broken() == {}


def test_an_effect_of_a_rejected_command_breaks_law_6(log: Log):
    log.transact(("cart/1", "CartCreated", {"cart_id": "1"}), outcome="rejected")
    assert "which no decision accepted" in log.broken()["6"]


def test_an_accepted_command_without_its_effect_breaks_law_6(log: Log):
    log.decide("cart", "c", "accepted", [{"stream": "cart/1", "version": 1}])
    assert "was accepted with cart/1@1, which is not its effect" in log.broken()["6"]


def test_an_effect_lost_and_its_version_given_to_another_breaks_law_6(log: Log):
    log.decide("cart", "lost", "accepted", [{"stream": "cart/1", "version": 1}])
    log.transact(("cart/1", "CartCreated", {"cart_id": "1"}), command_id="other")
    assert set(log.broken()) == {"6"}


def test_an_acknowledged_position_that_is_not_in_the_log_breaks_law_6(log: Log):
    log.transact(("cart/1", "CartCreated", {"cart_id": "1"}))
    assert log.broken(acknowledged=["cart/1@1"]) == {}
    assert "cart/1@2 was acknowledged" in log.broken(acknowledged=["cart/1@2"])["6"]


# ── law 8 ─────────────────────────────────────────────────────────────────────────────────────────────────


def three_versions() -> list[Written]:
    log = Log()
    for name in ("CartCreated", "CartCleared", "CartExpired"):
        log.transact(("cart/1", name, {"cart_id": "1"}))
    return log.records


def test_a_missing_version_breaks_law_8():
    records = three_versions()
    del records[2]
    assert "cart/1@3 follows @1" in verdicts_of(records, 0)["8"]


def test_a_repeated_version_breaks_law_8():
    records = three_versions()
    assert "cart/1@1 follows @1" in verdicts_of([records[0], *records], 0)["8"]


def test_two_versions_that_changed_places_break_law_8():
    records = three_versions()
    records[2], records[4] = records[4], records[2]
    assert "follows" in verdicts_of(records, 0)["8"]


def test_a_changed_byte_breaks_law_8():
    records = three_versions()
    meta = records[2].datum["meta"]
    records[2] = records[2]._replace(datum=records[2].datum | {"meta": meta | {"actor_id": "somebody else"}})
    assert "cart/1@3 does not chain to the event before it" in verdicts_of(records, 0)["8"]


def test_a_stream_in_two_partitions_breaks_law_8():
    records = three_versions()
    records[2] = records[2]._replace(partition=1)
    assert "cart/1 is in partitions 0 and 1" in verdicts_of(records, 0)["8"]


@pytest.mark.parametrize("value", [b"", b"\xc3\x01", b"no event", b"\xc3\x01" + bytes(60)])
def test_bytes_that_are_no_event_are_unreadable(value: bytes):
    with pytest.raises(UnreadableError):
        AvscReader().read(value)


def test_an_event_cut_short_or_too_long_is_unreadable():
    value = three_versions()[0].value
    for damaged in (value[:-1], value + b"\0"):
        with pytest.raises(UnreadableError):
            AvscReader().read(damaged)


def test_instants_are_read_as_microseconds():
    datum = three_versions()[0].datum
    name, record = AvscReader().read(encode("CartCreated", datum | {"expires_at": 1_234}))
    assert (name, record["expires_at"]) == ("CartCreated", 1_234)


def test_however_much_is_broken_the_verdict_is_short():
    records = [record for record in three_versions() for _ in range(100)]
    assert len(verdicts_of(records, 0)["8"]) < 400
