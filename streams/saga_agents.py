"""The saga agent: what happened, and what was answered, becomes the commands that follow from it."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from projections.view import Batch, Poison, Recorded
from schemas.decisions import Decisions
from schemas.topics import Topics
from streams.asked import Asked, Fact, SagaCommandRejected
from streams.command_producer import CommandProducer
from streams.failpoints import failpoint
from streams.faust_app import Feed, Kit, Role, run
from streams.saga import HEARD, react
from streams.settings import from_environment

BATCHES_MAX = 8
"""So many batches wait for Kafka's acknowledgement at once. Their commands go out in order all the same, unless one is
sent again; and then facts that cross are an order's daily bread."""

LISTENED_TO = ("cart", "order", "inventory", "payment")


@dataclass(frozen=True)
class SagaPorts:
    commands: CommandProducer
    topics: Topics


async def advance_checkouts(batch: Batch, ports: SagaPorts) -> list[Poison]:
    """Send all that follows from the batch; what an order refused to hear is named, for a person to see."""
    asked: list[Asked] = []
    unheard: list[Poison] = []
    for record in batch.records:
        for consequence in consequences(record, ports.topics):
            if isinstance(consequence, Asked):
                asked.append(consequence)
            else:
                unheard.append(_poison(consequence, record.offset))
    failpoint("saga_before_commands")
    await ports.commands.send(asked)
    failpoint("saga_after_commands")
    return unheard


def consequences(record: Recorded, topics: Topics) -> Iterable[Asked | SagaCommandRejected]:
    for fact in facts_in(record):
        yield from react(fact, topics)


def facts_in(record: Recorded) -> Iterable[Fact]:
    """An event is one fact; a decisions record holds one for each command."""
    body = record.message.body
    return body.decided if isinstance(body, Decisions) else (record.message,)


def sagas(kit: Kit) -> Role:
    topics = kit.settings.topics
    ports = SagaPorts(CommandProducer(kit.producer, kit.codec, topics), topics)
    topics_heard = [topic(name) for name in LISTENED_TO for topic in (topics.events, topics.decisions)]
    body = partial(advance_checkouts, ports=ports)
    source = kit.source("sagas", topics_heard, heard=HEARD)
    return Role("sagas", kit, (Feed(source, body, concurrency=BATCHES_MAX),))


def main() -> None:
    run(sagas(Kit.of(from_environment())))


def _poison(unheard: SagaCommandRejected, offset: int) -> Poison:
    rejection = unheard.rejection
    reason = f"{unheard.type} {unheard.command_id} was rejected: {rejection.type}: {rejection.detail}"
    return Poison(unheard.stream, offset, reason)


if __name__ == "__main__":
    main()
