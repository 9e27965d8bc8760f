"""What every payment provider keeps to, asked of the sandbox and, through Stripe's own SDK, of a stand-in for Stripe."""

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest
import stripe

from streams.payment_agent import provider_of
from streams.payments import (
    ProviderAnswer,
    ProviderConnection,
    ProviderRequest,
    SandboxProvider,
    UnreadableAnswerError,
    Verb,
)
from streams.settings import from_environment
from streams.stripe_payments import StripeProvider, judge
from tests.sandbox_process import ROOT, SandboxProcess, free_port, until
from tests.stripe_stand_in import SECRET


@dataclass(frozen=True)
class Till:
    """A provider, how it is reached (address, time-out in s, connections), its cards, and whom it holds money of."""

    url: str
    opened: Callable[[str, float, int], ProviderConnection]
    good: str
    declined: str
    hanging: str
    stumbling: str
    authorized: Callable[[], list[str]]

    @asynccontextmanager
    async def provider(
        self, url: str = "", timeout_s: float = 60.0, connections: int = 64
    ) -> AsyncIterator[ProviderConnection]:
        provider = self.opened(url or self.url, timeout_s, connections)
        try:
            yield provider
        finally:
            await provider.close()

    def authorization(self, name: str, token: str = "", amount: int = 1_000) -> ProviderRequest:
        order, key = f"order-of-{name}", f"authorize-{name}"
        return ProviderRequest(
            Verb.AUTHORIZE, key, name, order, amount, "GBP", token or self.good, reference=""
        )


def movement(
    verb: Verb, of: ProviderRequest, reference: str, amount: int = 1_000, key: str = ""
) -> ProviderRequest:
    key = key or f"{verb}-{of.payment_id}"
    return replace(of, verb=verb, key=key, amount=amount, token="", reference=reference)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Till]:
    process = SandboxProcess(tmp_path_factory.mktemp("sandbox"))
    process.start()

    def authorized() -> list[str]:
        rows = (row for row in process.ledger() if row["outcome"] == "succeeded")
        return [row["payment_id"] for row in rows if row["verb"] == "authorization"]

    cards = ("tok_ok", "tok_declined", "tok_timeout_after_success", "tok_server_error")
    yield Till(process.url, SandboxProvider, *cards, authorized)
    assert process.terminate() == 0


@pytest.fixture(scope="module")
def stand_in() -> Iterator[Till]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen([sys.executable, "-m", "tests.stripe_stand_in", str(port)], cwd=ROOT)

    def authorized() -> list[str]:
        with urllib.request.urlopen(f"{url}/authorized", timeout=60) as answered:
            said: list[str] = json.load(answered)
            return said

    def is_up() -> bool:
        try:
            return authorized() == []
        except OSError:
            return False

    def opened(at: str, timeout_s: float, connections: int) -> StripeProvider:
        return StripeProvider(SECRET, at, timeout_s, connections)

    try:
        until(is_up, 60)
        cards = ("pm_card_visa", "pm_card_chargeDeclined", "pm_hanging", "pm_stumbling")
        yield Till(url, opened, *cards, authorized)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(params=["sandbox", "stand_in"])
def till(request: pytest.FixtureRequest) -> Till:
    chosen: Till = request.getfixturevalue(request.param)
    return chosen


async def test_money_is_authorized_captured_and_refunded_by_the_references_that_come_back(till: Till):
    asked = till.authorization("whole")
    async with till.provider() as provider:
        authorized = await provider.ask(asked)
        captured = await provider.ask(movement(Verb.CAPTURE, asked, authorized.reference))
        refunded = await provider.ask(movement(Verb.REFUND, asked, captured.reference, 400))
    assert [answer.outcome for answer in (authorized, captured, refunded)] == ["succeeded"] * 3
    assert [answer.code for answer in (authorized, captured, refunded)] == [""] * 3
    assert len({authorized.reference, captured.reference, refunded.reference, ""}) == 4


async def test_an_authorization_is_voided_whatever_amount_the_question_names(till: Till):
    asked = till.authorization("void")
    async with till.provider() as provider:
        authorized = await provider.ask(asked)
        voided = await provider.ask(movement(Verb.VOID, asked, authorized.reference, amount=0))
    assert voided.outcome == "succeeded"


async def test_asking_again_with_the_same_key_gives_the_same_answer(till: Till):
    async with till.provider() as provider:
        answers = await asyncio.gather(*(provider.ask(till.authorization("again")) for _ in range(50)))
    assert len(set(answers)) == 1
    assert till.authorized().count("again") == 1


async def test_each_movement_asked_again_with_its_key_gives_its_first_answer(till: Till):
    asked = till.authorization("twice")
    async with till.provider() as provider:
        reference = asked.reference
        for verb in (Verb.AUTHORIZE, Verb.CAPTURE, Verb.REFUND):
            question = asked if verb is Verb.AUTHORIZE else movement(verb, asked, reference)
            first, again = await provider.ask(question), await provider.ask(question)
            assert first == again
            assert first.outcome == "succeeded"
            reference = first.reference


async def test_a_declined_card_is_declined_also_when_asked_again(till: Till):
    async with till.provider() as provider:
        answers = [await provider.ask(till.authorization("declined", till.declined)) for _ in range(2)]
    assert answers[0] == answers[1]
    assert (answers[0].outcome, answers[0].reference) == ("declined", "")
    assert answers[0].code


@pytest.mark.parametrize("verb", [Verb.CAPTURE, Verb.VOID, Verb.REFUND])
@pytest.mark.parametrize("reference", ["auth_none", "", "../ledger", "a b/ü?x#y"])
async def test_what_the_provider_does_not_know_is_failed_as_not_found(till: Till, verb: Verb, reference: str):
    asked = movement(verb, till.authorization("unheard"), reference, key=f"{verb}-{reference.encode().hex()}")
    async with till.provider() as provider:
        answer = await provider.ask(asked)
    assert answer == ProviderAnswer("failed", "", "not_found")


async def test_a_refusal_is_failed_with_a_code(till: Till):
    asked = till.authorization("law", amount=100)
    async with till.provider() as provider:
        authorized = await provider.ask(asked)
        over = await provider.ask(movement(Verb.CAPTURE, asked, authorized.reference, 101, key="over"))
        captured = await provider.ask(movement(Verb.CAPTURE, asked, authorized.reference, 100))
        voided = await provider.ask(movement(Verb.VOID, asked, authorized.reference))
        too_much = await provider.ask(movement(Verb.REFUND, asked, captured.reference, 101))
        unheard = await provider.ask(till.authorization("unheard-of", "tok_unheard_of"))
    refused = (over, voided, too_much, unheard)
    assert [answer.outcome for answer in refused] == ["failed"] * 4
    assert all(answer.code and not answer.reference for answer in refused)


async def test_a_key_of_another_question_moves_nothing(till: Till):
    asked = till.authorization("reused")
    async with till.provider() as provider:
        await provider.ask(asked)
        reused = await provider.ask(replace(asked, amount=11))
    assert reused.outcome in {"failed", "unknown"}
    assert till.authorized().count("reused") == 1


async def test_a_time_out_is_unknown_until_the_same_key_is_answered_and_charges_once(till: Till):
    async with till.provider(timeout_s=0.3) as provider:
        first = await provider.ask(till.authorization("hanging", till.hanging))
        async with asyncio.timeout(60):
            while (again := await provider.ask(till.authorization("hanging", till.hanging))).code:
                pass  # each question waits for its own time-out
    assert first == ProviderAnswer("unknown", "", "timeout")
    assert again.outcome == "succeeded"
    assert till.authorized().count("hanging") == 1


async def test_a_server_error_is_unknown_until_it_has_passed(till: Till):
    asked = till.authorization("error", till.stumbling)
    async with till.provider() as provider:
        answers = [await provider.ask(asked) for _ in range(3)]
    assert [answer.outcome for answer in answers] == ["unknown", "unknown", "succeeded"]


async def test_a_provider_that_nobody_runs_is_unknown(till: Till):
    async with till.provider(f"http://127.0.0.1:{free_port()}") as provider:
        answer = await provider.ask(till.authorization("nobody"))
    assert answer == ProviderAnswer("unknown", "", "connection")


async def test_more_questions_than_connections_are_all_answered(till: Till):
    async with till.provider(connections=2) as provider:
        answers = await asyncio.gather(*(provider.ask(till.authorization(f"few-{n}")) for n in range(40)))
    assert {answer.outcome for answer in answers} == {"succeeded"}


async def test_a_key_that_cannot_be_sent_raises_nothing(till: Till):
    async with till.provider() as provider:
        answer = await provider.ask(replace(till.authorization("key"), key="line\nfeed"))
    assert answer == ProviderAnswer("unknown", "", "internal")


async def test_a_closed_provider_says_unknown(till: Till):
    async with till.provider() as provider:
        pass
    assert await provider.ask(till.authorization("closed")) == ProviderAnswer("unknown", "", "internal")


# What only Stripe does.


async def test_what_stripe_calls_processing_is_looked_at_before_it_is_told(stand_in: Till):
    async with stand_in.provider() as provider:
        answer = await provider.ask(stand_in.authorization("processing", "pm_processing"))
    assert answer.outcome == "succeeded"


async def test_a_card_whose_holder_would_have_to_act_is_declined(stand_in: Till):
    async with stand_in.provider() as provider:
        answer = await provider.ask(stand_in.authorization("act", "pm_card_authenticationRequired"))
    assert answer == ProviderAnswer("declined", "", "authentication_required")


def forget_keys(stand_in: Till) -> None:
    urllib.request.urlopen(f"{stand_in.url}/forget", b"", timeout=60).close()


@pytest.mark.parametrize("verb", [Verb.CAPTURE, Verb.VOID])
async def test_what_was_done_under_a_key_that_stripe_has_forgotten_is_done(stand_in: Till, verb: Verb):
    asked = stand_in.authorization(f"forgotten-{verb}")
    async with stand_in.provider() as provider:
        moving = movement(verb, asked, (await provider.ask(asked)).reference)
        first = await provider.ask(moving)
        await asyncio.to_thread(forget_keys, stand_in)
        assert await provider.ask(moving) == first
    assert first.outcome == "succeeded"


async def test_with_a_wrong_secret_nothing_is_certain(stand_in: Till):
    provider = StripeProvider("sk_test_wrong", stand_in.url)
    answer = await provider.ask(stand_in.authorization("wrong"))
    await provider.close()
    assert answer == ProviderAnswer("unknown", "", "AuthenticationError_401")
    assert "wrong" not in stand_in.authorized()


INTENT = {
    "id": "pi_1",
    "object": "payment_intent",
    "amount": 1_000,
    "amount_received": 1_000,
    "currency": "gbp",
    "latest_charge": "ch_1",
    "metadata": {"payment_id": "said"},
    "status": "requires_capture",
}


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        (Verb.AUTHORIZE, {"amount": 1_001}),
        (Verb.AUTHORIZE, {"currency": "eur"}),
        (Verb.AUTHORIZE, {"metadata": {"payment_id": "another"}}),
        (Verb.AUTHORIZE, {"metadata": {}}),
        (Verb.CAPTURE, {"status": "succeeded", "amount_received": 999}),
        (Verb.CAPTURE, {"status": "succeeded", "latest_charge": None}),
    ],
)
def test_what_stripe_says_of_something_else_is_no_answer(verb: Verb, said: dict[str, object]):
    request = ProviderRequest(verb, "key", "said", "order", 1_000, "GBP", "", "pi_1")
    intent = stripe.PaymentIntent.construct_from(INTENT | said, "key")
    with pytest.raises(UnreadableAnswerError):
        judge(request, intent)


async def test_the_environment_chooses_the_provider():
    environ = {"DAYBOOK_KAFKA": "localhost:1"}
    stripes = {"DAYBOOK_PAYMENTS": "stripe", "DAYBOOK_STRIPE_KEY": "sk_test_1"}
    for wanted, kind in (({}, SandboxProvider), (stripes, StripeProvider)):
        provider = provider_of(from_environment(environ | wanted), environ | wanted)
        assert isinstance(provider, kind)
        await provider.close()
    with pytest.raises(KeyError, match="DAYBOOK_STRIPE_KEY"):
        provider_of(from_environment(environ | {"DAYBOOK_PAYMENTS": "stripe"}), environ)
    with pytest.raises(ValueError, match="not paypal"):
        from_environment(environ | {"DAYBOOK_PAYMENTS": "paypal"})
