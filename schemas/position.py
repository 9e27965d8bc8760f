"""Where a writer stood: the one state record that is about a partition and not about a stream."""

from schemas.frozen import frozen

POSITION_PATH = "~position"


@frozen
class WriterPosition:
    """What the transaction that wrote this record found and added, so that a log that lost its end is found out.

    `events` and `decisions` are the next offsets before it: from there on both topics must hold at least as many
    records as it wrote, and the last event of each stream must be the one that the state knows. `recorded_at` of its
    meta is the writer's clock, which never goes backwards.
    """

    events: int
    decisions: int
    events_written: int
    decisions_written: int
