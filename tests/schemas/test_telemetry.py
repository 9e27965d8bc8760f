"""What a process writes about itself: one JSON object per line, in UTC, and never a secret."""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from schemas.telemetry import (
    MASKED,
    child_traceparent,
    configure,
    is_traceparent,
    mask_secrets,
    new_traceparent,
    trace_id,
)

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
JWT = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiIxMzA0NyJ9.c2lnbmF0dXJl"
PEM = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n-----END PRIVATE KEY-----"


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level


def test_a_line_is_json_with_role_level_and_utc_time(capsys: pytest.CaptureFixture[str]):
    configure("api", {})
    structlog.get_logger().warning("kafka is slow", took_ms=1_200)
    line = only_line(capsys)
    assert line | {"at": ""} == {
        "event": "kafka is slow", "took_ms": 1_200, "role": "api", "level": "warning", "at": "",
    }  # fmt: skip
    assert abs(datetime.now(UTC) - datetime.fromisoformat(line["at"])) < timedelta(minutes=1)


def test_a_library_s_own_lines_look_the_same(capsys: pytest.CaptureFixture[str]):
    configure("sagas", {})
    logging.getLogger("faust.worker").error("Bearer %s is no good", JWT)
    line = only_line(capsys)
    assert (line["event"], line["logger"], line["level"]) == (f"{MASKED} is no good", "faust.worker", "error")


def test_a_line_with_control_characters_stays_one_harmless_line(capsys: pytest.CaptureFixture[str]):
    configure("", {})
    structlog.get_logger().info("a\nb", sku="\x1b[31m85123A\r\n")
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    assert "\x1b" not in written


@pytest.mark.parametrize(("level", "written"), [("", 2), ("debug", 3), ("ERROR", 1)])
def test_the_environment_says_how_much_is_written(
    level: str, written: int, capsys: pytest.CaptureFixture[str]
):
    configure("api", {"DAYBOOK_LOG": level})
    log = structlog.get_logger()
    log.debug("d")
    log.info("i")
    log.error("e")
    assert len(capsys.readouterr().err.splitlines()) == written


def test_a_level_that_is_none_is_refused():
    with pytest.raises(ValueError, match="DAYBOOK_LOG is 'loud', not one of debug, info"):
        configure("api", {"DAYBOOK_LOG": "loud"})


@pytest.mark.parametrize(
    "name",
    [
        "token",
        "payment_token",
        "Authorization",
        "client_secret",
        "private_key",
        "key_material",
        "jwks",
        "pem",
    ],
)
@pytest.mark.parametrize("value", ["x", b"x", 12_345, ["x"], {"a": "x"}])
def test_what_is_secret_by_name_is_masked(name: str, value: Any):
    assert masked({name: value, "sku": "85123A"}) == {name: MASKED, "sku": "85123A"}
    assert masked({"headers": {"deep": [{name: value}]}}) == {"headers": {"deep": [{name: MASKED}]}}


@pytest.mark.parametrize(
    "secret", [f"Bearer {JWT}", JWT, "tok_ok", "tok_timeout_after_success", PEM, PEM[:40]]
)
@given(before=st.sampled_from(["", "sent ", "a=", "\n"]), after=st.sampled_from(["", " end"]))
def test_what_looks_secret_is_masked_wherever_it_stands(secret: str, before: str, after: str):
    found = json.dumps(
        masked({"event": f"{before}{secret}{after}", "more": [{"why": secret}], "raw": secret.encode()})
    )
    assert secret.partition(" ")[2] not in found or not secret.partition(" ")[2]
    assert JWT not in found
    assert "tok_" not in found
    assert "BEGIN" not in found


def test_a_traceback_shows_no_secret_and_no_local_variable(capsys: pytest.CaptureFixture[str]):
    configure("api", {})

    def fail(about: str) -> None:
        local = about[::-1]
        raise ValueError(f"cannot use {JWT}", len(local))

    try:
        fail("nwohs eb ot reven")
    except ValueError:
        structlog.get_logger().exception("failed")
    written = capsys.readouterr().err
    assert "ValueError" in written
    assert JWT not in written
    assert "never to be shown" not in written


def test_what_is_no_secret_stays():
    event = {"key": "85123A", "event_id": "e", "idempotency": 1, "lag_s": 0.5, "ok": True, "none": None}
    assert masked(event) == event


def test_what_is_nested_without_end_is_cut_off():
    endless: dict[str, Any] = {}
    endless["more"] = endless
    assert MASKED in json.dumps(masked({"event": endless}))


@pytest.mark.parametrize("text", [TRACEPARENT, TRACEPARENT[:-2] + "00"])
def test_a_traceparent_is_known(text: str):
    assert is_traceparent(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        TRACEPARENT.upper(),
        TRACEPARENT + "\n",
        TRACEPARENT + "-00",
        TRACEPARENT.replace("00-", "ff-", 1),
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
        TRACEPARENT.replace("4", "g", 1),
        TRACEPARENT[1:],
    ],
)
def test_what_is_no_traceparent_is_told_apart(text: str):
    assert not is_traceparent(text)
    assert trace_id(text) == ""
    assert is_traceparent(child_traceparent(text))


def test_a_new_trace_is_new_and_a_child_belongs_to_it():
    first = new_traceparent()
    child = child_traceparent(first)

    assert is_traceparent(first)
    assert first != new_traceparent()
    assert is_traceparent(child)
    assert trace_id(child) == trace_id(first) != ""
    assert child[36:52] != first[36:52]
    assert child_traceparent(TRACEPARENT[:-2] + "00").endswith("-00")  # not sampled stays not sampled


def masked(event: dict[str, Any]) -> dict[str, Any]:
    return dict(mask_secrets(None, "", event))


def only_line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    (line,) = capsys.readouterr().err.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found
