"""The gate: whoever could ever read what we write still can, and we can still read whatever we ever wrote.

`python -m schemas.compatibility` checks, `… release` adds today's schemas to the released ones; docs/schemas.md says
when. Avro's fingerprint overlooks logical types and defaults, so beside it the whole text of each schema is compared.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from schemas.avro import AVSC, RELEASED, Schema, as_text, fingerprint_of, released_files, schema_of
from schemas.codec import Codec, UndecodableError
from schemas.language import META_OF
from schemas.resolution import encode_sample, samples_of, unreadable
from schemas.upcasting import OLD_READERS_MUST_GO, UPCASTS

SUMS = "SHA256SUMS"
"""Beside the released files: their hashes, as `sha256sum --check` reads them."""

GIT_LIMIT_S = 30.0


@dataclass(frozen=True)
class Today:
    """What the gate compares with the released schemas; by default what this code says."""

    schemas: Mapping[str, Schema]

    @classmethod
    def of_this_code(cls) -> "Today":
        return cls({message.__name__: schema_of(message) for message in META_OF})


def complaints(today: Today, released: Path = RELEASED, avsc: Path = AVSC) -> list[str]:
    """Everything that is wrong, one line each; empty when the gate is open."""
    return [
        *_derived_otherwise(today, avsc),
        *_tampered(released),
        *_rewritten_since_a_tag(released),
        *_incompatible(today, released),
        *_stale_notes(released),
    ]


def release(today: Today, released: Path = RELEASED) -> list[str]:
    """Add what is not released yet; the names of the files added. What is there is never touched."""
    released.mkdir(exist_ok=True)
    added = []
    for message, schema in today.schemas.items():
        file = released / f"{message}.{fingerprint_of(schema).hex()}.avsc"
        if not file.exists():
            file.write_text(as_text(schema), "utf-8")
            added.append(file.name)
    # Sums once written stay: to sum up anew would bless whatever was done to a file meanwhile.
    known = _sums(released)
    sums = {file.name: _sha256(file) for file in released_files(released).values()} | known
    (released / SUMS).write_text("".join(f"{sums[name]}  {name}\n" for name in sorted(sums)), "utf-8")
    return added


def begin_again(released: Path = RELEASED) -> None:
    """Forget what was never given away: allowed until the first tag only. The shapes we upcast stay."""
    if _git(released, "tag", "--list", "v*"):
        raise SystemExit("There is a release: its schemas are somebody's by now.")
    for shape, file in released_files(released).items():
        if shape not in UPCASTS:
            file.unlink()
    (released / SUMS).unlink(missing_ok=True)


def _derived_otherwise(today: Today, avsc: Path) -> Iterator[str]:
    checked_in = {file.stem: json.loads(file.read_text("utf-8")) for file in avsc.glob("*.avsc")}
    for message in sorted(today.schemas.keys() | checked_in.keys()):
        if today.schemas.get(message) != checked_in.get(message):
            yield f"{message}: avsc/ is not what the class says; run `python -m schemas.avro`"


def _tampered(released: Path) -> Iterator[str]:
    sums = _sums(released)
    files = {file.name: file for file in released_files(released).values()}
    for name in sorted(sums.keys() | files.keys()):
        if name not in files:
            yield f"{name}: released, and deleted since"
        elif sums.get(name) != _sha256(files[name]):
            yield f"{name}: is not what was released ({SUMS})"
        elif fingerprint_of(json.loads(files[name].read_text("utf-8"))).hex() != name.split(".")[1]:
            yield f"{name}: its fingerprint is another"


def _rewritten_since_a_tag(released: Path) -> Iterator[str]:
    """Whoever rewrites a file may rewrite its sum as well; a tag cannot be rewritten by an edit."""
    for tag in _git(released, "tag", "--list", "v*"):
        for name in _git(released, "diff", "--name-only", "--diff-filter=MDR", tag, "--", "*.avsc"):
            yield f"{Path(name).name}: not as {tag} released it"


def _incompatible(today: Today, released: Path) -> Iterator[str]:
    codec = Codec()
    for (message, fingerprint), file in released_files(released).items():
        old, new = json.loads(file.read_text("utf-8")), today.schemas.get(message)
        if new is None:
            yield f"{file.name}: no class of today reads it"
        elif fingerprint == fingerprint_of(new).hex():
            # The wire is the same, yet not what the values mean (logical types), or what a reader puts in (defaults).
            if old != new:
                yield f"{file.name}: same fingerprint, other logical types or defaults"
        else:
            yield from (f"{file.name}: {why}" for why in _old_data(codec, (message, fingerprint), old, new))
            yield from (f"{file.name}: {why}" for why in _old_readers((message, fingerprint), old, new))


def _old_data(codec: Codec, shape: tuple[str, str], old: Schema, new: Schema) -> Iterator[str]:
    """Backward: what was written with `old` is read today, in today's shape."""
    if shape not in UPCASTS:
        yield from (
            f"today's code cannot read it, and no upcast says how: {why}" for why in unreadable(old, new)
        )
        return
    codec.learn(old)
    for sample in samples_of(old):
        try:
            decoded = codec.decode(encode_sample(old, sample))
            if (
                codec.decode(codec.encode(decoded.body, vars(decoded.meta), decoded.version, decoded.hash))
                != decoded
            ):
                yield "its upcast does not yield today's values"
        except (UndecodableError, ValueError, TypeError, AttributeError, KeyError) as error:
            yield f"its upcast does not yield today's shape: {error!r}"


def _old_readers(shape: tuple[str, str], old: Schema, new: Schema) -> Iterator[str]:
    """Forward: what is written today is read by whoever still has `old`."""
    if not OLD_READERS_MUST_GO.get(shape):
        for why in unreadable(new, old):
            yield f"its readers cannot read what is written today, and nobody was told: {why}"


def _stale_notes(released: Path) -> Iterator[str]:
    for message, fingerprint in sorted(
        (UPCASTS.keys() | OLD_READERS_MUST_GO.keys()) - released_files(released).keys()
    ):
        yield f"{message}.{fingerprint}: described in schemas/upcasting.py, and was never released"


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _sums(released: Path) -> dict[str, str]:
    """File name → SHA-256, as they were when each was released."""
    file = released / SUMS
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _git(folder: Path, *arguments: str) -> list[str]:
    """What git says of the folder, by lines; nothing where there is no git or no repository (an unpacked archive)."""
    git = shutil.which("git")
    if git is None or not folder.exists():
        return []
    done = subprocess.run(
        [git, *arguments], cwd=folder, capture_output=True, text=True, timeout=GIT_LIMIT_S, check=False
    )
    return done.stdout.splitlines() if done.returncode == 0 else []


def main(arguments: list[str]) -> int:
    today = Today.of_this_code()
    if arguments in (["release"], ["release", "--begin-again"]):
        if "--begin-again" in arguments:
            begin_again()
        _say(f"released {name}" for name in release(today))
    elif arguments:
        _say(["usage: python -m schemas.compatibility [release [--begin-again]]"])
        return 2
    found = complaints(today)
    _say(
        found
        or [f"{len(released_files())} released schemas, {len(today.schemas)} of today: compatible both ways"]
    )
    return 1 if found else 0


def _say(lines: "Iterator[str] | list[str]") -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
