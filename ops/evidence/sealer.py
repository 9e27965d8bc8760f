"""The sealer: reads what was committed to the inventory, and signs what it said, every 10 s or 1,000 records."""

import fcntl
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from ops.audit.log_reader import LogNotReadError
from ops.evidence.checkpoint import Checkpoint, PrivateKey, Submission, origin_of
from ops.evidence.keys import NoKey, private_key
from ops.evidence.log import (
    MESSAGES_MAX,
    checkpoints_in,
    consumer_config,
    open_consumer,
    producer_of,
    publish,
)
from ops.evidence.seal import LogChanged, Seal, signed_by
from ops.settings import Settings, from_environment
from schemas import telemetry
from schemas.topics import Topics
from streams.role_status import RoleStatus

IDLE_S = 0.5
ASK_AGAIN_S = 5.0
NO_SUCH_OFFSET = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)

log = structlog.get_logger(__name__)


def main() -> None:
    """Seal until SIGTERM or Ctrl-C. Exits 2 without a key, or where another sealer has the same directory."""
    telemetry.configure("sealer")
    settings = from_environment()
    stop = threading.Event()
    for told in (signal.SIGTERM, signal.SIGINT):
        signal.signal(told, lambda *_: stop.set())
    folder = settings.state("sealer")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held until we end, however we end
            key = private_key(settings.keys, "sealer")
        except (BlockingIOError, NoKey) as error:
            sys.exit(f"sealer: {error}")
        _run(settings, folder, key, stop)


def _run(settings: Settings, folder: Path, key: PrivateKey, stop: threading.Event) -> None:
    status = RoleStatus("sealer")
    try:
        sealer = Sealer(settings.kafka, Topics(settings.topic_prefix, settings.partitions), folder, key)
    except (LogNotReadError, KafkaException) as error:
        sys.exit(f"sealer: {error}")  # to be started again
    log.info("sealer_started", key=str(key.public))
    while not stop.is_set():
        sealer.turn()
        status.write(
            "degraded" if sealer.trouble else "ok",
            sealer.trouble or sealer.detail,
            lag_events=sealer.unsealed,
        )
    sealer.close()


class Sealer:
    """All partitions of the inventory's events. A partition that contradicts its seal is not signed any more; the
    others go on.
    """

    def __init__(self, kafka: str, topics: Topics, folder: Path, key: PrivateKey) -> None:
        """Raises LogNotReadError."""
        self._topic, self._checkpoints = topics.events("inventory"), topics.checkpoints
        self._producer = producer_of(kafka)
        self._refused: dict[int, str] = {}
        self._short: dict[int, str] = {}
        self._ask_again_at = float("inf")
        self._out_of_reach = ""
        published = _published(kafka, self._checkpoints, key)
        origins = {n: origin_of(key.name, self._topic, n) for n in range(topics.partitions)}
        self._seals = {
            n: Seal(folder / str(n), origin, key, published.get(origin)) for n, origin in origins.items()
        }
        # A crash between our file and Kafka: what is told twice is the same.
        self._untold = {n: seal.last for n, seal in self._seals.items() if seal.last}
        self._consumer = Consumer(consumer_config(kafka))
        self._assign()

    @property
    def unsealed(self) -> int:
        return sum(max(0, seal.unsealed) for seal in self._seals.values())

    @property
    def detail(self) -> str:
        return f"{sum(seal.size for seal in self._seals.values()):,} records in {len(self._seals)} trees"

    @property
    def trouble(self) -> str:
        """Why something is not sealed; empty where all is well."""
        return "; ".join(filter(None, [*self._refused.values(), *self._short.values(), self._out_of_reach]))

    def turn(self) -> None:
        """Reads what is there (waits half a second for it), then signs and publishes what is due."""
        for partition, messages in self._read().items():
            self._append(partition, messages)
        for partition, seal in self._seals.items():
            if (
                partition not in self._refused
                and partition not in self._untold
                and seal.due(time.monotonic())
            ):
                self._sign(partition, seal)
        self._tell()

    def close(self) -> None:
        self._consumer.close()
        for seal in self._seals.values():
            seal.close()

    def _read(self) -> dict[int, list[Message]]:
        """By partition; where a partition ends before what was sealed of it, that is noted."""
        if time.monotonic() > self._ask_again_at:
            self._assign()
        first = self._consumer.poll(IDLE_S)
        found: dict[int, list[Message]] = {}
        for message in [first, *self._consumer.consume(MESSAGES_MAX, 0)] if first else []:
            partition = message.partition() or 0
            if (error := message.error()) is None:
                self._out_of_reach = ""
                found.setdefault(partition, []).append(message)
            else:
                self._note(error, partition)
        return found

    def _note(self, error: KafkaError, partition: int) -> None:
        """A broker that comes back may know less of its log for a moment: a short log is asked again, for ever."""
        seal = self._seals[partition]
        if error.code() == KafkaError._PARTITION_EOF:
            self._out_of_reach = ""
            if seal.unsealed < 0:
                self._short[partition] = f"{seal.origin} ends after {seal.size} records, more were sealed"
        elif error.code() in NO_SUCH_OFFSET:
            self._short[partition] = f"{seal.origin} has no offset {seal.next}, which follows what was sealed"
            self._ask_again_at = time.monotonic() + ASK_AGAIN_S
        else:
            self._out_of_reach = f"Kafka: {error}"

    def _append(self, partition: int, messages: Sequence[Message]) -> None:
        seal = self._seals[partition]
        fresh = [message for message in messages if (message.offset() or 0) >= seal.next]
        if fresh:
            self._short.pop(partition, None)
            values = (message.value() or b"" for message in fresh)
            seal.append(values, (fresh[-1].offset() or 0) + 1, time.monotonic())

    def _sign(self, partition: int, seal: Seal) -> None:
        try:
            self._untold[partition] = seal.sign()
        except LogChanged as changed:
            if seal.next:
                self._refuse(partition, str(changed))
            else:  # the local tree is doubted first
                log.warning("tree_read_anew", reason=str(changed))
                self._assign()

    def _refuse(self, partition: int, why: str) -> None:
        if partition not in self._refused:
            self._refused[partition] = f"refuses to sign: {why}"
            log.critical("log_changed", reason=why)

    def _tell(self) -> None:
        for partition, submission in list(self._untold.items()):
            try:
                publish(self._producer, self._checkpoints, self._seals[partition].origin, str(submission))
            except LogNotReadError as error:
                self._out_of_reach = str(error)
                return
            del self._untold[partition]

    def _assign(self) -> None:
        self._ask_again_at = float("inf")
        places = [TopicPartition(self._topic, n, seal.next) for n, seal in self._seals.items()]
        self._consumer.assign(places)


def _published(kafka: str, topic: str, key: PrivateKey) -> dict[str, Submission]:
    """The last checkpoint of each origin that this key signed, from the topic."""
    found: dict[str, Submission] = {}
    with open_consumer(kafka) as consumer:
        for checkpoint, submission in _ours(consumer, topic, key):
            found[checkpoint.origin] = submission
    return found


def _ours(consumer: Consumer, topic: str, key: PrivateKey) -> Iterator[tuple[Checkpoint, Submission]]:
    for one in checkpoints_in(consumer, topic):
        origin = one.note.text.partition("\n")[0]
        if signed := signed_by(key, origin, one.submission):
            yield Checkpoint.of(signed.note), signed
