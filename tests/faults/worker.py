"""Runs a command worker as its own process; a name as argument takes one of its protections away."""

import sys

from commands.handler import Handler
from commands.window import Window
from streams import command_worker
from streams.kafka_journal import KafkaJournal


def without_renewal() -> None:
    KafkaJournal._renew_if_suspicious = lambda self: self._failures.take()  # type: ignore[method-assign,assignment,return-value]


def without_window() -> None:
    Window.find = lambda self, command_ids, now: {}  # type: ignore[method-assign]


def without_fencing() -> None:
    """Everything is written without the group's word on who may: the offsets go by themselves."""
    from confluent_kafka import Consumer, Producer

    from streams import kafka_journal

    class Unfenced(Producer):  # type: ignore[misc]
        def send_offsets_to_transaction(self, offsets, metadata, timeout):  # type: ignore[no-untyped-def]
            plain = Consumer({k: v for k, v in SETTINGS.items() if k != "group.instance.id"})
            super().send_offsets_to_transaction(offsets, plain.consumer_group_metadata(), timeout)

    SETTINGS: dict[str, object] = {}
    settings = kafka_journal._consumer_settings
    kafka_journal._consumer_settings = lambda slot: SETTINGS.update(settings(slot)) or settings(slot)  # type: ignore[func-returns-value]
    kafka_journal.Producer = Unfenced  # type: ignore[misc]


def watermark_first() -> None:
    """The high watermarks are captured before the fence, as seems natural."""
    fence, ends = KafkaJournal.fence, KafkaJournal.ends
    early: dict[object, int] = {}

    def fence_late(self, partitions):  # type: ignore[no-untyped-def]
        for partition in partitions:
            for kind in ("state", "decisions", "events"):
                early[kind, partition] = ends(self, kind, partition)
        return fence(self, partitions)

    KafkaJournal.fence = fence_late  # type: ignore[method-assign]
    KafkaJournal.ends = lambda self, kind, partition: early.get((kind, partition)) or ends(self, kind, partition)  # type: ignore[method-assign]
    Handler.__doc__ = None


if __name__ == "__main__":
    for name in sys.argv[1:]:
        globals()[name]()
    command_worker.main()
