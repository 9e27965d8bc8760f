"""Time travel and the step debugger: the state as the writer had it, who changed it, and what else the request caused."""

from collections.abc import Iterator
from dataclasses import replace

import orjson
import pytest

from ops.show import Scene, document, gather, point_of, text
from ops.story import At, Node, NoStory
from ops.telling import as_json
from schemas.cart import order_id_of
from schemas.codec import Decoded
from schemas.meta import MINUTE, SECOND, EventMeta, Micros, derived_id
from schemas.order import CancelOrder, ConfirmedOrder, OrderCancelled, order_stream
from schemas.personal import SealedContact
from tests.in_memory_shop import START
from tests.projections.a_ledger import Moved, entries
from tests.replayed import AGGREGATE_OF, CODEC, TOPICS, RecordingShop, WrittenLog, log_of

CART = derived_id("one")
ORDER = order_stream(order_id_of(CART, 1))
SHELF = "stock/85123A/main"


@pytest.fixture(scope="module")
def shop() -> RecordingShop:
    """Six lamps; a minute later Anna buys two; an hour later she sends them back before they are sent."""
    shop = RecordingShop()
    shop.receive("85123A", 6)
    shop.pass_time(MINUTE)
    contact = SealedContact("key-of-anna", b"ANNA'S NAME", b"ANNA'S MAIL", b"ANNA'S STREET")
    order_id = shop.check_out("one", "anna", {"85123A": 2}, contact=contact)
    shop.quiesce()
    shop.pass_time(60 * MINUTE)
    shop.quiesce()
    shop.act("order", order_id, CancelOrder(order_id, "changed her mind"), "customer", "anna")
    shop.quiesce()
    return shop


@pytest.fixture(scope="module")
def log(shop: RecordingShop) -> WrittenLog:
    return log_of(shop)


def scene(log: WrittenLog, stream: str, at: str = "", limit: int = 20) -> Scene:
    return gather(log.replay, TOPICS, stream, point_of(at), limit)


def test_the_state_is_the_writers(log: WrittenLog, shop: RecordingShop):
    for stream in (ORDER, SHELF, f"cart/{CART}"):
        state = scene(log, stream).story.state
        assert state == {path: shop.records[path] for path in state}
        assert stream in state


def test_the_state_goes_back_in_time_by_version_and_by_instant(log: WrittenLog):
    shelf = scene(log, SHELF, at="4")
    assert (shelf.story.version, shelf.story.state[SHELF].reserved) == (4, 2)
    assert len([path for path in shelf.story.state if path.startswith("claim/")]) == 1

    before_anna = scene(log, SHELF, at="2010-12-01T00:00:30")
    assert (before_anna.story.version, before_anna.story.state[SHELF].reserved) == (3, 0)

    after_a_while = scene(log, ORDER, at="2010-12-01T00:30:00").story.state[ORDER]
    assert isinstance(after_a_while, ConfirmedOrder)


def test_an_instant_means_a_state_that_the_writer_had_whatever_was_backdated_later():
    moves = (
        Moved(SECOND, SECOND, 10),
        Moved(100 * SECOND, 100 * SECOND, 15),
        Moved(101 * SECOND, 50 * SECOND, 13),
    )
    then = scene(written(*entries(*moves, sku="85123A")), SHELF, at="1970-01-01T00:01:00")

    assert (then.story.version, then.story.left_out, then.story.state[SHELF].sellable) == (1, 1, 10)
    assert "without 1 backdated behind it" in "\n".join(text(then, with_steps=False))
    assert document(then)["left_out"] == 1


def test_an_order_cancelled_before_it_was_placed_begins_when_it_was_placed(shop: RecordingShop):
    early = Micros(START - SECOND)
    events = [
        replace(event, meta=replace(event.meta, occurred_at=early))
        if isinstance(event.body, OrderCancelled)
        else event
        for event in shop.history("order")
    ]
    with pytest.raises(NoStory, match="begins later: its first event happened at 2010-12-01T00:01:00"):
        scene(written(*events), ORDER, at="2010-12-01T00:00:00")


def test_each_step_has_its_states_and_the_command_that_caused_it(log: WrittenLog):
    found = scene(log, SHELF)
    by_version = {step.event.meta.version: step for step in found.steps}
    reserved = by_version[4]

    assert [step.before[SHELF] for step in found.steps[1:]] == [
        step.after[SHELF] for step in found.steps[:-1]
    ]
    assert (reserved.before[SHELF].reserved, reserved.after[SHELF].reserved) == (0, 2)  # type: ignore[union-attr]
    assert type(found.commands[reserved.event.meta.command_id].body).__name__ == "ReserveStock"
    assert type(found.commands[by_version[1].event.meta.command_id].body).__name__ == "ReceiveStock"


def test_a_request_is_followed_over_all_streams_down_to_the_views(log: WrittenLog):
    (tree,) = [
        roots
        for roots in scene(log, ORDER).trees.values()
        if any(asked(root) == "CheckOutCart" for root in roots)
    ]
    (root,) = tree
    streams = {event.meta.stream.partition("/")[0] for node in nodes(root) for event, _ in node.events}
    told = [asked(node) for node in nodes(root)]

    assert streams == {"cart", "order", "stock", "payment"}
    assert told.index("CheckOutCart") < told.index("PlaceOrder") < told.index("ReserveStock")
    assert told.index("ReserveStock") < told.index("RecordStockAnswer") < told.index("RequestAuthorization")
    assert len(told) == len({node.command_id for node in nodes(root)}), "each command once"
    shown = "\n".join(text(scene(log, ORDER), with_steps=True))
    assert f"= {SHELF}@4 StockReserved" in shown
    assert "read in stock (Redis), ledger (Cassandra)" in shown


def test_steps_are_told_with_what_changed_and_why(log: WrittenLog):
    shown = "\n".join(text(scene(log, SHELF), with_steps=True))
    assert f"{SHELF}, version 6 of 6" in shown
    assert "StockItem: reserved 0 → 2" in shown
    assert "because of ReserveStock" in shown
    assert "of merchant/, issued 2010-12-01T00:00:00.000000Z" in shown


def test_a_deadlines_command_is_in_no_topic_and_it_says_so():
    shop = RecordingShop()
    shop.check_out("one", "anna", {"85123A": 2})
    shop.pass_time(31 * 24 * 60 * MINUTE)
    shop.receive("85123A", 1)
    order_id = shop.check_out("two", "anna", {"85123A": 1})
    while shop.sources():
        shop.deliver(shop.sources()[0])
    while not shop.history("order"):
        shop.decide(shop.queues()[0])
    shop.pass_time(61 * SECOND)
    shown = "\n".join(text(scene(log_of(shop), shop.history("order")[0].meta.stream), with_steps=True))
    assert order_id
    assert "the writer's own, when its time had come" in shown
    assert "deadline/" in shown


def test_of_many_requests_one_is_chosen_by_its_version(log: WrittenLog):
    shop = RecordingShop()
    for n in range(5):
        shop.receive("85123A", n + 1)
    many = log_of(shop)
    assert scene(many, SHELF).trees == {}
    assert "of 5 requests" in "\n".join(text(scene(many, SHELF), with_steps=False))
    assert len(scene(many, SHELF, at="4", limit=1).trees) == 1
    assert "(the last 1; --at shows what was before)" in "\n".join(
        text(scene(many, SHELF, at="4", limit=1), with_steps=False)
    )


@pytest.mark.parametrize(
    ("stream", "at", "why"),
    [
        ("stock/nothing/main", "", "nothing is known of stock/nothing/main"),
        ("shelf/85123A", "", "is no stream; streams are called product/…, cart/…"),
        ("order", "", "is no stream"),
        (SHELF, "9", f"{SHELF} has 6 versions, and none is 9"),
        (SHELF, "0", "begins later: its first event happened at 2010-12-01T00:00:00"),
        (SHELF, "2009-12-31", "begins later: its first event happened at 2010-12-01T00:00:00"),
    ],
)
def test_what_there_is_not_is_named(log: WrittenLog, stream: str, at: str, why: str):
    with pytest.raises(NoStory, match=why):
        scene(log, stream, at)


def test_a_day_means_its_end_and_garbage_is_no_time():
    assert point_of("2010-12-01") == At(instant=START + 24 * 60 * MINUTE - 1)
    assert point_of("7") == At(version=7)
    with pytest.raises(ValueError, match="yesterday is no time"):
        point_of("yesterday")


def test_programs_get_the_same_as_json(log: WrittenLog):
    told = orjson.loads(as_json(document(scene(log, ORDER))))
    first = told["steps"][0]
    assert told["stream"] == ORDER
    assert first["event"]["type"] == "OrderPlaced"
    assert first["before"] == {ORDER: None}
    assert first["after"][ORDER]["type"] == "PlacedOrder"
    assert first["command"]["type"] == "PlaceOrder"
    assert first["event"]["meta"]["recorded_at"] == "2010-12-01T00:01:00Z"
    assert any(
        root["command"]["type"] == "CheckOutCart" for roots in told["requests"].values() for root in roots
    )


def written(*events: Decoded[EventMeta]) -> WrittenLog:
    """A log of these events of one stream."""
    log = WrittenLog()
    for event in events:
        kind, key = event.meta.stream.split("/")[:2]
        log.write(TOPICS.events(AGGREGATE_OF[kind]), key, CODEC.encode(event.body, vars(event.meta)))
    return log


def nodes(root: Node) -> Iterator[Node]:
    yield root
    for _, then in root.events:
        for node in then:
            yield from nodes(node)
    for node in root.then:
        yield from nodes(node)


def asked(node: Node) -> str:
    return type(node.command.body).__name__ if node.command else "a deadline"


def test_what_is_personal_is_veiled_in_words_and_for_programs(log: WrittenLog):
    shown = scene(log, ORDER)
    in_words = "\n".join(text(shown, with_steps=True)).encode()
    for told in (in_words, as_json(document(shown))):
        assert b"ANNA'S" not in told
        assert b"ANNA'S".hex().encode() not in told
        assert b"[personal]" in told
        assert b"key-of-anna" in told
