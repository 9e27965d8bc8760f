"""`./daybook audit`: what an auditor asks of the stock, answered from the log."""

import typer

from ops.audit.findings import breaches, laws

audit = typer.Typer()


@audit.callback()
def group() -> None:
    """Prove the stock: ledger, reports, evidence."""


audit.command(short_help="Show what the auditor found, and what led to it.")(breaches)
audit.command(short_help="Show the laws: what is counted, what must balance.")(laws)
