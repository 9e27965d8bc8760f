"""A payment provider with a ledger of its own: each key is done once, whatever becomes of the answer."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from schemas.meta import derived_id
from streams.payments import ProviderAnswer, ProviderRequest

Mood = Literal["well", "timeout after success", "server error", "slow", "refusing"]

LATENCY_S = 0.3
TIMEOUT_S = 2.0
DECLINED = 0.08


@dataclass
class Account:
    """Minor units of one payment, by verb."""

    moved: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    @property
    def held(self) -> int:
        return self.moved["authorization"] - self.moved["capture"] - self.moved["void"]

    def allows(self, request: ProviderRequest) -> bool:
        match request.verb.value:
            case "authorization":
                return True
            case "refund":
                return request.amount <= self.moved["capture"] - self.moved["refund"]
            case _:
                return request.amount <= self.held


class SimulatedProvider:
    """Implements `streams.payments.Provider`. `told` hears of all that was done, as a webhook would say it."""

    def __init__(self, random: Random, told: Callable[[ProviderRequest, ProviderAnswer], None]) -> None:
        self.mood: Mood = "well"
        self.is_silent = False
        """It answers nobody and does nothing."""
        self.ledger: list[dict[str, Any]] = []
        self.orders: dict[str, str] = {}
        self.accounts: defaultdict[str, Account] = defaultdict(Account)
        self._answers: dict[str, ProviderAnswer] = {}
        self._random = random
        self._told = told

    async def ask(self, request: ProviderRequest) -> ProviderAnswer:
        if self.is_silent:
            await asyncio.sleep(TIMEOUT_S)
            return ProviderAnswer("unknown", "", "timeout")
        mood = self.mood
        if mood == "slow":
            await asyncio.sleep(self._random.random() * TIMEOUT_S * 1.5)
        else:
            await asyncio.sleep(self._random.random() * LATENCY_S)
        if mood == "server error" and self._random.random() < 0.7:
            return ProviderAnswer("unknown", "", "500")
        answer = self._answer(request, refusing=mood == "refusing")
        if mood == "timeout after success" and self._random.random() < 0.7:
            await asyncio.sleep(TIMEOUT_S)
            return ProviderAnswer("unknown", "", "timeout")
        return answer

    def _answer(self, request: ProviderRequest, *, refusing: bool) -> ProviderAnswer:
        known = self._answers.get(request.key)
        if known is not None:
            return known
        answer = self._answers[request.key] = self._done(request, refusing=refusing)
        self._told(request, answer)
        return answer

    def _done(self, request: ProviderRequest, *, refusing: bool) -> ProviderAnswer:
        account, verb = self.accounts[request.payment_id], request.verb.value
        self.orders[request.payment_id] = request.order_id
        is_declined = verb == "authorization" and self._random.random() < DECLINED
        if is_declined or not account.allows(request) or (refusing and self._random.random() < 0.5):
            outcome: Literal["declined", "failed"] = "declined" if verb == "authorization" else "failed"
            self._note(request, outcome)
            return ProviderAnswer(outcome, "", outcome)
        account.moved[verb] += request.amount
        self._note(request, "succeeded")
        return ProviderAnswer("succeeded", derived_id(request.key, "made"), "")

    def _note(self, request: ProviderRequest, outcome: str) -> None:
        self.ledger.append(
            {
                "verb": request.verb.value,
                "key": request.key,
                "payment_id": request.payment_id,
                "amount": request.amount,
                "outcome": outcome,
            }
        )
