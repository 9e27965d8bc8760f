"""The table of the sagas says all: an event that is not in it moves none of them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import Codec, Decoded
from schemas.language import AGGREGATES
from schemas.meta import EventMeta
from schemas.order import (
    OrderCaptureRequested,
    OrderClaimsOrphaned,
    OrderConfirmationRepeated,
    OrderPaymentOrphaned,
    order_stream,
)
from schemas.topics import Topics
from streams.asked import Asked
from streams.intake import Intake, expected_on, other_events
from streams.saga import HEARD, SAGAS, React, react
from tests.an_order import (
    CONFIRMED,
    LAMP,
    LEAVING,
    ORDER,
    PLACED,
    REMIND_AT,
    SECURED,
    cancelled,
    recorded,
    rejected,
    step,
)
from tests.messages import EVENT, instances

TOPICS = Topics("t", 2)
EVENTS = [event for aggregate in AGGREGATES.values() for event in aggregate.events]
CODEC = Codec()


def moved_by(fact: Decoded[EventMeta]) -> list[React]:
    return [saga for saga in SAGAS if saga(fact, TOPICS)]


@pytest.mark.parametrize("event", EVENTS)
@settings(max_examples=5)
@given(data=st.data())
def test_an_event_moves_the_saga_that_the_table_names_and_no_other(event, data):
    fact = Decoded(EVENT, data.draw(instances(event)))
    assert set(moved_by(fact)) <= {HEARD.get(event)}
    assert bool(react(fact, TOPICS)) == bool(moved_by(fact))


@pytest.mark.parametrize("event", EVENTS)
@settings(max_examples=5)
@given(data=st.data())
def test_the_events_in_the_table_are_decoded_and_no_others(event, data):
    intake = Intake(CODEC, expected_on(TOPICS), other_events(CODEC, HEARD))
    value = CODEC.encode(data.draw(instances(event)), vars(EVENT))
    assert intake.passes_over(value) == (event not in HEARD)


@pytest.mark.parametrize(
    "event",
    [
        PLACED[-1],
        SECURED[-1],
        CONFIRMED[-1],
        OrderConfirmationRepeated(*step(LAMP), 2, "complete", REMIND_AT),
        OrderCaptureRequested(*step(), 2, REMIND_AT),
        rejected(LAMP, reason="payment", money="void"),
        cancelled(LAMP, reason="late", held="allocated", money="refund", cart="complete"),
        OrderClaimsOrphaned(*step(LAMP), "reserved"),
        OrderPaymentOrphaned(*step(), "void"),
        OrderPaymentOrphaned(*step(), "refund"),
        LEAVING[-1],
    ],
    ids=lambda event: type(event).__name__,
)
def test_a_saga_signs_what_it_asks_and_has_it_answered_to_the_order(event):
    asked = [one for one in react(recorded(event), TOPICS) if isinstance(one, Asked)]
    assert {one.meta.reply_to for one in asked} == {order_stream(ORDER)}
    assert {one.meta.actor_id for one in asked} == {HEARD[type(event)].__module__.removeprefix("streams.")}


def test_what_no_schema_of_ours_begins_is_not_passed_over():
    intake = Intake(CODEC, expected_on(TOPICS), other_events(CODEC, HEARD))
    assert not any(intake.passes_over(value) for value in (None, b"", b"poison", bytes(10)))
