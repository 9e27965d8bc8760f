"""The gate: planted changes are caught, and what was ever released is still read."""

import json
import shutil
import subprocess
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from schemas import compatibility
from schemas.avro import RELEASED, as_text, fingerprint_of, released_files
from schemas.codec import Codec
from schemas.compatibility import SUMS, Today, begin_again, complaints, release
from schemas.inventory import StockAdjusted
from schemas.resolution import encode_sample, samples_of, unreadable
from schemas.upcasting import UPCASTS
from tests.messages import EVENT

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def released(tmp_path: Path) -> Path:
    return Path(shutil.copytree(RELEASED, tmp_path / "released"))


def test_the_gate_is_open_for_this_code():
    assert complaints(Today.of_this_code()) == []


def test_the_gate_is_a_command(capsys: pytest.CaptureFixture[str]):
    assert compatibility.main([]) == 0
    assert "compatible both ways" in capsys.readouterr().out
    assert compatibility.main(["relaese"]) == 2


def field(schema: dict[str, Any], name: str) -> dict[str, Any]:
    return next(f for f in schema["fields"] if f["name"] == name)


def remove_a_field(schema: dict[str, Any]) -> None:
    schema["fields"].remove(field(schema, "quantity"))


def add_a_field_without_default(schema: dict[str, Any]) -> None:
    schema["fields"].append({"name": "shelf", "type": "string"})


def add_a_nullable_field_without_default(schema: dict[str, Any]) -> None:
    schema["fields"].append({"name": "shelf", "type": ["null", "string"]})


def rename_a_field(schema: dict[str, Any]) -> None:
    field(schema, "quantity")["name"] = "units"


def change_a_type(schema: dict[str, Any]) -> None:
    field(schema, "quantity")["type"] = "string"


def change_a_type_as_avro_would_allow(schema: dict[str, Any]) -> None:
    field(schema, "sku")["type"] = "bytes"


def make_a_field_optional(schema: dict[str, Any]) -> None:
    field(schema, "quantity").update(type=["null", "long"], default=None)


def drop_a_logical_type(schema: dict[str, Any]) -> None:
    field(schema, "expires_at")["type"] = "long"


def count_in_milliseconds(schema: dict[str, Any]) -> None:
    field(schema, "expires_at")["type"]["logicalType"] = "timestamp-millis"


def change_a_logical_type_among_other_changes(schema: dict[str, Any]) -> None:
    """The fingerprint changes too, so that the comparison of whole texts does not apply."""
    drop_a_logical_type(schema)
    schema["fields"].append({"name": "shelf", "type": "string", "default": ""})


def rename_a_field_of_the_meta(schema: dict[str, Any]) -> None:
    field(field(schema, "meta")["type"], "event_id")["name"] = "id"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (remove_a_field, "its readers cannot read what is written today"),
        (
            add_a_field_without_default,
            "no upcast says how: StockReserved.shelf is missing and has no default",
        ),
        (add_a_nullable_field_without_default, "StockReserved.shelf is missing and has no default"),
        (rename_a_field, "StockReserved.units is missing"),
        (change_a_type, "StockReserved.quantity is long, not string"),
        (change_a_type_as_avro_would_allow, "StockReserved.sku is string, not bytes"),
        (make_a_field_optional, "its readers cannot read what is written today"),
        (drop_a_logical_type, "same fingerprint, other logical types or defaults"),
        (count_in_milliseconds, "same fingerprint, other logical types or defaults"),
        (change_a_logical_type_among_other_changes, "expires_at is timestamp-micros, not long"),
        (rename_a_field_of_the_meta, "StockReserved.meta.id is missing"),
    ],
    ids=lambda given: getattr(given, "__name__", ""),
)
def test_an_incompatible_change_is_caught(change: Change, complaint: str, released: Path):
    found = complaints(changed("StockReserved", change), released)
    assert [line for line in found if complaint in line and line.startswith("StockReserved.")], found


def test_a_default_that_went_missing_is_caught(released: Path):
    def forget_the_default(schema: dict[str, Any]) -> None:
        del field(schema, "corrects")["default"]

    found = complaints(changed("StockAdjusted", forget_the_default), released)
    assert any("same fingerprint, other logical types or defaults" in line for line in found)


@pytest.mark.parametrize("renamed", ["StockAdjusted", "Decisions", "OpenCart", "ReserveStock"])
def test_a_message_that_went_missing_or_was_renamed_is_caught(renamed: str, released: Path):
    today = dict(Today.of_this_code().schemas)
    today["Renamed"] = today.pop(renamed) | {"name": "Renamed"}
    assert any("no class of today reads it" in line for line in complaints(Today(today), released))


def test_a_new_field_with_a_default_passes_both_ways(released: Path):
    def add_a_field(schema: dict[str, Any]) -> None:
        schema["fields"].append({"name": "shelf", "type": ["null", "string"], "default": None})

    found = complaints(changed("StockReserved", add_a_field), released)
    assert found == ["StockReserved: avsc/ is not what the class says; run `python -m schemas.avro`"]


def test_checked_in_schemas_that_are_not_derived_are_caught(released: Path):
    found = complaints(changed("Payment", lambda schema: schema.update(doc="by hand")), released)
    assert "Payment: avsc/ is not what the class says; run `python -m schemas.avro`" in found


def test_a_released_file_that_was_deleted_is_caught(released: Path):
    victim = next(released.glob("StockReserved.*"))
    victim.unlink()
    assert complaints(Today.of_this_code(), released) == [f"{victim.name}: released, and deleted since"]
    release(Today.of_this_code(), released)  # derives the same file again, word for word
    assert complaints(Today.of_this_code(), released) == []


def test_a_released_file_that_was_edited_is_caught_and_a_release_does_not_bless_it(released: Path):
    victim = next(released.glob("StockReserved.*"))
    victim.write_text(victim.read_text().replace("timestamp-micros", "timestamp-millis"))
    release(Today.of_this_code(), released)
    assert f"{victim.name}: is not what was released ({SUMS})" in complaints(Today.of_this_code(), released)


def test_a_released_file_under_another_fingerprint_is_caught(released: Path):
    victim = next(released.glob("StockReserved.*"))
    moved = victim.rename(released / "StockReserved.0123456789abcdef.avsc")
    (released / SUMS).write_text((released / SUMS).read_text().replace(victim.name, moved.name))
    assert f"{moved.name}: its fingerprint is another" in complaints(Today.of_this_code(), released)


def test_a_file_rewritten_together_with_its_sum_is_caught_by_the_tag(released: Path):
    git(released, "init", "-q")
    git(released, "add", ".")
    git(released, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "released")
    git(released, "tag", "v1")
    (released / SUMS).unlink()
    victim = next(released.glob("StockReserved.*"))
    victim.unlink()
    today = changed("StockReserved", add_a_field_without_default)

    release(today, released)

    assert f"{victim.name}: not as v1 released it" in complaints(today, released)
    with pytest.raises(SystemExit, match="There is a release"):
        begin_again(released)


def test_before_the_first_tag_the_released_set_may_begin_again(released: Path):
    today = changed("StockReserved", rename_a_field)
    assert any("StockReserved.units" in line for line in complaints(today, released))

    begin_again(released)
    release(today, released)

    assert [line for line in complaints(today, released) if "avsc/" not in line] == []
    assert UPCASTS.keys() <= released_files(released).keys()


def test_a_release_adds_what_is_new_and_touches_nothing_else(released: Path):
    before = {file.name: file.read_bytes() for file in released.glob("*.avsc")}
    today = changed("StockReserved", add_a_field_without_default)
    fingerprint = fingerprint_of(today.schemas["StockReserved"]).hex()

    assert release(today, released) == [f"StockReserved.{fingerprint}.avsc"]
    assert release(today, released) == []
    assert before.items() <= {file.name: file.read_bytes() for file in released.glob("*.avsc")}.items()


def test_a_note_about_a_shape_that_was_never_released_is_caught(released: Path):
    (message, fingerprint), file = next((s, f) for s, f in released_files(released).items() if s in UPCASTS)
    file.unlink()
    expected = f"{message}.{fingerprint}: described in schemas/upcasting.py, and was never released"
    assert expected in complaints(Today.of_this_code(), released)


def test_old_readers_may_be_given_up_only_with_a_note(released: Path, monkeypatch: pytest.MonkeyPatch):
    today = changed("StockReserved", remove_a_field)
    shape = next(shape for shape in released_files(released) if shape[0] == "StockReserved")
    assert any("nobody was told" in line for line in complaints(today, released))

    monkeypatch.setattr(
        compatibility, "OLD_READERS_MUST_GO", {shape: "told on 2011-01-04: load the new .avsc"}
    )

    assert not any("nobody was told" in line for line in complaints(today, released))


@pytest.mark.parametrize(
    "upcast",
    [lambda datum: datum, lambda datum: datum | {"reason": None, "corrects": None}, lambda datum: datum["x"]],
    ids=["sets nothing", "sets another type", "trips"],
)
def test_an_upcast_that_does_not_reach_todays_shape_is_caught(upcast: Any, monkeypatch: pytest.MonkeyPatch):
    broken = dict.fromkeys(UPCASTS, upcast)
    monkeypatch.setattr("schemas.codec.UPCASTS", broken)
    assert any("its upcast does not yield" in line for line in complaints(Today.of_this_code()))


def test_an_old_shape_without_its_upcast_is_caught(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compatibility, "UPCASTS", {})
    found = complaints(Today.of_this_code())
    assert any("no upcast says how: StockAdjusted.reason is missing" in line for line in found)


def test_an_adjustment_from_before_there_were_reasons_is_read_with_its_note_and_no_guessed_reason():
    ((_, fingerprint),) = (shape for shape in UPCASTS if shape[0] == "StockAdjusted")
    schema = json.loads((RELEASED / f"StockAdjusted.{fingerprint}.avsc").read_text())
    today = StockAdjusted("85123A", "main", 90, 1, 2, 3, 100, 90, "unknown", "broken in transit?", None)
    unwritten = {"reason", "corrects"}
    datum = {name: value for name, value in vars(today).items() if name not in unwritten} | {
        "meta": vars(EVENT)
    }

    decoded = Codec().decode(encode_sample(schema, datum))  # learned from nobody: released schemas are known

    assert (decoded.meta, decoded.body) == (EVENT, today)


def test_whatever_the_gate_calls_readable_fastavro_reads():
    """The gate compares schemas; here Avro itself resolves data, for each change that may pass."""
    codec = Codec()
    for schema in Today.of_this_code().schemas.values():
        wider = deepcopy(schema)
        wider["fields"].insert(1, {"name": "added", "type": ["null", "string"], "default": None})
        assert unreadable(schema, wider) == unreadable(wider, schema) == []
        codec.learn(wider)
        for sample in samples_of(wider):
            del (expected := dict(sample))["added"]
            assert codec.decode(encode_sample(wider, sample)) == codec.decode(encode_sample(schema, expected))


def changed(message: str, change: Change) -> Today:
    """Today's schemas, one of them changed."""
    schemas = deepcopy(dict(Today.of_this_code().schemas))
    before = as_text(schemas[message])
    change(schemas[message])
    assert as_text(schemas[message]) != before
    return Today(schemas)


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True, timeout=120)
