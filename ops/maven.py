"""Java libraries without Maven: jars named and hashed in a lock file, fetched once by jgo.

A lock's line is `group:artifact:version[:classifier] sha256`, its comments of the form `# root: …` name what was
asked for; `python -m ops.maven ops/stack/kafka.lock` resolves those anew and writes the rest.
"""

import hashlib
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Progress = Callable[[str], None]

ROOT = "# root: "
DOWNLOADS_AT_ONCE = 8
ATTEMPTS = 3


class JarRefused(Exception):
    """A jar could not be had, or is not the one that was locked."""


@dataclass(frozen=True)
class LockedJar:
    group: str
    artifact: str
    version: str
    classifier: str
    sha256: str

    @property
    def coordinate(self) -> str:
        return ":".join(part for part in (self.group, self.artifact, self.version, self.classifier) if part)


def read_lock(lock: Path) -> list[LockedJar]:
    """The jars of a lock file, in the order of the class path."""
    lines = (line.strip() for line in lock.read_text("utf-8").splitlines())
    return [_parse(line) for line in lines if line and not line.startswith("#")]


def _parse(line: str) -> LockedJar:
    coordinate, sha256 = line.split()
    group, artifact, version, *classifier = coordinate.split(":")
    return LockedJar(group, artifact, version, "".join(classifier), sha256)


def class_path(lock: Path, jars: Path, progress: Progress) -> str:
    """What `java -cp` wants for this lock; jars that are not below `jars` yet are downloaded and verified.

    The list is kept beside the jars under the lock's own hash, so that a warm start reads one file.
    """
    kept = jars / f"{lock.stem}-{_sha256(lock)[:16]}.jars"
    if not kept.exists():
        locked = read_lock(lock)
        progress(f"fetching {len(locked)} jars for {lock.stem} (once)")
        found = fetch(locked, jars, progress)
        kept.write_text("\n".join(str(jar.relative_to(jars)) for jar in found), "utf-8")
    return ":".join(str(jars / line) for line in kept.read_text("utf-8").splitlines())


def fetch(locked: Iterable[LockedJar], jars: Path, progress: Progress) -> list[Path]:
    """Local paths of the locked jars, in order. JarRefused when one cannot be had as locked."""
    context = _context(jars)
    wanted = list(locked)
    paths = []
    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        for count, path in enumerate(pool.map(lambda jar: _fetch_one(context, jar), wanted), start=1):
            paths.append(path)
            if count % 25 == 0:
                progress(f"{count} of {len(wanted)} jars")
    return paths


def _fetch_one(context: Any, jar: LockedJar) -> Path:
    artifact = context.project(jar.group, jar.artifact).at_version(jar.version).artifact(jar.classifier)
    problem = "never tried"
    for _ in range(ATTEMPTS):
        try:
            path = Path(artifact.resolve())
        except (OSError, RuntimeError) as error:  # requests' errors are OSErrors
            problem = str(error)
            continue
        if (found := _sha256(path)) == jar.sha256:
            return path
        problem = f"its SHA-256 is {found}, the lock says {jar.sha256}"
        path.unlink()  # torn by an earlier kill, or not what was locked: never on the class path
    raise JarRefused(f"{jar.coordinate}: {problem}")


def _context(jars: Path) -> Any:
    """jgo's view of the repositories: its own default, or those its user configured."""
    from jgo.config import GlobalSettings
    from jgo.maven import MavenContext

    jars.mkdir(parents=True, exist_ok=True)
    repositories = GlobalSettings.load().repositories or None
    return MavenContext(repo_cache=jars, remote_repos=repositories, timeout=60)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_lock(lock: Path, jars: Path) -> None:
    """Resolves the roots named in the lock's comments and writes every jar they need, with its hash."""
    comments = [line for line in lock.read_text("utf-8").splitlines() if line.startswith("#")]
    roots = [line.removeprefix(ROOT) for line in comments if line.startswith(ROOT)]
    context = _context(jars)
    direct, transitive = context.resolver.resolve([_dependency(context, root) for root in roots])
    needed = [*direct, *(found for found in transitive if found.scope in {"compile", "runtime"})]
    lines = (_locked_line(found.artifact) for found in needed)
    lock.write_text("\n".join([*comments, *dict.fromkeys(lines)]) + "\n", "utf-8")


def _dependency(context: Any, root: str) -> Any:
    from jgo.parse import Coordinate

    group, artifact, version = root.split(":")
    return context.create_dependency(Coordinate(group, artifact, version, scope="compile"))


def _locked_line(artifact: Any) -> str:
    jar = LockedJar(
        artifact.groupId,
        artifact.artifactId,
        artifact.version,
        artifact.classifier,
        _sha256(artifact.resolve()),
    )
    return f"{jar.coordinate} {jar.sha256}"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        write_lock(Path(name), Path(".daybook/jars"))
