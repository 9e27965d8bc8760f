"""F27: two releases side by side, the newer with one more field in an event, while callers trade over HTTP."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ops.audit.wire import AVSC, AvscReader
from ops.faults.callers import Callers, Habits, Street, open_shop
from ops.faults.floor import Floor, Role, caught_up
from ops.faults.history import History
from ops.faults.scene import Scene
from ops.faults.tcp_proxy import TcpProxy
from ops.faults.verdict import RowIsRed, demand, until
from ops.local_stack import HOST, free_ports
from ops.settings import REPOSITORY
from ops.tokens import ensure_keys, ensure_webhook_secret
from projections.registry import POSTERS

ROOMS = ("schemas", "commands", "projections", "streams", "api", "ops")
CHANGED = "schemas/inventory.py"
BEFORE = """class StockReceived(StockEvent):
    quantity: int
    document: str
"""
AFTER = BEFORE + "    supplier: str | None = None\n"
ROLLED = ("commands", *POSTERS, "sagas", "payments")
READY = frozenset({"ok", "ready"})
WITHIN_S = 60.0
HABITS = Habits(callers=4)


def f27(scene: Scene) -> None:
    with scene.floor(lawful=False) as floor, rolling(floor) as upgrade:
        history = History()
        street = Street.at(upgrade.front.address, upgrade.jwks, history, HABITS)
        open_shop(street)
        with Callers(street, scene.seed):
            _trade_on(history, scene)
            for name in ROLLED:
                scene.inject(f"{name} of the next release, beside the old ones")
                upgrade.roll(name)
                _trade_on(history, scene)
            scene.inject("the API of the next release")
            upgrade.roll_api()
            _trade_on(history, scene)
        heard_no_error(history)
        judge(scene, floor, history, upgrade)


def _trade_on(history: History, scene: Scene, writes: int = 40) -> None:
    before = len(history.attempts)
    until(lambda: len(history.attempts) > before + writes, WITHIN_S, "trade goes on", scene.say)


def heard_no_error(history: History) -> None:
    """No 5xx but a 503 that says when to come again; every write was answered in the end."""
    rude = {f"{one.route}: {one.status}" for one in history.attempts if not one.fails_as_it_may}
    demand(not rude, f"callers were told {rude}")


def judge(scene: Scene, floor: Floor, history: History, upgrade: "Upgrade") -> None:
    floor.await_quiet(WITHIN_S)
    caught_up(floor)
    broken = floor.shop.laws(AvscReader(upgrade.schemas), history.acknowledged())
    demand(not broken, f"laws: {broken}")
    values = [one.value() for one in floor.shop.records(floor.shop.topics.events("inventory"))]
    reader = AvscReader(upgrade.schemas)
    received = [record for name, record in map(reader.read, values) if name == "StockReceived"]
    releases = {"supplier" in record for record in received}
    demand(releases == {True, False}, "the log does not hold events of both releases")
    scene.checked("C1", "C2", "C4", "C5", "C6", "C7", "C8", "C9", "C11")


@dataclass
class Upgrade:
    """Roles of two releases on one floor; callers come in through `front`, whoever serves behind it."""

    floor: Floor
    next_release: Path
    schemas: Path
    jwks: Path
    front: TcpProxy
    roles: dict[str, Role]
    provider: str

    def start(self, name: str, code: Path, slot: int, **more: str) -> Role:
        role = self.floor.start(
            name, code=code, DAYBOOK_SLOT=str(slot), DAYBOOK_PROVIDER=self.provider,
            DAYBOOK_JWKS=str(self.jwks), DAYBOOK_WEBHOOK_SECRETS=str(self.jwks.with_name("webhooks.secrets")),
            **more,
        )  # fmt: skip
        until(lambda: role.health in READY or not role.lives, WITHIN_S, f"{name} is ready")
        if not role.lives:
            raise RowIsRed(f"{name} did not start; it said last: {role.log()[-600:]}")
        return role

    def roll(self, name: str) -> None:
        """The next release starts, then the old one ends, in order."""
        newer = self.start(name, self.next_release, slot=1)
        self.roles[name].terminate()
        self.roles[name] = newer

    def start_api(self, code: Path) -> str:
        address = f"{HOST}:{free_ports(1)[0]}"
        role = self.start("api", code, slot=0, DAYBOOK_API=address)
        self.front.switch(address)
        older = self.roles.get("api")
        self.roles["api"] = role
        if older:
            older.terminate()
        return address

    def roll_api(self) -> None:
        self.start_api(self.next_release)


@contextmanager
def rolling(floor: Floor) -> Iterator[Upgrade]:
    """All roles of today's release; its provider never misbehaves."""
    next_release, schemas = make_next_release(floor.folder)
    keys = floor.folder / "keys" / "jwks.json"
    ensure_keys(keys)
    ensure_webhook_secret(keys.with_name("webhooks.secrets"))
    provider = f"http://{HOST}:{free_ports(1)[0]}"
    with TcpProxy(f"{HOST}:9") as front:  # nobody serves there yet
        upgrade = Upgrade(floor, next_release, schemas, keys, front, {}, provider)
        try:
            floor.start("sandbox", DAYBOOK_PROVIDER=provider)
            for name in ROLLED:
                upgrade.roles[name] = upgrade.start(name, REPOSITORY, slot=0)
            upgrade.start_api(REPOSITORY)
            yield upgrade
        finally:
            floor.end_roles()


def make_next_release(folder: Path) -> tuple[Path, Path]:
    """A copy of the code with one more field in one event, and the `.avsc` of both releases in one folder."""
    code, schemas = folder / "next", folder / "avsc"
    for room in ROOMS:
        shutil.copytree(REPOSITORY / room, code / room, ignore=shutil.ignore_patterns("__pycache__", "data"))
    changed = code / CHANGED
    text = changed.read_text("utf-8")
    demand(BEFORE in text, f"{CHANGED} is not as this row knows it")
    changed.write_text(text.replace(BEFORE, AFTER), "utf-8")
    environment = {**os.environ, "PYTHONPATH": str(code)}
    subprocess.run([sys.executable, "-m", "schemas.avro"], cwd=code, env=environment, check=True)
    shutil.copytree(code / "schemas" / "avsc", schemas)
    shutil.copyfile(AVSC / "StockReceived.avsc", schemas / "StockReceived.before.avsc")
    return code, schemas
