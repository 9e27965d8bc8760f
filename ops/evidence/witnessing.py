"""The witness at work: reads the topic of checkpoints from where it was, and publishes its word beside the sealer's."""

from collections.abc import Callable
from pathlib import Path

from ops.evidence.checkpoint import Checkpoint, PrivateKey, PublicKey
from ops.evidence.log import checkpoints_in, open_consumer, producer_of, publish
from ops.evidence.whole_file import replace_file
from ops.evidence.witness import Refused, Witness


class Watch:
    """One pass is `look`. Where it was is kept beside what was seen; forgetting it only costs reading again."""

    def __init__(self, kafka: str, topic: str, folder: Path, key: PrivateKey, sealer: PublicKey) -> None:
        self.cosigned = 0
        self.refused = 0
        self._kafka, self._topic = kafka, topic
        self._witness = Witness(folder / "seen", key, sealer)
        self._position = folder / "position"
        self._producer = producer_of(kafka)

    def look(self, say: Callable[[str], None]) -> None:
        """Considers what was published since. Raises LogNotReadError."""
        start = int(self._position.read_text("utf-8")) if self._position.exists() else 0
        with open_consumer(self._kafka) as consumer:
            for one in checkpoints_in(consumer, self._topic, start):
                start = one.offset + 1
                if one.submission is None:
                    continue
                try:
                    note = self._witness.consider(one.submission)
                except Refused as refused:
                    self.refused += 1
                    say(f"refused: {refused}")
                    continue
                publish(self._producer, self._topic, Checkpoint.of(note).origin, str(note))
                self.cosigned += 1
        self._position.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self._position, str(start))
