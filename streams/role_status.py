"""How a role says how it is: one small JSON file, replaced as a whole."""

import os
import time
from pathlib import Path
from typing import Any, Literal

import orjson

Health = Literal["ok", "degraded", "failing"]

BUSY_EVERY_S = 1.0
IDLE_EVERY_S = 5.0


class RoleStatus:
    """Writes `$DAYBOOK_RUN/<role>.json`; does nothing where DAYBOOK_RUN is unset."""

    def __init__(self, role: str, run: Path | None = None) -> None:
        folder = run or (Path(os.environ["DAYBOOK_RUN"]) if os.environ.get("DAYBOOK_RUN") else None)
        self._role = role
        self._file = folder / f"{role}.json" if folder else None
        self._written_at = float("-inf")
        self._fields: dict[str, Any] = {}

    def write(self, health: Health = "ok", detail: str = "", **fields: Any) -> None:
        """At most once a second while something changes, every 5 s while nothing does; a new health at once.

        `fields` are what applies of lag_events, lag_s, transactions_per_s, partitions_per_transaction, address.
        """
        if self._file is None:
            return
        said = {"health": health, "detail": detail, **fields}
        if self._is_due(said):
            self._fields, self._written_at = said, time.monotonic()
            _replace(self._file, {"role": self._role, "pid": os.getpid(), "at": _now(), **said})

    def _is_due(self, said: dict[str, Any]) -> bool:
        age_s = time.monotonic() - self._written_at
        if said["health"] != self._fields.get("health"):
            return True
        return age_s >= (IDLE_EVERY_S if said == self._fields else BUSY_EVERY_S)


def _now() -> int:
    return time.time_ns() // 1_000


def _replace(file: Path, fields: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(f".{os.getpid()}.draft")
    draft.write_bytes(orjson.dumps(fields))
    draft.replace(file)
