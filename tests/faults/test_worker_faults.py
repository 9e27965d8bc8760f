"""The command worker is killed, frozen, doubled and lied to; each protection is also shown red without it."""

import os
import signal

import pytest

from ops.faults.kafka_proxy import ApiKey, KafkaProxy
from ops.faults.shop import Shop, exit_code
from ops.faults.verdict import RowIsRed, until
from ops.faults.worker_rows import (
    IN_A_TRANSACTION,
    STEPS,
    answer_lost,
    asked_again_after_a_crash,
    commands_read_again,
    doubled,
    end_of_transaction_delayed,
    frozen_in_a_transaction,
    killed_at,
    late_end_of_transaction,
    past_its_time,
    produce_again,
    thawed_after_a_takeover,
    thawed_after_the_partition_moved,
)


@pytest.mark.parametrize("step", STEPS)
def test_f1_a_worker_killed_at_any_step_is_succeeded_and_each_command_has_one_effect(shop: Shop, step: str):
    killed_at(shop, step)
    assert shop.laws() == {}


def test_f2_the_same_command_sent_again_after_a_crash_gets_the_first_outcome(shop: Shop):
    asked_again_after_a_crash(shop)
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
    commands = list(shop.records(shop.topics.commands("inventory")))
    produce_again(shop, [message for message in commands if command_id.encode() in message.value()])


@pytest.mark.parametrize("step", IN_A_TRANSACTION)
def test_f3_a_zombie_is_fenced_by_its_successor_exits_and_leaves_nothing(shop: Shop, step: str):
    thawed_after_a_takeover(shop, step)
    assert shop.laws() == {}


def test_f3_is_red_without_fencing(shop: Shop):
    zombie = frozen_in_a_transaction(shop, "without_fencing", "lingering")
    events = shop.topics.events("inventory")
    before = shop.written(events)
    shop.start("without_fencing", state="another")
    until(lambda: shop.written(events) > before, 30)
    os.kill(zombie.pid, signal.SIGCONT)
    shop.answer(shop.adjust(1), 30)
    assert shop.laws()


def test_f4_of_two_workers_with_one_slot_the_older_is_fenced(shop: Shop):
    doubled(shop)
    assert shop.laws() == {}


@pytest.mark.parametrize("cut", [True, False], ids=["reset", "hold"])
def test_f5_a_delayed_end_of_transaction_tears_no_batch(shop: Shop, cut: bool):
    with KafkaProxy(shop.kafka) as proxy:
        end_of_transaction_delayed(shop, proxy, cut=cut)
        assert shop.laws() == {}


@pytest.mark.parametrize("cut", [True, False], ids=["reset", "hold"])
def test_f5_is_red_without_a_new_producer(shop: Shop, cut: bool):
    with KafkaProxy(shop.kafka) as proxy:
        assert any(_is_torn(shop, proxy, cut=cut) for _ in range(3))


def _is_torn(shop: Shop, proxy: KafkaProxy, *, cut: bool) -> bool:
    """Either the log is torn, or a part of it is hidden for good behind offsets that nobody can commit any more.

    It takes a race that a busy machine may lose.
    """
    commands = late_end_of_transaction(shop, proxy, "without_renewal", cut=cut)
    try:
        until(lambda: shop.laws() or shop.is_silent(commands), 10)
    except RowIsRed:
        shop.workers[-1].kill()
        shop.workers[-1].wait()
        return False
    return True


@pytest.mark.parametrize("key", [ApiKey.END_TXN, ApiKey.PRODUCE], ids=["commit", "produce"])
def test_f6_f7_a_lost_answer_is_resolved_once(shop: Shop, key: ApiKey):
    with KafkaProxy(shop.kafka) as proxy:
        answer_lost(shop, proxy, key)
        assert shop.laws() == {}


def test_f31_a_zombie_that_thaws_in_another_slots_takeover_makes_no_version_twice(shop: Shop):
    thawed_after_the_partition_moved(shop)
    assert shop.granted() == 2
    assert shop.laws() == {}


def test_f31_is_red_when_the_watermark_is_read_first(shop: Shop):
    thawed_after_the_partition_moved(shop, "watermark_first")
    assert shop.laws()


def test_f20_commands_read_again_change_nothing(shop: Shop):
    commands_read_again(shop)


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
    past_its_time(shop)
    assert shop.granted() == 0
