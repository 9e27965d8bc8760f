"""A real payment sandbox in a process of its own, for the tests that need one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
START_DEADLINE_S = 60.0


@dataclass(frozen=True)
class Reply:
    """What came back over HTTP."""

    status: int
    headers: dict[str, str]
    fields: dict[str, Any]

    @property
    def replayed(self) -> bool:
        return self.headers.get("idempotent-replayed") == "true"


class SandboxProcess:
    """Starts, asks, kills and starts again one sandbox on one port over one directory."""

    def __init__(self, state: Path, **environment: str) -> None:
        self.state = state
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = {"DAYBOOK_PROVIDER": self.url, "DAYBOOK_STATE": str(state), **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it is healthy."""
        with (self.state / "sandbox.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ops.payment_sandbox"],
                cwd=ROOT,
                env=os.environ | self._environment,
                stdout=log,
                stderr=log,
            )
        until(self._healthy, START_DEADLINE_S)

    def kill(self) -> None:
        """SIGKILL: it gets to do nothing more."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def terminate(self, deadline_s: float = 60.0) -> int:
        """SIGTERM; its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def post(self, path: str, body: object, key: str | None, timeout_s: float = 60.0) -> Reply:
        """POST `body` as JSON; bytes go as they are."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | ({} if key is None else {"Idempotency-Key": key})
        return self._request("POST", path, data, headers, timeout_s)

    def get(self, path: str) -> Reply:
        return self._request("GET", path, None, {}, 60.0)

    def ledger(self) -> list[dict[str, Any]]:
        """Every row, page by page."""
        return list(self._rows())

    def _rows(self) -> Iterator[dict[str, Any]]:
        cursor: int | None = 0
        while cursor is not None:
            page = self.get(f"/v1/ledger?cursor={cursor}&limit=1000").fields
            yield from page["rows"]
            cursor = page["next_cursor"]

    def _healthy(self) -> bool:
        assert self.running(), (self.state / "sandbox.log").read_text()
        try:
            return self.get("/health").status == 200
        except OSError:
            return False

    def _request(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], timeout_s: float
    ) -> Reply:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            told = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, told, json.loads(response.read()))
        finally:
            connection.close()


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(condition: Any, deadline_s: float) -> None:
    """Wait until `condition()`; fails when it does not come true in time."""
    ends_at = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < ends_at, f"not true after {deadline_s} s"
        time.sleep(0.02)
