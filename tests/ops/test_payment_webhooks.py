"""The sandbox's webhooks: signed as the specification says, sent from the table until somebody answers 2xx."""

import asyncio
import base64
import hmac
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from ops.payment_sandbox.desk import Desk
from ops.payment_sandbox.laws import Ask, Verb
from ops.payment_sandbox.ledger import Ledger
from ops.payment_sandbox.notices import Notice, Outbox
from ops.payment_sandbox.webhooks import PREFIX, Mode, Route, Sender, envelopes, sign
from tests.sandbox_process import until

SECRET, OTHER = b"an old secret of 24 bytes", b"the new one, of 24 bytes."


def as_line(secret: bytes) -> str:
    return PREFIX + base64.b64encode(secret).decode()


def test_a_signature_is_the_one_of_the_specifications_own_example():
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = sign([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_while_secrets_are_rotated_every_one_signs():
    both = sign([SECRET, OTHER], "evt_1", 1, b"{}")["webhook-signature"].split()
    assert both == [sign([secret], "evt_1", 1, b"{}")["webhook-signature"] for secret in (SECRET, OTHER)]


def test_a_lie_has_another_body_and_a_stale_copy_only_another_time():
    notice = Notice(1, "evt_1", "key", '{"amount": 500}', 0)
    sent = envelopes(notice, [SECRET], frozenset(Mode), now=1_000_000)
    assert [envelope.kind for envelope in sent] == ["forged", "stale", "true", "true"]
    assert [json.loads(envelope.body)["amount"] for envelope in sent] == [9500, 500, 500, 500]
    assert sent[1].headers == sign([SECRET], "evt_1", 999_400, sent[1].body)


@dataclass
class Receiver:
    """A web server that keeps what it hears, and answers as it is told."""

    status: int = 204
    heard: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    url: str = ""

    def take(self, headers: Any, body: bytes) -> int:
        timestamp = headers["webhook-timestamp"]
        content = f"{headers['webhook-id']}.{timestamp}.".encode() + body
        signature = "v1," + base64.b64encode(hmac.new(SECRET, content, sha256).digest()).decode()
        if signature not in headers["webhook-signature"].split():
            return 401
        self.heard.append((headers["webhook-id"], json.loads(body)))
        return self.status

    def payments(self) -> list[str]:
        return [said["data"]["payment_id"] for _, said in self.heard]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self.send_response(receiver.take(self.headers, body))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=[0.02], daemon=True)
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/"
    yield receiver
    server.shutdown()
    server.server_close()
    thread.join()


class Counter:
    """The sandbox without its web server: a desk, a ledger on disk, and the sender beside it."""

    def __init__(self, folder: Path, route: Route | None) -> None:
        path = folder / "ledger.sqlite3"
        self.sender = Sender(Outbox(path), route) if route else None
        self.desk = Desk(Ledger(path, tells=route is not None), 16, 3, 60, self.sender)
        self.desk.open()

    async def asked(self, verb: Verb, payment: str, reference: str = "", token: str = "tok_ok") -> str:
        """The id of what was made, if it was."""
        ask = Ask(f"{verb}-{payment}", b"", verb, reference, payment, "o", 500, "GBP", token)
        answer = await self.desk.serve(ask, asyncio.Event().wait)
        return str(json.loads(answer.body).get("id", ""))

    async def until_all_is_heard(self) -> None:
        await asyncio.to_thread(until, lambda: self.waiting() == 0, 10)

    def waiting(self) -> int:
        assert self.sender is not None
        waiting = self.sender.account()["waiting"]
        assert isinstance(waiting, int)
        return waiting


Opened: TypeAlias = Callable[..., AbstractAsyncContextManager[Counter]]


@pytest.fixture
def opened(receiver: Receiver, tmp_path: Path) -> Opened:
    secrets = tmp_path / "secrets"
    secrets.write_text(f"{as_line(OTHER)}\n{as_line(SECRET)}\n")

    @asynccontextmanager
    async def opened(*modes: Mode, silent: bool = False) -> AsyncIterator[Counter]:
        route = None if silent else Route(receiver.url, secrets, frozenset(modes))
        counter = Counter(tmp_path, route)
        yield counter
        await counter.desk.close()

    return opened


async def test_what_was_answered_is_told_once_with_what_was_asked(receiver, opened):
    async with opened() as counter:
        made = await counter.asked(Verb.AUTHORIZATION, "p1")
        await counter.asked(Verb.AUTHORIZATION, "p2", token="tok_declined")
        await counter.asked(Verb.AUTHORIZATION, "p1")  # replayed: nothing happened
        await counter.until_all_is_heard()
    [(id_1, first), (id_2, second)] = receiver.heard
    data = {"payment_id": "p1", "order_id": "o", "amount": 500, "currency": "GBP"}
    assert first["type"] == "authorization.succeeded"
    assert first["data"] == data | {"key": "authorization-p1", "reference": made}
    assert (second["type"], second["data"]["reference"]) == ("authorization.declined", "")
    assert id_1 != id_2


async def test_it_is_told_again_until_it_is_heard_also_by_a_later_process(receiver, opened):
    receiver.status = 503
    async with opened() as counter:
        await counter.asked(Verb.AUTHORIZATION, "p1")
        await asyncio.to_thread(until, lambda: len(receiver.heard) >= 2, 10)
    receiver.status = 204
    async with opened() as counter:
        await counter.until_all_is_heard()
    assert len({event for event, _ in receiver.heard}) == 1
    assert len({json.dumps(said) for _, said in receiver.heard}) == 1


async def test_a_sandbox_without_a_target_leaves_nothing_to_tell(receiver, opened):
    async with opened(silent=True) as counter:
        await counter.asked(Verb.AUTHORIZATION, "p1")
    async with opened() as counter:
        assert counter.waiting() == 0
    assert receiver.heard == []


async def test_before_the_response_it_is_told_and_twice_if_so_told(receiver, opened):
    async with opened(Mode.BEFORE_RESPONSE, Mode.DUPLICATE) as counter:
        await counter.asked(Verb.AUTHORIZATION, "p1")
        assert receiver.payments() == ["p1", "p1"]


async def test_reordered_a_capture_is_told_before_its_authorization(receiver, opened):
    async with opened(Mode.REORDERED) as counter:
        authorization = await counter.asked(Verb.AUTHORIZATION, "p1")
        await counter.asked(Verb.CAPTURE, "p1", authorization)
        await counter.until_all_is_heard()
    assert [said["type"] for _, said in receiver.heard] == ["capture.succeeded", "authorization.succeeded"]


async def test_impostors_are_counted_beside_what_is_true(receiver, opened):
    async with opened(Mode.FORGED) as counter:
        await counter.asked(Verb.AUTHORIZATION, "p1")
        await counter.until_all_is_heard()
        assert counter.sender is not None
        assert counter.sender.account()["answers"] == {"forged": {"401": 1}, "true": {"204": 1}}
