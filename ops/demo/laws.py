"""Do the books hold? The laws, checked from the start of the log by a reader that knows only what is on the wire."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ops.audit.breaches import HOLDS
from ops.audit.law_book import GRACE_US, LawBook
from ops.audit.log_reader import LogReader, open_log
from ops.audit.tally import Tally
from ops.audit.wire import AvscReader

_SHOWN = 5
_WATCHED_EVERY = 5_000


def check_laws(
    bootstrap: str,
    prefix: str,
    ledger: Iterable[Mapping[str, Any]] | None,
    acknowledged: Iterable[str] = (),
    find_view_errors: Callable[[], Iterable[str]] | None = None,
    grace_s: float = GRACE_US / 1_000_000,
    watch: Callable[[Tally], None] = lambda _: None,
    reader: AvscReader | None = None,
) -> dict[str, str]:
    """Of each law "1" to "8": "holds", or what broke. The log should be at rest.

    `ledger` are the rows of the payment provider's own ledger, `acknowledged` the positions (`stream@version`) of
    the receipts that callers hold; `find_view_errors` compares the read models with the log and names what differs.
    Deadlines may be missed by `grace_s`: more where writers were down, for the log does not say since when.
    `watch` is shown the tally of what was read, now and then and at the end. `reader` knows other schemas than today's.
    Raises LogNotReadError where Kafka does not give the log.
    """
    with open_log(bootstrap, prefix) as log:
        now, tally = time.time_ns() // 1_000, Tally()
        book = LawBook(reader, int(grace_s * 1_000_000), tally=tally)
        _read(log, book, lambda: watch(tally))
        verdicts = book.finish(now, ledger, acknowledged)
    deleted = _deleted(log)
    return dict(sorted((verdicts | {"7": _judge_views(find_view_errors)} | deleted).items()))


def _read(reader: LogReader, book: LawBook, watch: Callable[[], None]) -> None:
    for number, value in enumerate(reader.values(), start=1):
        book.feed(value.topic, value.partition, value.value)
        if number % _WATCHED_EVERY == 0:
            watch()
    watch()


def _deleted(reader: LogReader) -> dict[str, str]:
    """A log whose beginning is gone proves nothing, and says so."""
    events, decisions = reader.truncated("events"), reader.truncated("decisions")
    verdicts = (
        {"6": f"not checked: the first decisions were deleted from {', '.join(decisions)}"}
        if decisions
        else {}
    )
    return verdicts | ({"8": f"the first events are gone from {', '.join(events)}"} if events else {})


def _judge_views(find_errors: Callable[[], Iterable[str]] | None) -> str:
    if find_errors is None:
        return "not checked"
    errors = list(find_errors())
    more = f" (and {len(errors) - _SHOWN:,} more)" if len(errors) > _SHOWN else ""
    return "; ".join(errors[:_SHOWN]) + more if errors else HOLDS
