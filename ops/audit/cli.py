"""`./daybook audit`: what an auditor asks of the stock, answered from the log."""

import typer

audit = typer.Typer()


@audit.callback()
def group() -> None:
    """Prove the stock: ledger, reports, evidence."""
