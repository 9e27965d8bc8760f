"""F8 to F10, F24, F25: the broker is killed, loses its power, freezes, is overrun, and has no room left."""

import os
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
from confluent_kafka.admin import AdminClient

from ops.faults.callers import OK, UNDECIDED, Habits
from ops.faults.floor import Floor, caught_up
from ops.faults.history import UNAVAILABLE, Attempt
from ops.faults.house import ROLE_MB_MAX
from ops.faults.power_loss import lose_power, recovery_points
from ops.faults.scene import Scene
from ops.faults.shop import Shop, new_id
from ops.faults.verdict import NotShown, demand, until
from ops.faults.worker_rows import past_its_time
from ops.flushing import set_flush
from ops.local_stack import LocalStack, kafka_answers
from ops.processes import alive
from projections.registry import POSTERS
from streams.command_worker import EXIT_DAMAGED

BROKER_BACK_S = 15.0
FROZEN_S = 12.0
"""Longer than the controller waits for its broker: for a moment the partitions have no leader."""
CHECKPOINT_WITHIN_S = 90.0
"""Kafka writes its recovery points down once a minute."""
ANSWER_S = 10.0
GREEDY = Habits(callers=16, rest_s=0.01, hot=0.9, reads=0.2)
THROTTLED_TURNS = 12
FLOOD = 2_300
"""The API lets 2,000 commands wait for their answers."""
BEHIND, CAUGHT_UP_S = 100_000, 20.0
VIEWS = ("views.redis", "views.ledger")
FULL_S = 10.0


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


def f9(scene: Scene) -> None:
    """Twice on a broker of its own: with every record flushed before it is acknowledged, and as the local stack is."""
    for flushed in (True, False):
        with scene.broker() as stack:
            kafka = stack.start(scene.say).kafka
            with scene.shop(kafka, lawful=flushed) as shop:
                scene.inject(f"power loss {'with' if flushed else 'without'} the flush profile")
                power_lost(scene, stack, shop, flushed=flushed)


def power_lost(scene: Scene, stack: LocalStack, shop: Shop, *, flushed: bool) -> None:
    worker = shop.start()
    shop.accepted([shop.receive_stock(1_000)], 40)
    if flushed:
        flush_all(shop.kafka)  # Kafka's own topics are there by now
    shop.accepted([shop.reserve(new_id()) for _ in range(200)], 40)
    data = stack.root / "kafka" / "data"
    if flushed:
        until(
            lambda: is_checkpointed(shop, data),
            CHECKPOINT_WITHIN_S,
            "Kafka notes down what it flushed",
            scene.say,
        )
    worker.kill()
    (broker,) = stack.running()
    os.kill(broker.pid, signal.SIGKILL)
    until(stack.ended, 10, "Kafka ended")
    lost = lose_power(data)
    scene.figures["with flush" if flushed else "without flush"] = {"bytes_lost": sum(lost.values())}
    stack.start_again("kafka", scene.say)
    until(lambda: kafka_answers(shop.kafka), BROKER_BACK_S * 2, "Kafka is back", scene.say)
    successor = shop.start()
    if flushed:
        shop.accepted([shop.reserve(new_id())], 60)
        demand(shop.granted() == 201, f"{shop.granted()} units for 201 reservations")
        return
    demand(lost, "nothing was lost: the power loss was none")
    demand("6" in shop.laws(), "what was acknowledged and lost was not named")
    until(
        lambda: successor.poll() is not None,
        60,
        "the worker refuses a log that contradicts its state",
        scene.say,
    )
    demand(successor.returncode == EXIT_DAMAGED, f"the worker ended with {successor.returncode}")
    demand("cannot_serve" in shop.log_of(successor), "the worker did not say why")


def flush_all(kafka: str) -> None:
    """Every topic's records are on disk before they are acknowledged, Kafka's own topics' too."""
    set_flush(kafka, AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=ANSWER_S).topics, on=True)


def is_checkpointed(shop: Shop, data: Path) -> bool:
    """Whether the recovery points that are on disk are the ends of the shop's partitions."""
    flushed = recovery_points(data)
    return all(
        offset < flushed.get(f"{topic}-{number}", 0)
        for topic in (shop.topics.events("inventory"), shop.topics.decisions("inventory"))
        for number in range(shop.topics.partitions)
        for offset in last_offsets(shop, topic, number)
    )


def last_offsets(shop: Shop, topic: str, number: int) -> list[int]:
    return [one.offset() for one in shop.records(topic) if one.partition() == number][-1:]


def f24(scene: Scene) -> None:
    house = scene.house
    with scene.trading(GREEDY):
        scene.inject("nine in ten buy one SKU, while the projections get a tenth of their time")
        scene.trade_on()
        lags = [throttled(scene, *POSTERS) for _ in range(THROTTLED_TURNS)]
        scene.figures["lag_events_max"] = max(lags)
        demand(max(lags) > 0, "the projections never said that they were behind")
        scene.heal()
        scene.await_green()
    scene.inject(f"{FLOOD:,} writes at once, while the worker is frozen")
    frozen = house.freeze("commands")
    replies = scene.flood(FLOOD)
    house.thaw(frozen)
    scene.heal()
    statuses = Counter(reply.status for reply in replies)
    scene.figures["flood"] = {str(status): count for status, count in statuses.items()}
    demand(statuses[UNAVAILABLE] > 0, f"nothing was shed: {statuses}")
    demand(statuses.keys() <= {OK, UNDECIDED, UNAVAILABLE}, f"a flood was answered {statuses}")
    rude = [one for one in scene.stage.history.attempts[-FLOOD:] if not one.fails_as_it_may]
    demand(not rude, f"{len(rude)} were refused without Retry-After")
    scene.await_green()
    scene.judge()
    with scene.floor() as floor:
        scene.inject(f"the projections frozen while {BEHIND:,} events are written")
        far_behind(scene, floor)
        scene.checked("C11")


def throttled(scene: Scene, *roles: str) -> int:
    """Nine tenths of a second without time; then how far they say they are behind."""
    frozen = scene.house.freeze(*roles)
    time.sleep(0.9)
    scene.house.thaw(frozen)
    time.sleep(0.1)
    return sum(scene.house.lag(role) for role in roles)


def far_behind(scene: Scene, floor: Floor) -> None:
    """One worker writes, the projections of both stores read; how fast they are after the thaw is a figure."""
    floor.shop.start()
    projecting = floor.start_projections()
    skus = [f"SHELF {number}" for number in range(BEHIND // 100)]
    floor.deliver_all(skus)
    caught_up(floor)
    projecting.signal(signal.SIGSTOP)
    for _ in range(BEHIND // len(skus)):
        floor.deliver_all(skus)
    topics = [floor.shop.topics.events("inventory")]
    ends = floor.ends(topics)
    projecting.signal(signal.SIGCONT)
    scene.heal()
    cpu_s = projecting.cpu_s
    took = scene.await_within(
        f"{BEHIND:,} events caught up", lambda: floor.has_read(VIEWS, topics, ends), CAUGHT_UP_S
    )
    scene.all_is_well()
    scene.figures["caught_up"] = {
        "events": BEHIND,
        "s": round(took, 1),
        "cpu_s": round(projecting.cpu_s - cpu_s, 1),
        "rss_mb": round(projecting.rss_mb, 1),
    }
    demand(projecting.lives, "the projections ended")
    demand(projecting.rss_mb < ROLE_MB_MAX, f"the projections weigh {projecting.rss_mb:.0f} MB")
    caught_up(floor)


def f25(scene: Scene) -> None:
    if not hasattr(psutil, "RLIMIT_FSIZE"):
        raise NotShown("this kernel has no prlimit")
    with scene.trading():
        scene.trade_on()
        for name in ("kafka", "commands"):
            scene.inject(f"no room left for {name}: files may not grow beyond one byte (RLIMIT_FSIZE)")
            disk_full(scene, name)
            scene.trade_on()
    scene.judge()


def disk_full(scene: Scene, name: str) -> None:
    """Until the process has noticed and ended, or some seconds; what comes after it has room again."""
    one = scene.house.process(name)
    process = psutil.Process(one.pid)
    _, hard = process.rlimit(psutil.RLIMIT_FSIZE)
    process.rlimit(psutil.RLIMIT_FSIZE, (1, hard))
    ends_at = time.monotonic() + FULL_S
    while alive(one) and time.monotonic() < ends_at:
        time.sleep(0.1)
    scene.figures[f"{name} with a full disk"] = "served on" if alive(one) else "ended"
    if alive(one):
        process.rlimit(psutil.RLIMIT_FSIZE, (hard, hard))
    scene.heal()
    scene.await_green()
