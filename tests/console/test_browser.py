"""The console in a real Chromium: by keyboard, on a phone's width, with pictures in `.daybook/test/screenshots`."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from ops.settings import REPOSITORY
from streams.role_status import RoleStatus
from tests.console.browser import ARGUMENTS, chromium, environment, is_for_this_machine
from tests.console.conftest import Place
from tests.console.trading import ANNA, LAMP, ORDER
from tests.evidence.forgery import SEALER, Scene, scene_in

SCREENSHOTS = REPOSITORY / ".daybook" / "test" / "screenshots"
PHONE = {"width": 375, "height": 740}
DESK = {"width": 1_200, "height": 800}
WITHIN_MS = 30_000
VERIFIED_WITHIN_MS = 60_000

pytestmark = pytest.mark.skipif(not is_for_this_machine(), reason="Chromium is fetched for Linux on x86-64")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    shutil.rmtree(SCREENSHOTS, ignore_errors=True)
    executable = chromium()
    with sync_playwright() as driver:
        launched = driver.chromium.launch(
            executable_path=executable, args=list(ARGUMENTS), env=environment(executable)
        )
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """Nothing is allowed to go wrong in the browser itself: scripts, policies, missing files."""
    context = browser.new_context(viewport=DESK, base_url=f"http://{address}")  # type: ignore[arg-type]  # a TypedDict
    context.set_default_timeout(WITHIN_MS)
    opened = context.new_page()
    troubles: list[str] = []
    opened.on("pageerror", lambda error: troubles.append(str(error)))
    opened.on(
        "console", lambda said: troubles.append(said.text) if _is_trouble(said.type, said.text) else None
    )
    yield opened
    context.close()
    assert troubles == []


def _is_trouble(kind: str, text: str) -> bool:
    """A page that says 404 or 422 is an answer, which Chromium also tells on its console."""
    return kind in ("error", "warning") and not re.search(r"status of (404|422)", text)


@pytest.fixture
def inside(page: Page, place: Place, address: str) -> Page:
    """Signed in."""
    cookie = {"name": "daybook_console", "value": place.token("auditor"), "url": f"http://{address}/console"}
    page.context.add_cookies([cookie])  # type: ignore[list-item]  # a TypedDict
    return page


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    made = scene_in(tmp_path_factory.mktemp("scene"))
    for log in made.logs:
        log.tree.close()
    return made


def picture(page: Page, name: str) -> None:
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def focused(page: Page) -> str:
    """What has the focus, by its label or its text, if it can be seen that it has it."""
    found = page.evaluate(
        """() => { const e = document.activeElement, style = getComputedStyle(e);
        return [(e.labels?.[0] ?? e).textContent.trim() || e.tagName, style.outlineStyle]; }"""
    )
    return str(found[0]) if found[1] != "none" else f"{found[0]}, unseen"


def test_an_order_is_found_by_keyboard_alone(page: Page, place: Place):
    page.goto("/console")
    assert focused(page) == "Bearer token"
    picture(page, "sign-in")
    page.keyboard.insert_text(place.token("auditor"))
    page.keyboard.press("Tab")
    assert focused(page) == "Sign in"
    page.keyboard.press("Enter")
    page.wait_for_url("**/console")

    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the content"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert focused(page) == "Order, SKU, customer or command"
    page.keyboard.type(ORDER)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/orders/{ORDER}")
    expect(page.locator(".timeline li").first).to_contain_text(f"Cart opened for {ANNA}")
    expect(page.locator(".timeline li").last).to_contain_text("Order settled")
    picture(page, "order")

    page.get_by_role("link", name="order placed").first.press("Enter")
    assert page.url.endswith(f"#order/{ORDER}@1"), "a cause is a link to its place"
    page.get_by_role("button", name="Sign out").press("Enter")
    page.wait_for_url("**/sign-in")
    page.goto(f"/console/orders/{ORDER}")
    expect(page.get_by_label("Bearer token")).to_be_visible()


def test_a_sku_has_a_chart_that_says_what_the_table_says(inside: Page):
    inside.goto("/console")
    inside.get_by_role("searchbox").fill(LAMP)
    inside.get_by_role("button", name="Search").click()
    inside.wait_for_url(f"**/skus/{LAMP}")
    chart = inside.get_by_role("img", name=f"Balances of {LAMP}")
    expect(chart).to_be_visible()
    colours = {
        line.evaluate("e => getComputedStyle(e).stroke + getComputedStyle(e).strokeDasharray")
        for line in chart.locator("polyline").all()
    }
    assert len(colours) == 4, "the stylesheet has reached it, and lines differ"
    latest = inside.locator("table.ledger tbody tr").first.locator("td")
    sellable = latest.nth(3).inner_text().split()[-1]
    expect(inside.locator("figcaption")).to_contain_text(f"sellable {sellable}")
    picture(inside, "sku")


def test_nothing_found_is_said_and_one_searches_on(inside: Page):
    inside.goto("/console/search?q=lantern")
    expect(inside.get_by_role("heading", level=1)).to_have_text("Nothing found for “lantern”")
    expect(inside.get_by_role("searchbox")).to_have_value("lantern")
    picture(inside, "nothing")


@pytest.mark.parametrize(
    "path",
    [
        "",
        f"/orders/{ORDER}",
        f"/skus/{LAMP}",
        f"/customers/{ANNA}",
        "/live?still=1",
        "/verify",
        "/search?q=none",
    ],
)
def test_a_phone_shows_every_page_without_scrolling_sideways(inside: Page, path: str):
    inside.set_viewport_size(PHONE)  # type: ignore[arg-type]  # a TypedDict
    inside.goto(f"/console{path}")
    width = inside.evaluate("document.documentElement.scrollWidth")
    picture(inside, f"phone{re.sub(r'[^a-z]+', '-', path.partition('?')[0][:10])}")
    assert width <= PHONE["width"]


def test_laws_and_lags_come_anew_by_themselves(inside: Page, place: Place):
    RoleStatus("auditor", place.run).write("ok", "laws hold, views agree; 1,234 events", lag_events=0)
    RoleStatus("projections", place.run).write("ok", "", lag_events=17, lag_s=0.4)
    inside.goto("/console/live")
    before = inside.locator("#live time").first.get_attribute("datetime")
    expect(inside.locator("#live time").first).not_to_have_attribute("datetime", str(before))
    picture(inside, "live")


def test_a_good_bundle_is_true_and_a_tampered_one_is_named(
    inside: Page, scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    kept = tmp_path / "kept"
    kept.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(kept))  # the console is served by this process
    inside.goto("/console/verify")
    _verify(inside, scene.bundles["sku"])
    verdict = inside.get_by_role("status", name="Verdict")
    expect(verdict).to_contain_text("True: sku.zip", timeout=VERIFIED_WITHIN_MS)
    expect(verdict).to_contain_text("true: all that happened to")

    opened = scene.opened["sku"].copy()
    record = opened.records[0][3]
    record["value"] = record["value"][:-1] + bytes([record["value"][-1] ^ 1])
    _verify(inside, opened.close(tmp_path / "tampered.zip"))
    expect(verdict).to_contain_text("Not what was sealed: tampered.zip", timeout=VERIFIED_WITHIN_MS)
    assert re.search(r"stock/\S+@\d+ \(leaf \d+, offset \d+\): ", verdict.inner_text())
    picture(inside, "tampered")

    inside.get_by_label("The sealer's public key").fill("no key")
    _verify(inside, scene.bundles["sku"], key="no key")
    expect(verdict).to_contain_text("Not verified")
    assert list(kept.iterdir()) == [], "what was uploaded is gone"


def _verify(page: Page, bundle: Path, key: str = str(SEALER.public)) -> None:
    page.get_by_label("Bundle of evidence").set_input_files(bundle)
    page.get_by_label("The sealer's public key").fill(key)
    page.get_by_role("button", name="Verify").click()
    page.wait_for_load_state()
