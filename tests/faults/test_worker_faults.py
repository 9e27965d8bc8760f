"""The command worker is killed, frozen, doubled and lied to; each protection is also shown red without it."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from ops.faults.kafka_proxy import ApiKey, Held, KafkaProxy
from schemas.meta import derived_id
from tests.faults.bench_shop import Shop, exit_code, new_id, now
from tests.sandbox_process import until

STEPS = ["received", "decided", "begun", "produced", "offsets_sent", "committed", "merged"]


@pytest.mark.parametrize("step", STEPS)
def test_f1_a_worker_killed_at_any_step_is_succeeded_and_each_command_has_one_effect(shop: Shop, step: str):
    # `merged` is passed at every turn of the loop, also an idle one.
    killed = shop.start(failpoints=f"worker.{step}=kill@{8 if step == 'merged' else 3}")
    commands = [shop.receive_stock(50)]
    while killed.poll() is None:
        commands.append(shop.reserve(new_id()))
        shop.until(lambda: killed.poll() is not None or commands[-1] in shop.answers, "an answer or an end")
    assert killed.returncode == -signal.SIGKILL
    shop.start()
    for command in commands:
        assert shop.answer(command).outcome == "accepted"
    assert shop.granted() == len(commands) - 1
    assert shop.laws() == {}


def test_f2_the_same_command_sent_again_after_a_crash_gets_the_first_outcome(shop: Shop):
    killed = shop.start(failpoints="worker.committed=kill@2")
    shop.answer(shop.receive_stock(10))
    order = new_id()
    shop.reserve(order)
    assert exit_code(killed) == -signal.SIGKILL
    first = shop.answer(derived_id(order, "reserve"))
    shop.start()
    shop.reserve(order)
    shop.until(lambda: len(shop.answers[first.command_id]) > 1, "the second answer")
    assert shop.answers[first.command_id][1] == first
    assert shop.granted() == 1
    assert shop.laws() == {}


def test_f2_is_red_without_the_window(shop: Shop):
    killed = shop.start("without_window", failpoints="worker.committed=kill@2")
    shop.answer(shop.receive_stock(10))
    found = shop.adjust(5)
    assert exit_code(killed) == -signal.SIGKILL
    shop.start("without_window")
    again = shop.answer(found)
    _send_again(shop, found)
    shop.until(lambda: len(shop.answers[again.command_id]) > 1, "the second answer")
    assert shop.laws()


def _send_again(shop: Shop, command_id: str) -> None:
    for message in list(shop.records(shop.topics.commands("inventory"))):
        if command_id.encode() in message.value():
            shop._producer.produce(message.topic(), message.value(), message.key(), message.partition())
    shop._producer.flush(10)


def _frozen_in_a_transaction(
    shop: Shop, *without: str, step: str = "offsets_sent", then: str = ""
) -> subprocess.Popen[bytes]:
    zombie = shop.start(*without, failpoints=f"worker.{step}=stop@2{then}")
    shop.answer(shop.receive_stock(10))
    shop.reserve(new_id())
    _until_stopped(zombie)
    return zombie


def _until_stopped(worker: subprocess.Popen[bytes]) -> None:
    status = Path(f"/proc/{worker.pid}/stat")
    until(lambda: status.read_text().rpartition(")")[2].split()[0] == "T", 30)


@pytest.mark.parametrize("step", ["begun", "produced", "offsets_sent"])
def test_f3_a_zombie_is_fenced_by_its_successor_exits_and_leaves_nothing(shop: Shop, step: str):
    zombie = _frozen_in_a_transaction(shop, step=step)
    shop.start()
    last = shop.reserve(new_id())
    assert shop.answer(last, 30).outcome == "accepted"
    os.kill(zombie.pid, signal.SIGCONT)
    assert exit_code(zombie) == 75
    shop.answer(shop.reserve(new_id()))
    assert shop.granted() == 3
    assert shop.laws() == {}


def test_f3_is_red_without_fencing(shop: Shop):
    zombie = _frozen_in_a_transaction(shop, "without_fencing", "lingering")
    events = shop.topics.events("inventory")
    before = shop.written(events)
    shop.start("without_fencing", state="another")
    until(lambda: shop.written(events) > before, 30)
    os.kill(zombie.pid, signal.SIGCONT)
    shop.answer(shop.adjust(1), 30)
    assert shop.laws()


def test_f4_of_two_workers_with_one_slot_the_older_is_fenced(shop: Shop):
    older = shop.start()
    shop.answer(shop.receive_stock(10))
    shop.start()
    assert exit_code(older) == 75
    shop.answer(shop.reserve(new_id()))
    assert shop.laws() == {}


def _late_end_of_transaction(shop: Shop, proxy: KafkaProxy, *without: str, cut: bool) -> list[str]:
    """The commit of one transaction reaches the broker in the middle of the next one.

    Either its connection is cut, or it is held until the worker gives it up (5 s) and begins again.
    """
    shop.start("patient", *without, kafka=proxy.address)
    shop.answer(shop.receive_stock(1_000))
    held = proxy.add(Held(ApiKey.END_TXN, cut=cut, until=ApiKey.PRODUCE, after=1))
    commands = [shop.reserve(new_id())]
    until(held.caught.is_set, 30)
    commands += [shop.reserve(new_id()) for _ in range(30)]
    until(held.delivered.is_set, 60)
    return commands


@pytest.mark.parametrize("cut", [True, False], ids=["reset", "hold"])
def test_f5_a_delayed_end_of_transaction_tears_no_batch(shop: Shop, cut: bool):
    with KafkaProxy(shop.kafka) as proxy:
        for command in _late_end_of_transaction(shop, proxy, cut=cut):
            assert shop.answer(command, 60).outcome == "accepted"
        assert shop.granted() == 31
        assert shop.laws() == {}


@pytest.mark.parametrize("cut", [True, False], ids=["reset", "hold"])
def test_f5_is_red_without_a_new_producer(shop: Shop, cut: bool):
    with KafkaProxy(shop.kafka) as proxy:
        commands = _late_end_of_transaction(shop, proxy, "without_renewal", cut=cut)
        # Either the log is torn, or a part of it is hidden for good behind offsets that nobody can commit any more.
        until(lambda: shop.laws() or shop.is_silent(commands), 30)


@pytest.mark.parametrize("key", [ApiKey.END_TXN, ApiKey.PRODUCE], ids=["commit", "produce"])
def test_f6_f7_a_lost_answer_is_resolved_once(shop: Shop, key: ApiKey):
    with KafkaProxy(shop.kafka) as proxy:
        shop.start(kafka=proxy.address)
        shop.answer(shop.receive_stock(1_000))
        proxy.add(Held(key, lose_answer=True))
        commands = [shop.reserve(new_id()) for _ in range(20)]
        for command in commands:
            assert shop.answer(command, 40).outcome == "accepted"
        assert shop.granted() == 20
        assert shop.laws() == {}


def _thaw_after_the_partition_moved(shop: Shop, *without: str) -> None:
    # It thaws for its commit only, so that the partition stays where it moved.
    zombie = _frozen_in_a_transaction(shop, "lingering", then=",worker.committed=stop@2")
    shop.start(*without, slot=1)
    ready = "watermarks_captured" if without else "partitions_assigned"
    until(lambda: ready in shop.log_of(shop.workers[-1]), 40)
    command = shop.reserve(new_id())
    os.kill(zombie.pid, signal.SIGCONT)
    shop.answer(command, 40)


def test_f31_a_zombie_that_thaws_in_another_slots_takeover_makes_no_version_twice(shop: Shop):
    _thaw_after_the_partition_moved(shop)
    assert shop.granted() == 2
    assert shop.laws() == {}


def test_f31_is_red_when_the_watermark_is_read_first(shop: Shop):
    _thaw_after_the_partition_moved(shop, "watermark_first")
    assert shop.laws()


def test_f20_commands_read_again_change_nothing(shop: Shop):
    shop.start()
    shop.answer(shop.receive_stock(10))
    for _ in range(5):
        shop.answer(shop.reserve(new_id()))
    before = [m.value() for m in shop.records(shop.topics.events("inventory"))]
    for message in list(shop.records(shop.topics.commands("inventory"))):
        shop._producer.produce(message.topic(), message.value(), message.key(), message.partition())
    shop._producer.flush(10)
    shop.until(lambda: all(len(told) == 2 for told in shop.answers.values()), "every answer again", 30)
    assert [m.value() for m in shop.records(shop.topics.events("inventory"))] == before


def test_f20_is_red_without_the_window(shop: Shop):
    shop.start("without_window")
    shop.answer(shop.receive_stock(10))
    command = shop.adjust(1)
    shop.answer(command)
    _send_again(shop, command)
    shop.until(lambda: len(shop.answers[command]) == 2, "the answer again")
    assert shop.laws()


def test_f10_a_command_past_its_not_after_has_no_effect(shop: Shop):
    shop.start()
    shop.answer(shop.receive_stock(10))
    late = shop.answer(shop.reserve(new_id(), not_after=now() - 1))
    assert late.outcome == "rejected"
    assert late.rejection is not None
    assert late.rejection.type == "CommandExpired"
    assert shop.granted() == 0
