"""The console is elsewhere, and the API knows where."""

from tests.api.conftest import Window


async def test_who_asks_the_api_for_the_console_is_sent_there(window: Window):
    answered = await window.ask("GET", "/console?q=1")
    assert (answered.status, answered.headers["location"]) == (307, "http://localhost:18082/console")


async def test_it_is_not_part_of_the_contract(window: Window):
    assert "/console" not in (await window.ask("GET", "/openapi.json")).json["paths"]
