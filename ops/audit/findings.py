"""`./daybook audit laws` and `breaches`: what the auditor holds, and what it found."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from ops.audit.kept import LISTED, read_listed
from ops.audit.laws import LAWS, Law
from ops.cli import fail, here

SHOWN = ("law", "found_at", "what", "key")
"""What has a place of its own in a finding's text; the rest is its chain."""


def laws() -> None:
    """Show the laws: what is counted, what must balance, and when the auditor asks."""
    for law in LAWS.values():
        for line in told_law(law):
            typer.echo(line)


def breaches(
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: a JSON object on each line.")
    ] = False,
    last: Annotated[int, typer.Option(min=1, help="So many, the latest.")] = 20,
) -> None:
    """Show what the auditor found, the latest last: the law, what broke it, and the chain from the request on.

    Exit 1 if anything was found; a row that has been right again since does not count.
    """
    listed = here().state("auditor") / LISTED
    if not listed.parent.exists():
        fail("no auditor has run here; ./daybook up starts one, ./daybook run auditor too", 2)
    found = list(read_listed(listed))
    for one in found[-last:]:
        for line in [json.dumps(one)] if as_json else told(one):
            typer.echo(line)
    if not found and not as_json:
        typer.echo("nothing was found")
    if any(one.get("wrong_now", True) for one in found):
        raise typer.Exit(1)


def told(finding: Mapping[str, Any]) -> Iterator[str]:
    """A finding in words: what, then the chain that leads to it."""
    at = datetime.fromtimestamp(finding["found_at"] / 1e6, UTC)
    mended = "" if finding.get("wrong_now", True) else " (right again)"
    yield f"{at:%Y-%m-%d %H:%M:%S} law {finding['law']}: {finding['what']}{mended}"
    chain = [
        f"{name} {value}" for name, value in finding.items() if name not in SHOWN and name != "wrong_now"
    ]
    if chain:
        yield "    " + ", ".join(chain)


def told_law(law: Law) -> Iterator[str]:
    yield f"{law.number}. {law.name} ({law.module})"
    for balance in law.balances:
        yield f"   {balance.asked}: {balance.must}  [{', '.join(balance.quantities)}]"
