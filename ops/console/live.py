"""Laws and lags, as they are at this moment: what the auditor found, and what each role says of itself."""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Request, Response

from api.health import answers
from ops.audit.kept import LAW_OF_VIEWS, read_listed
from ops.audit.laws import LAWS, Law
from ops.console.pages import page
from ops.console.sources import Sources, sources_of
from ops.console.visitors import HOME, Visitor
from ops.roles import LOOKERS_ON, ROLES
from ops.status import MICROS_PER_S, health_of, said_by

FOUND_SHOWN = 20
ANSWER_WITHIN_S = 1.0
REFRESH_S = 3

WORDLESS = frozenset({"sandbox"})
"""Stands where somebody else's house would, and says nothing of itself."""

Standing = Literal["holds", "broken", "unknown"]

routes = APIRouter(prefix=HOME)


@dataclass(frozen=True)
class Word:
    """What a role last said of itself, `age_s` ago; of one that never did only its name is known."""

    role: str
    health: str
    age_s: float | None = None
    lag_events: int | None = None
    lag_s: float | None = None
    detail: str = ""

    @property
    def is_well(self) -> bool:
        return self.health == "ready"


@dataclass(frozen=True)
class Verdict:
    """A law, how it stands by the auditor's word, and how often it was found broken."""

    law: Law
    standing: Standing
    breaches: int


@routes.get("/live")
async def show_live(request: Request, _: Visitor, *, still: bool = False) -> Response:
    """It comes anew by itself, unless it is asked to stand still."""
    sources = sources_of(request)
    roles = [role for role in (*ROLES, *LOOKERS_ON) if role not in WORDLESS]
    words = [word_of(sources.run, role, time.time()) for role in roles]
    found = list(read_listed(sources.found))
    auditor = next(word for word in words if word.role == "auditor")
    return page(
        request,
        "live",
        words=words,
        auditor=auditor,
        verdicts=verdicts(found, auditor),
        found=found[: -FOUND_SHOWN - 1 : -1],
        left_out=max(0, len(found) - FOUND_SHOWN),
        stores=await stores_of(sources),
        at=time.time_ns() // 1_000,
        still=still,
        refresh_s=REFRESH_S,
    )


def word_of(run: Path, role: str, now: float) -> Word:
    """As `./daybook status` reads it; here nobody knows pids, as roles may be in containers of their own."""
    said = said_by(run, role)
    if not said:
        return Word(role, "no word")
    return Word(
        role,
        health_of(said, now),
        max(0.0, now - said["at"] / MICROS_PER_S),
        said.get("lag_events"),
        said.get("lag_s"),
        str(said.get("detail", "")),
    )


def verdicts(found: Iterable[Mapping[str, Any]], auditor: Word) -> Sequence[Verdict]:
    """What was found stands, whoever looks now; that nothing was found counts only while somebody looks. An auditor that
    is not well may be unable to read views.
    """
    breaches = dict.fromkeys(LAWS, 0)
    for one in found:
        breaches[one["law"]] = breaches.get(one["law"], 0) + bool(one.get("wrong_now", True))
    return [
        Verdict(law, _standing(number, breaches[number], auditor), breaches[number])
        for number, law in LAWS.items()
    ]


def _standing(number: str, breaches: int, auditor: Word) -> Standing:
    if breaches:
        return "broken"
    looks = auditor.is_well or (auditor.health == "degraded" and number != LAW_OF_VIEWS)
    return "holds" if looks else "unknown"


async def stores_of(sources: Sources) -> Mapping[str, bool]:
    redis, cassandra = await asyncio.gather(
        answers(sources.redis.ping(), ANSWER_WITHIN_S), answers(sources.cassandra.ping(), ANSWER_WITHIN_S)
    )
    return {"Redis": redis, "Cassandra": cassandra}
