"""What the API is told by its environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from schemas.topics import Topics

LOCAL = "127.0.0.1"


@dataclass(frozen=True)
class Settings:
    """Addresses are host:port. `personal` is where the keys of persons lie, wrapped by `personal_key`. `run` is where the
    process says how it is (None: nowhere), `console` the port at which the console listens.
    """

    host: str
    port: int
    kafka: str
    cassandra: str
    redis: str
    keyspace: str
    topics: Topics
    jwks: Path
    webhook_secrets: Path
    personal: Path
    personal_key: Path
    run: Path | None
    console: int


def from_environment(environ: Mapping[str, str] = os.environ) -> Settings:
    """ValueError names a port or a number of partitions that is none."""
    host, _, port = environ.get("DAYBOOK_API", f"{LOCAL}:18080").rpartition(":")
    home = Path(environ.get("DAYBOOK_HOME", ".daybook"))
    run = environ.get("DAYBOOK_RUN")
    return Settings(
        host=host.strip("[]") or LOCAL,
        port=int(port),
        kafka=environ.get("DAYBOOK_KAFKA", f"{LOCAL}:9092"),
        cassandra=environ.get("DAYBOOK_CASSANDRA", f"{LOCAL}:9042"),
        redis=environ.get("DAYBOOK_REDIS", f"{LOCAL}:6379"),
        keyspace=environ.get("DAYBOOK_KEYSPACE", "daybook"),
        topics=Topics(
            environ.get("DAYBOOK_TOPIC_PREFIX", "daybook"), int(environ.get("DAYBOOK_PARTITIONS", "2"))
        ),
        jwks=Path(environ.get("DAYBOOK_JWKS", home / "keys" / "jwks.json")),
        webhook_secrets=Path(environ.get("DAYBOOK_WEBHOOK_SECRETS", home / "keys" / "webhooks.secrets")),
        personal=Path(environ.get("DAYBOOK_PERSONAL", home / "personal")),
        personal_key=Path(environ.get("DAYBOOK_PERSONAL_KEY", home / "keys" / "personal.key")),
        run=Path(run) if run else None,
        console=int(environ.get("DAYBOOK_CONSOLE", f"{LOCAL}:18082").rpartition(":")[2]),
    )
