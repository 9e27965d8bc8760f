"""`./daybook rebuild VIEW`: a view anew from the log, beside the live one; compared, then switched to in one step."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import typer
from confluent_kafka import KafkaException

from ops.cli import brought_up, fail, say
from ops.settings import Settings
from projections.compare import Difference
from projections.rebuild import KafkaLog, Log, RebuildFailed, Rebuilt
from projections.registry import CASSANDRA_VIEWS, REDIS_VIEWS, rebuild_view
from projections.view import Batch, Partition, StoreUnavailable
from schemas.codec import Codec
from schemas.topics import Topics
from streams.schema_registry import LearningDecoder, SchemaRegistry

SAY_EVERY_S = 2.0
SHOWN_MAX = 10
VIEWS = {"Redis": [view.name for view in REDIS_VIEWS], "Cassandra": [view.name for view in CASSANDRA_VIEWS]}


def rebuild(
    view: Annotated[str, typer.Argument(help=" | ".join(name for names in VIEWS.values() for name in names))],
) -> None:
    """Build a view anew from the log beside the live one, compare it, switch to it in one step.

    Readers are served all the time; Ctrl-C leaves the live view as it is. Exit 1 if the new one is not what the log
    says (then it is not switched to), 2 if it could not be built.
    """
    if not any(view in names for names in VIEWS.values()):
        known = "; ".join(f"in {store} {', '.join(names)}" for store, names in VIEWS.items())
        fail(f"no view is called {view}; there are {known}", 2)
    found = brought_up("rebuild")
    began = time.monotonic()
    try:
        done = rebuilt(view, found)
    except (KafkaException, StoreUnavailable, RebuildFailed) as error:
        fail(f"{view} was not rebuilt, the live one stays: {error}", 2)
    except KeyboardInterrupt:
        say(f"daybook: interrupted; {view} is whole: as it was, or new if it had been switched to already")
        raise typer.Exit(130) from None
    for line in told(done, time.monotonic() - began):
        typer.echo(line)
    if not done.switched:
        raise typer.Exit(1)


def rebuilt(view: str, found: Settings) -> Rebuilt:
    """The view built anew and switched to. Raises KafkaException, StoreUnavailable, RebuildFailed."""
    topics = Topics(found.topic_prefix, found.partitions)
    decoder = LearningDecoder(Codec(), SchemaRegistry(found.kafka, topics).schemas)
    log = KafkaLog(found.kafka, decoder.decode)
    try:
        return asyncio.run(_in_view(view, topics, ObservedLog(log)))
    finally:
        log.close()


async def _in_view(view: str, topics: Topics, log: "ObservedLog") -> Rebuilt:
    """The rebuild, and every two seconds a word on how far it is."""
    began = time.monotonic()
    work = asyncio.create_task(rebuild_view(view, topics, log))
    while not (await asyncio.wait({work}, timeout=SAY_EVERY_S))[0]:
        say(f"{view}: {log.progress()} ({time.monotonic() - began:.0f} s)")
    return work.result()


@dataclass
class ObservedLog:
    """A log that knows how much of it was read."""

    log: Log
    _ends: dict[Partition, int] = field(default_factory=dict)
    _read: dict[Partition, int] = field(default_factory=dict)

    def ends(self, topics: Iterable[str]) -> dict[Partition, int]:
        self._ends = self.log.ends(topics)
        return self._ends

    def batches(self, partition: Partition, start: int, end: int) -> Iterator[Batch]:
        for batch in self.log.batches(partition, start, end):
            self._read[partition] = batch.next
            yield batch

    def progress(self) -> str:
        """Offsets, not records: the marks that transactions leave count too."""
        if not self._ends:
            return "preparing the next generation"
        read, end = sum(self._read.values()), sum(self._ends.values())
        return f"read {read:,} of {end:,} offsets" if read < end else "comparing, then switching"


def told(done: Rebuilt, elapsed_s: float) -> Iterator[str]:
    """What came of it, in words; of what is wrong, the first of each kind by name."""
    name = f"generation {done.generation} of {done.view}"
    if done.switched:
        yield f"{name} is live: {done.records:,} records in {elapsed_s:.1f} s"
    else:
        yield f"{name} is not what the log says and was dropped; the live one stays"
    yield from _listed("rows of the new generation differ from the log", _names(done.wrong))
    yield from _listed("rows of the old generation were wrong and are right now", _names(done.mended))
    yield from _listed(
        "streams stop at a record that this view cannot apply",
        [f"{poison.stream} at offset {poison.offset}: {poison.reason}" for poison in done.poisons],
    )


def _names(differences: Iterable[Difference]) -> list[str]:
    return [f"{one.name} {one.kind}" for one in differences]


def _listed(what: str, items: Sequence[str]) -> Iterator[str]:
    if not items:
        return
    yield f"{what}: {len(items):,}"
    yield from (f"  {item}" for item in items[:SHOWN_MAX])
    if len(items) > SHOWN_MAX:
        yield f"  and {len(items) - SHOWN_MAX:,} more"
