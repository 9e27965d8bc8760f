"""F11, F12, F28, F29: roles and servers are killed and frozen, one, some, and all of them."""

from ops.faults.scene import Scene
from ops.local_stack import SERVERS
from ops.roles import ROLES
from projections.registry import POSTERS
from streams.kafka_clients import SESSION_TIMEOUT_MS

FROZEN_S = SESSION_TIMEOUT_MS / 1_000 + 3
"""After a session's time without a heartbeat a member's partitions are somebody else's."""
FAUST_ROLES = (*POSTERS, "sagas", "payments")
SWIZZLED = 4
SWIZZLE_PAUSE_S = 2.0


def f11(scene: Scene) -> None:
    house = scene.house
    with scene.trading():
        scene.trade_on()
        scene.inject("SIGKILL to the projections")
        house.kill(*POSTERS)
        scene.await_green()
        scene.trade_on()
        freeze_beyond_the_session(scene, *POSTERS)
    scene.judge()


def f12(scene: Scene) -> None:
    house = scene.house
    with scene.trading():
        for name in ROLES:
            scene.trade_on(20)
            scene.inject(f"SIGKILL to {name}")
            house.kill(name)
            scene.await_green()
        scene.inject(f"SIGKILL to {', '.join(FAUST_ROLES)} at once")
        house.kill(*FAUST_ROLES)
        scene.await_green()
        scene.trade_on()
        freeze_beyond_the_session(scene, *FAUST_ROLES)
    scene.judge()


def freeze_beyond_the_session(scene: Scene, *roles: str) -> None:
    """They thaw when their partitions are somebody else's, and all is green again."""
    scene.inject(f"SIGSTOP to {', '.join(roles)} for {FROZEN_S:.0f} s")
    frozen = scene.house.freeze(*roles)
    scene.wait(FROZEN_S)
    scene.house.thaw(frozen)
    scene.heal()
    scene.await_green()
    scene.trade_on()


def f28(scene: Scene) -> None:
    house = scene.house
    with scene.trading() as history:
        scene.trade_on()
        seen = len(history.backwards)
        scene.inject("SIGKILL to every server and every role at once")
        house.kill(*SERVERS, *ROLES)
        scene.await_green()
        scene.trade_on()
        history.excuse(seen)  # Redis came back with an older dump
    scene.judge()


def f29(scene: Scene) -> None:
    house = scene.house
    names = scene.random.sample([*SERVERS, *ROLES], SWIZZLED)
    with scene.trading():
        scene.trade_on()
        frozen = []
        for name in names:
            scene.inject(f"SIGSTOP to {name}")
            frozen += house.freeze(name)
            scene.wait(SWIZZLE_PAUSE_S)
        scene.random.shuffle(frozen)
        for one in frozen:
            scene.inject(f"SIGCONT to {one.name}")
            house.thaw([one])
            scene.wait(SWIZZLE_PAUSE_S)
        scene.await_green()
        scene.trade_on()
    scene.judge()
