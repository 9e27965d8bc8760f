"""The console served as its role serves it, in a thread of the test's own process."""

import http.client
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlencode

import uvicorn
from fastapi import FastAPI

from ops.local_stack import free_ports

STARTED_WITHIN_S = 20.0
POLL_S = 0.01
COOKIE = "daybook_console"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    text: str


@dataclass
class Console:
    """`address` is host:port; `token` is what a browser would keep, empty where nobody is signed in."""

    address: str
    token: str = ""
    origin: str = field(default="")

    def get(self, path: str) -> Answer:
        return self._ask("GET", path, b"", {})

    def post(self, path: str, **fields: str) -> Answer:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        return self._ask("POST", path, urlencode(fields).encode(), form)

    def _ask(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        own = {"Cookie": f"{COOKIE}={self.token}"} if self.token else {}
        if method == "POST":
            own["Origin"] = self.origin or f"http://{self.address}"
        line = http.client.HTTPConnection(self.address, timeout=30)
        try:
            line.request(method, path, body or None, {**own, **headers})
            answer = line.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read().decode())
        finally:
            line.close()


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """Its address, for as long as it is served."""
    [port] = free_ports(1)
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, access_log=False, ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    give_up_at = time.monotonic() + STARTED_WITHIN_S
    while not server.started:
        assert thread.is_alive(), "the console ended while it was starting"
        assert time.monotonic() < give_up_at, "the console did not start"
        time.sleep(POLL_S)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(STARTED_WITHIN_S)
