"""Where the moving parts find their servers and directories: the environment, read once."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from schemas.topics import Topics

PaymentsBy = Literal["sandbox", "stripe"]


@dataclass(frozen=True)
class StreamSettings:
    """`kafka`, `cassandra`, `redis` are host:port, `provider` a URL of the sandbox; `slot` numbers this process among its likes,
    empty where it is the only one; `state` is its own directory, `run` where roles say how they are.
    """

    kafka: str
    cassandra: str
    redis: str
    provider: str
    topics: Topics
    keyspace: str
    state: Path | None
    run: Path | None
    slot: str
    payments: PaymentsBy = "sandbox"

    def group(self, name: str) -> str:
        """The consumer group of an agent; prefixed, so that two Daybooks on one Kafka never share one."""
        return f"{self.topics.prefix}.{name}"


def from_environment(environ: Mapping[str, str] = os.environ) -> StreamSettings:
    """Raises KeyError where DAYBOOK_KAFKA is missing, ValueError where DAYBOOK_PAYMENTS is no provider of ours."""
    prefix = environ.get("DAYBOOK_TOPIC_PREFIX") or "daybook"
    return StreamSettings(
        kafka=environ["DAYBOOK_KAFKA"],
        cassandra=environ.get("DAYBOOK_CASSANDRA", ""),
        redis=environ.get("DAYBOOK_REDIS", ""),
        provider=environ.get("DAYBOOK_PROVIDER") or "http://127.0.0.1:18081",
        topics=Topics(prefix, int(environ.get("DAYBOOK_PARTITIONS") or 2)),
        keyspace=environ.get("DAYBOOK_KEYSPACE") or "daybook",
        state=_directory(environ, "DAYBOOK_STATE"),
        run=_directory(environ, "DAYBOOK_RUN"),
        slot=environ.get("DAYBOOK_SLOT", ""),
        payments=_payments_by(environ.get("DAYBOOK_PAYMENTS") or "sandbox"),
    )


def _payments_by(name: str) -> PaymentsBy:
    match name:
        case "sandbox" | "stripe":
            return name
        case _:
            raise ValueError(f"DAYBOOK_PAYMENTS is sandbox or stripe, not {name}")


def _directory(environ: Mapping[str, str], name: str) -> Path | None:
    return Path(environ[name]) if environ.get(name) else None
