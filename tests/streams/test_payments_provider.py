"""The sandbox's provider beyond the contract: its own words, its slow card, and servers that misbehave."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from streams.payments import ProviderAnswer, ProviderRequest, SandboxProvider, Verb
from tests.sandbox_process import SandboxProcess


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    process = SandboxProcess(tmp_path_factory.mktemp("sandbox"), DAYBOOK_SANDBOX_SLOW_S="1.5")
    process.start()
    yield process
    assert process.terminate() == 0


@asynccontextmanager
async def provider_at(
    url: str, timeout_s: float = 60.0, connections: int = 64
) -> AsyncIterator[SandboxProvider]:
    provider = SandboxProvider(url, timeout_s, connections)
    try:
        yield provider
    finally:
        await provider.close()


def authorization(name: str, token: str = "tok_ok", amount: int = 1_000) -> ProviderRequest:
    return ProviderRequest(
        Verb.AUTHORIZE, f"authorize-{name}", name, f"order-of-{name}", amount, "GBP", token, reference=""
    )


def movement(
    verb: Verb, of: ProviderRequest, reference: str, amount: int = 1_000, key: str = ""
) -> ProviderRequest:
    return replace(
        of, verb=verb, key=key or f"{verb}-{of.payment_id}", amount=amount, token="", reference=reference
    )


async def test_a_refusal_is_failed_with_its_code(sandbox):
    asked = authorization("law", amount=10)
    async with provider_at(sandbox.url) as provider:
        authorized = await provider.ask(asked)
        over = await provider.ask(movement(Verb.CAPTURE, asked, authorized.reference, 11))
        reused = await provider.ask(replace(asked, amount=11))
        unheard = await provider.ask(authorization("unheard-of", "tok_unheard_of"))
    assert over == ProviderAnswer("failed", "", "amount_too_large")
    assert reused == ProviderAnswer("failed", "", "idempotency_key_reused")
    assert unheard == ProviderAnswer("failed", "", "invalid")


@pytest.mark.parametrize("token", ["tok_timeout_after_success", "tok_slow"])
async def test_a_time_out_is_unknown_until_the_same_key_is_answered_and_charges_once(sandbox, token):
    async with provider_at(sandbox.url, timeout_s=0.3) as provider:
        first = await provider.ask(authorization(token, token))
        async with asyncio.timeout(60):
            while (again := await provider.ask(authorization(token, token))).outcome == "unknown":
                pass  # each question waits for its own time-out
    assert first == ProviderAnswer("unknown", "", "timeout")
    assert again.outcome == "succeeded"
    assert [row["payment_id"] for row in sandbox.ledger()].count(token) == 1


async def test_a_server_error_is_unknown_until_it_has_passed(sandbox):
    async with provider_at(sandbox.url) as provider:
        answers = [await provider.ask(authorization("error", "tok_server_error")) for _ in range(3)]
    assert [(answer.outcome, answer.code) for answer in answers] == [
        ("unknown", "status_500"),
        ("unknown", "status_500"),
        ("succeeded", ""),
    ]


async def test_a_provider_that_is_killed_and_comes_back_is_asked_again_over_new_connections(tmp_path):
    sandbox = SandboxProcess(tmp_path)
    sandbox.start()
    async with provider_at(sandbox.url) as provider:
        first = await provider.ask(authorization("killed"))
        sandbox.kill()
        meanwhile = await provider.ask(authorization("killed"))
        sandbox.start()
        again = await provider.ask(authorization("killed"))
    assert sandbox.terminate() == 0
    assert meanwhile.outcome == "unknown"
    assert again == first


@pytest.mark.parametrize("key", ["", "line\nfeed", "ü"])
async def test_a_key_that_cannot_be_sent_raises_nothing(sandbox, key):
    async with provider_at(sandbox.url) as provider:
        answer = await provider.ask(replace(authorization("key"), key=key))
    assert answer.outcome in {"failed", "unknown"}


# Servers that misbehave: bytes as they come, over a real socket.


@asynccontextmanager
async def server_that_says(answer: bytes) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def http(status: str, body: bytes) -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status.encode(), len(body), body)


TRUE_ANSWER = (
    b'{"id": "auth_1", "verb": "authorization", "outcome": "succeeded", "amount": 1000,'
    b' "payment_id": "said", "order_id": "order-of-said", "currency": "GBP"}'
)


async def asked_of(answer: bytes) -> ProviderAnswer:
    async with server_that_says(answer) as url, provider_at(url) as provider:
        return await provider.ask(authorization("said"))


async def test_a_true_answer_is_believed():
    assert await asked_of(http("201 Created", TRUE_ANSWER)) == ProviderAnswer("succeeded", "auth_1", "")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (http("201 Created", b""), "unreadable"),
        (http("201 Created", b"<html>"), "unreadable"),
        (http("201 Created", b"[]"), "unreadable"),
        (http("201 Created", b"\xff\xfe\xfd"), "unreadable"),
        (http("201 Created", b"[" * 60_000), "unreadable"),
        (http("201 Created", b" " * 100_000), "unreadable"),
        (http("201 Created", TRUE_ANSWER.replace(b"1000", b"1001")), "unreadable"),
        (http("201 Created", TRUE_ANSWER.replace(b'"said"', b'"another"')), "unreadable"),
        (http("201 Created", TRUE_ANSWER.replace(b'"auth_1"', b"7")), "unreadable"),
        (http("201 Created", TRUE_ANSWER.replace(b"succeeded", b"pending")), "unreadable"),
        (http("302 Found", TRUE_ANSWER), "unreadable"),
        (http("302 Found", b'{"code": "moved"}'), "unreadable"),
        (http("402 Payment Required", b"{}"), "unreadable"),
        (http("404 Not Found", b"<html>"), "unreadable"),
        (http("429 Too Many Requests", b'{"code": "later"}'), "status_429"),
        (http("503 Service Unavailable", b"{}"), "status_503"),
        (http("201 Created", TRUE_ANSWER)[:-20], "connection"),
        (b"SSH-2.0-what\r\n\r\n", "connection"),
        (b"", "connection"),
    ],
)
async def test_what_is_no_certain_answer_is_unknown(answer, code):
    assert await asked_of(answer) == ProviderAnswer("unknown", "", code)
