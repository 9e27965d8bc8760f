"""The payment provider as the payment agent sees it: one question, four possible outcomes."""

import json
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, Protocol, assert_never
from urllib.parse import quote

import aiohttp
import structlog
from yarl import URL

LARGEST_ANSWER_BYTES = 65_536
ASK_AGAIN_STATUSES = frozenset({408, 425, 429})  # refusals for now, by their definition

log = structlog.get_logger(__name__)


class Verb(StrEnum):
    """What can be asked of a payment provider."""

    AUTHORIZE = "authorization"
    CAPTURE = "capture"
    VOID = "void"
    REFUND = "refund"


@dataclass(frozen=True, slots=True)
class ProviderRequest:
    """One question. `key` is the id of the …Requested event and the same on every repetition.

    `amount` is in minor units of `currency` (ISO 4217); a void always lets go of the whole authorization.
    `token` is for AUTHORIZE only, else "". `reference` is the authorization's id for CAPTURE and VOID,
    the capture's id for REFUND, else "".
    """

    verb: Verb
    key: str
    payment_id: str
    order_id: str
    amount: int
    currency: str
    token: str
    reference: str


@dataclass(frozen=True, slots=True)
class ProviderAnswer:
    """What came back. Only "unknown" may be asked again, with the same key.

    `reference` is the id of what was made (authorization, capture, void, refund), "" unless it succeeded.
    `code` says why it did not succeed, "" if it did.
    """

    outcome: Literal["succeeded", "declined", "failed", "unknown"]
    reference: str
    code: str


class Provider(Protocol):
    """A payment provider."""

    async def ask(self, request: ProviderRequest) -> ProviderAnswer:
        """Ask once. Never raises: whatever leaves the effect in doubt is "unknown"."""


class ProviderConnection(Provider, Protocol):
    """A provider that holds connections."""

    async def close(self) -> None:
        """Let go of them; asked after that, the answer is "unknown"."""


class UnreadableAnswerError(ValueError):
    """The provider said something that is no answer to what was asked."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back over HTTP."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Calls:
    """HTTP to a provider: at most `connections` at once, each within `timeout_s` seconds.

    The time spent waiting for a free connection counts.
    """

    def __init__(self, timeout_s: float, connections: int) -> None:
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def call(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Reply:
        """Raises TimeoutError, aiohttp.ClientError, UnreadableAnswerError; `url` is encoded already."""
        # A redirect is not followed and a broken call not repeated: retries are in the log, not here.
        async with self._open_session().request(
            method, URL(url, encoded=True), headers=headers, data=body, allow_redirects=False
        ) as response:
            return Reply(response.status, response.headers, await _bounded_body(response))

    async def close(self) -> None:
        self._closed = True
        if self._session is not None:
            await self._session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        # Made at the first question, because a session belongs to the loop that is running then.
        if self._closed:
            raise RuntimeError("the provider is closed")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=self._timeout,
                connector=aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=30),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


async def in_any_doubt_unknown(request: ProviderRequest, asked: Awaitable[ProviderAnswer]) -> ProviderAnswer:
    """The answer to what was asked, or "unknown" and why. Never raises."""
    try:
        return await asked
    except TimeoutError:
        return unknown(request, "timeout")
    except aiohttp.ClientError as error:
        return unknown(request, "connection", error)
    except UnreadableAnswerError as error:
        return unknown(request, "unreadable", error)
    except Exception as error:  # noqa: BLE001  money may have moved: doubt is the only honest answer
        return unknown(request, "internal", error)


class SandboxProvider:
    """The sandbox over HTTP."""

    def __init__(self, url: str, timeout_s: float = 2.0, connections: int = 64) -> None:
        self._url = url.rstrip("/")
        self._calls = Calls(timeout_s, connections)

    async def ask(self, request: ProviderRequest) -> ProviderAnswer:
        """Ask once. Never raises: whatever leaves the effect in doubt is "unknown"."""
        return await in_any_doubt_unknown(request, self._ask(request))

    async def close(self) -> None:
        """Let go of the connections; asked after that, the answer is "unknown"."""
        await self._calls.close()

    async def _ask(self, request: ProviderRequest) -> ProviderAnswer:
        headers = {"Idempotency-Key": request.key, "Content-Type": "application/json"}
        body = json.dumps(_body_of(request)).encode()
        reply = await self._calls.call("POST", self._url + _path_of(request), headers, body)
        return read_answer(request, reply.status, reply.body)


def read_answer(request: ProviderRequest, status: int, body: bytes) -> ProviderAnswer:
    """The sandbox's answer to `request`; raises UnreadableAnswerError in any doubt."""
    if status >= 500 or status in ASK_AGAIN_STATUSES:
        return unknown(request, f"status_{status}")
    fields = _object_of(body)
    match status:
        case 200 | 201:
            return ProviderAnswer("succeeded", _reference_of(request, fields), "")
        case 402 if fields.get("code") == "declined":
            return ProviderAnswer("declined", "", "declined")
        case _ if 400 <= status < 500:
            return ProviderAnswer("failed", "", _text(fields, "code"))
        case _:
            raise UnreadableAnswerError(f"status {status}")


def _path_of(request: ProviderRequest) -> str:
    reference = quote(request.reference, safe="")
    match request.verb:
        case Verb.AUTHORIZE:
            return "/v1/authorizations"
        case Verb.CAPTURE:
            return f"/v1/authorizations/{reference}/captures"
        case Verb.VOID:
            return f"/v1/authorizations/{reference}/voids"
        case Verb.REFUND:
            return f"/v1/captures/{reference}/refunds"
        case _:
            assert_never(request.verb)


def _body_of(request: ProviderRequest) -> dict[str, str | int]:
    match request.verb:
        case Verb.AUTHORIZE:
            of_whom: dict[str, str | int] = {"payment_id": request.payment_id, "order_id": request.order_id}
            return of_whom | {"amount": request.amount, "currency": request.currency, "token": request.token}
        case Verb.CAPTURE | Verb.REFUND:
            return {"amount": request.amount}
        case Verb.VOID:
            return {}
        case _:
            assert_never(request.verb)


async def _bounded_body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > LARGEST_ANSWER_BYTES:
            raise UnreadableAnswerError(f"more than {LARGEST_ANSWER_BYTES} bytes")
    return bytes(body)


def _object_of(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UnreadableAnswerError("not JSON") from error
    if not isinstance(fields, dict):
        raise UnreadableAnswerError("not a JSON object")
    return fields


def _reference_of(request: ProviderRequest, fields: dict[str, Any]) -> str:
    """The id of what was made, once the answer is proved to be about this very request."""
    expected: dict[str, Any] = {
        "outcome": "succeeded",
        "verb": request.verb.value,
        "payment_id": request.payment_id,
        "order_id": request.order_id,
        "currency": request.currency,
    }
    if request.verb is not Verb.VOID:
        expected["amount"] = request.amount
    for name, value in expected.items():
        if fields.get(name) != value:
            raise UnreadableAnswerError(f"{name} is {fields.get(name)!r}, not {value!r}")
    return _text(fields, "id")


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise UnreadableAnswerError(f"no {name}")
    return value


def unknown(request: ProviderRequest, code: str, error: Exception | None = None) -> ProviderAnswer:
    """The answer that leaves the effect in doubt; said to the log as well."""
    log.warning(
        "provider answer unknown",
        verb=request.verb.value, key=request.key, payment_id=request.payment_id, code=code,
        error=None if error is None else f"{type(error).__name__}: {error}",
    )  # fmt: skip
    return ProviderAnswer("unknown", "", code)
