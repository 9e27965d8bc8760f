"""The verbs of evidence: export a bundle, verify it, show a key, bear witness."""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from ops.cli import adopted, fail, say
from ops.evidence.bundle import NotABundle, Question
from ops.evidence.checkpoint import NotANote, PublicKey
from ops.evidence.keys import NoKey, ensure_key, origin_name, private_key, public_key
from ops.evidence.values import WrongSchema
from ops.evidence.verify import Bad, TreeVerdict, Trust, Verdict, WrongKey
from ops.evidence.verify import verify as verify_bundle
from ops.settings import Settings
from schemas.instants import BadInstant, first_moment, last_moment
from schemas.meta import SECOND

WAIT_S = 20.0
SHOWN_MAX = 10


def export(
    *,
    sku: Annotated[str, typer.Option(help="All that ever happened to this SKU.")] = "",
    order: Annotated[str, typer.Option(help="What this order did to the stock.")] = "",
    begin: Annotated[
        str, typer.Option("--from", help="All that was recorded from this day or time on …")
    ] = "",
    end: Annotated[str, typer.Option("--to", help="… to the end of this one.")] = "",
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle's file.")] = Path("evidence.zip"),
    key: Annotated[
        str, typer.Option(help="The sealer's public key, or its file; else this Daybook's own.")
    ] = "",
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for what is not sealed yet.")] = WAIT_S,
    sealed_only: Annotated[
        bool, typer.Option("--sealed-only", help="Leave out what is not sealed then.")
    ] = False,
) -> None:
    """Write evidence into one file: records as they lie in the log, proofs, signed checkpoints, schemas.

    Exit 1 if the log is not what was sealed, or what is asked is not sealed in time; 2 if there is nothing to export or
    no file could be written. A file appears under its name only when it is whole.
    """
    question = _question(sku, order, begin, end)
    found = adopted("audit")
    if not found.kafka:
        fail("no Kafka is up here, nor named by DAYBOOK_KAFKA; try ./daybook up", 2)
    _export(question, found, key, output, wait, sealed_only=sealed_only)


def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle of evidence.")],
    *,
    key: Annotated[str, typer.Option(help="The sealer's public key, or its file.")],
    witness: Annotated[str, typer.Option(help="A witness's: the last checkpoints must bear its word.")] = "",
    schema: Annotated[
        list[Path] | None, typer.Option(help="A schema of a later release that you trust: its .avsc file.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="How many trees at a time.")] = 2,
) -> None:
    """Verify a bundle: no Kafka, no network, nothing trusted but the key and the schemas that were released.

    Checks signatures, proofs, hash chains and versions, recomputes the balances, and names the first record that is
    not what was sealed. Exit 1 if anything is wrong, 2 for a file that is no bundle, cut short, or of another key.
    """
    began = time.monotonic()
    try:
        trust = Trust.of(public_key(key), public_key(witness) if witness else None, _read(schema or []))
        verdict = verify_bundle(bundle, trust, processes)
    except Bad as bad:
        typer.echo(f"BAD  {bad}")
        raise typer.Exit(1) from None
    except (NotABundle, WrongKey, NoKey, WrongSchema) as error:
        fail(str(error), 2)
    except OSError as error:
        fail(f"{error.filename or bundle}: {error.strerror}", 2)
    for line in told(verdict, time.monotonic() - began):
        typer.echo(line)


def show_key(
    *, witness: Annotated[bool, typer.Option("--witness", help="This witness's, not the sealer's.")] = False
) -> None:
    """Print the public key that verifies; it is made, with its private half, if there is none."""
    try:
        typer.echo(ensure_key(adopted("audit").keys, "witness" if witness else "sealer", origin_name()))
    except (NoKey, NotANote) as error:
        fail(str(error), 2)


def witness(
    *,
    key: Annotated[
        str, typer.Option(help="The sealer's public key, or its file; else this Daybook's own.")
    ] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
) -> None:
    """Bear witness: sign every new checkpoint that grew out of the last one seen, refuse any other.

    Best run by somebody else than the sealer's owner, with a DAYBOOK_HOME of their own. Exit 1 if one was refused.
    """
    found = adopted("audit")
    if not found.kafka:
        fail("no Kafka is up here, nor named by DAYBOOK_KAFKA; try ./daybook up", 2)
    try:
        refused = _witnessed(found, key, follow=follow)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if refused:
        raise typer.Exit(1)


def told(verdict: Verdict, elapsed_s: float) -> list[str]:
    """What was proved, in words, and how far it goes."""
    lines = [f"true: {verdict.question}; {verdict.records:,} records verified in {elapsed_s:.1f} s"]
    for tree in verdict.trees:
        seen = f", seen by the witness at {_second(tree.cosigned_at)}" if tree.cosigned_at else ""
        lines.append(
            f"  {tree.origin}: {tree.records:,} records, {tree.asked:,} of them asked for, of {tree.size:,} sealed "
            f"({tree.checkpoints} checkpoints{seen})"
        )
    if verdict.question.kind == "period":
        return [*lines, *_how_far(verdict.trees)]
    ends = {stream: version for tree in verdict.trees for stream, version in tree.ends.items()}
    for stream, version in list(ends.items())[:SHOWN_MAX]:
        lines.append(f"  {stream} up to version {version}; that nothing followed is proved by a period only")
    if len(ends) > SHOWN_MAX:
        lines.append(f"  and {len(ends) - SHOWN_MAX} streams more")
    return lines


def _how_far(trees: Sequence[TreeVerdict]) -> Iterator[str]:
    open_ended = [(tree.origin, tree.until) for tree in trees if tree.until is not None]
    for origin, until in open_ended:
        yield f"  {origin} up to {_second(until // SECOND)}; that nothing followed is not proved"
    if len(open_ended) < len(trees):
        others = "of the others" if open_ended else "of these trees"
        yield f"  {others} nothing of the period is missing"


def _read(schemas: Iterable[Path]) -> list[Any]:
    """Raises OSError, WrongSchema."""
    try:
        return [json.loads(path.read_bytes()) for path in schemas]
    except ValueError as error:
        raise WrongSchema(f"{error} in what should be a schema") from error


def _question(sku: str, order: str, begin: str, end: str) -> Question:
    """Exactly one of the three, else exit 2."""
    if bool(sku) + bool(order) + bool(begin or end) != 1 or bool(begin) != bool(end):
        fail("ask for --sku, or --order, or a period --from … --to …", 2)
    if sku:
        return Question("sku", sku=sku)
    if order:
        return Question("order", order=order)
    try:
        period = Question("period", begin=first_moment(begin), end=last_moment(end) + 1)
    except BadInstant as error:
        fail(str(error), 2)
    if period.begin >= period.end:
        fail(f"the period ends before it begins: from {begin} to {end}", 2)
    return period


def _export(
    question: Question, found: Settings, key: str, path: Path, wait_s: float, *, sealed_only: bool
) -> None:
    from ops.audit.log_reader import LogNotReadError
    from ops.evidence.export import LogContradictsSeal, NotExported, Place, Unsealed, export_bundle
    from schemas.topics import Topics

    try:
        place = Place(found.kafka, Topics(found.topic_prefix, found.partitions), _sealer(found, key))
        manifest = export_bundle(question, place, path, wait_s, sealed_only=sealed_only, say=say)
    except (LogContradictsSeal, Unsealed) as error:
        fail(f"nothing was written: {error}", 1)
    except (NotExported, LogNotReadError, NoKey) as error:
        fail(f"nothing was written: {error}", 2)
    except OSError as error:
        fail(f"nothing was written to {path}: {error.strerror or error}", 2)
    records, asked = (sum(getattr(tree, name) for tree in manifest.trees) for name in ("records", "asked"))
    typer.echo(
        f"{path}: {question}: {asked:,} records, {records - asked:,} beside them, {path.stat().st_size:,} bytes"
    )


def _sealer(found: Settings, key: str) -> PublicKey:
    return public_key(key) if key else private_key(found.keys, "sealer").public


def _witnessed(found: Settings, key: str, *, follow: bool) -> int:
    """How many checkpoints were refused."""
    from ops.audit.log_reader import LogNotReadError
    from ops.evidence.witnessing import Watch
    from schemas.topics import Topics

    try:
        ensure_key(found.keys, "witness", f"witness.{origin_name()}")
        watch = Watch(
            found.kafka,
            Topics(found.topic_prefix, found.partitions).checkpoints,
            found.state("witness"),
            private_key(found.keys, "witness"),
            _sealer(found, key),
        )
        watch.look(say)
        while follow:
            time.sleep(1.0)
            watch.look(say)
    except (LogNotReadError, NoKey) as error:
        fail(str(error), 2)
    typer.echo(f"{watch.cosigned:,} checkpoints cosigned, {watch.refused:,} refused")
    return watch.refused


def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()
