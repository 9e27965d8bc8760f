"""How a page is made: templates, what they say of times and things, and the headers that every page bears."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ops.console.words import money, spoken

HERE = Path(__file__).parent
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HEADERS = {
    # Nothing of others, nothing inline, and nobody frames us.
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # Not `no-referrer`: then a form would not say whose page it stood on (visitors.py asks).
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def page(request: Request, template: str, status: int = 200, /, **shown: Any) -> HTMLResponse:
    """A page by its template; it also knows who visits, and what was last asked."""
    visitor = getattr(request.state, "visitor", None)
    asked = {"visitor": visitor, "query": request.query_params.get("q", ""), "path": request.url.path}
    return HTMLResponse(_TEMPLATES.get_template(f"{template}.html").render(asked | shown), status, HEADERS)


def when(micros: int) -> Markup:
    """An instant, to the second for people and whole for programs (UTC)."""
    at = EPOCH + timedelta(microseconds=micros)
    whole = at.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}">{}</time>').format(whole, f"{at:%Y-%m-%d %H:%M:%S}")


def short(identity: str) -> str:
    """The beginning of an id, where a whole one would be noise; it stands in the link."""
    return identity[:8] if len(identity) == len("7c0f6d9e-8f8e-5d6b-9a53-3b1a4f0c7d11") else identity


_TEMPLATES = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {
    "when": when,
    "short": short,
    "money": money,
    "spoken": spoken,
    "number": "{:,}".format,
}
