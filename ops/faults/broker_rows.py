"""F8 to F10, F24, F25: the broker is killed, loses its power, freezes, is overrun, and has no room left."""

from ops.faults.history import UNAVAILABLE, Attempt
from ops.faults.scene import Scene
from ops.faults.verdict import demand
from ops.faults.worker_rows import past_its_time
from ops.local_stack import kafka_answers

BROKER_BACK_S = 15.0
FROZEN_S = 8.0


def f8(scene: Scene) -> None:
    house = scene.house
    with scene.trading() as history:
        scene.trade_on()
        before = len(history.attempts)
        scene.inject("SIGKILL to Kafka while callers trade")
        house.kill("kafka")
        back_s = scene.await_within("Kafka back", lambda: kafka_answers(house.settings.kafka), BROKER_BACK_S)
        scene.figures["broker_back_s"] = round(back_s, 1)
        scene.await_green()
        scene.trade_on()
    _only_503(history.attempts[before:])
    scene.judge()


def _only_503(attempts: list[Attempt]) -> None:
    """Writes that were not answered were told 503 with Retry-After, and some were."""
    writes = [one for one in attempts if not one.is_read]
    rude = {one.status for one in writes if not one.fails_as_it_may or one.status == 0}
    demand(not rude, f"writes failed with {rude}")
    demand(any(one.status == UNAVAILABLE for one in writes), "nobody noticed that the broker was away")


def f10(scene: Scene) -> None:
    with scene.shop() as shop:
        scene.inject("a command past its not_after")
        shop.start()
        shop.answer(shop.receive_stock(10))
        past_its_time(shop)
        demand(shop.granted() == 0, "it had an effect")
    house = scene.house
    with scene.trading() as history:
        scene.trade_on()
        before = len(history.attempts)
        scene.inject(f"SIGSTOP to Kafka for {FROZEN_S:.0f} s")
        frozen = house.freeze("kafka")
        scene.wait(FROZEN_S)
        house.thaw(frozen)
        scene.heal()
        scene.await_green()
        scene.trade_on()
    _only_503(history.attempts[before:])
    scene.judge()
