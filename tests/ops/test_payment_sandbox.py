"""The payment sandbox over HTTP, as a provider's client meets it: a real process, a real disk."""

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPException
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.payment_sandbox.laws import Ask, Verb
from ops.payment_sandbox.ledger import Ledger
from tests.sandbox_process import Reply, SandboxProcess, until

SLOW_S = 1.5
"""So long that a caller who leaves at once has left before, also on a busy machine."""


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    process = SandboxProcess(tmp_path_factory.mktemp("sandbox"), DAYBOOK_SANDBOX_SLOW_S=str(SLOW_S))
    process.start()
    yield process
    assert process.terminate() == 0


@pytest.fixture
def own_sandbox(tmp_path: Path) -> Iterator[Callable[..., SandboxProcess]]:
    """For tests that kill: sandboxes of their own."""
    started: list[SandboxProcess] = []

    def start(**environment: str) -> SandboxProcess:
        started.append(SandboxProcess(tmp_path, **environment))
        started[-1].start()
        return started[-1]

    yield start
    for process in started:
        if process.running():
            process.kill()


def authorization(payment: str, amount: int = 1_000, token: str = "tok_ok") -> dict[str, Any]:
    of_whom = {"payment_id": payment, "order_id": f"order-of-{payment}"}
    return of_whom | {"amount": amount, "currency": "GBP", "token": token}


def authorize(at: SandboxProcess, name: str, amount: int = 1_000, token: str = "tok_ok") -> Reply:
    return at.post("/v1/authorizations", authorization(name, amount, token), f"authorize-{name}")


def capture(at: SandboxProcess, authorized: Reply, amount: int, key: str) -> Reply:
    path = f"/v1/authorizations/{authorized.fields['authorization_id']}/captures"
    return at.post(path, {"amount": amount}, key)


def void(at: SandboxProcess, authorized: Reply, key: str) -> Reply:
    return at.post(f"/v1/authorizations/{authorized.fields['authorization_id']}/voids", {}, key)


def refund(at: SandboxProcess, captured: Reply, amount: int, key: str) -> Reply:
    return at.post(f"/v1/captures/{captured.fields['capture_id']}/refunds", {"amount": amount}, key)


def rows_of(at: SandboxProcess, payment: str) -> list[dict[str, Any]]:
    return [row for row in at.ledger() if row["payment_id"] == payment]


def said(reply: Reply) -> tuple[int, str]:
    return reply.status, reply.fields.get("code", "")


# What every ledger must obey, read from its rows alone.


def breaches(rows: list[dict[str, Any]]) -> list[str]:
    """Each amount law that a prefix of the ledger breaks, and each key that was done twice."""
    found: list[str] = []
    authorized: Counter[str] = Counter()
    captured: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    refunded: Counter[str] = Counter()
    voided: set[str] = set()
    for row in (row for row in rows if row["outcome"] == "succeeded"):
        holder, taking = row["authorization_id"], row["capture_id"]
        match row["verb"]:
            case "authorization":
                authorized[holder] += row["amount"]
            case "capture":
                captured[holder] += row["amount"]
                taken[taking] += row["amount"]
            case "void":
                voided.add(holder)
            case "refund":
                refunded[taking] += row["amount"]
        if captured[holder] > authorized[holder]:
            found.append(f"{row['seq']}: captured more than authorized")
        if refunded[taking] > taken[taking]:
            found.append(f"{row['seq']}: refunded more than captured")
        if holder in voided and captured[holder]:
            found.append(f"{row['seq']}: money on a voided authorization")
    found += [f"{key}: done {n} times" for key, n in Counter(row["key"] for row in rows).items() if n > 1]
    return found


def a_row(seq: int, verb: str, amount: int, **other: str) -> dict[str, Any]:
    named = {"authorization_id": "a", "capture_id": "" if verb in {"authorization", "void"} else "c"}
    return (
        {"seq": seq, "key": str(seq), "verb": verb, "amount": amount, "outcome": "succeeded"} | named | other
    )


@pytest.mark.parametrize(
    ("planted", "breach"),
    [
        ([a_row(2, "capture", 11)], "2: captured more than authorized"),
        ([a_row(2, "capture", 9), a_row(3, "refund", 10)], "3: refunded more than captured"),
        ([a_row(2, "capture", 9), a_row(3, "void", 10)], "3: money on a voided authorization"),
        ([a_row(2, "capture", 1), a_row(3, "capture", 1, key="2")], "2: done 2 times"),
    ],
)
def test_the_checker_finds_each_planted_breach(planted, breach):
    assert breaches([a_row(1, "authorization", 10), *planted]) == [breach]


# Money moves.


def test_an_authorization_is_captured_in_parts_and_refunded_in_parts(sandbox):
    authorized = authorize(sandbox, "parts")
    first = capture(sandbox, authorized, 600, "parts-1")
    second = capture(sandbox, authorized, 400, "parts-2")
    refund(sandbox, first, 500, "parts-3")
    refund(sandbox, first, 100, "parts-4")
    assert authorized.status == first.status == second.status == 201
    movements = [(row["verb"], row["amount"], row["outcome"]) for row in rows_of(sandbox, "parts")]
    assert movements == [
        ("authorization", 1_000, "succeeded"),
        ("capture", 600, "succeeded"),
        ("capture", 400, "succeeded"),
        ("refund", 500, "succeeded"),
        ("refund", 100, "succeeded"),
    ]


def test_a_ledger_row_names_everything_an_auditor_needs(sandbox):
    authorized = authorize(sandbox, "row", 250)
    [row] = rows_of(sandbox, "row")
    assert row.pop("seq") > 0
    assert row.pop("at").endswith("+00:00")
    assert row == {
        "verb": "authorization",
        "key": "authorize-row",
        "payment_id": "row",
        "order_id": "order-of-row",
        "authorization_id": authorized.fields["authorization_id"],
        "capture_id": "",
        "amount": 250,
        "currency": "GBP",
        "outcome": "succeeded",
    }


def test_no_more_is_captured_than_was_authorized(sandbox):
    authorized = authorize(sandbox, "over", 100)
    capture(sandbox, authorized, 99, "over-1")
    assert said(capture(sandbox, authorized, 2, "over-2")) == (409, "amount_too_large")
    assert said(capture(sandbox, authorized, 1, "over-3")) == (201, "")


def test_no_more_is_refunded_than_was_captured(sandbox):
    captured = capture(sandbox, authorize(sandbox, "back"), 300, "back-1")
    refund(sandbox, captured, 299, "back-2")
    assert said(refund(sandbox, captured, 2, "back-3")) == (409, "amount_too_large")


def test_a_void_lets_go_once_and_ends_the_authorization(sandbox):
    authorized = authorize(sandbox, "void")
    assert void(sandbox, authorized, "void-1").fields["amount"] == 1_000
    assert said(void(sandbox, authorized, "void-2")) == (409, "already_voided")
    assert said(capture(sandbox, authorized, 1, "void-3")) == (409, "already_voided")


def test_what_was_captured_is_not_voided(sandbox):
    authorized = authorize(sandbox, "late-void")
    capture(sandbox, authorized, 1, "late-void-1")
    assert said(void(sandbox, authorized, "late-void-2")) == (409, "already_captured")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/authorizations/auth_none/captures", {"amount": 1}),
        ("/v1/authorizations/auth_none/voids", {}),
        ("/v1/captures/cap_none/refunds", {"amount": 1}),
    ],
)
def test_what_nobody_authorized_or_captured_is_not_found_for_ever(sandbox, path, body):
    assert said(sandbox.post(path, body, f"none-{path}")) == (404, "not_found")
    assert sandbox.post(path, body, f"none-{path}").replayed


# One key, one effect.


def test_the_same_key_again_gets_the_stored_answer(sandbox):
    first, again = authorize(sandbox, "twice"), authorize(sandbox, "twice")
    assert (first.replayed, again.replayed) == (False, True)
    assert (again.status, again.fields) == (first.status, first.fields)
    assert len(rows_of(sandbox, "twice")) == 1


def test_a_refusal_is_stored_like_a_success(sandbox):
    authorized = authorize(sandbox, "refusal", 10)
    refusal = capture(sandbox, authorized, 11, "refusal-1")
    again = capture(sandbox, authorized, 11, "refusal-1")
    assert again.replayed
    assert again.fields == refusal.fields


def test_the_same_key_with_another_body_is_refused_and_changes_nothing(sandbox):
    first = authorize(sandbox, "body", 10)
    other = sandbox.post("/v1/authorizations", authorization("body", 11), "authorize-body")
    assert said(other) == (422, "idempotency_key_reused")
    assert authorize(sandbox, "body", 10).fields == first.fields
    assert len(rows_of(sandbox, "body")) == 1


def test_the_same_key_and_body_on_another_path_are_refused(sandbox):
    one, two = authorize(sandbox, "path-1"), authorize(sandbox, "path-2")
    capture(sandbox, one, 5, "path-key")
    assert said(capture(sandbox, two, 5, "path-key")) == (422, "idempotency_key_reused")


def test_the_order_of_fields_does_not_make_another_body(sandbox):
    first = authorize(sandbox, "fields")
    turned = dict(reversed(authorization("fields").items()))
    assert sandbox.post("/v1/authorizations", turned, "authorize-fields").fields == first.fields


def test_concurrent_callers_with_one_key_make_one_ledger_row(sandbox):
    with ThreadPoolExecutor(32) as callers:
        replies = list(callers.map(lambda _: authorize(sandbox, "crowd"), range(64)))
    assert Counter(reply.replayed for reply in replies) == {False: 1, True: 63}
    assert len({reply.fields["authorization_id"] for reply in replies}) == 1
    assert len(rows_of(sandbox, "crowd")) == 1


# Cards that misbehave.


def test_a_declined_card_is_declined_every_time(sandbox):
    declined = authorize(sandbox, "declined", token="tok_declined")
    assert said(declined) == (402, "declined")
    assert declined.headers["content-type"] == "application/problem+json"
    assert authorize(sandbox, "declined", token="tok_declined").replayed
    assert [row["outcome"] for row in rows_of(sandbox, "declined")] == ["declined"]


def test_a_slow_card_answers_late_once_and_then_at_once(sandbox):
    began = time.monotonic()
    slow = authorize(sandbox, "slow", token="tok_slow")
    took_s = time.monotonic() - began
    assert slow.status == 201
    assert took_s >= SLOW_S
    assert authorize(sandbox, "slow", token="tok_slow").replayed


def test_a_slow_card_is_charged_even_when_its_caller_has_left(sandbox):
    with pytest.raises(TimeoutError):
        sandbox.post("/v1/authorizations", authorization("left", token="tok_slow"), "left", 0.1)
    assert rows_of(sandbox, "left") == []
    until(lambda: len(rows_of(sandbox, "left")) == 1, 60.0)


def test_a_timeout_after_success_is_answered_at_once_when_asked_again(sandbox):
    body = authorization("hang", token="tok_timeout_after_success")
    with pytest.raises(TimeoutError):
        sandbox.post("/v1/authorizations", body, "hang", 0.5)
    until(lambda: len(rows_of(sandbox, "hang")) == 1, 60.0)
    assert sandbox.post("/v1/authorizations", body, "hang").replayed
    assert len(rows_of(sandbox, "hang")) == 1


def test_a_server_error_has_no_effect_twice_and_then_succeeds(sandbox):
    replies = [authorize(sandbox, "error", token="tok_server_error") for _ in range(4)]
    assert [reply.status for reply in replies] == [500, 500, 201, 201]
    assert replies[3].replayed
    assert len(rows_of(sandbox, "error")) == 1


# What is not a request.


@pytest.mark.parametrize(
    "change",
    [
        {"token": "tok_unheard_of"},
        {"amount": 0},
        {"amount": -1},
        {"amount": 1.5},
        {"amount": "10"},
        {"amount": True},
        {"amount": 10**30},
        {"currency": "gbp"},
        {"payment_id": ""},
        {"order_id": "\ud800"},
        {"surprise": 1},
    ],
)
def test_what_reads_but_is_not_allowed_is_422_and_leaves_no_trace(sandbox, change):
    before = len(sandbox.ledger())
    reply = sandbox.post("/v1/authorizations", authorization("bad") | change, "bad")
    assert said(reply) == (422, "invalid")
    assert len(sandbox.ledger()) == before


def test_what_does_not_read_is_400(sandbox):
    assert said(sandbox.post("/v1/authorizations", b"{", "unread")) == (400, "malformed")


def test_a_post_without_a_key_is_400(sandbox):
    reply = sandbox.post("/v1/authorizations", authorization("keyless"), None)
    assert said(reply) == (400, "idempotency_key_missing")


def test_the_ledger_is_read_page_by_page_without_gap_or_repeat(sandbox):
    for n in range(3):
        authorize(sandbox, f"page-{n}")
    whole = sandbox.ledger()
    first = sandbox.get("/v1/ledger?limit=2").fields
    second = sandbox.get(f"/v1/ledger?cursor={first['next_cursor']}&limit=2").fields
    assert first["rows"] + second["rows"] == whole[:4]
    assert [row["seq"] for row in whole] == list(range(1, len(whole) + 1))


# Crashes, load, the end.


def test_a_crash_between_two_calls_keeps_the_answer_and_the_row(own_sandbox):
    sandbox = own_sandbox()
    first = authorize(sandbox, "crash")
    sandbox.kill()
    sandbox.start()
    again = authorize(sandbox, "crash")
    assert again.replayed
    assert again.fields == first.fields
    assert len(sandbox.ledger()) == 1


def test_tries_of_a_server_error_survive_a_crash(own_sandbox):
    sandbox = own_sandbox()
    authorize(sandbox, "error", token="tok_server_error")
    sandbox.kill()
    sandbox.start()
    assert [authorize(sandbox, "error", token="tok_server_error").status for _ in range(2)] == [500, 201]


def test_a_crash_under_load_loses_no_answer_that_was_given(own_sandbox):
    sandbox = own_sandbox()
    given_answers: dict[str, str] = {}

    def ask(n: int) -> None:
        try:
            reply = authorize(sandbox, str(n))
        except (OSError, HTTPException):  # killed before it could answer
            return
        given_answers[str(n)] = reply.fields["authorization_id"]

    with ThreadPoolExecutor(16) as callers:
        asked = [callers.submit(ask, n) for n in range(2_000)]
        until(lambda: len(given_answers) >= 200, 30.0)
        sandbox.kill()
        for future in asked:
            future.result()
    sandbox.start()
    assert 200 <= len(given_answers) < 2_000
    kept = {row["payment_id"]: row["authorization_id"] for row in sandbox.ledger()}
    assert given_answers.items() <= kept.items()


def test_a_full_queue_is_refused_with_a_time_to_come_again(own_sandbox):
    sandbox = own_sandbox(DAYBOOK_SANDBOX_QUEUE="4")
    with ThreadPoolExecutor(64) as callers:
        with closing(sqlite3.connect(sandbox.state / "payment_sandbox.sqlite3", isolation_level=None)) as hog:
            hog.execute("BEGIN IMMEDIATE")
            asked = [callers.submit(authorize, sandbox, str(n)) for n in range(64)]
            until(lambda: sum(future.done() for future in asked) >= 48, 4.0)
            hog.execute("ROLLBACK")
        replies = [future.result() for future in asked]
    refused = [reply for reply in replies if reply.status == 503]
    assert len(refused) >= 48
    assert {reply.fields["code"] for reply in refused} == {"overloaded"}
    assert {reply.headers["retry-after"] for reply in refused} == {"1"}
    assert len(sandbox.ledger()) == 64 - len(refused) > 0


def test_a_ledger_that_cannot_be_written_is_a_503_and_heals(own_sandbox):
    sandbox = own_sandbox()
    with closing(sqlite3.connect(sandbox.state / "payment_sandbox.sqlite3", isolation_level=None)) as hog:
        hog.execute("BEGIN IMMEDIATE")
        assert said(authorize(sandbox, "locked")) == (503, "ledger_unavailable")
        hog.execute("ROLLBACK")
    assert said(authorize(sandbox, "locked")) == (201, "")


def test_sigterm_ends_pauses_and_exits_cleanly_with_the_ledger_whole(own_sandbox):
    sandbox = own_sandbox(DAYBOOK_SANDBOX_SLOW_S="60")
    with ThreadPoolExecutor(2) as callers:
        hanging = callers.submit(authorize, sandbox, "hang", token="tok_timeout_after_success")
        slow = callers.submit(authorize, sandbox, "slow", token="tok_slow")
        until(lambda: len(sandbox.ledger()) == 1, 60.0)
        assert sandbox.terminate() == 0
        assert hanging.result().status == 201
        assert said(slow.result()) == (503, "closing")
    sandbox.start()
    assert [row["payment_id"] for row in sandbox.ledger()] == ["hang"]


# The amount laws, whatever is asked.

operations = st.lists(
    st.tuples(st.sampled_from(list(Verb)), st.integers(0, 3), st.integers(1, 60), st.integers(0, 40)),
    max_size=60,
)


@given(operations=operations, commit_size=st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_no_sequence_of_requests_breaks_an_amount_law(tmp_path_factory, operations, commit_size):
    ledger = Ledger(tmp_path_factory.mktemp("ledger") / "ledger.sqlite3")
    made: dict[str, list[str]] = {"auth": [], "cap": []}
    asks: list[Ask] = []
    for verb, which, amount, key in operations:
        known = made["cap" if verb is Verb.REFUND else "auth"] or ["nothing"]
        reference = "" if verb is Verb.AUTHORIZATION else known[which % len(known)]
        fingerprint = f"{verb}{reference}{amount}".encode()
        asks.append(Ask(f"key-{key}", fingerprint, verb, reference, "p", "o", amount, "GBP", "tok_ok"))
        if len(asks) == commit_size:
            remember(made, ledger, asks)
            asks.clear()
    remember(made, ledger, asks)
    rows = ledger.page(0, 1_000)
    ledger.close()
    assert breaches(rows) == []
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))


def remember(made: dict[str, list[str]], ledger: Ledger, asks: list[Ask]) -> None:
    for answer in ledger.answer_all(asks):
        name = json.loads(answer.body).get("id", "")
        made.get(name.partition("_")[0], []).append(name)


@pytest.mark.parametrize("seed", range(3))
def test_concurrent_captures_voids_and_refunds_break_no_amount_law(sandbox, seed):
    authorized = [authorize(sandbox, f"storm-{seed}-{n}", 100) for n in range(4)]
    captured = [capture(sandbox, one, 40, f"storm-{seed}-first-{n}") for n, one in enumerate(authorized[:2])]
    chance = Random(seed)
    chosen = [(chance.choice("cccvrr"), chance.randrange(4), chance.randint(1, 60)) for _ in range(200)]

    def ask(numbered: tuple[int, tuple[str, int, int]]) -> Reply:
        n, (verb, which, amount) = numbered
        key = f"storm-{seed}-{n // 2}-{verb}{which}"  # some keys come twice, some with another amount
        if verb == "v":
            return void(sandbox, authorized[which], key)
        if verb == "r":
            return refund(sandbox, captured[which % 2], amount, key)
        return capture(sandbox, authorized[which], amount, key)

    with ThreadPoolExecutor(16) as callers:
        replies = list(callers.map(ask, enumerate(chosen)))
    assert {reply.status for reply in replies} <= {201, 409, 422}
    assert {201, 409} <= {reply.status for reply in replies}
    assert breaches(sandbox.ledger()) == []
