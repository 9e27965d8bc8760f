"""Replay: what was asked for and nothing else, in every shape it was ever written, from wherever one stopped."""

from collections import Counter
from itertools import islice

import pyarrow as pa
import pytest

from projections.stock import evolve
from schemas.codec import Codec
from schemas.meta import MINUTE, SECOND
from streams.columns import arrow_schema, record_batches
from streams.replay import Query, ReplayFailed
from tests import generations
from tests.in_memory_shop import START, Shop
from tests.replayed import TOPICS, WrittenLog, log_of

EVENTS = tuple(TOPICS.events(name) for name in ("catalog", "cart", "order", "inventory", "payment"))


@pytest.fixture(scope="module")
def shop() -> Shop:
    """Six lamps come in; four customers want two each, half a minute apart."""
    shop = Shop()
    shop.receive("85123A", 6)
    for name in ("one", "two", "three", "four"):
        shop.pass_time(30 * SECOND)
        shop.check_out(name, "anna", {"85123A": 2})
        shop.quiesce()
    return shop


@pytest.fixture(scope="module")
def log(shop: Shop) -> WrittenLog:
    return log_of(shop)


def test_everything_is_told_in_the_order_of_its_partition(log: WrittenLog):
    told = [(one.topic, one.partition, one.offset) for one in log.replay(Query(EVENTS)).events()]
    assert told == [one[:3] for one in log.records]


def test_types_and_keys_narrow_what_is_told(log: WrittenLog, shop: Shop):
    order_id = shop.history("order")[0].meta.stream.removeprefix("order/")
    by_type = log.replay(Query(EVENTS, frozenset({"OrderPlaced", "StockReserved"}))).events()
    by_key = list(log.replay(Query(EVENTS, key=order_id)).events())

    assert Counter(type(one.message.body).__name__ for one in by_type) == {
        "OrderPlaced": 4,
        "StockReserved": 3,
    }
    assert {one.message.meta.stream for one in by_key} == {f"order/{order_id}"}
    assert len(by_key) == len(shop.events_of(f"order/{order_id}"))


def test_a_question_is_known_again_in_every_process():
    asked = Query(("t.events.cart",), frozenset("HGFEDCBA"), key="k", since=3)
    assert repr(asked) == (
        "Query(topics=('t.events.cart',), types=frozenset({'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H'}), key='k',"
        " first=None, last=None, since=3, until=None, by='occurred_at', partition=None, about=None)"
    )
    assert "types=frozenset(), " in repr(Query(()))


def test_a_key_is_looked_for_in_its_own_partitions_only(log: WrittenLog):
    replay = log.replay(Query(EVENTS, key="85123A"))
    assert {number for _, number in replay.starts} == {TOPICS.partition_of("85123A")}


@pytest.mark.parametrize("by", ["occurred_at", "recorded_at"])
def test_a_time_is_from_and_up_to_not_including(log: WrittenLog, by: str):
    since, until = START + 60 * SECOND, START + 90 * SECOND
    query = Query(EVENTS, since=since, until=until, by=by)  # type: ignore[arg-type]  # pytest's parameters are plain

    at = [getattr(one.message.meta, by) for one in log.replay(query).events()]
    batches = [batch for _, batch in record_batches(log.replay(query))]

    assert set(at) == {since}
    assert sum(batch.num_rows for batch in batches) == len(at) > 10


def test_only_what_was_recorded_when_is_looked_up_in_kafkas_index_and_a_day_earlier(log: WrittenLog):
    log.since_ms.clear()
    log.replay(Query(EVENTS, since=START))
    log.replay(Query(EVENTS, since=START, by="recorded_at"))
    assert log.since_ms == [(START - 24 * 60 * MINUTE) // 1_000]


def test_offsets_count_in_every_partition(log: WrittenLog):
    told = list(log.replay(Query(EVENTS, first=4, last=8)).events())
    assert {one.offset for one in told} == {4, 6}


def test_who_follows_from_an_offset_that_is_still_to_come_gets_nothing_before_it():
    log = WrittenLog()
    log.write(EVENTS[3], "85123A", *generations.values()[:2])
    reading = log.replay(Query(EVENTS[3:4], first=6), schemas=generations.schemas)
    log.write(EVENTS[3], "85123A", *generations.values())

    told = [one.offset for some in reading.portions(follow=True) for one in some]

    assert told == [6, 8]


def test_who_stops_and_goes_on_misses_nothing_and_gets_nothing_twice(log: WrittenLog):
    whole = [one[:3] for one in log.records]
    first = log.replay(Query(EVENTS))
    stopped = [one[:3] for some in islice(first.portions(), 3) for one in some]
    second = log.replay(Query(EVENTS), resume=first.positions)
    went_on = [one[:3] for some in second.portions() for one in some]

    assert stopped + went_on == whole
    assert second.read == second.whole


def test_a_program_that_stops_in_the_middle_of_a_portion_gets_it_again(log: WrittenLog):
    first = log.replay(Query(EVENTS))
    seen = [one.offset for one in islice(first.events(), 7)]
    again = [one.offset for one in log.replay(Query(EVENTS), resume=first.positions).events()]

    assert again == [one.offset for one in log.records][5:]
    assert len(seen) == 7


def test_a_position_that_the_log_does_not_hold_is_refused(log: WrittenLog):
    with pytest.raises(ReplayFailed, match="this is not the log that was read before"):
        log.replay(Query(EVENTS), resume={(EVENTS[0], 0): 1_000})


def test_columns_say_what_the_messages_say(log: WrittenLog):
    rows = {}
    for message, batch in record_batches(log.replay(Query(EVENTS))):
        assert batch.schema.equals(arrow_schema(message))
        for row in batch.to_pylist():
            rows[row["topic"], row["partition"], row["offset"]] = (message.__name__, row)

    for one in log.replay(Query(EVENTS)).events():
        name, row = rows.pop((one.topic, one.partition, one.offset))
        body, meta = one.message.body, one.message.meta
        assert name == type(body).__name__
        assert {field: row[field] for field in ("event_id", "stream", "version", "previous")} == {
            field: vars(meta)[field] for field in ("event_id", "stream", "version", "previous")
        }
        assert row["recorded_at"].timestamp() * SECOND == meta.recorded_at
        if hasattr(body, "lines"):
            assert row["lines"] == [vars(line) for line in body.lines]
    assert rows == {}


def test_a_stream_of_three_generations_is_told_in_todays_shape():
    log = WrittenLog()
    log.write(EVENTS[3], "85123A", *generations.values())

    told = [one.message for one in log.replay(Query(EVENTS), Codec(), schemas=generations.schemas).events()]

    assert tuple(one.body for one in told) == generations.ADJUSTED
    level = None
    for one in told:
        level = evolve(level, one)
    assert level is not None
    assert (level.sellable, level.version) == (6, 3)


def test_a_stream_of_three_generations_has_todays_columns():
    log = WrittenLog()
    log.write(EVENTS[3], "85123A", *generations.values())

    batches = [
        batch for _, batch in record_batches(log.replay(Query(EVENTS), Codec(), schemas=generations.schemas))
    ]

    rows = pa.Table.from_batches(batches).sort_by("version").to_pylist()
    names = ("before", "after", "reason", "note", "corrects")
    assert [[row[name] for name in names] for row in rows] == [
        [vars(body)[name] for name in names] for body in generations.ADJUSTED
    ]


def test_a_generation_that_nobody_published_is_named_with_its_place():
    log = WrittenLog()
    log.write(EVENTS[3], "85123A", generations.values()[2])
    with pytest.raises(ReplayFailed, match=r"t.events.inventory\[\d\] offset 0 cannot be read: no schema"):
        list(log.replay(Query(EVENTS), Codec()).events())


@pytest.mark.parametrize(
    "spoil", [lambda value: value[:-1], lambda value: value.replace(b"rain", b"\xff\xff\xff\xff")]
)
def test_a_spoilt_record_is_named_by_columns_as_by_messages(spoil):
    log = WrittenLog()
    log.write(EVENTS[3], "85123A", spoil(generations.values()[1]))
    with pytest.raises(ReplayFailed, match=r"offset 0 .*cannot be read"):
        list(log.replay(Query(EVENTS)).events())
    with pytest.raises(ReplayFailed, match=r"cannot be read"):
        list(record_batches(log.replay(Query(EVENTS))))
