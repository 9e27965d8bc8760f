"""`./daybook audit`: what an auditor asks of the stock, answered from the log."""

import typer

from ops.audit.findings import breaches, laws
from ops.audit.ledger import report, stock
from ops.cli import examples
from ops.evidence import cli as evidence

audit = typer.Typer()


@audit.callback()
def group() -> None:
    """Prove the stock: ledger, reports, evidence."""


audit.command(
    short_help="Show what the auditor found, and what led to it.",
    epilog=examples("audit breaches", "audit breaches --last 1000 --json"),
)(breaches)
audit.command(short_help="Show the laws: what is counted, what must balance.", epilog=examples("audit laws"))(
    laws
)

audit.command(
    short_help="Show a SKU's movements, or its balances at a time.",
    epilog=examples(
        "audit stock 85123A",
        "audit stock 85123A --as-of 2010-12-31",
        "audit stock 85123A --as-of 2010-12-31 --known-at 2011-01-15T12:00:00Z",
        "audit stock 85123A --from 2010-12-01 --to 2010-12-31 --format parquet -o december.parquet",
    ),
)(stock)
audit.command(
    short_help="Balance the stock of a period.",
    epilog=examples(
        "audit report --from 2010-12-01 --to 2011-02-28",
        "audit report --from 2010-12-01 --to 2010-12-31 --total",
        "audit report --to 2010-12-31 --by recorded --format csv -o year.csv",
    ),
)(report)
audit.command("export", short_help="Write evidence into one file.")(evidence.export)
audit.command("verify", short_help="Verify a bundle of evidence, with nothing but a key.")(evidence.verify)
audit.command("key", short_help="Print the public key that verifies.")(evidence.show_key)
audit.command("witness", short_help="Sign what grew out of what was seen before.")(evidence.witness)
