"""What a process says about itself: one JSON object per line on stderr, without secrets, and the trace it is part of."""

import logging
import os
import re
import secrets
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

LEVELS = ("debug", "info", "warning", "error", "critical")

MASKED = "[masked]"
DEPTH_MAX = 6
"""Deeper in an event nothing is shown: what cannot be searched for secrets is not written."""

_SECRET_NAME = re.compile(
    r"token|authorization|secret|password|passphrase|credential|cookie|private_?key|key_material|^pem$|^jwks?$",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(
    r"Bearer\s+\S+"
    r"|\beyJ[\w-]+\.[\w-]+\.[\w-]*"  # a JWT, wherever it turned up
    r"|\btok_\w+"  # a payment token
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)",
    re.IGNORECASE | re.DOTALL,
)
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def configure(role: str = "", environ: Mapping[str, str] = os.environ) -> None:
    """Log through structlog from now on, and let the libraries' own lines (stdlib `logging`) look the same.

    DAYBOOK_LOG is the least level that is written (info by default); ValueError if it names none.
    """
    level = _level(environ.get("DAYBOOK_LOG", ""))
    processors = _processors(role)
    renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), structlog.stdlib.add_logger_name, *processors],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)


def mask_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: what is secret by its name or by its look is not written down."""
    return {name: _masked(name, value, DEPTH_MAX) for name, value in event.items()}


def is_traceparent(text: str) -> bool:
    """Whether it is one of W3C Trace Context, version 00."""
    return _TRACEPARENT.fullmatch(text) is not None


def new_traceparent() -> str:
    """The beginning of a trace, sampled."""
    return f"00-{_id_of(16)}-{_id_of(8)}-01"


def child_traceparent(parent: str) -> str:
    """The next span of the same trace; the beginning of a new one where `parent` is none."""
    if not is_traceparent(parent):
        return new_traceparent()
    return f"{parent[:36]}{_id_of(8)}{parent[52:]}"


def trace_id(traceparent: str) -> str:
    """The 32 hex digits that all spans of a trace share; empty where it is none."""
    return traceparent[3:35] if is_traceparent(traceparent) else ""


def _processors(role: str) -> list[Any]:
    def name_role(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {"role": role, **event} if role else event

    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        name_role,
        # As text and before the mask; a structured traceback would carry local variables with it.
        structlog.processors.format_exc_info,
        structlog.processors.UnicodeDecoder(),
        mask_secrets,
    ]


def _level(wanted: str) -> int:
    name = wanted.strip().lower() or "info"
    if name not in LEVELS:
        raise ValueError(f"DAYBOOK_LOG is {wanted!r}, not one of {', '.join(LEVELS)}")
    return int(logging.getLevelNamesMapping()[name.upper()])


def _masked(name: str, value: Any, depth: int) -> Any:
    # The stdlib's bridge passes its record under a name of its own, to be removed afterwards.
    if name.startswith("_"):
        return value
    if value is None or isinstance(value, bool | int | float):
        return MASKED if value is not None and _SECRET_NAME.search(name) else value
    if _SECRET_NAME.search(name) or depth == 0:
        return MASKED
    if isinstance(value, Mapping):
        return {str(key): _masked(str(key), inner, depth - 1) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked("", inner, depth - 1) for inner in value]
    return _SECRET_VALUE.sub(MASKED, value if isinstance(value, str) else repr(value))


def _id_of(size: int) -> str:
    """`size` random bytes in hex, never all zero (which the standard forbids)."""
    while not int(drawn := secrets.token_hex(size), 16):
        pass
    return drawn
