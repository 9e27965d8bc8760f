"""The walls between the rooms, and the manners of every file."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
ROOMS = ("schemas", "commands", "projections", "streams", "api", "ops")
# A room may import these rooms, and itself.
DOORS = {
    "schemas": set[str](),
    "commands": {"schemas"},
    "projections": {"schemas"},
    "streams": {"schemas", "commands", "projections"},
    "api": {"schemas", "projections"},
    "ops": {"schemas", "commands", "projections", "streams", "api"},
}
# What decides and folds is pure: these rooms know no server's client and no clock of their own.
PURE = {
    "schemas": {"confluent_kafka", "cassandra", "redis", "faust", "fastapi", "aiohttp", "requests", "psutil"},
    "commands": {
        "confluent_kafka",
        "cassandra",
        "redis",
        "faust",
        "fastapi",
        "aiohttp",
        "requests",
        "psutil",
    },
}
FORBIDDEN_NAMES = re.compile(r"(^|_)(common|utils?|helpers?|managers?|misc)($|_)")
LINES_OF_A_SCREEN = 70
# Directories that exist on one machine only; a project that names one does not run on another.
MACHINE_PATHS = re.compile(r"(?<![\w.$}])/(?:home|Users|root|work|tmp)/[\w.-]+")
REGISTRY_HOSTS = re.compile(
    r"\b(?:pypi\.(?:org|python\.org)|files\.pythonhosted\.org|repo1?\.maven\.(?:org|apache\.org)|repo1\.maven\.org)\b"
)


def modules() -> list[Path]:
    return [path for room in (*ROOMS, "tests") for path in sorted((REPOSITORY / room).rglob("*.py"))]


def our_files() -> list[Path]:
    """All text files of the project, committed or about to be."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return [path for name in listed if (path := REPOSITORY / name).is_file()]


def named(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def parsed(source: str) -> ast.Module:
    return ast.parse(source)


def imported(tree: ast.AST) -> Iterator[str]:
    """The top-level package of every import, wherever it stands; also of one by name."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name.split(".")[0] for alias in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module.split(".")[0]
            case ast.ImportFrom():
                yield "a relative import"
            case ast.Call(
                func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(module)), *_]
            ):
                yield module.split(".")[0]
            case _:
                pass


def walls_broken(room: str, source: str) -> set[str]:
    """The rooms, and the clients in a pure room, that this source imports and may not."""
    found = set(imported(parsed(source)))
    closed = set(ROOMS) - {room} - DOORS[room] | {"tests", "a relative import"}
    return found & (closed | PURE.get(room, set()))


def long_functions(source: str) -> list[str]:
    functions = (n for n in ast.walk(parsed(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    lengths = {f.name: (f.end_lineno or f.lineno) - f.lineno + 1 for f in functions}
    return [f"{name} ({length} lines)" for name, length in lengths.items() if length > LINES_OF_A_SCREEN]


def silent_exceptions(source: str) -> list[str]:
    """Lines that switch a lint rule off without naming it, or without a reason beside it."""
    marked = [line for line in source.splitlines() if "# noqa" in line]
    return [
        line.strip()
        for line in marked
        if not re.search(r"# noqa: [A-Z]+\d+(, ?[A-Z]+\d+)*\W+\w+\W+\w+", line)
    ]


def opens_with_a_sentence(source: str) -> bool:
    """Whether the module's docstring opens with one sentence, in its first paragraph."""
    docstring = ast.get_docstring(parsed(source)) or ""
    first = docstring.split("\n\n")[0].strip()
    return bool(re.match(r"[A-Z`'\d$].*[.:?!]$", first, re.DOTALL))


def is_one_docstring(source: str) -> bool:
    match parsed(source).body:
        case [ast.Expr(value=ast.Constant(value=str()))]:
            return True
        case _:
            return False


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_through_its_doors(room: str) -> None:
    broken = {
        named(path): found
        for path in sorted((REPOSITORY / room).rglob("*.py"))
        if (found := walls_broken(room, path.read_text("utf-8")))
    }
    assert broken == {}


def test_every_package_is_one_docstring() -> None:
    packages = [path for path in modules() if path.name == "__init__.py"]
    assert [named(path) for path in packages if not is_one_docstring(path.read_text("utf-8"))] == []


def test_every_module_opens_with_one_sentence() -> None:
    assert [named(path) for path in modules() if not opens_with_a_sentence(path.read_text("utf-8"))] == []


def test_no_file_is_named_after_nothing() -> None:
    parts = {named(path): Path(named(path)).with_suffix("").parts for path in our_files()}
    assert [
        name for name, words in parts.items() if any(FORBIDDEN_NAMES.search(word) for word in words)
    ] == []


def test_every_function_fits_a_screen() -> None:
    long = {named(path): found for path in modules() if (found := long_functions(path.read_text("utf-8")))}
    assert long == {}


def test_every_lint_exception_has_its_reason_beside_it() -> None:
    others = [path for path in modules() if path != Path(__file__)]
    silent = {named(path): found for path in others if (found := silent_exceptions(path.read_text("utf-8")))}
    assert silent == {}


@pytest.mark.parametrize("pattern", [MACHINE_PATHS, REGISTRY_HOSTS], ids=["machine", "registry"])
def test_no_file_names_one_machine_or_a_registry(pattern: re.Pattern[str]) -> None:
    naming = {}
    for path in our_files():
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue  # data
        if path != Path(__file__) and (found := pattern.search(text)):
            naming[named(path)] = found.group()
    assert naming == {}


def test_a_planted_hole_in_a_wall_is_seen() -> None:
    assert walls_broken("commands", "import ops.settings") == {"ops"}
    assert walls_broken("api", "def late():\n    from streams.replay import replay") == {"streams"}
    assert walls_broken("streams", "import importlib\nimportlib.import_module('api.main')") == {"api"}
    assert walls_broken("schemas", "from redis.asyncio import Redis") == {"redis"}
    assert walls_broken("commands", "from . import decider") == {"a relative import"}
    assert walls_broken("api", "from schemas.cart import Cart\nfrom projections.view import View") == set()


def test_planted_bad_manners_are_seen() -> None:
    assert long_functions("def endless():\n" + "    pass\n" * 70) == ["endless (71 lines)"]
    assert long_functions("def short():\n" + "    pass\n" * 69) == []
    assert silent_exceptions("x = 1  # noqa: E741") == ["x = 1  # noqa: E741"]
    assert silent_exceptions("x = 1  # noqa: E741  # its name in the paper") == []
    assert not opens_with_a_sentence("import os")
    assert not opens_with_a_sentence('"""cart"""')
    assert opens_with_a_sentence('"""A cart: what a customer\nmeans to buy.\n\nMore of it"""')
    assert not is_one_docstring('"""A room."""\nfrom schemas.cart import Cart')
    assert FORBIDDEN_NAMES.search("kafka_utils")
    assert not FORBIDDEN_NAMES.search("commonest")
    assert MACHINE_PATHS.search('open("/home/anna/data.csv")')
    assert not MACHINE_PATHS.search("GET /v1/home/page")
    assert REGISTRY_HOSTS.search("--index-url https://pypi.org/simple")
