"""What became of a command: its first outcome, for a day, for its sender."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from projections.redis_store import RedisReader, RedisView
from projections.store import CACHE_WEIGHT
from projections.view import Fact, Served
from schemas.codec import Decoded
from schemas.decisions import Decided, Decisions
from schemas.meta import DAY, RecordMeta


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    command_id: str
    sender: str
    type: str
    stream: str
    outcome: str
    status: str
    rejection: dict[str, Any] | None
    refused: tuple[dict[str, Any], ...]
    positions: tuple[str, ...]
    correlation_id: str
    recorded_at: int

    version = 1
    """A command is decided once; whatever is said later about the same id is no news."""


def facts(message: Decoded[RecordMeta]) -> Iterable[Fact]:
    """The decisions that somebody may ask for: those on commands that came through the API."""
    decisions: Decisions = message.body
    asked = [one for one in decisions.decided if one.sender and not _came_too_late(one)]
    return [Fact(f"command/{one.command_id}", 1, one) for one in asked]


def _came_too_late(decided: Decided) -> bool:
    """Nothing was decided: the same command may be sent again, and then has a first outcome."""
    return decided.rejection is not None and decided.rejection.kind == "expired"


def evolve(_before: CommandOutcome | None, decided: Decided) -> CommandOutcome:
    return CommandOutcome(
        decided.command_id,
        decided.sender,
        decided.type,
        decided.stream,
        decided.outcome,
        decided.status,
        vars(decided.rejection) if decided.rejection else None,
        tuple(vars(line) for line in decided.refused),
        tuple(str(position) for position in decided.positions),
        decided.correlation_id,
        decided.recorded_at,
    )


def load(json: bytes) -> CommandOutcome:
    fields = orjson.loads(json)
    return CommandOutcome(
        **fields | {"refused": tuple(fields["refused"]), "positions": tuple(fields["positions"])}
    )


VIEW = RedisView(
    name="command",
    version=1,
    kind="command",
    aggregates=("catalog", "cart", "order", "inventory", "payment"),
    source="decisions",
    facts=facts,
    evolve=evolve,
    dump=orjson.dumps,
    load=load,
    expires_at=lambda outcome: outcome.recorded_at + DAY,
    weigh=lambda _: CACHE_WEIGHT + 1,  # not to be cached: its keys expire by themselves
)


async def by_id(reader: RedisReader, command_id: str) -> Served | None:
    return await reader.document(VIEW, f"command/{command_id}")
