"""Webhooks as anybody on the network may send them: only what is signed, fresh and readable reaches a payment."""

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from api.payment import EXAMPLE
from api.signatures import PREFIX, TOLERANCE_S, Secrets, WebhookVerifier
from ops.payment_sandbox.webhooks import sign
from ops.tokens import ensure_webhook_secret
from schemas.meta import derived_id
from schemas.payment import NoteProviderEvent
from tests.api.conftest import Answered, Window, rejected

OLD, NEW, STRANGERS = b"the old secret: 24 bytes", b"the new secret: 24 bytes", b"a stranger's: 24 bytes.."
BODY = json.dumps(EXAMPLE).encode()
Send: TypeAlias = Callable[..., Any]


@pytest.fixture
def known(tmp_path: Path) -> Callable[..., None]:
    """Says which secrets the file holds from now on."""

    def known(*secrets: bytes) -> None:
        lines = (PREFIX + base64.b64encode(secret).decode() for secret in secrets)
        (tmp_path / "webhooks.secrets").write_text("\n".join(lines))

    known(OLD)
    return known


@pytest.fixture
def send(window: Window, known: Callable[..., None]) -> Send:
    async def send(
        body: bytes = BODY, by: tuple[bytes, ...] = (OLD,), event: str = "evt_1", age_s: int = 0, **also: Any
    ) -> Answered:
        signed = sign(by, event, int(time.time()) - age_s, body)
        headers = {name.replace("-", "_"): value for name, value in signed.items()}
        return await window.ask("POST", "/v1/webhooks/payments", raw=body, **headers | also)

    return send


def with_facts(**facts: object) -> bytes:
    return json.dumps({**EXAMPLE, "data": EXAMPLE["data"] | facts}).encode()


async def test_a_signed_notice_reaches_the_payments_own_stream(window: Window, send: Send):
    assert (await send()).status == 204
    [(aggregate, key, command, meta)] = window.writer.asked
    told = EXAMPLE["data"]
    assert (aggregate, key, meta.stream) == (
        "payment",
        told["payment_id"],
        f"payment/{told['payment_id']}",
    )
    assert command == NoteProviderEvent(
        told["payment_id"], told["order_id"], 1530, "GBP", "capture", told["key"], "succeeded", "evt_1"
    )
    assert (meta.actor_kind, meta.command_id) == ("provider", derived_id("webhook", "evt_1"))


async def test_the_same_event_is_the_same_command_whenever_and_wherever_it_comes(window: Window, send: Send):
    await send(age_s=100)
    await send()
    await send(event="evt_2")
    ids = [meta.command_id for meta in window.writer.metas]
    assert ids[0] == ids[1] != ids[2]


async def test_while_secrets_are_rotated_both_sides_may_be_first(send: Send, known: Callable[..., None]):
    assert (await send(by=(NEW, OLD))).status == 204
    known(NEW, OLD)
    assert (await send(by=(OLD,))).status == 204
    assert (await send(by=(NEW,))).status == 204
    known(NEW)
    assert (await send(by=(OLD,))).status == 401
    assert (await send(by=(OLD, NEW))).status == 204


@pytest.mark.parametrize(
    "how",
    [
        {"by": (STRANGERS,)},
        {"by": ()},
        {"age_s": TOLERANCE_S + 2},
        {"age_s": -TOLERANCE_S - 2},
        {"webhook_signature": None},
        {"webhook_signature": ""},
        {"webhook_signature": "v1,"},
        {"webhook_signature": "v1,ü"},
        {"webhook_signature": "v2," + base64.b64encode(bytes(32)).decode()},
        {"webhook_id": None},
        {"webhook_id": "evt_2"},
        {"webhook_id": "evt.1"},
        {"webhook_timestamp": None},
        {"webhook_timestamp": "soon"},
        {"webhook_timestamp": "9" * 400},
        {"webhook_timestamp": str(int(time.time()) - 1)},
    ],
    ids=str,
)
async def test_what_is_forged_stale_or_not_signed_is_401_and_produces_nothing(
    window: Window, send: Send, how: dict[str, Any]
):
    answered = await send(**how)
    assert (answered.status, answered.type) == (401, "untrusted-webhook")
    assert window.writer.asked == []


async def test_a_body_of_which_one_byte_was_changed_is_401(window: Window, known: Callable[..., None]):
    headers = sign([OLD], "evt_1", int(time.time()), BODY)
    named: dict[str, Any] = {name.replace("-", "_"): value for name, value in headers.items()}
    changed = BODY.replace(b"1530", b"1531")
    assert (await window.ask("POST", "/v1/webhooks/payments", raw=changed, **named)).status == 401
    assert (await window.ask("POST", "/v1/webhooks/payments", raw=BODY + b" ", **named)).status == 401
    assert (await window.ask("POST", "/v1/webhooks/payments", raw=BODY, **named)).status == 204


@pytest.mark.parametrize("content", [None, "", "whsec_", "whsec_c2hvcnQ=", "no secret!", "whsec_ü"])
async def test_without_a_readable_secret_nobody_is_believed(
    window: Window, send: Send, tmp_path: Path, content: str | None
):
    file = tmp_path / "webhooks.secrets"
    file.unlink() if content is None else file.write_text(content)
    assert (await send()).status == 401
    assert (await send(by=(b"",))).status == 401
    assert window.writer.asked == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b"[" * 10_000,
        with_facts(amount=-1),
        with_facts(amount="1530"),
        with_facts(currency="pounds"),
        with_facts(payment_id="../cart"),
    ],
)
async def test_a_signed_body_that_cannot_be_read_is_422(window: Window, send: Send, body: bytes):
    answered = await send(body)
    assert (answered.status, answered.type) == (422, "invalid-request")
    assert window.writer.asked == []


async def test_an_event_of_a_type_that_does_not_concern_us_is_heard_and_left_alone(
    window: Window, send: Send
):
    assert (await send(json.dumps({**EXAMPLE, "type": "payout.paid"}).encode())).status == 204
    assert window.writer.asked == []


async def test_a_body_over_the_limit_is_413(send: Send):
    assert (await send(b" " * 300_000)).status == 413


async def test_a_payment_that_nobody_knows_is_not_told_again_but_what_failed_here_is(
    window: Window, send: Send
):
    window.writer.decide = lambda meta: rejected(meta, "UnknownPayment", "not_found")
    assert (await send()).status == 204
    window.writer.decide = lambda meta: rejected(meta, "CommandExpired", "expired")
    assert (await send()).status == 503
    window.writer.decide = lambda _: None  # in the log, not decided yet
    assert (await send()).status == 204


def test_a_secret_is_made_once_for_its_owner_only_and_verifies(tmp_path: Path):
    path = tmp_path / "keys" / "webhooks.secrets"
    ensure_webhook_secret(path)
    [secret] = Secrets(path).current()
    ensure_webhook_secret(path)
    assert Secrets(path).current() == [secret]
    assert (len(secret), path.stat().st_mode & 0o777) == (32, 0o600)
    verifier = WebhookVerifier(Secrets(path), clock=lambda: 1_000.0)
    assert verifier.event_id_of(sign([secret], "evt_1", 1_000, b"{}"), b"{}") == "evt_1"
