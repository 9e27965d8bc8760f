"""Where a source goes on: the positions of partitions that were just assigned to it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from projections.view import Partition
from streams.deliveries import Patience

if TYPE_CHECKING:
    from concurrent.futures import Future

log = structlog.get_logger(__name__)

Positions: TypeAlias = Callable[[Iterable[Partition]], Awaitable[dict[Partition, int]]]

ANSWER_S = 10.0


class Resumption(Protocol):
    """Asked once per turn, so that the group is served meanwhile."""

    def begin(self, partitions: Sequence[Partition]) -> None:
        """These are ours now."""

    def end(self) -> None:
        """They are no longer."""

    def found(self) -> dict[Partition, int] | None:
        """Once: where to go on with each; None while that is not known."""


class FromStore:
    """A store says where it stands; a partition that it does not know begins at 0."""

    def __init__(self, positions: Positions, loop: asyncio.AbstractEventLoop) -> None:
        self._positions = positions
        self._loop = loop
        self._answer: Future[dict[Partition, int]] | None = None

    def begin(self, partitions: Sequence[Partition]) -> None:
        self.end()
        if partitions:
            self._answer = asyncio.run_coroutine_threadsafe(self._ask(partitions), self._loop)

    def end(self) -> None:
        if self._answer is not None:
            self._answer.cancel()
        self._answer = None

    def found(self) -> dict[Partition, int] | None:
        if self._answer is None or not self._answer.done():
            return None
        positions, self._answer = self._answer.result(), None
        return positions

    async def _ask(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        patience = Patience()
        while True:
            try:
                known = await self._positions(partitions)
            except Exception as error:  # noqa: BLE001  # the store may come up yet
                log.warning("positions unknown", error=f"{type(error).__name__}: {error}")
                await patience.wait()
            else:
                return {partition: known.get(partition, 0) for partition in partitions}


class FromKafka:
    """The group's committed offsets; the oldest record where nothing was committed."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._wanted: Sequence[Partition] = ()

    def begin(self, partitions: Sequence[Partition]) -> None:
        self._wanted = partitions

    def end(self) -> None:
        self._wanted = ()

    def found(self) -> dict[Partition, int] | None:
        if not self._wanted:
            return None
        try:
            asked = [TopicPartition(*partition) for partition in self._wanted]
            offsets = self._consumer.committed(asked, timeout=ANSWER_S)
            positions = {
                (o.topic, o.partition): o.offset if o.offset >= 0 else self._oldest(o) for o in offsets
            }
        except KafkaException as error:
            log.warning("positions unknown", error=str(error))
            return None
        self._wanted = ()
        return positions

    def _oldest(self, partition: TopicPartition) -> int:
        low, _ = self._consumer.get_watermark_offsets(partition, timeout=ANSWER_S)
        return int(low)
