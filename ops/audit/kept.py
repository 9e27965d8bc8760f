"""What the auditor found, kept: breaches of the laws, and rows that drifted, each with the chain that leads to it."""

import time
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import structlog

from ops.audit.breaches import Breaches
from ops.audit.chains import End
from ops.audit.tables import KeptBooks, KeptTable

KEPT_MAX = 1_000
"""So many findings are kept, the latest; the counts go on."""

DRIFTS_MAX = 10_000
"""So many rows that are wrong at the moment are known by name."""

SAID_OF_AN_EVENT = (
    "correlation_id",
    "causation_id",
    "command_id",
    "event_id",
    "stream",
    "version",
    "actor_kind",
    "actor_id",
    "traceparent",
)
LAW_OF_VIEWS = "7"
LISTED = "found.jsonl"
"""What was found, beside the ledgers: who reads it need not open them."""

log = structlog.get_logger(__name__)


class Drift(NamedTuple):
    """A row of a view that is not what the log says: `kind` is missing, extra or differs; as of `stream@version`."""

    view: str
    name: str
    kind: str
    stream: str
    version: int


class KeptBreaches(Breaches):
    """Breaches in the auditor's own books: they are written with the position at which they were found.

    A finding is told once, however often it is found, and names its chain: the correlation id of the request, the
    command, the event, and of a drift the row. `end_of` a stream tells who asked for its last event.
    """

    def __init__(self, books: KeptBooks, listed: Path, end_of: Callable[[str], End | None]) -> None:
        super().__init__()
        self._listed = listed
        self._end_of = end_of
        self._found: KeptTable[dict[str, Any]] = books.table("found")
        self._said: KeptTable[tuple[int]] = books.table("said")
        self._totals: KeptTable[tuple[int]] = books.table("totals")
        self._counted = {law: (self._totals.peek(law) or (0,))[0] for law in self._totals}
        self._drifts: KeptTable[tuple[Any, ...]] = books.table("drifts")
        self._drifting = {key: Drift(*found) for key in self._drifts if (found := self._drifts.peek(key))}
        self.is_listed = False
        """Whether the file says all that is kept."""

    @property
    def laws_broken(self) -> dict[str, int]:
        """By law of the log, how many breaches were ever found."""
        return {law: count for law, count in self._counted.items() if law and law != LAW_OF_VIEWS}

    def drifts(self) -> list[Drift]:
        """The rows that are wrong at the moment, as far as they were looked at."""
        return list(self._drifting.values())

    def add(self, law: str, what: str, cause: Mapping[str, Any] | None = None) -> None:
        known = {**self._last_of((cause or {}).get("stream", "")), **(cause or {})}
        chain = {name: value for name in SAID_OF_AN_EVENT if (value := known.get(name))}
        if self._keep(law, what, what, chain):
            log.error("law_broken", law=law, what=what, **chain)

    def drifted(self, drift: Drift) -> None:
        key = f"{drift.view} {drift.name}"
        if key in self._drifting or len(self._drifting) >= DRIFTS_MAX:
            return
        self._drifting[key] = drift
        self._drifts[key] = tuple(drift)
        chain: dict[str, Any] = {"view": drift.view, "row": drift.name}
        if drift.stream:  # a row of an older event than the stream's last one names that version itself
            chain |= self._last_of(drift.stream) | {"stream": drift.stream, "version": drift.version}
        what = f"{drift.view}: {drift.name} {drift.kind}"
        self._keep(LAW_OF_VIEWS, what, f"{what} {_now()}", chain)  # once mended, it may drift again
        log.error("view_drifted", what=what, **chain)

    def mended(self, view: str, name: str) -> None:
        """The row was looked at and is right."""
        if not self._drifting:
            return
        key = f"{view} {name}"
        if self._drifting.pop(key, None) is not None:
            self._drifts.get(key)
            self._drifts.pop(key)
            self.is_listed = False
            log.info("view_mended", view=view, row=name)

    def list_all(self) -> None:
        """Write what is kept where `./daybook audit breaches` reads it, if it is news; after a commit."""
        if self.is_listed:
            return
        lines = [self._found.peek(key) for key in self._found]
        wrong_now = set(self._drifting)
        for line in lines:
            if line is not None and line["law"] == LAW_OF_VIEWS:
                line["wrong_now"] = f"{line.get('view')} {line.get('row')}" in wrong_now
        draft = self._listed.with_suffix(".draft")
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
        draft.replace(self._listed)
        self.is_listed = True

    def _keep(self, law: str, what: str, identity: str, chain: Mapping[str, Any]) -> bool:
        """Whether it is news."""
        key = blake2b(f"{law} {identity}".encode(), digest_size=16).hexdigest()
        if self._said.get(key) is not None:
            return False
        for counted in ("", law):
            self._counted[counted] = self._counted.get(counted, 0) + 1
            self._totals[counted] = (self._counted[counted],)
        number = self._counted[""]
        self._said[key] = (number,)
        self._found[f"{number:012}"] = {"law": law, "found_at": _now(), "what": what, "key": key, **chain}
        if number > KEPT_MAX:
            self._drop(f"{number - KEPT_MAX:012}")
        self.is_listed = False
        return True

    def _drop(self, number: str) -> None:
        old = self._found.pop(number)
        if old is not None:
            self._said.pop(old["key"])

    def _last_of(self, stream: str) -> dict[str, Any]:
        """The last event of a stream, and who asked for it."""
        end = self._end_of(stream) if stream else None
        if end is None:
            return {}
        return {"version": end.version, "command_id": end.command_id, "correlation_id": end.correlation_id}


def _now() -> int:
    return time.time_ns() // 1_000


def read_listed(listed: Path) -> Iterable[dict[str, Any]]:
    """What the auditor keeps, the oldest first; nothing where it never ran."""
    if listed.exists():
        for line in listed.read_bytes().splitlines():
            yield orjson.loads(line)
