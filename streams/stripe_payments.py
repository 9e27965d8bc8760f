"""Stripe as a payment provider: PaymentIntents captured by hand, through the official SDK.

An authorization is an intent, a capture its charge, a void the intent's cancellation, a refund a refund of the charge.
"""

from collections.abc import Mapping
from typing import Any, assert_never

import stripe

from streams.payments import (
    Calls,
    ProviderAnswer,
    ProviderRequest,
    UnreadableAnswerError,
    Verb,
    in_any_doubt_unknown,
    unknown,
)

ADDRESS = "https://api.stripe.com"
TIMEOUT_S = 8.0
"""Less than the payment's own patience for an answer."""

# Stripe's SDK would otherwise keep a file of its own and tell how long our calls take.
stripe.enable_telemetry = False


class StripeProvider:
    """Stripe over HTTP, at most `connections` requests at once. `key` is the account's secret."""

    def __init__(
        self, key: str, address: str = ADDRESS, timeout_s: float = TIMEOUT_S, connections: int = 64
    ) -> None:
        self._calls = Calls(timeout_s, connections)
        self._stripe = stripe.StripeClient(
            key,
            base_addresses={"api": address.rstrip("/")},
            http_client=_Transport(self._calls),
            max_network_retries=0,  # retries are in the log, not here
        ).v1

    async def ask(self, request: ProviderRequest) -> ProviderAnswer:
        """Ask once. Never raises: whatever leaves the effect in doubt is "unknown"."""
        return await in_any_doubt_unknown(request, self._ask(request))

    async def close(self) -> None:
        """Let go of the connections; asked after that, the answer is "unknown"."""
        await self._calls.close()

    async def _ask(self, request: ProviderRequest) -> ProviderAnswer:
        if request.verb is not Verb.AUTHORIZE and not request.reference:
            return ProviderAnswer("failed", "", "not_found")
        try:
            made = await self._do(request)
            # Under the same key Stripe says for ever what it said first, also that it is not done yet: so look.
            answer = judge(request, made) or judge(request, await self._look(request, made.id))
            return answer or unknown(request, "processing")
        except stripe.StripeError as error:
            return await self._refused(request, error)

    async def _do(self, request: ProviderRequest) -> stripe.PaymentIntent | stripe.Refund:
        intents, once = self._stripe.payment_intents, stripe.RequestOptions(idempotency_key=request.key)
        match request.verb:
            case Verb.AUTHORIZE:
                return await intents.create_async(
                    {
                        "amount": request.amount,
                        "currency": request.currency.lower(),
                        "payment_method": request.token,
                        "allowed_payment_method_types": ["card"],
                        "capture_method": "manual",
                        "confirm": True,
                        "error_on_requires_action": True,  # there is nobody here who could act
                        "metadata": {"payment_id": request.payment_id, "order_id": request.order_id},
                    },
                    once,
                )
            case Verb.CAPTURE:
                return await intents.capture_async(
                    request.reference, {"amount_to_capture": request.amount}, once
                )
            case Verb.VOID:
                return await intents.cancel_async(request.reference, {}, once)
            case Verb.REFUND:
                return await self._stripe.refunds.create_async(
                    {"charge": request.reference, "amount": request.amount}, once
                )
            case _:
                assert_never(request.verb)

    async def _look(self, request: ProviderRequest, id_: str) -> stripe.PaymentIntent | stripe.Refund:
        """What an intent or a refund is by now."""
        if request.verb is Verb.REFUND:
            return await self._stripe.refunds.retrieve_async(id_)
        return await self._stripe.payment_intents.retrieve_async(id_)

    async def _refused(self, request: ProviderRequest, error: stripe.StripeError) -> ProviderAnswer:
        match error:
            case stripe.CardError():
                declined = request.verb is Verb.AUTHORIZE
                return ProviderAnswer("declined" if declined else "failed", "", _code_of(error))
            case stripe.InvalidRequestError(code="payment_intent_unexpected_state"):
                # Perhaps because it was done already, and Stripe has forgotten under which key.
                answer = judge(request, await self._look(request, request.reference))
                return answer or ProviderAnswer("failed", "", _code_of(error))
            case stripe.InvalidRequestError():
                return ProviderAnswer("failed", "", _code_of(error))
            case _:
                # Among them a wrong secret, which a person mends, and a key that was used for another request:
                # whatever that one did, it is not known here.
                return unknown(request, f"{type(error).__name__}_{error.http_status}")


def judge(request: ProviderRequest, made: stripe.PaymentIntent | stripe.Refund) -> ProviderAnswer | None:
    """What Stripe's object says of the request; None while it is not done. Raises UnreadableAnswerError."""
    if isinstance(made, stripe.Refund):
        return _judge_refund(request, made)
    _expect("currency", made.currency, request.currency.lower())
    match request.verb, made.status:
        case Verb.AUTHORIZE, "requires_capture" | "succeeded":
            _expect("amount", made.amount, request.amount)
            _expect("payment_id", made.metadata.to_dict().get("payment_id"), request.payment_id)
            return ProviderAnswer("succeeded", made.id, "")
        case Verb.AUTHORIZE, "requires_payment_method" | "canceled":
            return ProviderAnswer("declined", "", made.status)
        case Verb.CAPTURE, "succeeded":
            _expect("amount", made.amount_received, request.amount)
            return ProviderAnswer("succeeded", _id_of(made.latest_charge), "")
        case Verb.VOID, "canceled":
            return ProviderAnswer("succeeded", made.id, "")
        case _:
            return None


def _judge_refund(request: ProviderRequest, refund: stripe.Refund) -> ProviderAnswer | None:
    _expect("currency", refund.currency, request.currency.lower())
    _expect("amount", refund.amount, request.amount)
    match refund.status:
        case "succeeded":
            return ProviderAnswer("succeeded", refund.id, "")
        case "failed" | "canceled":
            return ProviderAnswer("failed", "", refund.failure_reason or refund.status)
        case _:
            return None


def _expect(name: str, said: object, asked: object) -> None:
    if said != asked:
        raise UnreadableAnswerError(f"{name} is {said!r}, not {asked!r}")


def _id_of(charge: str | stripe.Charge | None) -> str:
    if charge is None:
        raise UnreadableAnswerError("a capture without a charge")
    return charge if isinstance(charge, str) else charge.id


def _code_of(error: stripe.StripeError) -> str:
    """Why, in a word: a card's reason before the kind of the refusal."""
    said = error.error
    code = (said and (said.decline_code or said.code)) or error.code or "invalid_request"
    return "not_found" if code == "resource_missing" else code


class _Transport(stripe.HTTPClient):
    """The SDK's requests over our connections: bounded in number, time and size, as with every provider."""

    name = "aiohttp"

    def __init__(self, calls: Calls) -> None:
        super().__init__()
        self._calls = calls

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """The body, the status and the headers of the answer."""
        body = post_data.encode() if isinstance(post_data, str) else post_data
        reply = await self._calls.call(method, url, headers, body)
        return reply.body, reply.status, reply.headers
