"""Who asks for the past of a stock item gets it by time, by version, by page, and as CSV; and hears why not."""

import csv
import io
from typing import Any

import pytest

from api.readings import Views
from schemas.meta import DAY
from tests.api.conftest import BEN, Bearer, Window
from tests.projections.a_ledger import Ledger, Moved, entries

AUDITOR: Bearer = ("auditor", "otto")
FIRST = 1_291_161_600_000_000
"""2010-12-01, in micros."""


@pytest.fixture
def books(window: Window) -> Ledger:
    """Ten units on the first, eight on the third; on the fourth it is entered that on the second one was lost."""
    moves = Moved(FIRST, FIRST, 10), Moved(FIRST + 2 * DAY, FIRST + 2 * DAY, 8)
    books: Any = Ledger().post(entries(*moves, Moved(FIRST + 3 * DAY, FIRST + DAY, 7)))
    no_redis: Any = None
    window.app.state.views = Views(no_redis, books)
    return books  # type: ignore[no-any-return]


async def level(window: Window, query: str) -> Any:
    answered = await window.ask("GET", f"/v1/inventory/A?{query}", by=AUDITOR)
    return answered.json["sellable"] if answered.status == 200 else (answered.status, answered.type)


async def test_balances_are_told_as_of_when_it_happened_and_when_it_was_known(window: Window, books: Ledger):
    assert await level(window, "as_of=2010-12-02") == 9
    assert await level(window, "as_of=2010-12-02&known_at=2010-12-03") == 10
    assert await level(window, "known_at=2010-12-03") == 8
    assert await level(window, "as_of=2010-12-02T23:59:59.999999%2B01:00") == 9
    assert await level(window, "as_of=2") == 8
    assert await level(window, "as_of=3&known_at=2010-12-02") == 10


async def test_what_is_served_says_what_was_asked(window: Window, books: Ledger):
    answered = await window.ask("GET", "/v1/inventory/A?as_of=2010-12-02", by=AUDITOR)
    assert answered.json == {
        "sku": "A", "location": "main", "as_of": FIRST + 2 * DAY - 1, "known_at": None,
        "entries": 2, "version": 3, "sellable": 9, "reserved": 0, "allocated": 0, "shipped": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("as_of=2010-11-30", 404),
        ("known_at=2010-11-30", 404),
        ("as_of=4", 404),
        ("as_of=4&known_at=2010-12-02", 404),
        ("as_of=3&known_at=2010-11-30", 404),
        ("as_of=0", 422),
        ("as_of=yesterday", 422),
        ("as_of=2010-13-01", 422),
        ("as_of=2010-12-02T10:00:00", 422),
        (f"as_of={'9' * 41}", 422),
    ],
)
async def test_a_time_of_which_nothing_is_known_and_a_text_that_is_no_time_are_told_apart(
    window: Window, books: Ledger, query: str, status: int
):
    assert (await level(window, query))[0] == status


@pytest.mark.parametrize(
    "path",
    ["/v1/inventory/A?as_off=2", "/v1/inventory/A/history?fromm=2010-12-01&limit=5", "/v1/products?pag=2"],
)
async def test_a_parameter_that_nobody_knows_is_refused_and_those_there_are_are_named(
    window: Window, books: Ledger, path: str
):
    answered = await window.ask("GET", path, by=AUDITOR)
    assert (answered.status, answered.type) == (422, "invalid-request")
    strange = path.partition("?")[2].partition("=")[0]
    assert answered.json["detail"].startswith(f"{strange} is not asked here; there are ")


async def test_the_past_is_for_merchants_and_auditors(window: Window, books: Ledger):
    for by, status in ((None, 401), (BEN, 403), (AUDITOR, 200)):
        for path in ("/v1/inventory/A?as_of=2", "/v1/inventory/A/history"):
            assert (await window.ask("GET", path, by=by)).status == status


async def test_an_item_that_nobody_knows_has_no_past(window: Window, books: Ledger):
    for path in ("/v1/inventory/B?as_of=1", "/v1/inventory/B/history"):
        answered = await window.ask("GET", path, by=AUDITOR)
        assert (answered.status, "ever recorded of the stock of B" in answered.json["detail"]) == (404, True)


async def versions(window: Window, query: str) -> list[int]:
    answered = await window.ask("GET", f"/v1/inventory/A/history?{query}", by=AUDITOR)
    return [one["version"] for one in answered.json["movements"]]


async def test_movements_are_found_by_period_actor_and_reason(window: Window, books: Ledger):
    assert await versions(window, "from=2010-12-02&to=2010-12-03") == [3, 2]
    assert await versions(window, "from=2010-12-02&to=2010-12-03&by=recorded") == [2]
    assert await versions(window, "actor=anna&limit=2") == [3, 2]
    assert await versions(window, "actor=customer/anna") == []
    assert await versions(window, "reason=damaged") == []


@pytest.mark.parametrize(
    ("period", "status"),
    [
        ("from=9999-12-31T23:59:59-23:59", 422),
        ("from=0001-01-01T00:00:00%2B23:59", 422),
        ("to=9999-12-31T23:59:59-23:59", 422),
        ("to=0001-01-01T00:00:00%2B23:59", 422),
        ("from=0001-01-01&to=9999-12-31", 200),
        ("from=9999-12-31T23:59:59.999999Z", 200),
    ],
)
@pytest.mark.parametrize("by", ["recorded", "occurred"])
async def test_a_period_may_reach_as_far_as_the_calendar_and_no_farther(
    window: Window, books: Ledger, by: str, period: str, status: int
):
    answered = await window.ask("GET", f"/v1/inventory/A/history?by={by}&{period}", by=AUDITOR)

    assert answered.status == status


async def test_movements_as_csv_name_their_next_page_in_a_link(window: Window, books: Ledger):
    path = "/v1/inventory/A/history"
    answered = await window.ask("GET", f"{path}?limit=2", by=AUDITOR, accept="text/csv")
    assert answered.headers["content-type"].startswith("text/csv")
    link = answered.headers["link"]
    rest = await window.ask("GET", path + link[1 : link.index(">")], by=AUDITOR)
    rows = [row for page in (answered, rest) for row in csv.DictReader(io.StringIO(page.body.decode()))]
    assert [(row["version"], row["sellable_before"], row["sellable_after"]) for row in rows] == [
        ("3", "8", "7"), ("2", "10", "8"), ("1", "0", "10")
    ]  # fmt: skip
    assert rows[0]["occurred_at"] == "2010-12-02T00:00:00.000000Z"
    assert "link" not in rest.headers
