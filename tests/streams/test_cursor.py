"""Where a partition stands: acknowledgements count in order, whatever the order in which they come."""

from hypothesis import given
from hypothesis import strategies as st

from streams.cursor import Cursor, Flight


def in_the_air(*ends: int) -> tuple[Cursor, list[Flight]]:
    cursor, flights = Cursor.at(("t", 0), 0, 0.0), [Flight(end, 0.0) for end in ends]
    for flight in flights:
        cursor.take_off(flight)
    return cursor, flights


def test_a_later_acknowledgement_waits_for_the_earlier_one():
    cursor, (first, second) = in_the_air(10, 20)
    cursor.land(second)
    assert cursor.acked == 0
    cursor.land(first)
    assert cursor.acked == 20


@given(st.permutations(range(6)), st.integers(0, 6))
def test_what_may_be_committed_never_passes_what_is_under_way(order, landed):
    cursor, flights = in_the_air(*range(10, 70, 10))
    for index in order[:landed]:
        cursor.land(flights[index])
    in_flight = [flight.next for flight in flights if not flight.landed]
    assert cursor.acked == (min(in_flight) - 10 if in_flight else 60)


def test_rewound_it_forgets_what_is_under_way():
    cursor, _ = in_the_air(10)
    cursor.rewind(3)
    assert (cursor.next, cursor.acked, cursor.misplaced) == (3, 3, True)
    assert not cursor.flights


def test_the_marker_behind_the_last_record_is_no_lag():
    cursor, (flight,) = in_the_air(10)
    assert cursor.lag(high=11) == 11
    cursor.land(flight)
    assert cursor.lag(high=11) == 1
    cursor.end = 11
    assert cursor.lag(high=11) == 0
