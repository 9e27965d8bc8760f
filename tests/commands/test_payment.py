"""The payment's rules: one request under way, one key for each, and money that moves once."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.decider import Answer, Deadline
from commands.payment import DECIDER, HEARD_KEPT, SETTLED_KEPT, VOID_CAME_FIRST
from commands.rejections import PaymentHoldsTooLittle, PaymentIsCaptured, UnknownPayment
from schemas.meta import SECOND, Micros, event_id
from schemas.payment import (
    ANSWER_LIMIT,
    BACK_OFF,
    NOTICE_PATIENCE,
    NoteProviderEvent,
    Payment,
    PaymentAuthorizationRequested,
    PaymentAuthorized,
    PaymentCaptured,
    PaymentCaptureFailed,
    PaymentCaptureRequested,
    PaymentDeclined,
    PaymentRefunded,
    PaymentRefundFailed,
    PaymentRefundRequested,
    PaymentRequestRepeated,
    PaymentUnknown,
    PaymentVoidDeferred,
    PaymentVoided,
    PaymentVoidFailed,
    PaymentVoidRequested,
    PendingRequest,
    ProviderEventIgnored,
    ProviderEventNoted,
    RecordProviderResult,
    RepeatPaymentRequest,
    RequestAuthorization,
    RequestCapture,
    RequestRefund,
    RequestVoid,
)
from tests.specification import COMMAND_ID, DEADLINE, SAGA, SHOP, Actor, Given

NOW = 1_000 * SECOND
REPEAT_AT = Micros(NOW + ANSWER_LIMIT)
SANDBOX = Actor("provider", "sandbox")
KEY = event_id(COMMAND_ID, 0)
SECOND_KEY = event_id(COMMAND_ID, 1)

AUTHORIZE = RequestAuthorization("p", "o", "anna", 500, "GBP", "tok_ok", 1)
CAPTURE = RequestCapture("p", "o", 500, 1)
VOID = RequestVoid("p", "o", "GBP", 1)
REFUND = RequestRefund("p", "o", 500, 1)

NOTHING, ALL = ("p", "o", 0, "GBP"), ("p", "o", 500, "GBP")
ASKED = (PaymentAuthorizationRequested(*ALL, "k1", "anna", "tok_ok", "", REPEAT_AT),)
HELD = (*ASKED, PaymentAuthorized(*ALL, "k1", "auth"))
CAPTURING = (*HELD, PaymentCaptureRequested(*ALL, "k2", "anna", "", "auth", REPEAT_AT))
CHARGED = (*CAPTURING, PaymentCaptured(*ALL, "k2", "capture"))
VOIDING = (*HELD, PaymentVoidRequested(*ALL, "k2", "anna", "", "auth", REPEAT_AT))
VOIDED = (*VOIDING, PaymentVoided(*ALL, "k2", "void"))
REFUNDING = (*CHARGED, PaymentRefundRequested(*ALL, "k3", "anna", "", "capture", REPEAT_AT))
REFUNDED = (*REFUNDING, PaymentRefunded(*ALL, "k3", "refund"))
DECLINED = (*ASKED, PaymentDeclined(*NOTHING, "k1", "", "declined"))


def says(verb: str, key: str, outcome: str, reference: str = "", code: str = "") -> RecordProviderResult:
    return RecordProviderResult("p", verb, key, outcome, reference, code, None)


# Whose it is.

ANNA, BEN = Actor("customer", "anna"), Actor("customer", "ben")


@pytest.mark.parametrize(
    "command", [AUTHORIZE, CAPTURE, VOID, REFUND, says("authorization", "k1", "succeeded")]
)
@pytest.mark.parametrize("history", [(), ASKED, HELD, CHARGED])
def test_to_a_customer_another_ones_payment_does_not_exist(
    history: tuple[object, ...], command: object
) -> None:
    Given(DECIDER, *history).when(command, BEN, NOW).then_rejected(UnknownPayment)


@pytest.mark.parametrize("actor", [ANNA, SAGA, DEADLINE, SANDBOX, SHOP, Actor("operator", "olga")])
def test_the_owner_the_shop_and_the_machinery_may_act_on_a_payment(actor: Actor) -> None:
    requested = PaymentCaptureRequested(*ALL, KEY, "anna", "", "auth", REPEAT_AT)
    Given(DECIDER, *HELD).when(CAPTURE, actor, NOW).then(requested)


def test_a_customer_may_ask_for_a_payment_of_their_own() -> None:
    requested = PaymentAuthorizationRequested(*ALL, KEY, "anna", "tok_ok", "", REPEAT_AT)
    Given(DECIDER).when(AUTHORIZE, ANNA, NOW).then(requested)


def test_nobody_but_the_machinery_lets_go_of_what_nobody_asked_for() -> None:
    Given(DECIDER).when(VOID, ANNA, NOW).then_rejected(UnknownPayment)


# What is asked.


def test_an_authorization_is_requested_under_the_id_of_its_event() -> None:
    requested = PaymentAuthorizationRequested(*ALL, KEY, "anna", "tok_ok", "", REPEAT_AT)
    Given(DECIDER).when(AUTHORIZE, SAGA, NOW).then(requested).then_answers(Answer("pending"))


def test_a_capture_names_the_authorization() -> None:
    requested = PaymentCaptureRequested(*ALL, KEY, "anna", "", "auth", REPEAT_AT)
    Given(DECIDER, *HELD).when(CAPTURE, SAGA, NOW).then(requested).then_answers(Answer("pending"))


def test_a_void_names_the_authorization() -> None:
    requested = PaymentVoidRequested(*ALL, KEY, "anna", "", "auth", REPEAT_AT)
    Given(DECIDER, *HELD).when(VOID, SAGA, NOW).then(requested).then_answers(Answer("pending"))


def test_a_refund_names_the_capture() -> None:
    requested = PaymentRefundRequested(*ALL, KEY, "anna", "", "capture", REPEAT_AT)
    Given(DECIDER, *CHARGED).when(REFUND, SAGA, NOW).then(requested).then_answers(Answer("pending"))


@pytest.mark.parametrize(
    ("history", "command", "status"),
    [
        (ASKED, AUTHORIZE, "pending"),
        (HELD, AUTHORIZE, "done"),
        (DECLINED, AUTHORIZE, "failed"),
        (CAPTURING, CAPTURE, "pending"),
        (CHARGED, CAPTURE, "done"),
        (VOIDING, VOID, "pending"),
        (VOIDED, VOID, "done"),
        (DECLINED, VOID, "nothing"),
        (REFUNDING, REFUND, "pending"),
        (REFUNDED, REFUND, "done"),
    ],
)
def test_asking_twice_moves_nothing_and_says_what_became_of_the_first(
    history: tuple[object, ...], command: object, status: str
) -> None:
    Given(DECIDER, *history).when(command, SAGA, NOW).then_nothing().then_answers(Answer(status))


@pytest.mark.parametrize(
    "history", [ASKED, DECLINED, VOIDING, VOIDED, (*ASKED, PaymentVoidDeferred(*NOTHING))]
)
def test_nothing_is_captured_that_is_not_held(history: tuple[object, ...]) -> None:
    Given(DECIDER, *history).when(CAPTURE, SAGA, NOW).then_rejected(PaymentHoldsTooLittle)


def test_no_more_is_captured_than_is_authorized() -> None:
    more = RequestCapture("p", "o", 501, 1)
    Given(DECIDER, *HELD).when(more, SAGA, NOW).then_rejected(PaymentHoldsTooLittle)


def test_no_more_is_refunded_than_is_captured() -> None:
    more = RequestRefund("p", "o", 501, 1)
    Given(DECIDER, *CHARGED).when(more, SAGA, NOW).then_rejected(PaymentHoldsTooLittle)
    Given(DECIDER, *HELD).when(REFUND, SAGA, NOW).then_rejected(PaymentHoldsTooLittle)


@pytest.mark.parametrize("amount", [0, -1])
def test_nothing_and_less_is_neither_captured_nor_refunded(amount: int) -> None:
    capture, refund = RequestCapture("p", "o", amount, 1), RequestRefund("p", "o", amount, 1)
    Given(DECIDER, *HELD).when(capture, SAGA, NOW).then_rejected(PaymentHoldsTooLittle)
    Given(DECIDER, *CHARGED).when(refund, SAGA, NOW).then_rejected(PaymentHoldsTooLittle)


def test_the_smallest_amount_may_be_captured_and_refunded() -> None:
    penny = ("p", "o", 1, "GBP")
    captured = PaymentCaptureRequested(*penny, KEY, "anna", "", "auth", REPEAT_AT)
    refunded = PaymentRefundRequested(*penny, KEY, "anna", "", "capture", REPEAT_AT)
    Given(DECIDER, *HELD).when(RequestCapture("p", "o", 1, 1), SAGA, NOW).then(captured)
    Given(DECIDER, *CHARGED).when(RequestRefund("p", "o", 1, 1), SAGA, NOW).then(refunded)


def test_what_is_captured_is_not_voided() -> None:
    Given(DECIDER, *CHARGED).when(VOID, SAGA, NOW).then_rejected(PaymentIsCaptured)


def test_a_payment_that_nobody_asked_for_is_unknown() -> None:
    for command in (CAPTURE, REFUND, says("capture", "k", "succeeded")):
        Given(DECIDER).when(command, SAGA, NOW).then_rejected(UnknownPayment)


# A void that comes early.


def test_a_void_before_the_authorization_was_asked_for_prevents_it_for_ever() -> None:
    shop = Given(DECIDER)
    first = shop.when(VOID, SAGA, NOW)
    first.then(PaymentDeclined(*NOTHING, "", "", VOID_CAME_FIRST)).then_answers(Answer("nothing"))
    shop.when(AUTHORIZE, SAGA, NOW).then_nothing().then_answers(Answer("failed"))


def test_a_void_while_an_authorization_is_pending_is_remembered_and_done_when_that_is_known() -> None:
    shop = Given(DECIDER, *ASKED)
    shop.when(VOID, SAGA, NOW).then(PaymentVoidDeferred(*NOTHING)).then_answers(Answer("pending"))
    shop.when(VOID, SAGA, NOW).then_nothing().then_answers(Answer("pending"))
    known = shop.when(says("authorization", "k1", "succeeded", "auth"), SANDBOX, NOW)
    requested = PaymentVoidRequested(*ALL, SECOND_KEY, "anna", "", "auth", REPEAT_AT)
    known.then(PaymentAuthorized(*ALL, "k1", "auth"), requested)
    shop.when(says("void", SECOND_KEY, "succeeded", "void"), SANDBOX, NOW).then(
        PaymentVoided(*ALL, SECOND_KEY, "void")
    )


def test_a_remembered_void_of_a_declined_payment_has_nothing_to_do() -> None:
    shop = Given(DECIDER, *ASKED, PaymentVoidDeferred(*NOTHING))
    shop.when(says("authorization", "k1", "declined", code="declined"), SANDBOX, NOW).then(DECLINED[-1])
    shop.when(VOID, SAGA, NOW).then_nothing().then_answers(Answer("nothing"))


def test_a_void_while_a_capture_is_pending_is_done_if_the_capture_fails() -> None:
    shop = Given(DECIDER, *CAPTURING)
    shop.when(VOID, SAGA, NOW).then(PaymentVoidDeferred(*ALL)).then_answers(Answer("pending"))
    failed = PaymentCaptureFailed(*NOTHING, "k2", "", "expired_card")
    requested = PaymentVoidRequested(*ALL, SECOND_KEY, "anna", "", "auth", REPEAT_AT)
    shop.when(says("capture", "k2", "failed", code="expired_card"), SANDBOX, NOW).then(failed, requested)


def test_a_void_while_a_capture_is_pending_gives_way_to_the_capture() -> None:
    shop = Given(DECIDER, *CAPTURING, PaymentVoidDeferred(*ALL))
    shop.when(says("capture", "k2", "succeeded", "capture"), SANDBOX, NOW).then(CHARGED[-1])
    shop.when(VOID, SAGA, NOW).then_rejected(PaymentIsCaptured)
    requested = PaymentRefundRequested(*ALL, KEY, "anna", "", "capture", REPEAT_AT)
    shop.when(REFUND, SAGA, NOW).then(requested)


# What the provider says.


@pytest.mark.parametrize(
    ("history", "fact", "event"),
    [
        (ASKED, says("authorization", "k1", "succeeded", "auth"), HELD[-1]),
        (ASKED, says("authorization", "k1", "declined", "", "declined"), DECLINED[-1]),
        (CAPTURING, says("capture", "k2", "succeeded", "capture"), CHARGED[-1]),
        (VOIDING, says("void", "k2", "succeeded", "void"), VOIDED[-1]),
        (VOIDING, says("void", "k2", "failed", "", "gone"), PaymentVoidFailed(*NOTHING, "k2", "", "gone")),
        (REFUNDING, says("refund", "k3", "succeeded", "refund"), REFUNDED[-1]),
    ],
)
def test_an_answer_moves_what_was_asked_once(
    history: tuple[object, ...], fact: RecordProviderResult, event: object
) -> None:
    shop = Given(DECIDER, *history)
    shop.when(fact, SANDBOX, NOW).then(event)
    shop.when(fact, SANDBOX, NOW).then_nothing()


def test_a_late_failure_never_lowers_a_success() -> None:
    shop = Given(DECIDER, *CHARGED)
    late = shop.when(says("capture", "k2", "failed", code="late"), SANDBOX, NOW)
    late.then(ProviderEventIgnored(*NOTHING, "k2", "capture", "settled_as_succeeded"))
    ledger = shop.get("payment/p")
    assert ledger is not None
    assert ledger.captured == 500


def test_doubt_about_what_is_certain_is_no_news() -> None:
    Given(DECIDER, *CHARGED).when(says("capture", "k2", "unknown"), SANDBOX, NOW).then_nothing()


def test_an_answer_to_nothing_that_was_asked_is_ignored_and_written_down() -> None:
    ignored = ProviderEventIgnored(*NOTHING, "k9", "capture", "unknown_key")
    Given(DECIDER, *HELD).when(says("capture", "k9", "succeeded", "c"), SANDBOX, NOW).then(ignored)


def test_a_capture_that_failed_may_be_asked_for_again_under_another_key() -> None:
    shop = Given(DECIDER, *CAPTURING, PaymentCaptureFailed(*NOTHING, "k2", "", "no"))
    shop.when(CAPTURE, SAGA, NOW).then(PaymentCaptureRequested(*ALL, KEY, "anna", "", "auth", REPEAT_AT))


# What the provider tells unasked: a hint, never money.


def ledger_of(shop: Given) -> Payment:
    ledger = shop.get("payment/p")
    assert isinstance(ledger, Payment)
    return ledger


def notice(key: str, outcome: str = "succeeded", event: str = "evt1", **told: Any) -> NoteProviderEvent:
    facts: dict[str, Any] = {"order_id": "o", "amount": 500, "currency": "GBP", "verb": "capture"} | told
    return NoteProviderEvent("p", **facts, key=key, outcome=outcome, provider_event_id=event)


SOON = Micros(NOW + NOTICE_PATIENCE)
HINT = ProviderEventNoted(*ALL, "k2", "capture", "succeeded", "evt1", SOON)


def test_a_notice_of_what_is_pending_moves_nothing_and_brings_the_next_question_forward() -> None:
    shop = Given(DECIDER, *CAPTURING)
    before = ledger_of(shop)
    shop.when(notice("k2"), SANDBOX, NOW).then(HINT).then_answers(Answer("pending"))
    ledger = ledger_of(shop)
    assert (ledger.captured, ledger.settled) == (before.captured, before.settled) == (0, before.settled)
    due = DECIDER.deadline("payment/p", ledger)
    assert due is not None
    assert due.at == SOON
    (again,) = shop.when(due.command, DEADLINE, due.at).events
    assert (type(again), again.key, again.reference) == (PaymentRequestRepeated, "k2", "auth")


def test_a_notice_before_the_answer_leads_to_what_the_answer_alone_leads_to() -> None:
    hinted, plain = Given(DECIDER, *CAPTURING, HINT), Given(DECIDER, *CAPTURING)
    for shop in (hinted, plain):
        shop.when(says("capture", "k2", "succeeded", "capture"), SANDBOX, NOW).then(CHARGED[-1])
    assert replace(ledger_of(hinted), heard=()) == ledger_of(plain)


def test_doubt_that_would_be_looked_into_in_minutes_is_looked_into_at_once() -> None:
    doubt = PaymentUnknown(*ALL, "k2", "auth", "capture", Micros(NOW + 300 * SECOND))
    Given(DECIDER, *CAPTURING, doubt).when(notice("k2"), SANDBOX, NOW).then(HINT)


def test_a_notice_never_puts_a_question_off() -> None:
    doubt = PaymentUnknown(*ALL, "k2", "auth", "capture", Micros(NOW + 1))
    hint = replace(HINT, repeat_at=Micros(NOW + 1))
    Given(DECIDER, *CAPTURING, doubt).when(notice("k2"), SANDBOX, NOW).then(hint)


@pytest.mark.parametrize("history", [CAPTURING, CHARGED, HELD])
@pytest.mark.parametrize("told", [{}, {"amount": 501}, {"key": "k9"}])
def test_the_same_provider_event_twice_changes_nothing_the_second_time(
    history: tuple[object, ...], told: dict[str, Any]
) -> None:
    shop = Given(DECIDER, *history)
    said = notice(**{"key": "k2"} | told)
    shop.when(said, SANDBOX, NOW)
    shop.when(said, SANDBOX, NOW + 1).then_nothing()


def test_a_notice_of_what_is_settled_is_no_news() -> None:
    Given(DECIDER, *CHARGED).when(notice("k2"), SANDBOX, NOW).then_nothing()
    declined = notice("k1", "declined", verb="authorization")
    Given(DECIDER, *DECLINED).when(declined, SANDBOX, NOW).then_nothing()


@pytest.mark.parametrize("history", [CAPTURING, CHARGED])
@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"amount": 501}, "amount_differs"),
        ({"currency": "EUR"}, "currency_differs"),
        ({"order_id": "another"}, "order_differs"),
    ],
)
def test_a_notice_that_names_another_thing_than_was_asked_is_ignored_and_says_in_what(
    history: tuple[object, ...], told: dict[str, Any], why: str
) -> None:
    shop = Given(DECIDER, *history)
    before = ledger_of(shop)
    ignored = ProviderEventIgnored(*NOTHING, "k2", "capture", why, "evt1")
    shop.when(notice("k2", **told), SANDBOX, NOW).then(ignored)
    assert ledger_of(shop) == replace(before, heard=("evt1",))


def test_a_notice_that_contradicts_what_is_settled_or_knows_another_key_is_written_down() -> None:
    contradicts = ProviderEventIgnored(*NOTHING, "k2", "capture", "settled_as_succeeded", "evt1")
    Given(DECIDER, *CHARGED).when(notice("k2", "declined"), SANDBOX, NOW).then(contradicts)
    unheard_of = ProviderEventIgnored(*NOTHING, "k9", "capture", "unknown_key", "evt1")
    Given(DECIDER, *CHARGED).when(notice("k9"), SANDBOX, NOW).then(unheard_of)


def test_of_very_many_notices_the_latest_are_known_and_an_older_one_told_again_moves_nothing() -> None:
    shop = Given(DECIDER, *CHARGED)
    for number in range(HEARD_KEPT + 1):
        shop.when(notice("k2", event=f"evt{number}", amount=501), SANDBOX, NOW)
    before = ledger_of(shop)
    assert before.heard == tuple(f"evt{number}" for number in range(1, HEARD_KEPT + 1))
    shop.when(notice("k2", event="evt0", amount=501), SANDBOX, NOW)
    assert replace(ledger_of(shop), heard=()) == replace(before, heard=())


def test_a_notice_of_a_payment_that_nobody_asked_for_is_rejected() -> None:
    Given(DECIDER).when(notice("k1"), SANDBOX, NOW).then_rejected(UnknownPayment)


# Doubt.


def test_doubt_is_written_down_with_what_was_asked_and_when_it_is_asked_again() -> None:
    doubt = PaymentUnknown(*ALL, "k2", "auth", "capture", Micros(NOW + BACK_OFF))
    Given(DECIDER, *CAPTURING).when(says("capture", "k2", "unknown"), SANDBOX, NOW).then(doubt)


def test_the_first_question_is_repeated_as_it_was_after_pauses_that_double() -> None:
    shop, at = Given(DECIDER, *CAPTURING), REPEAT_AT
    for attempt, pause in ((2, 2 * BACK_OFF), (3, 4 * BACK_OFF), (4, 8 * BACK_OFF)):
        later = Micros(at + ANSWER_LIMIT + pause)
        repeated = PaymentRequestRepeated(*ALL, "k2", "anna", "", "auth", later, "capture", attempt)
        shop.when(RepeatPaymentRequest("p", "capture", "k2", attempt), DEADLINE, at).then(repeated)
        at = later


@pytest.mark.parametrize(
    ("history", "verb", "key", "event"),
    [
        (ASKED, "authorization", "k1", PaymentDeclined),
        (CAPTURING, "capture", "k2", PaymentCaptureFailed),
        (VOIDING, "void", "k2", PaymentVoidFailed),
        (REFUNDING, "refund", "k3", PaymentRefundFailed),
    ],
)
def test_what_fails_is_named_by_what_was_asked_and_says_why(
    history: tuple[Any, ...], verb: str, key: str, event: type
) -> None:
    answer = says(verb, key, "failed", code="no_such_card")
    Given(DECIDER, *history).when(answer, SANDBOX, NOW).then(event(*NOTHING, key, "", "no_such_card"))


def test_a_payment_that_is_asked_for_holds_nothing_yet_and_is_asked_for_again() -> None:
    asked = Given(DECIDER, *ASKED).get("payment/p")
    pending = PendingRequest("authorization", "k1", 500, "tok_ok", "", 1, REPEAT_AT)
    assert asked == Payment("p", "o", "anna", "GBP", 0, 0, 0, 0, "", "", pending, False, ())
    again = RepeatPaymentRequest("p", "authorization", "k1", 2)
    assert DECIDER.deadline("payment/p", asked) == Deadline(REPEAT_AT, again)


@pytest.mark.parametrize(
    "history",
    [
        (*ASKED, PaymentVoidDeferred(*NOTHING), *HELD[1:], *VOIDING[2:]),
        (*ASKED, PaymentVoidDeferred(*NOTHING), *DECLINED[1:]),
        (*CAPTURING, PaymentVoidDeferred(*ALL), *CHARGED[3:]),
    ],
    ids=["voided", "declined", "captured"],
)
def test_a_void_is_remembered_until_it_is_asked_for_or_there_is_nothing_to_void(history: Any) -> None:
    payment: Payment = Given(DECIDER, *history).get("payment/p")  # type: ignore[assignment]  # it was asked for
    assert payment.void_deferred is False


def test_an_answer_is_answered_by_how_the_payment_stands() -> None:
    shop = Given(DECIDER, *CAPTURING)
    shop.when(says("capture", "k2", "unknown"), SANDBOX, NOW).then_answers(Answer("pending"))
    shop.when(says("capture", "k2", "succeeded", "cap"), SANDBOX, NOW).then_answers(Answer("done"))


def test_an_unknown_answer_is_asked_again_with_the_first_key_later_and_later() -> None:
    shop, now = Given(DECIDER, *CAPTURING), NOW
    pauses = []
    for attempt in range(1, 12):
        (doubt,) = shop.when(says("capture", "k2", "unknown"), SANDBOX, now).events
        assert isinstance(doubt, PaymentUnknown)
        pauses.append((doubt.repeat_at - now) // SECOND)
        due = DECIDER.deadline("payment/p", shop.get("payment/p"))
        assert due is not None
        assert due.at == doubt.repeat_at
        now = due.at
        (again,) = shop.when(due.command, DEADLINE, now).events
        assert isinstance(again, PaymentRequestRepeated)
        assert (again.key, again.verb, again.reference) == ("k2", "capture", "auth")
        assert (again.amount, again.attempt) == (500, attempt + 1)
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_a_request_that_nobody_answers_is_repeated_with_its_token() -> None:
    shop = Given(DECIDER, *ASKED)
    due = DECIDER.deadline("payment/p", shop.get("payment/p"))
    assert due is not None
    assert due.at == REPEAT_AT
    (again,) = shop.when(due.command, DEADLINE, due.at).events
    assert (again.key, again.token, again.owner) == ("k1", "tok_ok", "anna")


def test_a_request_is_not_repeated_before_its_time_or_after_its_answer() -> None:
    repeat = RepeatPaymentRequest("p", "authorization", "k1", 2)
    Given(DECIDER, *ASKED).when(repeat, DEADLINE, REPEAT_AT - 1).then_nothing()
    Given(DECIDER, *HELD).when(repeat, DEADLINE, REPEAT_AT).then_nothing()


def test_a_payment_at_rest_has_no_deadline() -> None:
    for history in (HELD, CHARGED, VOIDED, REFUNDED, DECLINED):
        assert DECIDER.deadline("payment/p", Given(DECIDER, *history).get("payment/p")) is None


# Always.

commands = st.one_of(
    st.sampled_from([AUTHORIZE, CAPTURE, VOID, REFUND]),
    st.builds(RequestCapture, st.just("p"), st.just("o"), st.integers(1, 600), st.just(1)),
    st.builds(RequestRefund, st.just("p"), st.just("o"), st.integers(1, 600), st.just(1)),
    st.sampled_from(["succeeded", "declined", "failed", "unknown", "repeat", "notice", "notice of more"]),
)


@given(st.lists(commands, max_size=40))
def test_money_is_conserved_whatever_is_asked_and_answered(asked: list[Any]) -> None:
    shop = Given(DECIDER)
    for number, command in enumerate(asked):
        ledger: Payment | None = shop.get("payment/p")
        now = NOW + number * 400 * SECOND
        if isinstance(command, str):
            if ledger and ledger.pending:
                shop.when(_answer(ledger, command), SANDBOX, now, event_id(COMMAND_ID, number + 10))
        else:
            shop.when(command, SAGA, now, event_id(COMMAND_ID, number + 10))
        check(shop.get("payment/p"))


def _answer(ledger: Payment, outcome: str) -> RecordProviderResult | RepeatPaymentRequest | NoteProviderEvent:
    pending = ledger.pending
    assert pending is not None
    if outcome.startswith("notice"):
        more = 1 if outcome == "notice of more" else 0
        return notice(pending.key, event=f"{pending.key}{more}", amount=pending.amount + more)
    if outcome == "repeat":
        return RepeatPaymentRequest("p", pending.verb, pending.key, pending.attempt + 1)
    return says(pending.verb, pending.key, outcome, "reference")


def check(ledger: Payment | None) -> None:
    if ledger is None:
        return
    refunding = ledger.pending.amount if ledger.pending and ledger.pending.verb == "refund" else 0
    capturing = ledger.pending.amount if ledger.pending and ledger.pending.verb == "capture" else 0
    assert ledger.captured + capturing + ledger.voided <= ledger.authorized <= 500
    assert ledger.refunded + refunding <= ledger.captured
    assert len(ledger.settled) <= SETTLED_KEPT
    assert len(ledger.heard) == len(set(ledger.heard)) <= HEARD_KEPT
