"""`./daybook heal VIEW KEY`: one key of a view made anew from the log, in its place."""

import asyncio
import difflib
import os
import signal
import sqlite3
from collections.abc import Iterator
from typing import Annotated

import orjson
import typer
from confluent_kafka import KafkaException

from ops.cli import brought_up, fail, say
from ops.rebuild import made, rebuilt
from ops.settings import Settings
from ops.supervisor import read_report
from projections.building import RebuildFailed
from projections.cassandra_store import CassandraSettings, CassandraStore
from projections.heal import Change, Healed
from projections.heal import heal as heal_stream
from projections.rebuild import KafkaLog
from projections.redis_store import RedisSettings, RedisStore, RedisView
from projections.registry import CASSANDRA_VIEWS, REDIS_VIEWS, role_of, view_named
from projections.view import StoreUnavailable
from schemas.codec import Codec
from schemas.topics import Topics
from streams.schema_registry import LearningDecoder, SchemaRegistry

NAMES = [view.name for view in (*REDIS_VIEWS, *CASSANDRA_VIEWS)]


def heal(
    view: Annotated[str, typer.Argument(help=" | ".join(NAMES))],
    key: Annotated[str, typer.Argument(help="A stream of it, such as 85123A/main, or an order's id.")],
) -> None:
    """Make one key of a view anew from the log, while the projections run, and show what was wrong.

    The role that posts the view is started anew if something was, since it may hold in memory what it read. A row of
    Cassandra that was written past its version would refuse what comes later whatever is written over it: then the
    whole view is rebuilt, beside the live one. Exit 1 if the log has no such stream, or if a row is still wrong.
    """
    if view not in NAMES:
        fail(f"no view is called {view}; there are {', '.join(NAMES)}", 2)
    found = brought_up("heal")
    try:
        healed = _heal(view, key, found)
        if healed.refused:
            say(f"{view} keeps what was written past its versions: rebuilding it, beside the live one")
            rebuilt(view, found, made(accept=f"heal {key}: a row was written past its version"))
            healed = _together(healed, _heal(view, key, found))
        elif healed.changes and _started_anew(role_of(view), found):
            healed = _together(healed, _heal(view, key, found))
    except (KafkaException, StoreUnavailable, RebuildFailed, sqlite3.Error) as error:
        fail(f"{key} of {view} was not healed: {error}", 2)
    for line in told(healed):
        typer.echo(line)
    if healed.refused or not healed.version:
        raise typer.Exit(1)


def _heal(name: str, key: str, found: Settings) -> Healed:
    topics = Topics(found.topic_prefix, found.partitions)
    decoder = LearningDecoder(Codec(), SchemaRegistry(found.kafka, topics).schemas)
    log = KafkaLog(found.kafka, decoder.decode)
    try:
        return asyncio.run(_heal_in_store(name, key, topics, log))
    finally:
        log.close()


async def _heal_in_store(name: str, key: str, topics: Topics, log: KafkaLog) -> Healed:
    view = view_named(name)
    stream = f"{view.kind}/{key.removeprefix(view.kind + '/')}"
    store = (
        RedisStore(RedisSettings.from_environment(), (view,))
        if isinstance(view, RedisView)
        else CassandraStore(CassandraSettings.from_environment(), (view,))
    )
    try:
        return await heal_stream(view, stream, store, log, topics)
    finally:
        await store.close()


def _started_anew(role: str, found: Settings) -> bool:
    """Whether the role that may hold in memory what it read is supervised here; then it is started again at once."""
    report = read_report(found.run)
    pids = [one.pid for one in report.roles if one.name == role and one.pid] if report else []
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    if not pids:
        say(f"daybook: start {role} anew, then heal again: it may hold in memory what it read")
    return bool(pids)


def _together(first: Healed, second: Healed) -> Healed:
    """What both looks changed; the second tells how it is now."""
    changes = {change.name: change for change in (*second.changes, *first.changes)}
    return Healed(
        second.view, second.stream, second.version, tuple(changes.values()), second.refused, second.poison
    )


def told(healed: Healed) -> Iterator[str]:
    """What was there, what is there now, in one diff; then what a person has to do."""
    if not healed.version:
        yield f"the log has no {healed.stream} (a row that nothing speaks of is gone after: rebuild {healed.view})"
        return
    refused = {change.name for change in healed.refused}
    for change in healed.changes:
        yield from _diff(change, "not written" if change.name in refused else "now")
    if not healed.changes:
        yield f"{healed.stream}@{healed.version} is what the log says: nothing to heal"
    elif refused:
        yield f"{healed.stream}@{healed.version} is still wrong; look with: ./daybook rebuild {healed.view}"
    else:
        yield f"{healed.stream}@{healed.version} is healed"
    if healed.poison is not None:
        yield f"it stands still at offset {healed.poison.offset}: {healed.poison.reason}; see ./daybook retry --list"


def _diff(change: Change, after: str) -> Iterator[str]:
    before, right = _lines(change.was), _lines(change.right)
    yield from difflib.unified_diff(
        before, right, f"{change.name} (was)", f"{change.name} ({after})", lineterm=""
    )


def _lines(content: bytes | None) -> list[str]:
    """JSON, a value on each line; whatever is none as it is."""
    if content is None:
        return []
    version, newline, body = content.partition(b"\n")
    head, document = ([version.decode()], body) if newline else ([], content)
    try:
        return [
            *head,
            *orjson.dumps(orjson.loads(document), option=orjson.OPT_INDENT_2).decode().splitlines(),
        ]
    except orjson.JSONDecodeError:
        return [*head, repr(document)]
