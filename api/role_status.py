"""What the API says of itself to `./daybook status`: one small file, replaced as a whole."""

import asyncio
import os
import time
from pathlib import Path

import orjson

from api.health import Health, status_of
from api.intake import Intake

BUSY_INTERVAL_S = 1.0
IDLE_INTERVAL_S = 5.0


class RoleStatus:
    """Writes `api.json` every second while commands are answered, every five otherwise."""

    def __init__(self, run: Path, address: str, intake: Intake, health: Health) -> None:
        self._path = run / "api.json"
        self._address = address
        self._intake = intake
        self._health = health
        self._answered = 0
        self._written_at = float("-inf")

    async def keep(self) -> None:
        """Until it is cancelled."""
        while True:
            idle = self._intake.answered == self._answered
            if not idle or time.monotonic() - self._written_at >= IDLE_INTERVAL_S:
                await self._write()
            await asyncio.sleep(BUSY_INTERVAL_S)

    async def _write(self) -> None:
        status = {
            "role": "api",
            "pid": os.getpid(),
            "at": time.time_ns() // 1_000,
            "health": status_of(await self._health.parts()),
            "address": self._address,
            "detail": f"{self._intake.in_flight} commands in flight, {self._intake.answered} answered",
        }
        self._answered, self._written_at = self._intake.answered, time.monotonic()
        draft = self._path.with_suffix(".draft")
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(orjson.dumps(status))
        draft.replace(self._path)
