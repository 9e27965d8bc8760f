"""The command line of Daybook: every verb a newcomer needs; the slow ones are imported when they are asked for."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NamedTuple, NoReturn

import typer

from ops import settings
from ops.roles import LIFELINE, LOOKERS_ON, ROLES, RoleMissing
from ops.settings import Settings

FOLLOW_S = 0.2
LAST_LINES = 100


class Elsewhere(NamedTuple):
    """A verb that lives in a module of its own: where, the line that `--help` shows, and examples."""

    target: str
    line: str
    examples: tuple[str, ...]


ELSEWHERE = {
    "demo": Elsewhere(
        "ops.demo.cli:demo",
        "Trade a retailer's real days through the HTTP API and report.",
        (
            "demo",
            "demo --from 2010-12-01 --to 2011-02-28 --report winter.json",
            "demo --scarcity 0.2 --keep",
        ),
    ),
    "bench": Elsewhere(
        "ops.bench.cli:bench",
        "Measure Daybook and a peer in the same rounds.",
        ("bench", "bench hot-sku --report hot-sku.json", "bench latency --rounds 15"),
    ),
    "faults": Elsewhere(
        "ops.faults.cli:faults",
        "Break real processes while callers trade, then check.",
        ("faults", "faults F8 F28 --seed 7 --report faults.json", "faults --rounds 20"),
    ),
    "simulate": Elsewhere(
        "ops.simulate.cli:simulate",
        "Ask the laws under faults by seed, on virtual time.",
        (
            "simulate",
            "simulate --seeds 10000 --report simulation.json",
            "simulate --seed 33 --seeds 1",
            "simulate --planted",
        ),
    ),
    "audit": Elsewhere(
        "ops.audit.cli:audit",
        "Prove the stock: ledger, reports, evidence.",
        (
            "audit stock 85123A --as-of 2010-12-31",
            "audit report --from 2010-12-01 --to 2011-02-28",
            "audit export --sku 85123A -o evidence.zip",
            "audit verify evidence.zip --key .daybook/keys/sealer.pub",
        ),
    ),
    "replay": Elsewhere(
        "ops.replay:replay",
        "Tell the log again: events between two points.",
        (
            "replay --from 2010-12-24 --to 2010-12-24 --type OrderPlaced --format table",
            "replay --key 85123A -o lamp.jsonl",
            "replay --format parquet -o winter",
        ),
    ),
    "sql": Elsewhere(
        "ops.sql:sql",
        "Ask in SQL: orders, stock_movements, payments, events.",
        (
            'sql "select status, count(*), sum(amount) from orders group by all"',
            'sql "describe stock_movements"',
            'sql --format csv "select * from payments"',
        ),
    ),
    "show": Elsewhere(
        "ops.show:show",
        "A stream at any time, step by step, and why.",
        (
            "show stock/85123A/main --at 2010-12-31",
            "show order/ORDER_ID --steps",
            "show cart/CART_ID --at 3 --json",
        ),
    ),
    "whatif": Elsewhere(
        "ops.whatif.cli:whatif",
        "Decide a period anew by other rules; compare.",
        (
            "whatif --rules ops.whatif.rules:safety_stock --from 2010-12-01 --to 2011-02-28",
            "whatif --rules my_rules:half_price -o orders.parquet",
        ),
    ),
    "token": Elsewhere(
        "ops.tokens:token",
        "Issue a bearer token for development.",
        ("token --role customer --subject 17850", "token --role merchant --subject anna --ttl 86400"),
    ),
    "rebuild": Elsewhere(
        "ops.rebuild:rebuild",
        "Build a view anew from the log, compare it, switch to it.",
        (
            "rebuild stock",
            "rebuild stock --key 85123A/main",
            'rebuild order --accept "rows were deleted by hand"',
            "rebuild order --back",
        ),
    ),
    "heal": Elsewhere(
        "ops.heal:heal",
        "Make one key of a view anew from the log, in its place.",
        ("heal stock 85123A/main", "heal order 0d6c1f6e-3c5c-5f0e-9d1c-2f5f7f0c9b7a"),
    ),
    "erase": Elsewhere(
        "ops.erase:erase",
        "Forget a customer: name, e-mail, address, for ever.",
        ("erase 17850", "erase 17850 --by anna"),
    ),
    "retry": Elsewhere(
        "ops.retry:retry",
        "Release a parked stream after its cause is gone.",
        ("retry --list", "retry stock/85123A/main", "retry --consumer views.redis stock/85123A/main"),
    ),
}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def examples(*lines: str) -> str:
    """An epilog that keeps its lines: click leaves a paragraph alone that opens with a backspace."""
    return "\b\nExamples:\n" + "\n".join(f"  ./daybook {line}" for line in lines)


@app.callback(epilog=examples("demo", "test", "up", "status", "rebuild --help"))
def daybook() -> None:
    """Daybook: trade written down once, in order; every ledger is posted from it."""


def in_a_folder(path: Path | None) -> Path | None:
    """A file that is written at the end of long work: said at its beginning if it cannot be."""
    if path is not None and not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        raise typer.BadParameter(f"nothing can be written into {path.parent}")
    return path


def say(message: str) -> None:
    typer.echo(message, err=True)


def fail(message: str, code: int) -> NoReturn:
    say(f"daybook: {message}")
    raise typer.Exit(code)


def here() -> Settings:
    """The Daybook that was brought up below this home, else what the environment says."""
    wanted = settings.from_environment()
    return settings.kept(wanted.home) or wanted


def adopted(role: str) -> Settings:
    """What the environment says, completed by the Daybook that is up; our own environment says it all from now on."""
    given = {name: value for name, value in os.environ.items() if name.startswith("DAYBOOK_") and value}
    os.environ.update({**here().environment(role), **given})
    return settings.from_environment()


def brought_up(verb: str) -> Settings:
    """The same for a verb that is of no use without servers."""
    found = adopted(verb)
    if not (found.kafka and found.redis and found.cassandra):
        fail("nothing is up here, nor named by DAYBOOK_KAFKA, _CASSANDRA and _REDIS; try ./daybook up", 2)
    return found


@app.command(epilog=examples("up", "up && ./daybook status"))
def up() -> None:
    """Start the local stack and all roles; return when they are ready.

    A supervisor stays behind and restarts what ends. Servers whose address the environment gives (DAYBOOK_KAFKA,
    DAYBOOK_CASSANDRA, DAYBOOK_REDIS) are used instead of our own.
    """
    from ops.interruption import be_interrupted_once
    from ops.local_stack import LOSS_PROFILE, StackFailed
    from ops.running import RunsAlready, bring_up

    be_interrupted_once()
    began = time.monotonic()
    try:
        ready = bring_up(settings.from_environment(), say, lookers_on=LOOKERS_ON)
    except (RunsAlready, StackFailed) as refused:
        fail(str(refused), 2)
    say(f"up after {time.monotonic() - began:.1f} s: API http://{ready.api}, provider {ready.provider}")
    say(f"console: http://{ready.console}/console; ./daybook token --role auditor --subject you")
    say(f"kafka: {LOSS_PROFILE}")


@app.command(short_help="Stop the roles and the local stack.", epilog=examples("down"))
def down() -> None:
    """Stop the roles, the supervisor and the local stack: what `up` started, and nothing else."""
    from ops.running import take_down

    take_down(here(), say)
    say("down")


@app.command(
    short_help="Show each process: health, memory, CPU, lag.", epilog=examples("status", "status --json")
)
def status(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: a list of objects.")] = False,
) -> None:
    """Show each process: address, health, memory, CPU, lag, transactions per second."""
    from ops.local_stack import LOSS_PROFILE
    from ops.running import stack_of
    from ops.status import survey, table

    found = here()
    rows = survey(found, stack_of(found))
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=1))
        return
    typer.echo(table(rows))
    typer.echo(f"\nkafka: {LOSS_PROFILE}")


@app.command(epilog=examples("logs api", "logs commands -f", "logs kafka"))
def logs(
    role: Annotated[str, typer.Argument(help="A role, supervisor, kafka, cassandra or redis.")],
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
) -> None:
    """Show the last lines that a process wrote."""
    found = here()
    places = {name: found.logs / f"{name}.log" for name in [*ROLES, *LOOKERS_ON, "supervisor"]}
    places |= {name: found.stack / name / f"{name}.log" for name in ("kafka", "cassandra", "redis")}
    if role not in places:
        fail(f"no process is called {role}; there are {', '.join(places)}", 2)
    if not places[role].exists():
        fail(f"{role} has not written anything yet", 1)
    try:
        show_log(places[role], follow=follow)
    except KeyboardInterrupt:
        raise typer.Exit from None


def show_log(log: Path, *, follow: bool) -> None:
    with log.open(encoding="utf-8", errors="replace") as lines:
        sys.stdout.writelines(deque(lines, LAST_LINES))
        while follow:
            if lines.tell() > log.stat().st_size:  # the supervisor cut it
                lines.seek(0)
            sys.stdout.write(lines.read())
            sys.stdout.flush()
            time.sleep(FOLLOW_S)


@app.command(
    short_help="Run one role in the foreground, as a container would.",
    epilog=examples("run api", "run commands"),
)
def run(role: Annotated[str, typer.Argument(help=" | ".join([*ROLES, *LOOKERS_ON]))]) -> None:
    """Run one role in the foreground until Ctrl-C or SIGTERM, as a container would.

    Addresses come from the environment, else from the Daybook that is up.
    """
    from ops.roles import run as run_role

    if role not in {*ROLES, *LOOKERS_ON}:
        fail(f"no role is called {role}; there are {', '.join([*ROLES, *LOOKERS_ON])}", 2)
    supervised = LIFELINE in os.environ
    if not supervised and _is_supervised(role):
        fail(f"{role} runs here already, under the supervisor; ./daybook status shows it", 2)
    found = adopted(role)
    Path(os.environ["DAYBOOK_STATE"]).mkdir(parents=True, exist_ok=True)
    found.run.mkdir(parents=True, exist_ok=True)
    try:
        run_role(role)
    except RoleMissing as missing:
        fail(f"{role} cannot run: {missing}", 2)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@app.command(short_help="Create keys, topics and tables on given servers.", epilog=examples("prepare"))
def prepare() -> None:
    """Create keys, topics and tables on the servers that the environment names; `up` does it by itself."""
    from ops.running import prepare as prepare_all

    prepare_all(settings.from_environment(), say)


def _is_supervised(role: str) -> bool:
    from ops.running import running_supervisor
    from ops.supervisor import read_report

    found = here()
    report = read_report(found.run)
    return bool(report and running_supervisor(found) and any(each.name == role for each in report.roles))


@app.command(short_help="Check the code: lint, format, types, walls.", epilog=examples("check"))
def check() -> None:
    """Check the code: lint, format, types, and the walls between the rooms."""
    checks = (
        ("lint", ["ruff", "check", "."]),
        ("format", ["ruff", "format", "--check", "."]),
        ("types", ["mypy"]),
        ("walls", ["pytest", "-q", "tests/test_walls.py"]),
    )
    failed = [name for name, tool in checks if _tool(name, tool) != 0]
    if failed:
        fail(f"not well: {', '.join(failed)}", 1)
    say("all is well")


@app.command(
    short_help="Run the tests; arguments go to pytest.",
    epilog=examples("test", "test tests/commands", "test -k reserving -x", "test -- --help"),
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def test(ctx: typer.Context) -> None:
    """Run the tests, on real servers; arguments go to pytest, whose own options `-- --help` shows.

    Without arguments all of them run, those that need no servers beside the others.
    """
    if ctx.args:
        raise typer.Exit(_tool("tests", ["pytest", *ctx.args]))
    from ops.lanes import run_lanes

    say("daybook: tests, those without servers beside the others and told at their end")
    try:
        codes = run_lanes()
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if failed := [lane for lane, code in codes.items() if code != 0]:
        fail(f"not well: {', '.join(failed)}; pytest's exit codes: {codes}", 1)
    say("all is well")


def _tool(name: str, argv: list[str]) -> int:
    """Runs a tool of our virtualenv in the repository, in view; returns its exit code."""
    say(f"daybook: {name}")
    return subprocess.run([sys.executable, "-m", *argv], cwd=settings.REPOSITORY, check=False).returncode


def add_verb(verb: str, asked_for: str) -> None:
    """A verb, or a group of them, of another module: imported when it is asked for, else one line for `--help`."""
    target, line, lines = ELSEWHERE[verb]
    if verb != asked_for:
        app.command(verb, help=line)(lambda: None)
        return
    module, _, name = target.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        sys.exit(f"daybook: {verb} is not built yet")
    if isinstance(found, typer.Typer):
        app.add_typer(found, name=verb, help=line, epilog=examples(*lines), no_args_is_help=True)
    else:
        app.command(verb, epilog=examples(*lines))(found)


def main() -> None:
    """A verb is interrupted by SIGTERM as by Ctrl-C; `run` leaves that to its role, which sets its own."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    asked_for = sys.argv[1] if len(sys.argv) > 1 else ""
    for verb in ELSEWHERE:
        add_verb(verb, asked_for)
    app(prog_name="./daybook")
