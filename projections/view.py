"""What a view is: documents folded from streams by a pure function, and a position kept beside them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from schemas.codec import Decoded
from schemas.topics import Topics

Partition: TypeAlias = tuple[str, int]
"""Topic and number."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A decoded record, and where in the log it stands."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    message: Decoded[Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive records of one partition.

    `expected` is where the previous batch ended, `next` the offset behind this one (transaction markers leave
    holes, so neither follows from the records). A batch without records and with `next == expected` only checks
    the position: a source sends one now and then where nothing comes, so that a flushed store heals there too.
    Records below `expected` are welcome (a parked stream that was released): versions tell what is new.
    """

    topic: str
    partition: int
    expected: int
    next: int
    records: Sequence[Recorded]


@dataclass(frozen=True, slots=True)
class Poison:
    """The record at `offset` was not applied, and `stream` must not go on without it.

    Every record that a batch left out is named, in order: also those behind the first one of their stream.
    """

    stream: str
    offset: int
    reason: str


class StoreUnavailable(Exception):  # it is no error of ours: the same batch may be applied again
    """The store does not answer, or has no room: try the same batch again later."""


class PositionMoved(Exception):  # as above: it says where to go on
    """The store stands elsewhere than the source believed (flushed, restored, switched): read from `next` on."""

    def __init__(self, next: int) -> None:  # noqa: A002  # the word of `Batch`
        super().__init__(f"the store's next offset is {next}")
        self.next = next


class ViewStore(Protocol):
    """Where views and their positions live; one source and one consumer group feed each store."""

    @property
    def name(self) -> str: ...

    def topics(self, topics: Topics) -> list[str]:
        """The topics whose records this store wants."""

    async def positions(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The next offset of each partition, 0 where nothing was applied; raises StoreUnavailable."""

    async def apply(self, batch: Batch) -> list[Poison]:
        """Write what the records say, then the position.

        Raises StoreUnavailable (nothing is lost: apply the same batch again) or PositionMoved (go there).
        """

    async def close(self) -> None: ...
