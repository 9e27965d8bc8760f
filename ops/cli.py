"""The command line of Daybook: every verb a newcomer needs."""

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def daybook() -> None:
    """Daybook: trade written down once, in order."""


def main() -> None:
    app()
