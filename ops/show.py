"""`./daybook show STREAM`: time travel and the step debugger, from a request to the views."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from confluent_kafka import KafkaException

from commands.decider import Record
from ops.cli import fail, say
from ops.instants import instant_behind, told
from ops.replay import with_kafka
from ops.story import (
    REQUESTS_MAX,
    STEPS_MAX,
    At,
    Command,
    Event,
    Node,
    NoStory,
    ReplayOf,
    Step,
    Story,
    commands_behind,
    requests_of,
    story_of,
    tree_of,
    views_of,
)
from ops.telling import as_document, as_json, fields_of
from schemas.codec import Codec
from schemas.topics import Topics
from streams.replay import KafkaLog, Replay, ReplayFailed
from streams.schema_registry import SchemaRegistry


def show(
    stream: Annotated[str, typer.Argument(help="For example order/7c0f… or stock/85123A/main.")],
    *,
    at: Annotated[
        str, typer.Option(help="A version, or up to what happened after a day or an instant (UTC).")
    ] = "",
    steps: Annotated[
        bool, typer.Option("--steps", help="State before and after each event, and why.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=STEPS_MAX, help="The last so many events.")] = 20,
    as_json_: Annotated[bool, typer.Option("--json", help="For programs: one object.")] = False,
) -> None:
    """Show a stream as it was at some point, how it came to that, and what else the same request caused.

    The state is folded by the code that decides, and is one that the writer had: at an instant, before the first event
    that had not happened by then. What was on hand by all that had happened, backdated entries too, is for `audit
    stock --as-of` to say. Of up to three requests the whole consequence is shown, over all
    streams, down to the views. Exit 1 if there is no such stream, or nothing of it at that point.
    """
    found = with_kafka("show")
    topics = Topics(found.topic_prefix, found.partitions)
    try:
        point = point_of(at)
    except ValueError as wrong:
        fail(str(wrong), 2)
    try:
        with ExitStack() as ends:
            log = ends.enter_context(closing(KafkaLog(found.kafka)))
            schemas = SchemaRegistry(found.kafka, topics).schemas
            scene = gather(lambda query: Replay(log, query, Codec(), schemas), topics, stream, point, limit)
    except (NoStory, ReplayFailed) as nothing:
        fail(str(nothing), 1)
    except KafkaException as error:
        fail(f"Kafka at {found.kafka}: {error}", 1)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if as_json_:
        sys.stdout.write(as_json(document(scene)).decode() + "\n")
        return
    for line in text(scene, with_steps=steps):
        typer.echo(line)


def point_of(at: str) -> At:
    """A version or an instant; of a day its end. Raises ValueError."""
    if not at:
        return At()
    return At(version=int(at)) if at.isdecimal() else At(instant=instant_behind(at) - (len(at) == 10))


@dataclass(frozen=True)
class Scene:
    """All that is shown: `steps` are the last of the story's, `trees` by request, if they are few enough."""

    story: Story
    steps: Sequence[Step]
    commands: Mapping[str, Command]
    requests: Sequence[str]
    trees: Mapping[str, Sequence[Node]]


def gather(replay_of: ReplayOf, topics: Topics, stream: str, at: At, limit: int) -> Scene:
    """Raises NoStory, ReplayFailed."""
    story = story_of(replay_of, topics, stream, at)
    steps = list(story.steps)[-limit:]
    say(f"daybook: {story.versions:,} events; looking for the commands behind them")
    commands = commands_behind(replay_of, topics, story)
    requests = requests_of(story, limit)
    trees = {}
    if len(requests) <= REQUESTS_MAX:
        about = min(step.event.meta.recorded_at for step in steps)
        for request in requests:
            say(f"daybook: looking for all that followed from request {request}")
            trees[request] = tree_of(replay_of, topics, request, about)
    return Scene(story, steps, commands, requests, trees)


# As text.


def text(scene: Scene, *, with_steps: bool) -> Iterator[str]:
    story = scene.story
    last = scene.steps[-1].event.meta
    yield f"{story.stream}, version {story.version} of {story.versions}, as of {told(last.occurred_at)}"
    if story.left_out:
        yield f"  without {story.left_out:,} backdated behind it, which had happened by then too"
    yield from _records(story.state)
    hidden = story.version - len(scene.steps)
    yield ""
    yield f"events{f' (the last {len(scene.steps)}; --at shows what was before)' if hidden > 0 else ''}"
    for step in scene.steps:
        yield from _step(step, scene.commands.get(step.event.meta.command_id), with_steps=with_steps)
    yield from _trees(scene)


def _records(records: Mapping[str, Record]) -> Iterator[str]:
    """The state, a line each; claims beside a stock item are many."""
    for path, record in sorted(records.items())[:STEPS_MAX]:
        yield f"  {path}  {type(record).__name__} {fields_of(record)}"
    if len(records) > STEPS_MAX:
        yield f"  and {len(records) - STEPS_MAX:,} more records"


def _step(step: Step, command: Command | None, *, with_steps: bool) -> Iterator[str]:
    event = step.event
    yield f"  @{event.meta.version:<5} {told(event.meta.occurred_at)}  {_what(event)}"
    if not with_steps:
        return
    yield f"         because of {_why(event, command)}"
    yield f"         event {event.meta.event_id}, recorded {told(event.meta.recorded_at)}"
    for path in step.after:
        yield from _change(path, step.before[path], step.after[path])


def _change(path: str, before: Record | None, after: Record | None) -> Iterator[str]:
    """Of a record that goes on being what it was only what differs."""
    if before is None or after is None or type(before) is not type(after):
        yield f"         {path}"
        yield f"           before  {_record(before)}"
        yield f"           after   {_record(after)}"
    elif before == after:
        yield f"         {path}  as before"
    else:
        was, is_ = vars(before), vars(after)
        told_ = ", ".join(f"{name} {was[name]} → {is_[name]}" for name in was if was[name] != is_[name])
        yield f"         {path}  {type(after).__name__}: {told_}"


def _record(record: Record | None) -> str:
    return "nothing" if record is None else f"{type(record).__name__} {fields_of(record)}"


def _what(event: Event) -> str:
    return f"{type(event.body).__name__}  {fields_of(event.body)}"


def _why(event: Event, command: Command | None) -> str:
    meta = event.meta
    who = f"{meta.actor_kind}/{meta.actor_id}"
    if command is None:
        own = (
            "the writer's own, when its time had come"
            if meta.actor_kind == "deadline"
            else "no longer in the log"
        )
        return f"command {meta.command_id} of {who} ({own})"
    return f"{type(command.body).__name__} {meta.command_id} of {who}, issued {told(command.meta.issued_at)}"


def _trees(scene: Scene) -> Iterator[str]:
    if not scene.trees:
        yield ""
        yield f"of {len(scene.requests)} requests; --at VERSION --limit 1 shows all that followed from one"
    for request, roots in scene.trees.items():
        yield ""
        yield f"request {request}"
        for root in roots:
            yield from _node(root, "  ")


def _node(node: Node, indent: str) -> Iterator[str]:
    yield f"{indent}{_asked(node)}"
    for event, then in node.events:
        yield f"{indent}  = {event.meta.stream}@{event.meta.version} {type(event.body).__name__}"
        yield f"{indent}      read in {', '.join(views_of(event.meta.stream)) or 'no view'}"
        yield from _nodes(then, indent + "    ")
    yield from _nodes(node.then, indent + "  ")


def _nodes(nodes: Iterable[Node], indent: str) -> Iterator[str]:
    for node in nodes:
        yield from _node(node, indent)


def _asked(node: Node) -> str:
    if node.command is None:
        meta = node.events[0][0].meta
        return f"> {meta.actor_kind}/{meta.actor_id}: a command that is in no topic"
    whose = node.command.meta
    asked = f"> {whose.actor_kind}/{whose.actor_id}: {type(node.command.body).__name__} to {whose.stream}"
    return asked if node.events else f"{asked}, without an event"


# As a document.


def document(scene: Scene) -> dict[str, Any]:
    """The same for programs; a record says in `type` what it is."""
    story = scene.story
    return {
        "stream": story.stream,
        "version": story.version,
        "versions": story.versions,
        "left_out": story.left_out,
        "state": {path: _shown(record) for path, record in sorted(story.state.items())},
        "steps": [
            {
                "event": as_document(step.event),
                "before": {path: _shown(record) for path, record in step.before.items()},
                "after": {path: _shown(record) for path, record in step.after.items()},
                "command": _told(scene.commands.get(step.event.meta.command_id)),
            }
            for step in scene.steps
        ],
        "requests": {request: [_branch(root) for root in roots] for request, roots in scene.trees.items()},
    }


def _shown(record: Record | None) -> dict[str, Any] | None:
    return None if record is None else {"type": type(record).__name__, "fields": record}


def _told(command: Command | None) -> dict[str, Any] | None:
    return None if command is None else as_document(command)


def _branch(node: Node) -> dict[str, Any]:
    return {
        "command_id": node.command_id,
        "command": _told(node.command),
        "events": [
            {
                **as_document(event),
                "views": views_of(event.meta.stream),
                "then": [_branch(one) for one in then],
            }
            for event, then in node.events
        ],
        "then": [_branch(one) for one in node.then],
    }
