"""What the payment provider tells us unasked: its webhooks, each a hint to the payment that it is about."""

import time
from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

import structlog
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from api.documented import notified
from api.errands import traceparent_of
from api.intake import Intake
from api.problems import STATUS_OF_KIND, InvalidRequestError, RejectedError
from api.shapes import Currency, Uuid
from api.signatures import WebhookVerifier
from schemas.decisions import Decided
from schemas.meta import HOUR, CommandMeta, Micros, derived_id
from schemas.payment import NoteProviderEvent

PATIENCE = 12 * HOUR
"""A hint may be heard for so long; whoever is not answered sends it again, and it is the same command."""

# By the type of the event: the verb that was asked of the provider, and its outcome.
TYPES: Mapping[str, tuple[str, str]] = {
    "authorization.succeeded": ("authorization", "succeeded"),
    "authorization.declined": ("authorization", "declined"),
    "capture.succeeded": ("capture", "succeeded"),
    "void.succeeded": ("void", "succeeded"),
    "refund.succeeded": ("refund", "succeeded"),
}

routes = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])

log = structlog.get_logger(__name__)

Text = Annotated[str, Field(min_length=1, max_length=200)]


class _Told(BaseModel):
    """Unlike our own callers' bodies it may have more fields than we know: its sender is somebody else's system."""

    model_config = ConfigDict(strict=True, frozen=True)


class Facts(_Told):
    """What the provider says was asked of it."""

    payment_id: Uuid
    order_id: Text
    key: Text
    amount: Annotated[int, Field(ge=0, le=10**15, description="minor units of the currency")]
    currency: Currency


class Notice(_Told):
    type: Text
    data: Facts


EXAMPLE: Mapping[str, Any] = {
    "type": "capture.succeeded",
    "timestamp": "2010-12-01T08:26:00+00:00",
    "data": {
        "payment_id": "61ded311-95ff-5d31-8414-09f9271be0d8",
        "order_id": "ef59192f-6d77-560e-9bb0-7cf091066932",
        "key": "0b4f6f6a-51e1-5f0c-8d57-0f3f2b8f9a10",
        "reference": "cap_8b1a9953c4611296a827abf8c47804d7",
        "amount": 1530,
        "currency": "GBP",
    },
}


@routes.post("/payments", **notified(Notice, EXAMPLE))
async def hear_provider(request: Request) -> Response:
    """Take a signed notice to the payment's own stream. 204: it is in the log, or says nothing that concerns us."""
    body = await request.body()
    event_id = _verified(request.app.state.webhooks, request.headers, body)
    notice = _read(body)
    if notice.type in TYPES:
        await _tell(request.app.state.intake, _command(notice, event_id), traceparent_of(request.headers))
    return Response(status_code=204)


def _verified(verifier: WebhookVerifier, headers: Mapping[str, str], body: bytes) -> str:
    return verifier.event_id_of(headers, body)


async def _tell(intake: Intake, command: NoteProviderEvent, traceparent: str) -> None:
    meta = _meta(command, intake.reply_to, traceparent)
    _look_at(await intake.ask("payment", command.payment_id, command, meta), command)


def _read(body: bytes) -> Notice:
    try:
        return Notice.model_validate_json(body)
    except ValidationError as error:
        places = [".".join(map(str, one["loc"])) for one in error.errors()]
        raise InvalidRequestError(
            f"The notice cannot be read: {', '.join(places[:5]) or 'no JSON'}."
        ) from None


def _command(notice: Notice, event_id: str) -> NoteProviderEvent:
    verb, outcome = TYPES[notice.type]
    told = notice.data
    return NoteProviderEvent(
        told.payment_id, told.order_id, told.amount, told.currency, verb, told.key, outcome, event_id
    )


def _meta(command: NoteProviderEvent, reply_to: str, traceparent: str) -> CommandMeta:
    """The same event is the same command, whatever else its repetition says: hence no fingerprint."""
    now = Micros(time.time_ns() // 1_000)
    command_id = derived_id("webhook", command.provider_event_id)
    return CommandMeta(
        command_id=command_id,
        stream=command.stream,
        traceparent=traceparent,
        issued_at=now,
        not_after=Micros(now + PATIENCE),
        occurred_at=None,
        expected_version=None,
        reply_to=reply_to,
        correlation_id=str(UUID(traceparent[3:35])),
        causation_id=command_id,
        actor_kind="provider",
        actor_id="webhook",
        fingerprint="",
    )


def _look_at(decided: Decided | None, command: NoteProviderEvent) -> None:
    """A payment that we do not know will never be known: to hear of it again helps nobody. What failed here, may."""
    rejection = decided.rejection if decided else None
    if rejection is None:
        return
    if STATUS_OF_KIND.get(rejection.kind, 500) >= 500:
        raise RejectedError(rejection)
    log.warning("webhook_rejected", payment_id=command.payment_id, reason=rejection.type)
