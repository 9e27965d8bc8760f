"""The sandbox as a process: its settings, its signals, its end."""

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

import uvicorn

from ops.payment_sandbox.app import create_app
from ops.payment_sandbox.desk import Desk
from ops.payment_sandbox.ledger import Ledger
from ops.payment_sandbox.notices import Outbox
from ops.payment_sandbox.webhooks import Mode, Route, Sender

MOST_CONNECTIONS = 1_024


@dataclass(frozen=True)
class Settings:
    """Where the sandbox listens and keeps its ledger; its patience in seconds; its webhooks, if it sends any."""

    host: str
    port: int
    state: Path
    slow_s: float
    hang_s: float
    queue_limit: int
    webhooks: Route | None

    @classmethod
    def from_environment(cls) -> "Settings":
        """Raises ValueError when a variable cannot be read."""
        address = urlsplit(os.environ.get("DAYBOOK_PROVIDER", "http://127.0.0.1:9750"))
        return cls(
            host=address.hostname or "127.0.0.1",
            port=address.port or 9750,
            state=Path(os.environ.get("DAYBOOK_STATE", ".daybook")),
            slow_s=float(os.environ.get("DAYBOOK_SANDBOX_SLOW_S", "3")),
            hang_s=float(os.environ.get("DAYBOOK_SANDBOX_HANG_S", "60")),
            queue_limit=int(os.environ.get("DAYBOOK_SANDBOX_QUEUE", "512")),
            webhooks=_route(os.environ),
        )


def _route(environ: Mapping[str, str]) -> Route | None:
    """None where the environment names no target; ValueError where a mode is none."""
    if not (target := environ.get("DAYBOOK_WEBHOOKS")):
        return None
    modes = environ.get("DAYBOOK_SANDBOX_WEBHOOKS", "").replace(",", " ").split()
    keys = Path(environ.get("DAYBOOK_HOME", ".daybook"), "keys")
    secrets = Path(environ.get("DAYBOOK_WEBHOOK_SECRETS") or keys / "webhooks.secrets")
    return Route(target, secrets, frozenset(map(Mode, modes)))


class Server(uvicorn.Server):
    """Uvicorn that ends the sandbox's deliberate pauses when it is told to go."""

    def __init__(self, config: uvicorn.Config, desk: Desk) -> None:
        super().__init__(config)
        self._desk = desk

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On SIGTERM or SIGINT: no more connections, no more pauses, finish what is under way."""
        self._desk.close_soon()
        super().handle_exit(sig, frame)


def main() -> None:
    """Serve until SIGTERM or SIGINT, then exit 0."""
    settings = Settings.from_environment()
    # Uvicorn raises the signal again once it has finished: this is who hears it.
    for told in (signal.SIGTERM, signal.SIGINT):
        signal.signal(told, lambda *_: sys.exit(0))
    path = settings.state / "payment_sandbox.sqlite3"
    ledger = Ledger(path, tells=settings.webhooks is not None)
    sender = Sender(Outbox(path), settings.webhooks) if settings.webhooks else None
    desk = Desk(ledger, settings.queue_limit, settings.slow_s, settings.hang_s, sender)
    config = uvicorn.Config(
        create_app(ledger, desk, sender),
        host=settings.host,
        port=settings.port,
        access_log=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=75,  # longer than any client's, so that it is never we who cut an idle line
        timeout_graceful_shutdown=5,
    )
    Server(config, desk).run()
