"""`./daybook rebuild VIEW`: a view anew from the log, beside the live one; compared, then switched to in one step."""

import asyncio
import fcntl
import gc
import signal
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer
from confluent_kafka import KafkaException

from ops.cli import brought_up, fail, say
from ops.roles import collect_rarely
from ops.settings import Settings
from projections.building import Course, RebuildFailed
from projections.compare import Difference
from projections.generations import Succession
from projections.rebuild import KafkaLog, Rebuilding, Rebuilt
from projections.registry import CASSANDRA_VIEWS, REDIS_VIEWS, rebuilding
from projections.view import StoreUnavailable
from schemas.codec import Codec
from schemas.topics import Topics
from streams.schema_registry import LearningDecoder, SchemaRegistry

SAY_EVERY_S = 2.0
SHOWN_MAX = 10
VIEWS = {"Redis": [view.name for view in REDIS_VIEWS], "Cassandra": [view.name for view in CASSANDRA_VIEWS]}

Work = Callable[[Rebuilding], Awaitable[Rebuilt]]


class Paused(KeyboardInterrupt):
    """Ctrl-C or SIGTERM came; what was built stays where it stands."""


def rebuild(
    view: Annotated[str, typer.Argument(help=" | ".join(name for names in VIEWS.values() for name in names))],
    *,
    key: Annotated[str, typer.Option(help="Only this stream of it, in its place; as `heal VIEW KEY`.")] = "",
    anew: Annotated[bool, typer.Option("--anew", help="Drop what was begun and paused or refused.")] = False,
    accept: Annotated[
        str, typer.Option(help="Why it shall be switched to although the live one differs.")
    ] = "",
    back: Annotated[
        bool, typer.Option("--back", help="Bring the generation back that was live before.")
    ] = False,
) -> None:
    """Build a view anew from the log beside the live one, compare the two, switch in one step.

    Readers are served all the time. Ctrl-C pauses: the same command goes on, also after a kill. Where the two differ
    it is not switched to unless you --accept that; the one that was live before is kept for --back. Exit 1 if it was not
    switched to, 2 if it could not be built, 130 if it was paused.
    """
    if not any(view in names for names in VIEWS.values()):
        known = "; ".join(f"in {store} {', '.join(names)}" for store, names in VIEWS.items())
        fail(f"no view is called {view}; there are {known}", 2)
    if sum((bool(key), back, anew or bool(accept))) > 1:
        fail("--key and --back go with no other option", 2)
    if key:
        from ops.heal import heal

        heal(view, key)
        return
    _rebuild(view, brought_up("rebuild"), brought_back if back else made(anew=anew, accept=accept))


def made(*, anew: bool = False, accept: str = "") -> Work:
    return lambda rebuilding: rebuilding.rebuild(anew=anew, accept=accept)


def brought_back(rebuilding: Rebuilding) -> Awaitable[Rebuilt]:
    return rebuilding.bring_back()


def _rebuild(view: str, found: Settings, work: Work) -> None:
    began = time.monotonic()
    try:
        with collecting_rarely():
            done = rebuilt(view, found, work)
    except (KafkaException, StoreUnavailable, RebuildFailed, sqlite3.Error) as error:
        fail(f"{view} was not rebuilt, the live one stays: {error}", 2)
    except Paused as paused:
        say(f"daybook: {paused}")
        raise typer.Exit(130) from None
    for line in told(done, time.monotonic() - began):
        typer.echo(line)
    if not done.is_live:
        raise typer.Exit(1)


def rebuilt(view: str, found: Settings, work: Work) -> Rebuilt:
    """What this work made of the view. Raises KafkaException, StoreUnavailable, RebuildFailed, sqlite3.Error, Paused."""
    topics = Topics(found.topic_prefix, found.partitions)
    decoder = LearningDecoder(Codec(), SchemaRegistry(found.kafka, topics).schemas)
    with alone(view, found):
        log = KafkaLog(found.kafka, decoder.decode)
        try:
            return asyncio.run(_watched(rebuilding(view, topics, log, Course()), work))
        finally:
            log.close()


@contextmanager
def collecting_rarely() -> Iterator[None]:
    """For the time of a rebuild only: whoever called may live longer."""
    before = gc.get_threshold()
    collect_rarely()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


@contextmanager
def alone(view: str, found: Settings) -> Iterator[None]:
    """One rebuild of a view at a time, of those on this machine. Raises RebuildFailed."""
    found.run.mkdir(parents=True, exist_ok=True)
    with (found.run / f"rebuild-{view}.lock").open("a") as lock:
        try:
            fcntl.flock(
                lock, fcntl.LOCK_EX | fcntl.LOCK_NB
            )  # a process that ends, however it ends, lets go of it
        except BlockingIOError:
            raise RebuildFailed("another rebuild of it is running") from None
        yield


async def _watched(rebuilding: Rebuilding, work: Work) -> Rebuilt:
    """The work, which the first signal ends where it stands; every two seconds a word on how far it is."""
    course, name = rebuilding.course, rebuilding.view.name
    task = asyncio.ensure_future(work(rebuilding))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, lambda: task.cancelling() or task.cancel())
    while not (await asyncio.wait({task}, timeout=SAY_EVERY_S))[0]:
        say(f"{name}: {progress(course)}")
    if task.cancelled():
        raise Paused(_paused(name, course))
    return task.result()


def progress(course: Course) -> str:
    match course.stage:
        case "building":
            left = f", {course.left_s:,.0f} s left" if course.left_s is not None else ""
            went_on = f" (went on at {course.resumed:,})" if course.resumed else ""
            of = f"read {course.read:,} of {course.total:,} offsets{went_on}, {course.per_s:,.0f}/s{left}"
            return f"generation {course.generation}: {of}"
        case "preparing" | "switching":
            return course.stage
        case stage:
            return f"generation {course.generation}: {stage}, {course.rows:,} so far"


def _paused(view: str, course: Course) -> str:
    if course.stage == "switching":
        return f"interrupted while switching; {view} is whole: as it was, or new"
    return (
        f"{view} is as it was; generation {course.generation} is paused at {course.read:,} of {course.total:,} offsets:"
        f" ./daybook rebuild {view} goes on there, --anew begins again"
    )


def told(done: Rebuilt, elapsed_s: float) -> Iterator[str]:
    """What came of it, in words; of what is wrong, the first of each kind by name."""
    name = f"generation {done.generation} of {done.view}"
    if done.switched is not None:
        went_on = f", going on at {done.resumed:,} offsets" if done.resumed else ""
        yield f"{name} is live: {done.records:,} records in {elapsed_s:.1f} s{went_on}"
        yield from _why_live(done, done.switched)
    else:
        yield f"{name} is kept, and was not switched to; the live one stays"
    yield from _listed("rows of the new generation that the log contradicts", _names(done.verdict.wrong))
    yield from _listed("rows of the live generation that the log contradicts", _names(done.verdict.spoilt))
    yield from _listed(
        "streams stop at a record that this view cannot apply",
        [f"{poison.stream} at offset {poison.offset}: {poison.reason}" for poison in done.poisons],
    )
    if done.verdict.wrong:
        yield "this is a bug to report; --anew builds another one"
    elif not done.is_live:
        yield f'to switch all the same: ./daybook rebuild {done.view} --accept "why they differ"'


def _why_live(done: Rebuilt, now: Succession) -> Iterator[str]:
    if now.accepted:
        yield f"accepted: {now.accepted}"
    elif done.verdict.witness == "live":
        yield "each row is what the generation before it holds at the same position"
    elif done.verdict.witness == "log":
        yield "each row is what the log says; the generation before it had not come so far, or did not stand still"
    if now.previous:
        yield f"generation {now.previous} is kept: ./daybook rebuild {done.view} --back"


def _names(differences: Iterable[Difference]) -> list[str]:
    return [f"{one.name} {one.kind}" for one in differences]


def _listed(what: str, items: Sequence[str]) -> Iterator[str]:
    if not items:
        return
    yield f"{what}: {len(items):,}"
    yield from (f"  {item}" for item in items[:SHOWN_MAX])
    if len(items) > SHOWN_MAX:
        yield f"  and {len(items) - SHOWN_MAX:,} more"
