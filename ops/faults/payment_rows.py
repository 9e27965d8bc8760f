"""F15, F16: the payment agent is killed around its call, and the provider stumbles, hangs, tells twice, and is aped."""

import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

from ops.demo.performance import provider_ledger
from ops.faults.floor import Floor
from ops.faults.scene import Scene
from ops.faults.shop import CODEC, new_id
from ops.faults.verdict import demand, until
from ops.local_stack import HOST, free_ports
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

WITHIN_S = 40.0
TOKENS = ("tok_ok", "tok_slow", "tok_timeout_after_success", "tok_server_error", "tok_declined")
ALL_MODES = "duplicate reordered before_response forged stale"
AROUND_THE_CALL = ("payment_before_call", "payment_after_call", "payment_after_command", "agent_before_ack")
KILLED = -signal.SIGKILL


def f15(scene: Scene) -> None:
    for point in AROUND_THE_CALL:
        with scene.floor(lawful=False) as floor:
            scene.inject(f"SIGKILL to the payment agent at {point.replace('_', ' ')}")
            with Till(floor).opened() as till:
                killed_around_the_call(till, point)
            scene.checked("C2", "C4", "C5", "C10")


def f16(scene: Scene) -> None:
    with scene.floor(lawful=False) as floor, Till(floor).opened() as till:
        scene.inject(f"cards {', '.join(TOKENS)}; webhooks {ALL_MODES.replace(' ', ', ')}")
        floor.start("payments", DAYBOOK_PROVIDER=till.provider)
        money_moves_once(till)
        lies_are_refused(till)
        another_amount_moves_nothing(till)
        scene.checked("C2", "C4", "C5", "C10")


class Till:
    """A command worker, a sandbox that sends webhooks and, once it is opened, the API that hears them."""

    def __init__(self, floor: Floor) -> None:
        self.floor, self.shop = floor, floor.shop
        provider, api = free_ports(2)
        self.provider = f"http://{HOST}:{provider}"
        self.address = f"{HOST}:{api}"
        self.secrets = floor.folder / "webhooks.secrets"
        ensure_webhook_secret(self.secrets)

    @contextmanager
    def opened(self) -> Iterator["Till"]:
        """Its roles end before the floor's."""
        try:
            self.shop.start()
            self.floor.start(
                "sandbox",
                DAYBOOK_PROVIDER=self.provider,
                DAYBOOK_WEBHOOKS=f"http://{self.address}/v1/webhooks/payments",
                DAYBOOK_WEBHOOK_SECRETS=str(self.secrets),
                DAYBOOK_SANDBOX_WEBHOOKS=ALL_MODES,
                DAYBOOK_SANDBOX_SLOW_S="2.5",  # the agent waits 2
            )
            until(self._answers, WITHIN_S, "the sandbox answers")
            yield self
        finally:
            self.floor.end_roles()

    def _answers(self) -> bool:
        try:
            return self._get("/health")[0] == 200
        except OSError:
            return False

    def open_api(self) -> None:
        api = self.floor.start("api", DAYBOOK_API=self.address, DAYBOOK_WEBHOOK_SECRETS=str(self.secrets))
        until(lambda: api.health in ("ok", "degraded"), WITHIN_S, "the API takes requests")

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

        until(all_told, WITHIN_S, f"{len(payments)} payments are told {kinds[0].__name__}")

    def moved(self) -> Counter[tuple[str, str]]:
        """How often the provider did what, by payment and verb."""
        rows = (row for row in self.ledger() if row["outcome"] == "succeeded")
        return Counter((row["payment_id"], row["verb"]) for row in rows)

    def webhooks(self) -> dict[str, Any]:
        return self._get("/v1/notices")[1]

    def ledger(self) -> list[dict[str, Any]]:
        return list(provider_ledger(self.provider))

    def _get(self, path: str) -> tuple[int, dict[str, Any]]:
        connection = HTTPConnection(self.provider.removeprefix("http://"), timeout=20)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()


def killed_around_the_call(till: Till, point: str) -> None:
    dying = till.floor.start("payments", DAYBOOK_PROVIDER=till.provider, DAYBOOK_FAILPOINTS=f"{point}=kill")
    first = till.authorize("tok_ok")
    until(lambda: not dying.lives, WITHIN_S, "the agent ends")
    demand(dying.process.returncode == KILLED, f"it ended with {dying.process.returncode}")
    till.floor.start("payments", DAYBOOK_PROVIDER=till.provider)
    second = till.authorize("tok_ok")
    till.until_told([first, second], PaymentAuthorized)
    once = {(first, "authorization"): 1, (second, "authorization"): 1}
    demand(till.moved() == once, f"money moved otherwise than once: {till.moved()}")
    lawful(till)


def lawful(till: Till) -> None:
    """Of money without an order the row is to blame: law 5 knows no such thing."""
    broken = till.shop.laws().keys() - {"5"}
    demand(not broken, f"laws: {broken}")


def money_moves_once(till: Till) -> None:
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
    until(lambda: till.webhooks()["waiting"] == 0, WITHIN_S, "no webhook waits")

    once = {(payment, verb): 1 for payment in willing for verb in ("authorization", "capture")}
    demand(till.moved() == once, f"money moved otherwise than once: {till.moved()}")
    for payment in willing:
        events = till.events(payment)
        moved = _count(events, PaymentAuthorized), _count(events, PaymentCaptured)
        demand(moved == (1, 1), f"{payment} was authorized and captured {moved} times")
        keys = {event.key for event in events if not isinstance(event, ProviderEventNoted)}
        demand(len(keys) == 2, "each of the two requests has one key, however often it was asked")
        told = [e.provider_event_id for e in events if isinstance(e, ProviderEventNoted)]
        demand(len(told) == len(set(told)) >= 1, "told before the answer: noted, and once")
        demand(_count(events, ProviderEventIgnored) == 0, "a true webhook was ignored")
    repeated = any(_count(till.events(payment), PaymentRequestRepeated) for payment in willing)
    demand(repeated, "nobody was asked again")
    lawful(till)


def _count(events: list[Any], kind: type) -> int:
    return sum(isinstance(event, kind) for event in events)


def lies_are_refused(till: Till) -> None:
    """Given all the webhooks of the test before, each preceded by a lie and by a copy of long ago."""
    answers = till.webhooks()["answers"]
    for lie in ("forged", "stale"):
        found = answers[lie].keys() - {"ClientConnectorError"}
        demand(found == {"401"}, f"{lie} webhooks were answered {found}")
    heard = {command.provider_event_id for command in till.noted()}
    rows = [row for row in till.ledger() if row["outcome"] in ("succeeded", "declined")]
    demand(len(heard) == len(rows), f"{len(heard)} webhooks reached a payment, of {len(rows)} facts")
    demand(
        not any(one.endswith("f") and len(one) > 36 for one in heard), "a forged webhook reached a payment"
    )
    demand({command.amount for command in till.noted()} == {500}, "a lie about an amount reached a payment")


def another_amount_moves_nothing(till: Till) -> None:
    payment = till.authorize("tok_ok")
    till.until_told([payment], PaymentAuthorized)
    key = next(event.key for event in till.events(payment) if isinstance(event, PaymentAuthorized))
    facts = {"payment_id": payment, "order_id": f"order-{payment}", "key": key, "currency": "GBP"}
    body = json.dumps({"type": "authorization.succeeded", "data": facts | {"amount": 501}}).encode()

    secrets, now = read_secrets(till.secrets), int(time.time())
    commands = till.shop.topics.commands("payment")
    before = till.shop.written(commands)
    lies = (
        sign([b"somebody else's, 24 bytes"], "evt_lie", now, body),
        sign(secrets, "evt_lie", now - 600, body),
    )
    demand([till.post(body, lie) for lie in lies] == [401, 401], "a lie was taken")
    demand(till.shop.written(commands) == before, "a lie reached the commands")

    for _ in range(2):
        demand(till.post(body, sign(secrets, "evt_more", now, body)) == 204, "a webhook was not taken")
    ignored = [event for event in till.events(payment) if isinstance(event, ProviderEventIgnored)]
    why = [(event.why, event.provider_event_id) for event in ignored]
    demand(why == [("amount_differs", "evt_more")], f"ignored: {why}")
    till.capture(payment)
    till.until_told([payment], PaymentCaptured)
    captured = [e.amount for e in till.events(payment) if isinstance(e, PaymentCaptured)]
    demand(captured == [500], f"captured: {captured}")
