"""Where everything of one Daybook is: addresses and directories, from the environment or by default below one home."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ops.local_stack import SERVERS, Addresses

REPOSITORY = Path(__file__).parent.parent
API = "127.0.0.1:18080"
PROVIDER = "http://127.0.0.1:18081"
CONSOLE = "127.0.0.1:18082"


@dataclass(frozen=True)
class Settings:
    """One Daybook. `kafka`, `cassandra`, `redis`, `api` and `console` are host:port, `provider` is a URL.

    A server that the environment does not name is empty here until the local stack has started it.
    """

    home: Path
    kafka: str
    cassandra: str
    redis: str
    api: str
    provider: str
    keyspace: str
    topic_prefix: str
    partitions: int
    console: str = CONSOLE

    @property
    def stack(self) -> Path:
        return self.home / "stack"

    @property
    def run(self) -> Path:
        """Where each process says how it is."""
        return self.home / "run"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def keys(self) -> Path:
        return self.home / "keys"

    @property
    def jwks(self) -> Path:
        """The public keys by which the API knows its callers."""
        return self.keys / "jwks.json"

    @property
    def webhook_secrets(self) -> Path:
        """What the payment provider signs its webhooks with, and the API verifies them with: one on a line."""
        return self.keys / "webhooks.secrets"

    @property
    def personal(self) -> Path:
        """The keys of persons; they are wrapped by `personal_key`, and are not to be copied to the same place."""
        return self.home / "personal"

    @property
    def personal_key(self) -> Path:
        return self.keys / "personal.key"

    def state(self, role: str) -> Path:
        return self.home / "state" / role

    def at(self, addresses: Addresses) -> "Settings":
        return replace(self, **asdict(addresses))

    def environment(self, role: str) -> dict[str, str]:
        """What a role is told; the rooms read these and nothing else of ours."""
        return {
            "DAYBOOK_HOME": str(self.home),
            "DAYBOOK_KAFKA": self.kafka,
            "DAYBOOK_CASSANDRA": self.cassandra,
            "DAYBOOK_REDIS": self.redis,
            "DAYBOOK_API": self.api,
            "DAYBOOK_PROVIDER": self.provider,
            "DAYBOOK_CONSOLE": self.console,
            "DAYBOOK_JWKS": str(self.jwks),
            "DAYBOOK_WEBHOOKS": f"http://{self.api}/v1/webhooks/payments",
            "DAYBOOK_WEBHOOK_SECRETS": str(self.webhook_secrets),
            "DAYBOOK_PERSONAL": str(self.personal),
            "DAYBOOK_PERSONAL_KEY": str(self.personal_key),
            "DAYBOOK_KEYSPACE": self.keyspace,
            "DAYBOOK_TOPIC_PREFIX": self.topic_prefix,
            "DAYBOOK_PARTITIONS": str(self.partitions),
            "DAYBOOK_STATE": str(self.state(role)),
            "DAYBOOK_RUN": str(self.run),
            # One process of each role: a static member of its group, back at once when it was killed.
            "DAYBOOK_SLOT": "0",
        }


def servers_elsewhere(environ: Mapping[str, str]) -> dict[str, str]:
    """Addresses of servers that run already and are only used, by name."""
    found = {name: environ.get(f"DAYBOOK_{name.upper()}", "") for name in SERVERS}
    return {name: address for name, address in found.items() if address}


def from_environment(environ: Mapping[str, str] = os.environ) -> Settings:
    """ValueError when the number of partitions is none."""
    elsewhere = servers_elsewhere(environ)
    return Settings(
        home=Path(environ.get("DAYBOOK_HOME") or REPOSITORY / ".daybook").resolve(),
        kafka=elsewhere.get("kafka", ""),
        cassandra=elsewhere.get("cassandra", ""),
        redis=elsewhere.get("redis", ""),
        api=environ.get("DAYBOOK_API") or API,
        provider=environ.get("DAYBOOK_PROVIDER") or PROVIDER,
        keyspace=environ.get("DAYBOOK_KEYSPACE") or "daybook",
        topic_prefix=environ.get("DAYBOOK_TOPIC_PREFIX") or "daybook",
        partitions=int(environ.get("DAYBOOK_PARTITIONS") or 2),
        console=environ.get("DAYBOOK_CONSOLE") or CONSOLE,
    )


def keep(settings: Settings) -> None:
    """Writes down the settings of the Daybook that was brought up, for those who come later to find it."""
    settings.run.mkdir(parents=True, exist_ok=True)
    draft = _kept(settings.home).with_suffix(".draft")
    draft.write_text(json.dumps({**asdict(settings), "home": str(settings.home)}, indent=1), "utf-8")
    draft.replace(_kept(settings.home))


def kept(home: Path) -> Settings | None:
    """The settings of the Daybook that was last brought up below `home`, if any."""
    try:
        fields = json.loads(_kept(home).read_text("utf-8"))
    except FileNotFoundError:
        return None
    return Settings(**{**fields, "home": Path(fields["home"])})


def forget(home: Path) -> None:
    _kept(home).unlink(missing_ok=True)


def _kept(home: Path) -> Path:
    return home / "run" / "settings.json"
