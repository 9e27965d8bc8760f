"""F1 to F7, F10, F20, F31: the command worker is killed, frozen, doubled and lied to, and asked again."""

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from confluent_kafka import Producer

from ops.faults.kafka_proxy import ApiKey, Held, KafkaProxy
from ops.faults.scene import Scene
from ops.faults.shop import CODEC, Shop, exit_code, new_id, now
from ops.faults.stories import Said, told
from ops.faults.verdict import demand, until
from schemas.inventory import StockReservationExpired
from schemas.language import AGGREGATES
from schemas.meta import DAY, HOUR, SECOND, Micros, derived_id

STEPS = ("received", "decided", "begun", "produced", "offsets_sent", "committed", "merged")
IN_A_TRANSACTION = ("begun", "produced", "offsets_sent")
EXIT_LOST = 75
FETCH_ENDS_S = 0.8
"""After so long a worker's fetch has come back empty, and one that sleeps has sent no other."""
OF_WHOLE_TRADE = frozenset({"3", "5"})
"""Laws of orders and their money, of which the stories tell parts only."""


def f1(scene: Scene) -> None:
    """A worker to which every type of command is told at once; what came of it without a kill is how it must be."""
    with scene.shop(lawful=False) as shop:
        wanted = undisturbed(shop)
    for step in STEPS:
        with scene.shop(lawful=False) as shop:
            scene.inject(f"SIGKILL at {step}, with {len(wanted)} commands of all types under way")
            found = told_to_one_who_is_killed(shop, step)
            differing = [said for said in wanted if wanted[said] != found.get(said)]
            demand(not differing, f"a kill at {step} changed what came of {differing[:3]}")
            broken = {law: said for law, said in shop.laws().items() if law not in OF_WHOLE_TRADE}
            demand(not broken, f"laws: {broken}")
    scene.checked("C1", "C2", "C4", "C5", "C6", "C7")


Came: TypeAlias = Mapping[tuple[str, int], tuple[str, tuple[str, ...]]]
"""Of each command, by its type and its place in the story: the outcome, and the types of its events."""


def undisturbed(shop: Shop) -> Came:
    shop.start()
    story = told("calm", Micros(now()))
    shop.accepted([tell(shop, said) for said in story], 60)
    return came_of(shop, story)


def told_to_one_who_is_killed(shop: Shop, step: str) -> Came:
    """It sleeps while the story is sent, so that its next fetch, and its next transaction, holds all of it."""
    killed = shop.start(failpoints=f"worker.{step}=kill@{8 if step == 'merged' else 2}")
    shop.accepted([shop.receive_stock(1)], 60)
    os.kill(killed.pid, signal.SIGSTOP)
    time.sleep(FETCH_ENDS_S)
    story = told(step, Micros(now()))
    commands = [tell(shop, said) for said in story]
    os.kill(killed.pid, signal.SIGCONT)
    demand(exit_code(killed) == -signal.SIGKILL, f"it ended with {killed.returncode}")
    shop.start()
    shop.accepted(commands, 60)
    return came_of(shop, story)


def tell(shop: Shop, said: Said) -> str:
    kind, who = said.actor
    return shop.send(said.body, said.command_id, said.aggregate, actor_kind=kind, actor_id=who)


def came_of(shop: Shop, story: Sequence[Said]) -> Came:
    events: dict[str, list[str]] = {}
    for aggregate in AGGREGATES:
        for message in shop.records(shop.topics.events(aggregate)):
            event = CODEC.decode(message.value())
            events.setdefault(event.meta.command_id, []).append(type(event.body).__name__)
    return {
        (type(said.body).__name__, number): (
            shop.answers[said.command_id][0].outcome,
            tuple(events.get(said.command_id, ())),
        )
        for number, said in enumerate(story)
    }


def killed_at(shop: Shop, step: str) -> None:
    # `merged` is passed at every turn of the loop, also an idle one.
    killed = shop.start(failpoints=f"worker.{step}=kill@{8 if step == 'merged' else 3}")
    commands = [shop.receive_stock(50)]
    while killed.poll() is None:
        commands.append(shop.reserve(new_id()))
        shop.until(lambda: killed.poll() is not None or commands[-1] in shop.answers, "an answer or an end")
    demand(killed.returncode == -signal.SIGKILL, f"it ended with {killed.returncode}")
    shop.start()
    shop.accepted(commands)
    demand(
        shop.granted() == len(commands) - 1, f"{shop.granted()} units for {len(commands) - 1} reservations"
    )


def f2(scene: Scene) -> None:
    with scene.shop() as shop:
        scene.inject("SIGKILL after the commit, before the caller hears")
        asked_again_after_a_crash(shop)


def asked_again_after_a_crash(shop: Shop) -> None:
    killed = shop.start(failpoints="worker.committed=kill@2")
    shop.answer(shop.receive_stock(10))
    order = new_id()
    shop.reserve(order)
    demand(exit_code(killed) == -signal.SIGKILL, "it was not killed")
    first = shop.answer(derived_id(order, "reserve"))
    shop.start()
    shop.reserve(order)
    shop.until(lambda: len(shop.answers[first.command_id]) > 1, "the second answer")
    demand(shop.answers[first.command_id][1] == first, "the second answer is another one")
    demand(shop.granted() == 1, "it was granted twice")


def f3(scene: Scene) -> None:
    for step in IN_A_TRANSACTION:
        with scene.shop() as shop:
            scene.inject(f"SIGSTOP at {step}, a successor, SIGCONT")
            thawed_after_a_takeover(shop, step)


def thawed_after_a_takeover(shop: Shop, step: str) -> None:
    zombie = frozen_in_a_transaction(shop, step=step)
    shop.start()
    shop.accepted([shop.reserve(new_id())], 30)
    os.kill(zombie.pid, signal.SIGCONT)
    demand(exit_code(zombie) == EXIT_LOST, f"the zombie ended with {zombie.returncode}")
    shop.answer(shop.reserve(new_id()))
    demand(shop.granted() == 3, f"{shop.granted()} units for 3 reservations")


def frozen_in_a_transaction(
    shop: Shop, *without: str, step: str = "offsets_sent", then: str = ""
) -> subprocess.Popen[bytes]:
    zombie = shop.start(*without, failpoints=f"worker.{step}=stop@2{then}")
    shop.answer(shop.receive_stock(10))
    shop.reserve(new_id())
    status = Path(f"/proc/{zombie.pid}/stat")
    until(lambda: status.read_text().rpartition(")")[2].split()[0] == "T", 30, "it is frozen")
    return zombie


def f4(scene: Scene) -> None:
    with scene.shop() as shop:
        scene.inject("two workers with one slot")
        doubled(shop)


def doubled(shop: Shop) -> None:
    older = shop.start()
    shop.answer(shop.receive_stock(10))
    shop.start()
    demand(exit_code(older) == EXIT_LOST, f"the older ended with {older.returncode}")
    shop.answer(shop.reserve(new_id()))


def f5(scene: Scene) -> None:
    for cut in (True, False):
        with scene.shop() as shop, KafkaProxy(shop.kafka) as proxy:
            scene.inject(f"EndTxn {'cut off' if cut else 'held'}, delivered within the next transaction")
            end_of_transaction_delayed(shop, proxy, cut=cut)


def end_of_transaction_delayed(shop: Shop, proxy: KafkaProxy, *, cut: bool) -> None:
    shop.accepted(late_end_of_transaction(shop, proxy, cut=cut), 60)
    demand(shop.granted() == 31, f"{shop.granted()} units for 31 reservations")


def late_end_of_transaction(shop: Shop, proxy: KafkaProxy, *without: str, cut: bool) -> list[str]:
    """The commit of one transaction reaches the broker in the middle of the next one.

    Either its connection is cut, or it is held until the worker gives it up (5 s) and begins again.
    """
    shop.start("patient", *without, kafka=proxy.address)
    shop.answer(shop.receive_stock(1_000))
    held = proxy.add(Held(ApiKey.END_TXN, cut=cut, until=ApiKey.PRODUCE, after=1))
    commands = [shop.reserve(new_id())]
    until(held.caught.is_set, 30, "the end of a transaction is caught")
    commands += [shop.reserve(new_id()) for _ in range(30)]
    until(held.delivered.is_set, 60, "it is delivered")
    return commands


def f6(scene: Scene) -> None:
    _lost_answer(scene, ApiKey.END_TXN)


def f7(scene: Scene) -> None:
    _lost_answer(scene, ApiKey.PRODUCE)


def _lost_answer(scene: Scene, key: ApiKey) -> None:
    with scene.shop() as shop, KafkaProxy(shop.kafka) as proxy:
        scene.inject(f"the answer to {key.name} is lost with its connection")
        answer_lost(shop, proxy, key)


def answer_lost(shop: Shop, proxy: KafkaProxy, key: ApiKey) -> None:
    shop.start(kafka=proxy.address)
    shop.answer(shop.receive_stock(1_000))
    proxy.add(Held(key, lose_answer=True))
    shop.accepted([shop.reserve(new_id()) for _ in range(20)], 40)
    demand(shop.granted() == 20, f"{shop.granted()} units for 20 reservations")


def f31(scene: Scene) -> None:
    with scene.shop() as shop:
        scene.inject("SIGSTOP between send_offsets and flush; another slot takes the partition; SIGCONT")
        thawed_after_the_partition_moved(shop)
        demand(shop.granted() == 2, f"{shop.granted()} units for 2 reservations")


def thawed_after_the_partition_moved(shop: Shop, *without: str) -> None:
    # It thaws for its commit only, so that the partition stays where it moved.
    zombie = frozen_in_a_transaction(shop, "lingering", then=",worker.committed=stop@2")
    shop.start(*without, slot=1)
    ready = "watermarks_captured" if without else "partitions_assigned"
    until(lambda: ready in shop.log_of(shop.workers[-1]), 40, ready)
    command = shop.reserve(new_id())
    os.kill(zombie.pid, signal.SIGCONT)
    shop.answer(command, 40)


def commands_read_again(shop: Shop) -> None:
    shop.start()
    shop.answer(shop.receive_stock(10))
    for _ in range(5):
        shop.answer(shop.reserve(new_id()))
    before = events_of(shop)
    produce_again(shop, list(shop.records(shop.topics.commands("inventory"))))
    shop.until(lambda: all(len(told) == 2 for told in shop.answers.values()), "every answer again", 30)
    demand(events_of(shop) == before, "commands that were read again changed something")


def commands_of_long_ago(shop: Shop) -> None:
    before, then = events_of(shop), now() - 2 * DAY
    old = [shop.adjust(5, issued_at=then, not_after=then + 300 * SECOND) for _ in range(20)]
    rejections = [shop.answer(command).rejection for command in old]
    types = {one.type if one else "accepted" for one in rejections}
    demand(types == {"CommandExpired"}, f"commands of long ago: {types}")
    demand(events_of(shop) == before, "commands of long ago changed something")


def f23(scene: Scene) -> None:
    with scene.shop(lawful=False) as shop:  # the law book counts time limits by the clock that is wrong
        scene.inject("the worker's clock is an hour slow, then right, an hour fast, and slow again")
        clock_jumped(shop)
        scene.checked("C1", "C2", "C4", "C5", "C6", "C7", "C9")


def clock_jumped(shop: Shop) -> None:
    shop.start("jumping_clock")
    shop.accepted([shop.receive_stock(1_000, not_after=now() + 2 * HOUR)], 40)
    orders = [new_id() for _ in range(10)]
    limit = now() + 3 * SECOND
    shop.accepted([shop.reserve(order, expires_at=limit, not_after=now() + 2 * HOUR) for order in orders])
    until(lambda: set(ended(shop)) >= set(orders), 40, "every reservation ends")
    shop.accepted([shop.adjust(1, not_after=now() + 2 * HOUR) for _ in range(5)])
    ends = Counter(order for order in ended(shop) if order in orders)
    demand(set(ends.values()) == {1}, f"reservations ended so often: {ends}")
    broken = shop.laws().keys() - {"4"}
    demand(not broken, f"laws: {broken}")


def ended(shop: Shop) -> list[str]:
    """The orders of all reservations that expired, once for each time."""
    bodies = [CODEC.decode(value).body for value in events_of(shop)]
    return [body.order_id for body in bodies if isinstance(body, StockReservationExpired)]


def events_of(shop: Shop) -> list[bytes]:
    return [message.value() for message in shop.records(shop.topics.events("inventory"))]


def produce_again(shop: Shop, messages: list[Any]) -> None:
    producer = Producer({"bootstrap.servers": shop.kafka})
    for one in messages:
        producer.produce(one.topic(), one.value(), one.key(), one.partition(), headers=one.headers())
    demand(producer.flush(10) == 0, "Kafka did not take them again")


def past_its_time(shop: Shop) -> None:
    late = shop.answer(shop.reserve(new_id(), not_after=now() - 1))
    rejection = late.rejection.type if late.rejection else ""
    demand((late.outcome, rejection) == ("rejected", "CommandExpired"), f"too late: {late.outcome}")
