"""The command worker: one process, one slot, the handler's loop until somebody says stop."""

import os
import secrets
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import structlog
from confluent_kafka import KafkaException

from commands.handler import Handler
from commands.journal import JournalLostError, LogDamagedError
from commands.registry import DECIDERS
from schemas import telemetry
from schemas.codec import Codec
from schemas.meta import Micros
from streams.kafka_journal import KafkaJournal, Slot
from streams.role_status import RoleStatus
from streams.schema_registry import LearningDecoder, SchemaRegistry
from streams.settings import StreamSettings, from_environment
from streams.state_store import StateStore
from streams.topic_admin import WrongTopicsError, ensure_topics

log = structlog.get_logger(__name__)

DEFAULT_STATE = Path(".daybook/state/commands")
EXIT_LOST = 75
EXIT_DAMAGED = 78
STATUS_INTERVAL_S = 2.0


def wall_clock() -> Micros:
    return Micros(time.time_ns() // 1_000)


def main() -> None:
    """Decide commands until SIGTERM or Ctrl-C.

    Exits 75 when fenced, in doubt or without Kafka: to be started again; 78 when a person must look first.
    """
    telemetry.configure("commands")
    settings = from_environment()
    stop = _StopSignal()
    try:
        _work(settings, stop)
    except JournalLostError as error:
        log.error("journal_lost", reason=str(error))  # noqa: TRY400  # expected: no traceback
        _exit(EXIT_LOST)
    except (LogDamagedError, WrongTopicsError) as error:
        log.critical("cannot_serve", reason=str(error))
        _exit(EXIT_DAMAGED)
    except KafkaException as error:
        log.error("kafka_out_of_reach", reason=str(error))  # noqa: TRY400  # expected: no traceback
        _exit(EXIT_LOST)


def _exit(code: int) -> None:
    # A fenced producer's destructor may wait for brokers that do not answer; there is nothing left to save.
    sys.stderr.flush()
    os._exit(code)


def _work(settings: StreamSettings, stop: "_StopSignal") -> None:
    codec = Codec()
    ensure_topics(settings.kafka, settings.topics)
    registry = SchemaRegistry(settings.kafka, settings.topics)
    registry.publish(codec)
    slot = Slot(settings.kafka, settings.topics, int(settings.slot or 0))
    store = StateStore((settings.state or DEFAULT_STATE) / f"slot-{slot.number}")
    journal = KafkaJournal(slot)
    decode = LearningDecoder(codec, registry.schemas).decode
    handler = Handler(journal, store, DECIDERS, codec, settings.topics, wall_clock, _incarnation(), decode)
    status = _Status()
    log.info("worker_started", slot=slot.number, prefix=settings.topics.prefix)
    while not stop.asked:
        handler.turn()
        status.tell(handler)
    journal.close()
    store.close()


def _incarnation() -> str:
    """A name for this process' life that no other has: batch ids begin with it."""
    return secrets.token_hex(6)


class _StopSignal:
    """Set by SIGTERM and Ctrl-C; the loop ends after the batch in hand."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True


class _Status:
    """Tells every two seconds what the loop did since it told it last."""

    def __init__(self) -> None:
        self._role = RoleStatus("commands")
        self._told_at = time.monotonic()

    def tell(self, handler: Handler) -> None:
        elapsed_s = time.monotonic() - self._told_at
        if elapsed_s < STATUS_INTERVAL_S:
            return
        turned, handler.turned = handler.turned, type(handler.turned)()
        self._told_at += elapsed_s
        self._role.write(
            health="ok" if handler.serving and not handler.awaited else "degraded",
            detail=_detail(handler),
            transactions_per_s=round(turned.transactions / elapsed_s, 1),
            commands_per_s=round(turned.commands / elapsed_s, 1),
            partitions_per_transaction=round(turned.partitions / max(1, turned.transactions), 2),
        )


def _detail(handler: Handler) -> str:
    serving = f"{len(handler.serving)} partitions"
    return f"{serving}; loading {', '.join(map(str, handler.awaited))}" if handler.awaited else serving


if __name__ == "__main__":
    main()
