"""`./daybook replay`: the log told again, event by event, between two points; the live system does not notice."""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal

import typer
from confluent_kafka import KafkaException

from ops import export
from ops.cli import adopted, fail, say
from ops.draft import Draft, DraftFailed
from ops.export import ExportFailed, Manifest
from ops.instants import instant, instant_behind
from ops.settings import Settings
from ops.telling import Line, as_line, as_row
from schemas.codec import Codec
from schemas.language import AGGREGATES, META_OF
from schemas.topics import Topics
from streams.replay import KafkaLog, Query, Replay, ReplayFailed
from streams.schema_registry import SchemaRegistry

SAY_EVERY_S = 2.0
KINDS = ("events", "commands", "decisions")
NOTHING_FOUND = "the log holds nothing of what was asked for"

Format = Literal["jsonl", "parquet", "table"]
FORMATS: dict[str, Line] = {"jsonl": as_line, "table": as_row}


def replay(
    *,
    topic: Annotated[
        list[str] | None, typer.Option(help="inventory, or commands.order; all events if none is named.")
    ] = None,
    first: Annotated[str, typer.Option("--from", help="An offset, a day or an instant (UTC).")] = "",
    last: Annotated[str, typer.Option("--to", help="The same; up to it, or to the end of that day.")] = "",
    by: Annotated[
        Literal["occurred", "recorded"], typer.Option(help="The clock that --from and --to go by.")
    ] = "occurred",
    type_: Annotated[list[str] | None, typer.Option("--type", help="Such as StockReserved.")] = None,
    key: Annotated[str, typer.Option(help="The id of an order, cart or payment; a sku.")] = "",
    format_: Annotated[Format, typer.Option("--format")] = "jsonl",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A file instead of the screen; for Parquet a directory."),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on where this file says, and write down there how far it got.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until Ctrl-C; not with --to.")] = False,
) -> None:
    """Tell the events between two points again, in each partition in their order, whatever release wrote them.

    No consumer group is used, so the live system does not notice. Times are compared with when it happened. A Parquet
    export is a directory that the next one adds to. Exit 1 if the log could not be told to its end or holds nothing of
    it, 130 on Ctrl-C.
    """
    found = with_kafka("replay")
    try:
        query = query_of(Topics(found.topic_prefix), topic or (), type_ or (), key, (first, last), by)
        asked = Asked(query, format_, output, resume, follow)
    except ValueError as wrong:
        fail(str(wrong), 2)
    try:
        with closing(KafkaLog(found.kafka)) as log:
            asked.run(log, found)
    except (ReplayFailed, ExportFailed, DraftFailed) as failed:
        fail(str(failed), 1)
    except KafkaException as error:
        fail(f"Kafka at {found.kafka}: {error}", 1)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read us has seen enough
    except KeyboardInterrupt:
        say(f"daybook: interrupted; {asked.left_behind()}")
        raise typer.Exit(130) from None


def with_kafka(verb: str) -> Settings:
    """What is up here, or named by the environment; of it only Kafka is needed."""
    found = adopted(verb)
    if not found.kafka:
        fail("nothing is up here, nor named by DAYBOOK_KAFKA; try ./daybook up", 2)
    return found


def query_of(
    topics: Topics, names: Sequence[str], types: Sequence[str], key: str, between: tuple[str, str], by: str
) -> Query:
    """The question as it was typed. Raises ValueError, which says what is not known."""
    first, last = between
    wanted = [_topic(topics, name) for name in names] or [
        topics.events(aggregate) for aggregate in AGGREGATES
    ]
    known = {message.__name__ for message in META_OF}
    if unknown := sorted(set(types) - known):
        raise ValueError(f"nothing is called {', '.join(unknown)}; schemas/avsc has a file for each type")
    query = Query(
        topics=tuple(wanted),
        types=frozenset(types),
        key=key,
        first=int(first) if first.isdecimal() else None,
        last=int(last) if last.isdecimal() else None,
        since=None if first.isdecimal() or not first else instant(first),
        until=None if last.isdecimal() or not last else instant_behind(last),
        by="occurred_at" if by == "occurred" else "recorded_at",
    )
    if query.since is not None and query.until is not None and query.since >= query.until:
        raise ValueError(f"the period ends before it begins: from {first} to {last}")
    return query


def _topic(topics: Topics, name: str) -> str:
    """`inventory`, `events.inventory` or the topic's whole name. Raises ValueError."""
    kind, _, aggregate = name.removeprefix(f"{topics.prefix}.").rpartition(".")
    if aggregate not in AGGREGATES or (kind or "events") not in KINDS:
        raise ValueError(f"no topic is called {name}; there are {', '.join(AGGREGATES)}, also as commands.…")
    return f"{topics.prefix}.{kind or 'events'}.{aggregate}"


@dataclass
class Asked:
    """One replay: what is asked for, where it goes, and how far it has got."""

    query: Query
    format: Format
    output: Path | None
    resume: Path | None
    follow: bool
    _told: int = 0

    def __post_init__(self) -> None:
        if self.format == "parquet" and (self.output is None or self.resume or self.follow):
            raise ValueError("Parquet needs -o DIRECTORY, resumes by itself and cannot follow")
        if self.follow and (self.query.last is not None or self.query.until is not None):
            raise ValueError("--follow goes on until Ctrl-C, and --to says where to end: give one of them")
        if self.query.by == "recorded_at" and self._speaks_of("commands", "decisions"):
            raise ValueError("only events are asked for by when they were recorded")
        if self.query.is_timed and self._speaks_of("decisions"):
            raise ValueError("decisions are asked for by offsets: one record speaks of many commands")

    def run(self, log: KafkaLog, found: Settings) -> None:
        schemas = SchemaRegistry(found.kafka, Topics(found.topic_prefix)).schemas
        if self.format == "parquet":
            done = exported(log, self.query, self._directory(), schemas)
            if not done.records:
                export.remove_empty(self._directory())
                raise ReplayFailed(NOTHING_FOUND)
            say(f"{self.output}: {done.records:,} events")
        else:
            self._tell(Replay(log, self.query, Codec(), schemas))

    def left_behind(self) -> str:
        if self.format == "parquet":
            return f"{self.output} is whole; the same command goes on"
        return "the same command goes on" if self.resume else f"{self._told:,} were told"

    def _directory(self) -> Path:
        assert self.output is not None
        return self.output

    def _speaks_of(self, *kinds: str) -> bool:
        return any(topic.rsplit(".", 2)[-2] in kinds for topic in self.query.topics)

    def _tell(self, reading: Replay) -> None:
        progress = Progress(reading)
        line = FORMATS[self.format]
        with Draft(self.output, self.resume, f"{self.format} of {self.query}") as draft:
            reading.go_on(draft.positions)
            try:
                for records in reading.portions(follow=self.follow):
                    for one in chain.from_iterable(map(reading.told, records)):
                        draft.write(line(one))
                        self._told += 1
                    draft.reached(reading.positions, flush=self.follow)
                    progress.say(self._told)
            except KeyboardInterrupt:
                if not self.follow:
                    raise
                draft.cut()  # who follows ends with Ctrl-C, and what was reached by then is whole
            if not (self._told or self.follow or draft.positions):
                draft.give_up()
                raise ReplayFailed(NOTHING_FOUND)


@dataclass
class Progress:
    """A line on the terminal every two seconds: how far, how fast, how long still."""

    reading: Replay
    _began: float = field(default_factory=time.monotonic)
    _said: float = field(default_factory=time.monotonic)

    def say(self, told: int) -> None:
        now = time.monotonic()
        if now - self._said >= SAY_EVERY_S:
            self._said = now
            say(
                f"{told:,} told; read {self.reading.read:,} of {self.reading.whole:,} offsets{self._left(now)}"
            )

    def _left(self, now: float) -> str:
        if not 0 < self.reading.read < self.reading.whole:
            return ""
        left_s = (now - self._began) * (self.reading.whole / self.reading.read - 1)
        return f", {left_s:.0f} s left"


def exported(
    log: KafkaLog, query: Query, directory: Path, schemas: Callable[[], dict[str, object]]
) -> Manifest:
    """The export in this directory, with what is new. Raises ExportFailed, ReplayFailed."""
    with ExitStack() as ends:
        if not ends.enter_context(export.locked(directory, alone=True)):
            raise ExportFailed(f"{directory} is being read or written by somebody else")
        blank = Manifest(log.identity(query.topics), export.shapes(query), repr(query))
        return export.export(
            directory,
            blank,
            lambda positions: Replay(log, query, Codec(), schemas, positions),
            lambda reading: Progress(reading).say,
        )
