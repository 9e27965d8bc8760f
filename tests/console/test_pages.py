"""What the pages say, over real stores: everything that was asked for, or clearly that there is nothing."""

import re
from collections.abc import Callable

import orjson
import pytest

from api.security import Role
from ops.console.evidence import verified
from schemas.meta import derived_id
from streams.role_status import RoleStatus
from tests.console.conftest import NOWHERE, Place
from tests.console.serving import Console, served
from tests.console.trading import ANNA, CANCELLED, CART, LAMP, ORDER
from tests.evidence.forgery import SEALER, Scene, scene_in
from tests.replayed import CODEC, TOPICS

Visit = Callable[[Role], Console]


def words(html: str) -> str:
    """What a reader sees."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


# Who comes in.


def test_who_is_not_signed_in_is_asked_to_and_comes_back(place: Place, address: str):
    stranger = Console(address)
    asked = stranger.get(f"/console/skus/{LAMP}?cursor=x")
    assert asked.status == 303
    assert asked.headers["location"] == f"/console/sign-in?next=%2Fconsole%2Fskus%2F{LAMP}%3Fcursor%3Dx"

    answer = stranger.post("/console/session", token=place.token("auditor"), next=f"/console/skus/{LAMP}")
    assert (answer.status, answer.headers["location"]) == (303, f"/console/skus/{LAMP}")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Path=/console" in cookie
    assert "Secure" not in cookie, "this browser would not send it back"


def test_whoever_signs_in_behind_tls_gets_a_cookie_that_is_sent_over_tls_alone(place: Place, address: str):
    behind_tls = Console(address, origin=f"https://{address}")
    answer = behind_tls.post("/console/session", token=place.token("auditor"))
    assert answer.status == 303
    assert "Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize(
    "elsewhere", ["https://example.org/", "//example.org", "/v1/orders", "/console\\@x", ""]
)
def test_nobody_is_sent_out_of_the_console(place: Place, address: str, elsewhere: str):
    answer = Console(address).post("/console/session", token=place.token("merchant"), next=elsewhere)
    assert (answer.status, answer.headers["location"]) == (303, "/console")


@pytest.mark.parametrize("role", ["auditor", "merchant", "operator"])
def test_auditors_merchants_and_operators_see_everything(visit: Visit, role: Role):
    for path in ("", f"/orders/{ORDER}", f"/skus/{LAMP}", f"/customers/{ANNA}", "/live", "/verify"):
        assert visit(role).get(f"/console{path}").status == 200, path


@pytest.mark.parametrize("role", ["customer", "analyst"])
def test_others_are_told_that_it_is_not_for_them(place: Place, visit: Visit, address: str, role: Role):
    refused = Console(address).post("/console/session", token=place.token(role))
    assert (refused.status, "set-cookie" in refused.headers) == (403, False)
    assert f"this token is of the {role} otto" in words(refused.text)
    assert visit(role).get(f"/console/orders/{ORDER}").status == 403


def test_a_bad_token_opens_nothing_and_an_expired_one_asks_to_sign_in_again(place: Place, address: str):
    assert Console(address).post("/console/session", token="x" * 20_000).status == 401
    assert Console(address).post("/console/session", token="a.b.c").status == 401
    expired = Console(address, place.token("auditor", ttl_s=-3_600)).get(f"/console/orders/{ORDER}")
    assert expired.status == 401
    assert "The token has expired. Please sign in again." in words(expired.text)
    assert ORDER in expired.text, "and then comes back"


def test_a_form_from_elsewhere_does_nothing(place: Place, address: str):
    for origin in ("http://example.org", "null", f"http://{address}.example.org"):
        foreign = Console(address, place.token("auditor"), origin)
        assert foreign.post("/console/session/end").status == 403
        assert foreign.post("/console/session", token=place.token("auditor")).status == 403
        assert foreign.post("/console/verify").status == 403


def test_every_answer_allows_nothing_foreign_and_is_kept_by_nobody(auditor: Console):
    for path in ("/console", "/console/sign-in", "/console/nothing", f"/console/orders/{ORDER}"):
        answer = auditor.get(path)
        assert answer.headers["content-security-policy"].startswith("default-src 'self';")
        assert answer.headers["cache-control"] == "no-store"
        assert not re.search(r"<script(?! src=)|style=|\son\w+=|https?://(?!www\.w3\.org)", answer.text), path


def test_signing_out_forgets_the_token(auditor: Console):
    answer = auditor.post("/console/session/end")
    assert (answer.status, answer.headers["location"]) == (303, "/console/sign-in")
    assert re.search(r'daybook_console="".*Max-Age=0', answer.headers["set-cookie"])


# Search.


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (ORDER, f"/console/orders/{ORDER}"),
        (f" order/{ORDER.upper()} ", f"/console/orders/{ORDER}"),
        (CART, f"/console/orders/{ORDER}"),
        (LAMP, f"/console/skus/{LAMP}"),
        (LAMP.lower(), f"/console/skus/{LAMP}"),
        (f"stock/{LAMP}/main", f"/console/skus/{LAMP}"),
        (ANNA, f"/console/customers/{ANNA}"),
    ],
)
def test_one_box_finds_what_is_meant(auditor: Console, text: str, path: str):
    answer = auditor.get(f"/console/search?q={text.replace(' ', '+')}")
    assert (answer.status, answer.headers.get("location")) == (303, path)


def test_what_is_not_there_is_said_with_what_was_looked_for_and_what_to_try(auditor: Console):
    nothing = auditor.get("/console/search?q=lantern%3Cb%3E")
    assert nothing.status == 404
    assert "<b>" not in nothing.text
    assert "Looked for: SKU lantern&lt;b&gt; customer lantern&lt;b&gt;" in words(nothing.text)
    unknown = derived_id("nothing")
    nobody = auditor.get(f"/console/search?q={unknown}")
    assert f"order {unknown} command {unknown} cart {unknown}" in words(nobody.text)
    assert f"/console/commands/{unknown}?log=1" in nobody.text


# The pages.


def test_an_order_is_shown_with_its_story(auditor: Console):
    page = auditor.get(f"/console/orders/{ORDER}")
    said = words(page.text)
    for word in ("completed", "captured", "shipped", "8.00 GBP", ANNA):
        assert word in said, word
    assert page.text.index("Cart checked out: 2 lines") < page.text.index("Order placed: 2 lines")
    assert page.text.index("Order placed: 2 lines") < page.text.index(f"6 of {LAMP} reserved")
    assert "by merchant mia" in said
    anchors = set(re.findall(r'<li id="([^"]+)"', page.text))
    links = set(re.findall(r'href="#([^"]+)"', page.text)) - {"main"}
    assert links
    assert links <= anchors


def test_a_ledger_is_shown_page_by_page_with_a_chart_of_the_same(auditor: Console):
    page = auditor.get(f"/console/skus/{LAMP}")
    assert "Lantern of tin, small &amp; red" in page.text
    assert "damaged; a pallet fell &lt;over&gt;" in page.text
    assert page.text.count("<polyline") == 4
    [older] = re.findall(r'href="([^"]+)" rel="next"', page.text)
    earlier = auditor.get(older.replace("&amp;", "&"))
    versions = [
        int(n) for p in (page, earlier) for n in re.findall(r'<tr>\s*<td class="n">(\d+)</td>', p.text)
    ]
    assert versions == sorted(versions, reverse=True)
    assert len(versions) == len(set(versions)) > 50


def test_a_customers_orders_are_shown_newest_first(auditor: Console):
    page = auditor.get(f"/console/customers/{ANNA}")
    [older] = re.findall(r'href="([^"]+)" rel="next"', page.text)
    shown = re.findall(r"/console/orders/([0-9a-f-]{36})", page.text + auditor.get(older).text)
    assert (shown[0], shown[-1], len(shown)) == (CANCELLED, ORDER, 26)
    assert "No order of this customer is known" in auditor.get("/console/customers/nobody").text


def test_a_commands_fate_is_known_by_the_view_or_by_the_log(place: Place, auditor: Console):
    asked = [CODEC.decode(one.value) for one in place.log.records if one.topic == TOPICS.commands("order")]
    shipped = next(one.meta for one in asked if type(one.body).__name__ == "ShipOrder")
    by_saga = next(one.meta for one in asked if type(one.body).__name__ == "RecordStockAnswer")

    assert "Nobody" not in auditor.get(f"/console/commands/{shipped.command_id}").text
    told = words(auditor.get(f"/console/commands/{shipped.command_id}?log=1").text)
    assert "merchant mia" in told
    assert "Shipment of 2 lines requested" in told

    forgotten = auditor.get(f"/console/commands/{by_saga.command_id}")
    assert forgotten.status == 404
    assert "within the last 24 hours" in forgotten.text
    assert "Stock reserved for 1 line" in auditor.get(f"/console/commands/{by_saga.command_id}?log=1").text


@pytest.mark.parametrize(
    "path",
    ["orders/x", f"orders/{CART}", "skus/NONE", f"commands/{CART}?log=1", f"skus/{LAMP}?cursor=forged"],
)
def test_what_is_not_there_is_a_page_that_says_so(auditor: Console, path: str):
    page = auditor.get(f"/console/{path}")
    assert page.status == 404
    assert 'role="search"' in page.text, "and lets one search on"


def test_a_page_that_is_none_says_so_to_anybody(address: str):
    assert "The console has no page /console/none" in Console(address).get("/console/none").text


@pytest.mark.parametrize(("away", "path"), [("redis", f"skus/{LAMP}"), ("cassandra", f"orders/{ORDER}")])
def test_a_store_that_is_down_is_named_a_trouble_and_not_nothing(place: Place, away: str, path: str):
    with served(place.app(**{away: NOWHERE})) as elsewhere:
        lonely = Console(elsewhere, place.token("auditor"))
        page = lonely.get(f"/console/{path}")
        assert (page.status, "A store is down" in page.text) == (503, True)
        live = words(lonely.get("/console/live").text)
        assert f"{away.capitalize()} down" in live


# Laws and lags.


def test_laws_hold_only_while_somebody_looks(place: Place, auditor: Console):
    RoleStatus("auditor", place.run).write("ok", "laws hold, views agree", lag_events=0)
    RoleStatus("projections", place.run).write("ok", "", lag_events=17, lag_s=0.4)
    said = words(auditor.get("/console/live").text)
    assert "All 8 laws hold" in said
    assert "projections ready 17 events 0.4 s" in said
    assert "sagas no word" in said

    breach = {"law": "1", "found_at": 1_291_161_600_000_000, "what": "a lamp too many", "key": "k"}
    mended = {**breach, "law": "7", "what": "a row too old", "wrong_now": False}
    place.found.parent.mkdir(parents=True)
    place.found.write_bytes(orjson.dumps(breach) + b"\n" + orjson.dumps(mended) + b"\n")
    said = words(auditor.get("/console/live").text)
    assert "1 of 8 laws is broken" in said
    assert "a lamp too many" in said
    assert "(right again)" in said

    word = place.run / "auditor.json"
    kept = word.read_bytes()
    word.write_bytes(orjson.dumps({**orjson.loads(kept), "at": 1_291_161_600_000_000}))
    place.found.unlink()
    said = words(auditor.get("/console/live").text)
    assert "Nobody knows: the auditor is silent" in said
    assert "laws hold" not in said.replace("laws hold, views agree", "")
    word.write_bytes(kept)


# Evidence; the form itself is filled in by a browser, in test_browser.py.


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    made = scene_in(tmp_path_factory.mktemp("scene"))
    for log in made.logs:
        log.tree.close()
    return made


async def test_a_verifier_that_takes_too_long_is_ended(scene: Scene):
    told = await verified(scene.bundles["sku"], SEALER.public, within_s=0.001)
    assert (told.standing, "takes longer" in told.lines[0]) == ("not verified", True)
