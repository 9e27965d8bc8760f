"""A dead letter: a record that could not be applied, word for word, with the reason."""

from schemas.frozen import frozen


@frozen
class DeadLetter:
    """`consumer` could not apply the record at `topic`/`partition`/`offset`; `stream` is empty if unreadable."""

    consumer: str
    topic: str
    partition: int
    offset: int
    stream: str
    reason: str
    key: bytes
    value: bytes
    released: bool
