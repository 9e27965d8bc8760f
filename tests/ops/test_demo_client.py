"""The demo's client: how it asks, how often, in which order, and what it makes of the answers."""

import asyncio
import io
import json
import os
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from ops import processes
from ops.audit.tally import Tally
from ops.demo import frontend as frontend_module
from ops.demo.client import Patience, Told, Turns, each, now_and_then, outcome_of
from ops.demo.frontend import Frontend, RefusedError, UnansweredError, Write, open_session
from ops.demo.performance import Steps
from ops.demo.progress import Teller
from ops.demo.report import OrderOutcome, Outcomes, Percentiles
from ops.demo.watch import Watch

CREATE = Write("POST", "/carts", "key-1", "token", "/carts/{cart_id}", {})
CREATED = (201, {"cart_id": "1", "outcome": "accepted", "positions": ["cart/1@1"]})
UNKNOWN = (503, {"type": "/problems/outcome-unknown"})
UNDECIDED = (202, {"command_id": "7", "outcome": "undecided"})


@dataclass
class Window:
    """An API that answers as it is told to, in order, and remembers what it was asked."""

    answers: deque[tuple[int, dict[str, Any]]] = field(default_factory=deque)
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        headers = request.headers
        shown = headers.get("Idempotency-Key", "") or headers.get("Daybook-After", "")
        self.asked.append((request.method, request.path, shown))
        status, document = self.answers.popleft() if self.answers else CREATED
        return web.json_response(document, status=status, headers={"Daybook-Receipt": "cart/1@1"})


@pytest.fixture
def window() -> Window:
    return Window()


@pytest.fixture
async def frontend(window: Window, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Frontend]:
    monkeypatch.setattr(frontend_module, "FIRST_PAUSE_S", 0.001)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", window.answer)
    async with TestServer(app) as server, open_session() as session:
        yield Frontend(session, f"127.0.0.1:{server.port}")


async def test_what_is_unknown_is_sent_again_under_the_same_key(window: Window, frontend: Frontend) -> None:
    window.answers.extend([UNKNOWN, UNKNOWN])
    answer = await frontend.write(CREATE)
    assert (answer.document["cart_id"], answer.receipt) == ("1", "cart/1@1")
    assert window.asked == [("POST", "/v1/carts", "key-1")] * 3


async def test_what_is_not_decided_yet_is_asked_for_and_then_sent_again_for_its_answer(
    window: Window, frontend: Frontend
) -> None:
    window.answers.extend([UNDECIDED, (404, {"type": "/problems/not-found"}), (200, {})])
    await frontend.write(CREATE)
    assert [path for _, path, _ in window.asked] == [
        "/v1/carts",
        "/v1/commands/7",
        "/v1/commands/7",
        "/v1/carts",
    ]


async def test_a_refusal_is_an_answer_and_is_not_sent_again(window: Window, frontend: Frontend) -> None:
    window.answers.append((409, {"type": "/problems/cart-is-empty", "detail": "there is nothing in it"}))
    with pytest.raises(RefusedError, match="nothing in it") as refused:
        await frontend.write(CREATE)
    assert (refused.value.status, refused.value.kind) == (409, "cart-is-empty")
    assert len(window.asked) == 1


async def test_who_gets_no_answer_gives_up(
    window: Window, frontend: Frontend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frontend_module, "GIVE_UP_S", 0.02)
    window.answers.extend([UNKNOWN] * 1_000)
    with pytest.raises(UnansweredError, match="POST /carts"):
        await frontend.write(CREATE)


async def test_one_write_in_twenty_is_followed_by_a_read_of_its_effect(
    window: Window, frontend: Frontend
) -> None:
    for _ in range(20):
        await frontend.write(CREATE)
    assert window.asked[-1] == ("GET", "/v1/carts/1", "cart/1@1")
    assert (len(frontend.samples.command_ms), len(frontend.samples.freshness_ms)) == (20, 1)
    assert frontend.samples.acknowledged == {"cart/1": 1}


async def test_pieces_are_begun_in_their_order_and_never_more_than_so_many_at_once() -> None:
    begun: list[int] = []
    under_way = most = 0

    async def work(piece: int) -> None:
        nonlocal under_way, most
        begun.append(piece)
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1

    await each(range(100), work, at_once=7)
    assert begun == list(range(100))
    assert most == 7


async def test_the_first_failure_ends_everything() -> None:
    async def fail(piece: int) -> None:
        await asyncio.sleep(0)
        raise UnansweredError(str(piece))

    with pytest.raises(ExceptionGroup) as failed:
        await each(range(100), fail, at_once=3)
    assert failed.group_contains(UnansweredError)


async def test_under_one_name_one_goes_after_the_other_and_names_do_not_wait_for_each_other() -> None:
    turns, went = Turns(), []

    async def go(name: str, number: int) -> None:
        async with turns.turn(name):
            await asyncio.sleep(0)
            went.append((name, number))

    slow = turns.turn("anna")
    await slow.__aenter__()
    going = [asyncio.create_task(go(name, n)) for name, n in [("anna", 1), ("anna", 2), ("bob", 1)]]
    await going[2]
    assert went == [("bob", 1)]
    await slow.__aexit__(None, None, None)
    await asyncio.gather(*going)
    assert went == [("bob", 1), ("anna", 1), ("anna", 2)]


def test_patience_looks_when_it_is_nearly_time_and_then_more_often() -> None:
    patience = Patience()
    for _ in range(100):
        patience.learn(1.0)
    first, second, *_ = [pause for pause, _ in zip(patience.pauses(60.0), range(3), strict=False)]
    assert (round(first, 1), round(second, 1)) == (0.9, 0.3)


def test_patience_ends() -> None:
    with pytest.raises(UnansweredError, match="within 0 s"):
        list(Patience().pauses(0.0))


COMPLETED = {
    "status": "completed",
    "reason": "",
    "payment_status": "captured",
    "fulfilment_status": "shipped",
    "amount": 900,
    "lines": [
        {"sku": "A", "quantity": 2, "stocked": True},
        {"sku": "POST", "quantity": 1, "stocked": False},
    ],
    "refused": [],
}


@pytest.mark.parametrize(
    ("page", "outcome"),
    [
        (COMPLETED, OrderOutcome("confirmed", units_shipped=2, captured_minor=900)),
        (
            COMPLETED
            | {
                "status": "rejected",
                "reason": "stock",
                "payment_status": "none",
                "fulfilment_status": "none",
                "refused": [{"sku": "A"}],
            },
            OrderOutcome("rejected_stock", refused_skus=("A",)),
        ),
        (
            COMPLETED | {"status": "placed", "payment_status": "pending", "fulfilment_status": "reserved"},
            OrderOutcome("placed"),
        ),
    ],
)
def test_an_outcome_is_what_the_orders_page_says(page: dict[str, Any], outcome: OrderOutcome) -> None:
    assert outcome_of(page) == outcome


def test_what_the_client_leaves_behind_is_read_back_as_it_was() -> None:
    told = Told(
        Outcomes(
            {"536365": OrderOutcome("rejected_stock", refused_skus=("A", "B"))}, {"536366-0": "adjusted"}
        ),
        Percentiles(1.5, 9.0),
        Percentiles(2.5, 8.0),
        ("cart/1@3",),
    )
    assert Told.from_json(told.to_json()) == told


def test_steps_are_told_at_their_ends_and_now_and_then_between() -> None:
    told: list[int] = []
    said = now_and_then(lambda _step, done, _of: told.append(done))
    for done in range(1_001):
        said("trading", done, 1_000)
    assert (told[0], told[-1]) == (0, 1_000)
    assert len(told) < 100


def test_steps_are_read_from_the_clients_log_once_each_and_half_time_is_told_once(
    tmp_path: Path,
) -> None:
    log = tmp_path / "client.log"
    halves: list[int] = []
    steps = Steps(log, lambda: halves.append(1))
    log.write_text('a word for people\n{"step":"publishing","done":1,"of":2}\n{"step":"tra')
    assert [step["step"] for step in steps.news()] == ["publishing"]
    with log.open("a") as more:
        more.write('ding","done":0,"of":9}\n')
    assert [step["of"] for step in steps.news()] == [9]
    assert (steps.current, list(steps.news()), halves) == ("trading", [], [])
    with log.open("a") as more:
        more.writelines(f'{{"step":"trading","done":{done},"of":9}}\n' for done in (4, 5, 6))
    assert ([step["done"] for step in steps.news()], halves) == ([4, 5, 6], [1])


def test_elsewhere_than_on_a_terminal_updates_are_lines_every_few_seconds() -> None:
    out = io.StringIO()
    teller = Teller(out)
    for number in range(1_000):
        teller.update(f"{number} done")
    teller.say("all done")
    assert out.getvalue() == "0 done\nall done\n"


def test_on_a_terminal_an_update_takes_the_place_of_the_last() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    teller = Teller(out)
    teller.update("1 done")
    teller.update("2 done")
    teller.say("all done")
    assert out.getvalue() == "\r\x1b[K1 done\r\x1b[K2 done\r\x1b[Kall done\n"


def test_memory_is_the_median_of_each_third_and_cpu_counts_from_the_first_look() -> None:
    ourselves = processes.identify("we", os.getpid())
    watch = Watch()
    for _ in range(6):
        watch.look([ourselves])
    assert len(watch.rss_mb_thirds["we"]) == 3
    assert max(watch.rss_mb_thirds["we"]) <= watch.rss_mb_max["we"]
    assert watch.cpu_s["we"] < 5.0


def test_a_process_that_is_gone_is_left_out() -> None:
    watch = Watch()
    watch.look([processes.Started("gone", 2**22, 0.0)])
    assert watch.cpu_s == {}


def test_the_tally_counts_what_was_decided_between_the_first_cart_and_the_last_shipment() -> None:
    tally = Tally()
    for name, at in [
        ("ProductPublished", 1),
        ("CartCreated", 10),
        ("CartCreated", 12),
        ("OrderShipped", 2_000_010),
    ]:
        tally.happened(name, {"recorded_at": at})
    for at, batch, commands in [
        (1, "a", 5),
        (10, "b", 2),
        (10, "b", 3),
        (2_000_010, "c", 1),
        (2_000_011, "d", 9),
    ]:
        tally.told({"meta": {"recorded_at": at, "batch_id": batch}, "decided": [None] * commands})
    assert (tally.elapsed_s, tally.commands, tally.transactions) == (2.0, 6, 2)


def test_nothing_shipped_is_no_time_and_no_work() -> None:
    tally = Tally()
    tally.told({"meta": {"recorded_at": 1, "batch_id": "a"}, "decided": []})
    assert (tally.elapsed_s, tally.commands, tally.transactions) == (0.0, 0, 0)


def test_what_the_client_says_is_one_json_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    from ops.demo.client import say

    say("trading", 1, 2)
    assert json.loads(capsys.readouterr().out) == {"step": "trading", "done": 1, "of": 2}
