"""The payment agent: asks the provider what the payments want to know, and tells each payment what it said.

The provider is asked at least once and makes it once: the idempotency key is the id of the first request's event,
and an answer's command has an id that follows from request and outcome. Nothing is remembered here: what stays
unknown is asked again by the payment's own deadline.
"""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from projections.view import Batch, Poison
from schemas.codec import Decoded
from schemas.meta import HOUR, CommandMeta, EventMeta, Micros, derived_id
from schemas.payment import (
    PaymentAuthorizationRequested,
    PaymentCaptureRequested,
    PaymentRefundRequested,
    PaymentRequested,
    PaymentRequestRepeated,
    PaymentVoidRequested,
    RecordProviderResult,
)
from streams.asked import Asked
from streams.command_producer import CommandProducer
from streams.failpoints import failpoint
from streams.faust_app import Feed, Kit, Role, run
from streams.payments import (
    Provider,
    ProviderAnswer,
    ProviderConnection,
    ProviderRequest,
    SandboxProvider,
    Verb,
)
from streams.settings import StreamSettings, from_environment

CALLS_MAX = 64
BATCHES_MAX = 8
PATIENCE = 12 * HOUR
"""An answer may have its effect for so long after the request; later it is asked for again anyway."""

VERBS: Mapping[type, Verb] = {
    PaymentAuthorizationRequested: Verb.AUTHORIZE,
    PaymentCaptureRequested: Verb.CAPTURE,
    PaymentVoidRequested: Verb.VOID,
    PaymentRefundRequested: Verb.REFUND,
}


@dataclass(frozen=True)
class PaymentPorts:
    """`calls` bounds how many questions are open at once, over all batches."""

    provider: Provider
    commands: CommandProducer
    calls: asyncio.Semaphore


async def settle_payments(batch: Batch, ports: PaymentPorts) -> list[Poison]:
    """Ask all that the batch wants to know at once; each answer is told as soon as it is there.

    A slow answer holds up the acknowledgement of its batch, by the provider's time-out at most, and nobody else.
    """
    requests = [
        record.message for record in batch.records if isinstance(record.message.body, PaymentRequested)
    ]
    # All are waited for, whatever becomes of one: a call that is under way may move money.
    ends = await asyncio.gather(*(_settle(request, ports) for request in requests), return_exceptions=True)
    for end in ends:
        if end is not None:
            raise end
    return []


async def _settle(request: Decoded[EventMeta], ports: PaymentPorts) -> None:
    async with ports.calls:
        failpoint("payment_before_call")
        answer = await ports.provider.ask(question(request.body))
        failpoint("payment_after_call")
    await ports.commands.send([told(request, answer)])
    failpoint("payment_after_command")


def question(event: PaymentRequested) -> ProviderRequest:
    """What the event asks of the provider; a repetition asks what was asked first, under the first key."""
    verb = Verb(event.verb) if isinstance(event, PaymentRequestRepeated) else VERBS[type(event)]
    return ProviderRequest(
        verb,
        event.key,
        event.payment_id,
        event.order_id,
        event.amount,
        event.currency,
        event.token,
        event.reference,
    )


def told(request: Decoded[EventMeta], answer: ProviderAnswer) -> Asked:
    """The command that tells the payment; asked again with the same outcome, it is the same command."""
    event, meta = request.body, request.meta
    verb = question(event).verb.value
    body = RecordProviderResult(
        event.payment_id,
        verb,
        event.key,
        answer.outcome,
        answer.reference,
        answer.code,
        provider_event_id=None,
    )
    return Asked("payment", event.payment_id, body, _meta(meta, body))


def _meta(cause: EventMeta, body: RecordProviderResult) -> CommandMeta:
    return CommandMeta(
        command_id=derived_id(cause.event_id, type(body).__name__, body.outcome),
        stream=body.stream,
        traceparent=cause.traceparent,
        issued_at=cause.recorded_at,
        not_after=Micros(cause.recorded_at + PATIENCE),
        occurred_at=cause.occurred_at,
        expected_version=None,
        reply_to=None,
        correlation_id=cause.correlation_id,
        causation_id=cause.event_id,
        actor_kind="provider",
        actor_id="payments",
        fingerprint="",
    )


def provider_of(settings: StreamSettings, environ: Mapping[str, str] = os.environ) -> ProviderConnection:
    """The provider that the settings choose; KeyError where Stripe's secret is missing."""
    if settings.payments == "sandbox":
        return SandboxProvider(settings.provider, connections=CALLS_MAX)
    from streams.stripe_payments import ADDRESS, StripeProvider  # half a second, and 30 MB

    address = environ.get("DAYBOOK_STRIPE_URL") or ADDRESS
    return StripeProvider(environ["DAYBOOK_STRIPE_KEY"], address, connections=CALLS_MAX)


def payments(kit: Kit, provider: ProviderConnection) -> Role:
    """Several batches at once: the facts of a payment fold in any order, and a slow call must not hold up the rest."""
    topics = kit.settings.topics
    ports = PaymentPorts(
        provider, CommandProducer(kit.producer, kit.codec, topics), asyncio.Semaphore(CALLS_MAX)
    )
    source = kit.source("payments", [topics.events("payment")])
    body = partial(settle_payments, ports=ports)
    return Role("payments", kit, (Feed(source, body, concurrency=BATCHES_MAX),), (provider.close,))


def main() -> None:
    settings = from_environment()
    run(payments(Kit.of(settings), provider_of(settings)))


if __name__ == "__main__":
    main()
