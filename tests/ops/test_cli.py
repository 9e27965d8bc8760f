"""The command line: every verb explains itself by example, and a mistake is told in one line."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ops import cli, settings
from ops.settings import REPOSITORY

WITHIN_S = 120.0
OUR_VERBS = ("up", "down", "status", "logs", "run", "prepare", "check", "test")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DAYBOOK_HOME", str(tmp_path))
    for name in ("DAYBOOK_KAFKA", "DAYBOOK_CASSANDRA", "DAYBOOK_REDIS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize("verb", OUR_VERBS)
def test_every_verb_explains_itself_by_example(verb: str) -> None:
    told = CliRunner().invoke(cli.app, [verb, "--help"])
    assert told.exit_code == 0
    assert f"\n    ./daybook {verb}" in told.output


@pytest.mark.parametrize("verb", cli.ELSEWHERE)
def test_a_verb_of_another_module_explains_itself_by_example_too(verb: str) -> None:
    told = in_a_process(verb, "--help")
    assert f"\n    ./daybook {verb}" in told


def test_what_comes_after_the_tests_goes_to_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    handed_over: list[list[str]] = []

    def take(_: str, argv: list[str]) -> int:
        handed_over.append(argv)
        return 0

    monkeypatch.setattr(cli, "_tool", take)
    CliRunner().invoke(cli.app, ["test", "-k", "reserving", "tests/commands"])
    CliRunner().invoke(cli.app, ["test", "--", "--help"])
    assert handed_over == [["pytest", "-k", "reserving", "tests/commands"], ["pytest", "--help"]]


def test_the_first_help_names_every_verb_also_those_of_other_rooms() -> None:
    told = in_a_process("--help")
    for verb in (*OUR_VERBS, *cli.ELSEWHERE):
        assert f"\n  {verb} " in told


def test_the_first_help_says_each_verb_in_a_whole_sentence() -> None:
    commands = in_a_process("--help").split("Commands:")[1].split("Examples:")[0]
    assert all(line.endswith(".") and not line.endswith("...") for line in commands.strip().splitlines())


def in_a_process(*argv: str) -> str:
    """What the command line prints when it is started as a newcomer starts it."""
    return subprocess.run(
        [sys.executable, "-m", "ops", *argv],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=True,
    ).stdout


def test_nothing_runs_and_status_says_so() -> None:
    told = CliRunner().invoke(cli.app, ["status"])
    assert told.exit_code == 0
    assert [line.split()[:2] for line in told.output.splitlines()[1:5]] == [
        ["kafka", "stopped"],
        ["cassandra", "stopped"],
        ["redis", "stopped"],
        ["supervisor", "stopped"],
    ]
    assert "a power cut may lose" in told.output


def test_a_role_nobody_knows_is_answered_with_those_there_are() -> None:
    told = CliRunner().invoke(cli.app, ["run", "dreams"])
    assert told.exit_code == 2
    assert "commands, projections, ledger, sagas, payments, api" in told.output


def test_logs_show_the_last_lines_and_say_when_there_are_none(home: Path) -> None:
    assert CliRunner().invoke(cli.app, ["logs", "api"]).exit_code == 1
    log = settings.from_environment().logs / "api.log"
    log.parent.mkdir(parents=True)
    log.write_text("".join(f"line {n}\n" for n in range(1000)))
    shown = CliRunner().invoke(cli.app, ["logs", "api"]).output.splitlines()
    assert shown == [f"line {n}" for n in range(900, 1000)]


def test_taking_down_what_is_not_up_does_nothing() -> None:
    assert CliRunner().invoke(cli.app, ["down"]).exit_code == 0
