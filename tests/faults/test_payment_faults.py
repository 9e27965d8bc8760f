"""F16: the provider stumbles, hangs, tells twice, out of order and too early, and impostors tell lies: money moves once."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import pytest

from ops.local_stack import Addresses
from ops.payment_sandbox.webhooks import read_secrets, sign
from ops.tokens import ensure_webhook_secret
from schemas.payment import (
    NoteProviderEvent,
    PaymentAuthorized,
    PaymentCaptured,
    PaymentDeclined,
    PaymentRequestRepeated,
    PaymentUnknown,
    ProviderEventIgnored,
    ProviderEventNoted,
    RequestAuthorization,
    RequestCapture,
)
from tests.faults.bench_roles import Floor
from tests.faults.bench_shop import CODEC, Shop, new_id
from tests.sandbox_process import SandboxProcess, free_port, until

WITHIN_S = 40.0
TOKENS = ("tok_ok", "tok_slow", "tok_timeout_after_success", "tok_server_error", "tok_declined")
ALL_MODES = "duplicate reordered before_response forged stale"


class Till:
    """A command worker, the payment agent, a sandbox that sends webhooks and, once it is opened, the API that hears."""

    def __init__(self, floor: Floor) -> None:
        self.floor, self.shop = floor, floor.shop
        self.address = f"127.0.0.1:{free_port()}"
        self.secrets = floor.folder / "webhooks.secrets"
        ensure_webhook_secret(self.secrets)
        self.sandbox = SandboxProcess(
            floor.folder,
            DAYBOOK_WEBHOOKS=f"http://{self.address}/v1/webhooks/payments",
            DAYBOOK_WEBHOOK_SECRETS=str(self.secrets),
            DAYBOOK_SANDBOX_WEBHOOKS=ALL_MODES,
            DAYBOOK_SANDBOX_SLOW_S="2.5",  # the agent waits 2
        )
        self.shop.start()
        self.sandbox.start()
        floor.start("payments", DAYBOOK_PROVIDER=self.sandbox.url)

    def open_api(self) -> None:
        here = {"DAYBOOK_API": self.address, "DAYBOOK_WEBHOOK_SECRETS": str(self.secrets)}
        self.floor.start("api", **here)
        until(self._hears, WITHIN_S)

    def _hears(self) -> bool:
        try:
            return self.ask("GET", "/health/ready") == 200
        except OSError:
            return False

    def close(self) -> None:
        self.floor.end_roles()
        if self.sandbox.running():
            self.sandbox.kill()

    # What is asked.

    def authorize(self, token: str) -> str:
        payment = new_id()
        body = RequestAuthorization(payment, f"order-{payment}", "anna", 500, "GBP", token, 1)
        self.shop.send(body, new_id(), "payment")
        return payment

    def capture(self, payment: str) -> None:
        self.shop.send(RequestCapture(payment, f"order-{payment}", 500, 1), new_id(), "payment")

    def post(self, body: bytes, headers: dict[str, str]) -> int:
        return self.ask("POST", "/v1/webhooks/payments", body, headers)

    def ask(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> int:
        connection = HTTPConnection(self.address, timeout=20)
        try:
            connection.request(method, path, body, headers or {})
            return connection.getresponse().status
        finally:
            connection.close()

    # What became of it.

    def bodies(self, topic: str) -> list[Any]:
        return [CODEC.decode(record.value()).body for record in self.shop.records(topic)]

    def events(self, payment: str) -> list[Any]:
        told = self.bodies(self.shop.topics.events("payment"))
        return [event for event in told if event.payment_id == payment]

    def noted(self) -> list[NoteProviderEvent]:
        asked = self.bodies(self.shop.topics.commands("payment"))
        return [command for command in asked if isinstance(command, NoteProviderEvent)]

    def until_told(self, payments: list[str], *kinds: type) -> None:
        def all_told() -> bool:
            told = self.bodies(self.shop.topics.events("payment"))
            return {event.payment_id for event in told if type(event) in kinds} >= set(payments)

        until(all_told, WITHIN_S)

    def moved(self) -> Counter[tuple[str, str]]:
        """How often the provider did what, by payment and verb."""
        rows = (row for row in self.sandbox.ledger() if row["outcome"] == "succeeded")
        return Counter((row["payment_id"], row["verb"]) for row in rows)

    def webhooks(self) -> dict[str, Any]:
        return self.sandbox.get("/v1/notices").fields


@pytest.fixture(scope="module")
def till(stack: Addresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Till]:
    folder = tmp_path_factory.mktemp("till")
    shop = Shop(stack.kafka, folder)
    till = None
    try:
        till = Till(Floor(shop, stack, folder))
        yield till
    finally:
        if till is not None:
            till.close()
        shop.close()


def test_f16_whatever_the_provider_does_money_moves_once_and_the_same_key_is_asked_again(till: Till):
    """Given a provider that answers only when its webhook was heard, and nobody who hears it yet."""
    payments = [till.authorize(token) for token in TOKENS]
    *willing, unwilling = payments
    till.until_told([payments[0]], PaymentUnknown)

    till.open_api()
    till.until_told(willing, PaymentAuthorized)
    till.until_told([unwilling], PaymentDeclined)
    for payment in willing:
        till.capture(payment)
    till.until_told(willing, PaymentCaptured)
    until(lambda: till.webhooks()["waiting"] == 0, WITHIN_S)

    assert till.moved() == {
        (payment, verb): 1 for payment in willing for verb in ("authorization", "capture")
    }
    for payment in willing:
        events = till.events(payment)
        assert _count(events, PaymentAuthorized) == _count(events, PaymentCaptured) == 1
        keys = {event.key for event in events if not isinstance(event, ProviderEventNoted)}
        assert len(keys) == 2, "each of the two requests has one key, however often it was asked"
        told = [e.provider_event_id for e in events if isinstance(e, ProviderEventNoted)]
        assert len(told) == len(set(told)) >= 1, "told before the answer: noted, and once"
        assert _count(events, ProviderEventIgnored) == 0
    assert any(_count(till.events(payment), PaymentRequestRepeated) for payment in willing)
    assert till.shop.laws().keys() <= {"5"}, "of money without an order this test is to blame"


def _count(events: list[Any], kind: type) -> int:
    return sum(isinstance(event, kind) for event in events)


def test_f16_what_was_forged_or_stale_was_refused_and_reached_no_payment(till: Till):
    """Given all the webhooks of the test before, each preceded by a lie and by a copy of long ago."""
    answers = till.webhooks()["answers"]
    assert answers["forged"].keys() - {"ClientConnectorError"} == {"401"}
    assert answers["stale"].keys() - {"ClientConnectorError"} == {"401"}
    heard = {command.provider_event_id for command in till.noted()}
    rows = [row for row in till.sandbox.ledger() if row["outcome"] in ("succeeded", "declined")]
    assert len(heard) == len(rows)
    assert not any(event.endswith("f") and len(event) > 36 for event in heard)
    assert {command.amount for command in till.noted()} == {500}


def test_f16_a_signed_notice_of_another_amount_is_written_down_once_and_moves_nothing(till: Till):
    payment = till.authorize("tok_ok")
    till.until_told([payment], PaymentAuthorized)
    key = next(event.key for event in till.events(payment) if isinstance(event, PaymentAuthorized))
    facts = {"payment_id": payment, "order_id": f"order-{payment}", "key": key, "currency": "GBP"}
    body = json.dumps({"type": "authorization.succeeded", "data": facts | {"amount": 501}}).encode()

    secrets, now = read_secrets(till.secrets), int(time.time())
    commands = till.shop.topics.commands("payment")
    before = till.shop.written(commands)
    assert till.post(body, sign([b"somebody else's, 24 bytes"], "evt_lie", now, body)) == 401
    assert till.post(body, sign(secrets, "evt_lie", now - 600, body)) == 401
    assert till.shop.written(commands) == before

    for _ in range(2):
        assert till.post(body, sign(secrets, "evt_more", now, body)) == 204
    ignored = [event for event in till.events(payment) if isinstance(event, ProviderEventIgnored)]
    assert [(event.why, event.provider_event_id) for event in ignored] == [("amount_differs", "evt_more")]
    till.capture(payment)
    till.until_told([payment], PaymentCaptured)
    assert [e.amount for e in till.events(payment) if isinstance(e, PaymentCaptured)] == [500]
