"""The laws of the sandbox, pure: what one request may do to one account, and what is answered."""

import json
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID, uuid5

NAMESPACE = UUID("5d3cf4b5-6f0c-5b0e-9d0d-7a1f3b8c2e64")


class Verb(StrEnum):
    """What can be asked of a payment provider."""

    AUTHORIZATION = "authorization"
    CAPTURE = "capture"
    VOID = "void"
    REFUND = "refund"


class Token(StrEnum):
    """The cards to practise with."""

    OK = "tok_ok"
    DECLINED = "tok_declined"
    SLOW = "tok_slow"
    TIMEOUT_AFTER_SUCCESS = "tok_timeout_after_success"
    SERVER_ERROR = "tok_server_error"


ID_PREFIXES = {Verb.AUTHORIZATION: "auth", Verb.CAPTURE: "cap", Verb.VOID: "void", Verb.REFUND: "ref"}

NAMED_IN_ANSWERS = ("payment_id", "order_id", "authorization_id", "capture_id", "currency")

# Every refusal by its stable code: the HTTP status and the sentence a person reads.
REFUSALS = {
    "declined": (402, "The card was declined."),
    "not_found": (404, "There is no such authorization or capture."),
    "already_voided": (409, "The authorization has been voided."),
    "already_captured": (409, "Money has been captured; refund it instead."),
    "amount_too_large": (409, "The amount is larger than what is left."),
    "idempotency_key_reused": (422, "This idempotency key was used for another request."),
    "server_error": (500, "The provider stumbled; nothing was done."),
}


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. Amounts are minor units; fields that the verb does not have are "" or 0."""

    key: str
    fingerprint: bytes
    verb: Verb
    reference: str = ""
    payment_id: str = ""
    order_id: str = ""
    amount: int = 0
    currency: str = ""
    token: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status and its JSON body; `replayed` when it had been given before."""

    status: int
    body: str
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Account:
    """What one authorization, and at a refund one capture of it, holds now, in minor units."""

    payment_id: str
    order_id: str
    authorization_id: str
    capture_id: str
    currency: str
    authorized: int
    captured: int = 0
    voided: int = 0
    taken: int = 0
    refunded: int = 0


def refusal_of(ask: Ask, account: Account | None) -> str:
    """The code of the law that forbids `ask`, or "" when it may be done."""
    if ask.token == Token.DECLINED:
        return "declined"
    if account is None:
        return "not_found"
    match ask.verb:
        case Verb.AUTHORIZATION:
            return ""
        case Verb.CAPTURE if account.voided:
            return "already_voided"
        case Verb.CAPTURE:
            return "amount_too_large" if account.captured + ask.amount > account.authorized else ""
        case Verb.VOID if account.captured:
            return "already_captured"
        case Verb.VOID:
            return "already_voided" if account.voided else ""
        case Verb.REFUND:
            return "amount_too_large" if account.refunded + ask.amount > account.taken else ""


def problem(status: int, code: str, detail: str) -> Answer:
    """An RFC 9457 problem as an answer; `code` is stable, `detail` is for people."""
    named = {"type": f"/problems/{code}", "title": code.replace("_", " ").capitalize()}
    return Answer(status, json.dumps({**named, "status": status, "detail": detail, "code": code}))


def refused(code: str) -> Answer:
    """The answer for one of the `REFUSALS`."""
    return problem(REFUSALS[code][0], code, REFUSALS[code][1])


def made_id(ask: Ask) -> str:
    """The id of what `ask` makes: derived from its key, so that every replay names the same thing."""
    return f"{ID_PREFIXES[ask.verb]}_{uuid5(NAMESPACE, ask.key).hex}"


def amount_of(ask: Ask, account: Account) -> int:
    """The minor units that `ask` moves; a void lets go of the whole authorization."""
    return account.authorized if ask.verb is Verb.VOID else ask.amount


def succeeded(ask: Ask, account: Account) -> Answer:
    """The answer when `ask` was done; `id` names what it made."""
    fields = {"id": made_id(ask), "verb": ask.verb, "outcome": "succeeded", "amount": amount_of(ask, account)}
    named = {name: getattr(account, name) for name in NAMED_IN_ANSWERS}
    return Answer(201, json.dumps(fields | named))
