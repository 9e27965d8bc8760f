"""Where a writer stood: the one state record that is about a partition and not about a stream."""

from dataclasses import dataclass

POSITION_PATH = "~position"


@dataclass(frozen=True)
class WriterPosition:
    """The next offsets of `events` and `decisions` before the transaction that wrote this record: the tail that must
    agree with the state. `recorded_at` of its meta is the writer's clock, which never goes backwards.
    """

    events: int
    decisions: int
