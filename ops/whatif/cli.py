"""`./daybook whatif`: what would the trade of a period have come to, had other rules decided?"""

import importlib
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.parquet as pq
import typer
from confluent_kafka import KafkaException

from ops.cli import fail, say
from ops.instants import instant, instant_behind
from ops.replay import Progress, with_kafka
from ops.whatif.outcomes import Outcomes, compared, order_by_order, outcomes
from ops.whatif.world import Rules
from schemas.codec import Codec
from schemas.language import AGGREGATES
from schemas.topics import Topics
from streams.asked import Asked
from streams.replay import KafkaLog, Query, Replay, ReplayFailed
from streams.schema_registry import SchemaRegistry

SAY_EVERY = 20_000
NOT_CALLERS = ("saga", "deadline", "provider")

SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("order_id", "owner", "currency")]
    + [
        (f"{side}_{name}", kind)
        for side in ("today", "candidate")
        for name, kind in (
            ("status", pa.string()), ("reason", pa.string()), ("units", pa.int64()), ("amount", pa.int64())
        )
    ]
)  # fmt: skip


def whatif(
    *,
    rules: Annotated[str, typer.Option(help="module:function, which takes today's Rules and gives others.")],
    first: Annotated[
        str, typer.Option("--from", help="From this day or instant on the rules are others.")
    ] = "",
    last: Annotated[str, typer.Option("--to", help="The last day, or up to this instant.")] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A Parquet file: both outcomes, order by order.")
    ] = None,
) -> None:
    """Decide a period's commands of callers anew, in memory, by today's rules and by others; compare the outcomes.

    Time is the trade's own (when it happened). Sagas, deadlines and a payment provider run anew; what callers did is
    what they did then, also where they would have done otherwise. Nothing is written but the file. Exit 1 if it
    cannot be told, or nothing was asked in that period.
    """
    found = with_kafka("whatif")
    try:
        candidate = rules_named(rules)(Rules())
        since, until = instant(first) if first else 0, instant_behind(last) if last else None
    except ValueError as wrong:
        fail(str(wrong), 2)
    topics = Topics(found.topic_prefix, found.partitions)
    try:
        with closing(KafkaLog(found.kafka)) as log:
            asked = callers_commands(
                Replay(log, _commands(topics, until), Codec(), SchemaRegistry(found.kafka, topics).schemas),
                since,
            )
        today = _decided("today's rules", asked, Rules(), since, topics)
        _tell(today, _decided(rules, asked, candidate, since, topics), output)
    except (ReplayFailed, OSError) as failed:
        fail(str(failed), 1)
    except KafkaException as error:
        fail(f"Kafka at {found.kafka}: {error}", 1)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def rules_named(name: str) -> Callable[[Rules], Rules]:
    """Raises ValueError where there is no such function."""
    module, _, function = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))  # somebody's own rules lie where they work
    try:
        found: Callable[[Rules], Rules] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"no rules are called {name}: {error}; write module:function") from error
    finally:
        sys.path.pop(0)
    return found


def _commands(topics: Topics, until: int | None) -> Query:
    return Query(tuple(topics.commands(aggregate) for aggregate in AGGREGATES), until=until)


def callers_commands(reading: Replay, since: int = 0) -> list[Asked]:
    """The commands of callers, each once, in the order of the trade; they are held in memory, a kilobyte each. Raises
    ReplayFailed, also where none of them is since then.

    Their clock is the trade's from here on: `issued_at` is when it happened. The version that a caller expected is
    one of the world as it was, and is left out.
    """
    progress = Progress(reading)
    found: dict[str, tuple[tuple[int, int], Asked]] = {}
    for record in reading.events():
        meta, body = record.message.meta, record.message.body
        if meta.actor_kind in NOT_CALLERS or meta.command_id in found:
            continue
        at = meta.issued_at if meta.occurred_at is None else meta.occurred_at
        asked = Asked(
            record.topic.rpartition(".")[2],
            meta.stream.split("/")[1],
            body,
            replace(meta, issued_at=at, occurred_at=at, expected_version=None, reply_to=None),
        )
        found[meta.command_id] = (at, meta.issued_at), asked
        progress.say(len(found))
    if all(at < since for (at, _), _ in found.values()):
        raise ReplayFailed("no caller asked for anything in this period: there is nothing to compare")
    return [asked for _, asked in sorted(found.values(), key=lambda one: one[0])]


def _decided(name: str, asked: Sequence[Asked], rules: Rules, since: int, topics: Topics) -> Outcomes:
    def progress(count: int) -> None:
        if count % SAY_EVERY == 0:
            say(f"{name}: {count:,} of {len(asked):,} commands decided")

    return outcomes(asked, Rules(), rules, since, topics, progress)


def _tell(today: Outcomes, candidate: Outcomes, output: Path | None) -> None:
    typer.echo(f"{'':<38}{'today':>14}{'candidate':>14}{'difference':>14}")
    for name, was, is_, difference in compared(today, candidate):
        typer.echo(f"{name:<38}{was:>14,}{is_:>14,}{difference:>+14,}")
    if output is not None:
        draft = output.with_name(f"{output.name}.part")
        try:
            pq.write_table(pa.Table.from_pylist([*order_by_order(today, candidate.orders)], SCHEMA), draft)
            draft.replace(output)
        finally:
            draft.unlink(missing_ok=True)
        say(f"{output}: {len(today.orders.keys() | candidate.orders.keys()):,} orders")
