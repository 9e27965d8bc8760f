"""A stand-in for Stripe's PaymentIntents API over real HTTP, as its documentation describes it; `python -m … PORT`.

It is no sandbox of ours: it was written from Stripe's reference, to hold our client against, and proves nothing of
Stripe itself.
"""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import uvicorn
from fastapi import FastAPI, Request, Response

SECRET = "sk_test_stand_in"
HANG_S = 30.0
STUMBLES = 2


class Refusal(Exception):
    """An error as Stripe words it."""

    def __init__(self, status: int, type_: str, code: str, **more: str) -> None:
        self.status = status
        self.error = {"type": type_, "code": code, "message": code, **more}


def unexpected_state() -> Refusal:
    return Refusal(400, "invalid_request_error", "payment_intent_unexpected_state")


@dataclass
class Account:
    """All that the stand-in knows; lost when it ends."""

    intents: dict[str, dict[str, Any]] = field(default_factory=dict)
    refunds: dict[str, dict[str, Any]] = field(default_factory=dict)
    said: dict[str, tuple[Mapping[str, str], int, bytes]] = field(default_factory=dict)
    stumbles: Counter[str] = field(default_factory=Counter)

    def create(self, form: Mapping[str, str]) -> dict[str, Any]:
        token = form["payment_method"]
        assert (form["capture_method"], form["confirm"], form["error_on_requires_action"]) == (
            "manual",
            "true",
            "true",
        )
        id_ = f"pi_{len(self.intents)}"
        metadata = {name[9:-1]: value for name, value in form.items() if name.startswith("metadata[")}
        intent = {
            "id": id_,
            "object": "payment_intent",
            "amount": int(form["amount"]),
            "amount_received": 0,
            "currency": form["currency"],
            "latest_charge": f"ch_{id_}",
            "metadata": metadata,
            "status": "processing" if token == "pm_processing" else "requires_capture",
        }
        self.intents[id_] = intent
        if token == "pm_card_chargeDeclined":
            intent["status"] = "requires_payment_method"
            raise Refusal(402, "card_error", "card_declined", decline_code="generic_decline")
        if token == "pm_card_authenticationRequired":
            intent["status"] = "requires_payment_method"
            raise Refusal(402, "card_error", "authentication_required")
        if not token.startswith("pm_"):
            raise Refusal(400, "invalid_request_error", "resource_missing")
        return intent

    def capture(self, id_: str, form: Mapping[str, str]) -> dict[str, Any]:
        intent, amount = self.intent(id_), int(form["amount_to_capture"])
        if intent["status"] != "requires_capture":
            raise unexpected_state()
        if amount > intent["amount"]:
            raise Refusal(400, "invalid_request_error", "amount_too_large")
        intent |= {"status": "succeeded", "amount_received": amount}
        return intent

    def cancel(self, id_: str) -> dict[str, Any]:
        intent = self.intent(id_)
        if intent["status"] != "requires_capture":
            raise unexpected_state()
        intent["status"] = "canceled"
        return intent

    def refund(self, form: Mapping[str, str]) -> dict[str, Any]:
        intent = next((i for i in self.intents.values() if i["latest_charge"] == form["charge"]), None)
        if intent is None:
            raise missing()
        given_back = sum(r["amount"] for r in self.refunds.values() if r["charge"] == form["charge"])
        if given_back + int(form["amount"]) > intent["amount_received"]:
            raise Refusal(400, "invalid_request_error", "charge_already_refunded")
        id_ = f"re_{len(self.refunds)}"
        refund = {
            "id": id_,
            "object": "refund",
            "amount": int(form["amount"]),
            "charge": form["charge"],
            "currency": intent["currency"],
            "status": "pending",  # and done a moment later: who asks the same again hears the same again
        }
        self.refunds[id_] = {**refund, "status": "succeeded"}
        return refund

    def intent(self, id_: str) -> dict[str, Any]:
        if id_ not in self.intents:
            raise missing()
        return self.intents[id_]

    def look(self, id_: str) -> dict[str, Any]:
        """What was processing is done when somebody looks."""
        intent = self.intent(id_)
        if intent["status"] == "processing":
            intent["status"] = "requires_capture"
        return intent


def missing() -> Refusal:
    return Refusal(404, "invalid_request_error", "resource_missing")


app, account = FastAPI(), Account()


async def served(request: Request, do: Callable[[Mapping[str, str]], dict[str, Any]]) -> Response:
    """Once for each idempotency key; what was said is said again, refusals too, but not what was never begun."""
    form = dict(parse_qsl((await request.body()).decode(), keep_blank_values=True))
    if request.headers["authorization"] != f"Bearer {SECRET}":
        return answer(*refused(Refusal(401, "invalid_request_error", "api_key_invalid")))
    key, token = request.headers["idempotency-key"], form.get("payment_method", "")
    asked = {**form, "path": request.url.path}
    if key in account.said:
        before, status, body = account.said[key]
        if before != asked:
            return answer(*refused(Refusal(400, "idempotency_error", "idempotency_key_reused")))
        return answer(status, body)
    if token == "pm_stumbling" and account.stumbles[key] < STUMBLES:
        account.stumbles[key] += 1
        return answer(*refused(Refusal(500, "api_error", "stumbled")))
    try:
        status, body = 200, json.dumps(do(form)).encode()
    except Refusal as refusal:
        status, body = refused(refusal)
    account.said[key] = (asked, status, body)
    if token == "pm_hanging":
        await asyncio.sleep(HANG_S)
    return answer(status, body)


def refused(refusal: Refusal) -> tuple[int, bytes]:
    return refusal.status, json.dumps({"error": refusal.error}).encode()


def answer(status: int, body: bytes) -> Response:
    return Response(body, status, {"Request-Id": "req_1"}, "application/json")


def shown(look: Callable[[], dict[str, Any]]) -> Response:
    try:
        return answer(200, json.dumps(look()).encode())
    except Refusal as refusal:
        return answer(*refused(refusal))


@app.post("/v1/payment_intents")
async def create(request: Request) -> Response:
    return await served(request, account.create)


@app.post("/v1/payment_intents/{id_:path}/capture")
async def capture(request: Request, id_: str) -> Response:
    return await served(request, lambda form: account.capture(id_, form))


@app.post("/v1/payment_intents/{id_:path}/cancel")
async def cancel(request: Request, id_: str) -> Response:
    return await served(request, lambda _: account.cancel(id_))


@app.get("/v1/payment_intents/{id_:path}")
async def look(id_: str) -> Response:
    return shown(lambda: account.look(id_))


@app.post("/v1/refunds")
async def refund(request: Request) -> Response:
    return await served(request, account.refund)


@app.get("/v1/refunds/{id_}")
async def look_at_refund(id_: str) -> Response:
    return shown(lambda: account.refunds[id_])


@app.get("/authorized")
async def authorized() -> list[str]:
    """The payments for which there is an intent, one for each."""
    return [intent["metadata"]["payment_id"] for intent in account.intents.values()]


@app.post("/forget")
async def forget() -> None:
    """Every key, as Stripe does after a day."""
    account.said.clear()


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
