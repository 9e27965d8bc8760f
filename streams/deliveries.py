"""A batch on its way through an agent, and the rules by which every agent settles it.

Nothing escapes: what may heal is tried again in place, while offsets wait; what cannot is a dead letter, its stream
is parked, the partition goes on. Only what is written, letters included, is acknowledged.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol, TypeAlias, TypeVar

import structlog

from projections.view import Batch, Poison, PositionMoved, Recorded
from schemas.letters import DeadLetter
from streams.failpoints import failpoint

log = structlog.get_logger(__name__)

Body: TypeAlias = Callable[[Batch], Awaitable[Sequence[Poison]]]
"""What an agent does with a batch; whatever it names as poison it has left out."""

DATA_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
"""What a record does to code that cannot cope with it, time after time. Anything else (a store, Kafka, the network)
may heal."""

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0

Answer = TypeVar("Answer")


class Handler(Protocol):
    """What a delivery reports to: the source that sent it."""

    def is_current(self, delivery: "Delivery") -> bool: ...

    def turned(self) -> None: ...

    def unwell(self, reason: str) -> None:
        """The body waits for something to heal; "" when it has."""

    def settled(self, delivery: "Delivery", poisons: Sequence[Poison]) -> None: ...

    def moved(self, delivery: "Delivery", position: int) -> None: ...

    def dropped(self, delivery: "Delivery") -> None: ...

    def broken(self, delivery: "Delivery", error: Exception) -> None:
        """Not even the rules for errors could be kept: the process must end before it skips anything."""

    def without_parked(self, delivery: "Delivery") -> "Delivery":
        """The delivery as it is now that earlier ones may have parked streams of its records."""

    async def write(self, letters: Sequence[DeadLetter]) -> None: ...


@dataclass(frozen=True, eq=False)
class Delivery:
    """A batch, the letters that must be written before it is acknowledged, and its records' bytes by offset."""

    batch: Batch
    letters: Sequence[DeadLetter]
    values: Mapping[int, bytes]
    consumer: str
    handler: Handler

    def letter(self, stream: str, offset: int, reason: str) -> DeadLetter:
        """The letter about one of the batch's records."""
        key = next((record.key for record in self.batch.records if record.offset == offset), None)
        batch, value = self.batch, self.values.get(offset, b"")
        where = (self.consumer, batch.topic, batch.partition, offset)
        return DeadLetter(*where, stream, reason, key or b"", value, released=False)


@dataclass
class Patience:
    """Waits between attempts: 0.1 s, doubled up to 5 s."""

    wait_s: float = field(default=FIRST_WAIT_S)

    async def wait(self) -> None:
        await asyncio.sleep(self.wait_s)
        self.wait_s = min(LONGEST_WAIT_S, self.wait_s * 2)


class _StaleError(Exception):
    """The partition was revoked or rewound meanwhile: somebody else's work now."""


async def settle(delivery: Delivery, body: Body) -> None:
    """Write the letters, apply the batch, letter what was poison in it, acknowledge. Never raises."""
    handler = delivery.handler
    try:
        delivery = handler.without_parked(delivery)
        await _heal(delivery, partial(handler.write, delivery.letters))
        poisons = await _apply(delivery, body)
        failpoint("agent_before_ack")
        handler.settled(delivery, poisons)
    except PositionMoved as moved:
        log.warning("the store stands elsewhere", consumer=delivery.consumer, partition=_where(delivery.batch),
                    expected=delivery.batch.expected, position=moved.next)  # fmt: skip
        handler.moved(delivery, moved.next)
    except _StaleError:
        handler.dropped(delivery)
    except Exception as error:
        log.exception("cannot settle", consumer=delivery.consumer, partition=_where(delivery.batch))
        handler.broken(delivery, error)


async def _heal(delivery: Delivery, attempt: Callable[[], Awaitable[Answer]]) -> Answer:
    """The answer of the first attempt that succeeds; data errors and PositionMoved are answers of their own."""
    patience = Patience()
    while delivery.handler.is_current(delivery):
        delivery.handler.turned()
        try:
            answer = await attempt()
        except (PositionMoved, *DATA_ERRORS):
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, the records must not be lost
            reason = f"{type(error).__name__}: {error}"
            log.warning(
                "waiting", consumer=delivery.consumer, partition=_where(delivery.batch), reason=reason
            )
            delivery.handler.unwell(reason)
            await patience.wait()
        else:
            delivery.handler.unwell("")
            return answer
    raise _StaleError


async def _apply(delivery: Delivery, body: Body) -> Sequence[Poison]:
    """Apply the batch. What is poison in it is lettered before any position passes it, then the rest is applied."""

    async def attempt(batch: Batch) -> Sequence[Poison]:
        failpoint("agent_before_apply")
        poisons = await body(batch)
        failpoint("agent_after_apply")
        return poisons

    found: list[Poison] = []
    batch = delivery.batch
    try:
        while poisons := await _heal(delivery, partial(attempt, batch)):
            await _letter(delivery, poisons)
            found += poisons
            batch = batch.without(poisons)
    except DATA_ERRORS:
        log.exception("one by one", consumer=delivery.consumer, partition=_where(delivery.batch))
        found += await _one_by_one(delivery, batch, attempt)
    return found


async def _one_by_one(delivery: Delivery, batch: Batch, attempt: Body) -> list[Poison]:
    """Find the records that the body cannot cope with; all others are applied, each in a batch of its own."""
    found: list[Poison] = []
    for alone in _singles(batch):
        (record,) = alone.records
        if stream_of(record) in {poison.stream for poison in found}:
            poisons = [_poison(record, "behind a record that cannot be applied")]
        else:
            poisons = await _try(delivery, alone, attempt)
        if poisons:
            await _letter(delivery, poisons)
            await _heal(delivery, partial(attempt, replace(alone, records=())))
            found += poisons
    return found


async def _try(delivery: Delivery, alone: Batch, attempt: Body) -> list[Poison]:
    try:
        return list(await _heal(delivery, partial(attempt, alone)))
    except DATA_ERRORS as error:
        return [_poison(alone.records[0], f"{type(error).__name__}: {error}")]


async def _letter(delivery: Delivery, poisons: Sequence[Poison]) -> None:
    letters = [delivery.letter(poison.stream, poison.offset, poison.reason) for poison in poisons]
    await _heal(delivery, partial(delivery.handler.write, letters))


def _poison(record: Recorded, reason: str) -> Poison:
    return Poison(stream_of(record), record.offset, reason)


def _singles(batch: Batch) -> Iterable[Batch]:
    """The batch as batches of one record, that lead from its `expected` to its `next`."""
    position, last = batch.expected, len(batch.records) - 1
    for index, record in enumerate(batch.records):
        behind = batch.next if index == last else max(position, record.offset + 1)
        yield replace(batch, expected=position, next=behind, records=(record,))
        position = behind


def stream_of(record: Recorded) -> str:
    return str(record.message.meta.stream)


def _where(batch: Batch) -> str:
    return f"{batch.topic}[{batch.partition}]"
