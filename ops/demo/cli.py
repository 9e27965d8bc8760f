"""`./daybook demo`: a retailer's real days, traded through Kafka, Cassandra, Redis and HTTP, and a report."""

import json
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from confluent_kafka import KafkaException
from pyarrow import ArrowInvalid

from ops import settings
from ops.audit.log_reader import LogNotReadError
from ops.cli import in_a_folder
from ops.demo.invoices import read_lines
from ops.demo.performance import ClientFailed, Days, nothing_happens, perform
from ops.demo.plan import TradePlan, plan_trade
from ops.demo.progress import Teller
from ops.demo.report import Report, adds_up, laws_hold, render, to_json
from ops.demo.stage import how_to, on_three_brokers, settings_of, staged
from ops.interruption import be_interrupted_once
from ops.local_stack import StackFailed
from ops.running import RunsAlready
from ops.settings import Settings
from projections.view import StoreUnavailable

WINTER = Path(__file__).parent / "data" / "online_retail_winter.parquet"
FIRST_DAY = "2010-12-01"
BRIEF = timedelta(days=7)
"""A demo of no more days takes minutes, most of which a JVM would spend compiling."""


def demo(
    data: Annotated[Path, typer.Option(help="The retailer's invoice lines, as parquet.")] = WINTER,
    first: Annotated[
        datetime, typer.Option("--from", formats=["%Y-%m-%d"], metavar="DAY", help="The first day.")
    ] = FIRST_DAY,  # type: ignore[assignment]  # typer parses it
    last: Annotated[
        datetime | None,
        typer.Option(
            "--to", formats=["%Y-%m-%d"], metavar="DAY", help="The last day; the first, if not given."
        ),
    ] = None,
    scarcity: Annotated[float, typer.Option(min=0, max=1, help="The share of stock that is missing.")] = 0.01,
    report: Annotated[
        Path | None, typer.Option(callback=in_a_folder, help="Where the report goes as JSON.")
    ] = None,
    *,
    three: Annotated[
        bool,
        typer.Option("--three-brokers", help="On three brokers, one of which is killed when half is traded."),
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave this Daybook running.")] = False,
) -> None:
    """Trade a retailer's real days through the HTTP API, check the laws against the log, report.

    Starts a stack and a Daybook of its own, beside the one that `up` starts, with an empty log; stops them at the
    end. Exit 1 if a law is broken or the sum is off, 2 if the stack could not start.
    """
    be_interrupted_once()
    teller = Teller()
    days = Days(data.resolve(), first.date(), (last or first).date(), scarcity)
    plan = _plan(days)
    wanted = settings_of(settings.from_environment())
    if three and (keep or wanted.kafka):
        raise typer.BadParameter(
            "the brokers are started, and stopped at the end", param_hint="--three-brokers"
        )
    play = _perform_on_three if three else partial(_perform, keep=keep)
    try:
        found = play(wanted, days, plan, teller)
    except (RunsAlready, StackFailed) as refused:
        _fail(teller, str(refused), 2)
    except (ClientFailed, LogNotReadError, StoreUnavailable, KafkaException) as failed:
        _fail(teller, str(failed), 1)
    except KeyboardInterrupt:
        _fail(teller, "interrupted; everything that was started is stopped", 130)
    typer.echo(render(found))
    if report:
        report.write_text(json.dumps(to_json(found), indent=1), "utf-8")
    if keep:
        _tell_how_to_look(wanted)
    raise typer.Exit(0 if laws_hold(found) and adds_up(found) else 1)


def _plan(days: Days) -> TradePlan:
    """What there is to trade; a file that cannot be read is a mistake of who asked."""
    try:
        lines = read_lines(days.data, days.first, days.last)
    except (OSError, ArrowInvalid) as error:
        raise typer.BadParameter(f"{days.data}: {error}", param_hint="--data") from error
    if not lines:
        raise typer.BadParameter(
            f"{days.data} has no invoice from {days.first} to {days.last}", param_hint="--from"
        )
    return plan_trade(lines, days.scarcity)


def _perform_on_three(wanted: Settings, days: Days, plan: TradePlan, teller: Teller) -> Report:
    """On three brokers, of which two are left at half-time."""
    with on_three_brokers(wanted, teller) as (there, brokers):

        def kill_one() -> None:
            brokers.kill_first()
            teller.say("half is traded: one of the three brokers is killed")

        return _perform(there, days, plan, teller, keep=False, at_half=kill_one)


def _perform(
    wanted: Settings,
    days: Days,
    plan: TradePlan,
    teller: Teller,
    *,
    keep: bool,
    at_half: Callable[[], None] = nothing_happens,
) -> Report:
    began = time.monotonic()
    teller.say(f"{_span(days)}: {plan.lines:,} lines, {len(plan.orders):,} orders")
    brief = days.last - days.first <= BRIEF
    with staged(wanted, teller, keep=keep, brief=brief) as ready:
        teller.say(f"Daybook is up after {time.monotonic() - began:.1f} s: http://{ready.api}/openapi.json")
        found = perform(ready, days, plan, teller, at_half)
    teller.say(f"done after {time.monotonic() - began:.1f} s\n")
    return found


def _span(days: Days) -> str:
    return f"{days.first}" if days.first == days.last else f"{days.first} to {days.last}"


def _tell_how_to_look(wanted: Settings) -> None:
    typer.echo(f"It still runs. Look: {how_to(wanted, 'status')}\nStop: {how_to(wanted, 'down')}")


def _fail(teller: Teller, message: str, code: int) -> NoReturn:
    teller.say(f"daybook: {message}")
    raise typer.Exit(code)
