"""The language: each word said once, and every message knows whose it is."""

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any
from uuid import UUID, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.avro import AVSC, as_text, schema_of
from schemas.language import AGGREGATES, META_OF, Aggregate
from schemas.meta import _DAYBOOK, derived_id, event_id
from schemas.personal import PERSONAL
from schemas.resolution import samples_of
from tests.messages import instances

KINDS = {"catalog": "product"}
"""The first word of a stream, where it is not the aggregate's name."""

every_aggregate = pytest.mark.parametrize("aggregate", AGGREGATES.values(), ids=AGGREGATES)


@given(st.lists(st.text(max_size=50), min_size=1, max_size=5))
def test_a_derived_id_is_a_uuid_version_5(causes: list[str]):
    expected = uuid5(UUID(bytes=_DAYBOOK), "\x1f".join(causes))
    assert derived_id(*causes) == str(expected)


def test_the_same_causes_name_the_same_thing_and_others_another():
    assert derived_id("order", "1") == derived_id("order", "1")
    assert len({derived_id("ab", "c"), derived_id("a", "bc"), derived_id("abc"), derived_id("c", "ab")}) == 4
    assert event_id("c", 0) == derived_id("c", "0") != event_id("c", 1)


def test_every_message_class_has_a_name_of_its_own():
    names = [message.__name__ for message in META_OF]
    assert len(names) == len(set(names))


@every_aggregate
def test_no_class_is_listed_twice(aggregate: Aggregate):
    listed = (*aggregate.commands, *aggregate.events, *aggregate.states)
    assert len(listed) == len(set(listed))
    assert aggregate.commands
    assert aggregate.events
    assert aggregate.states


@every_aggregate
@given(data=st.data())
def test_every_command_and_event_names_its_stream(aggregate: Aggregate, data: st.DataObject):
    message = data.draw(st.sampled_from((*aggregate.commands, *aggregate.events)))
    drawn = data.draw(instances(message).filter(_has_what_it_is_about))
    if aggregate.name == "inventory":
        assert drawn.stream.startswith("stock/")
        assert drawn.stream.endswith(f"/{drawn.location}")
    else:
        whose = next(iter(vars(drawn).values()))  # the first field is the aggregate's id
        assert drawn.stream == f"{KINDS.get(aggregate.name, aggregate.name)}/{whose}"


@pytest.mark.parametrize("message", META_OF, ids=lambda message: message.__name__)
def test_a_message_is_a_frozen_dataclass_that_hides_no_word_of_the_envelope(message: type):
    assert is_dataclass(message)
    assert message.__dataclass_params__.frozen  # type: ignore[attr-defined]  # dataclasses document it
    assert not {field.name for field in fields(message)} & {"meta", "version", "hash"}


@pytest.mark.parametrize("message", META_OF, ids=lambda message: message.__name__)
def test_the_checked_in_schema_is_what_the_class_says(message: type):
    assert (AVSC / f"{message.__name__}.avsc").read_text("utf-8") == as_text(schema_of(message))


@pytest.mark.parametrize("message", META_OF, ids=lambda message: message.__name__)
def test_no_list_has_items_without_size(message: type):
    """A few spoilt bytes could claim 2^62 of them, and no end of input would stop the reader."""
    assert not any(_is_empty(item) for item in _items(samples_of(schema_of(message))[1]))


NAMES_OF_PEOPLE = re.compile(r"name|e_?mail|address|phone|street|city|birth|person", re.IGNORECASE)
NAMES_OF_GOODS = {"PublishProduct", "ProductPublished", "ProductChanged", "PublishedProduct", "RetiredProduct"} | {
    "CartItem", "ItemAddedToCart", "PricedLine"
}  # fmt: skip
"""Their `name` is a product's."""


def test_what_speaks_of_a_person_is_marked_and_is_ciphertext():
    """Whoever adds such a field to a message finds out here what becomes of people who want to be forgotten."""
    speaking = {
        (record["name"], field["name"]): field
        for message in META_OF
        for record in _records(schema_of(message))
        for field in record["fields"]
        if NAMES_OF_PEOPLE.search(field["name"]) and record["name"] not in NAMES_OF_GOODS
    }
    assert sorted(speaking) == [("SealedContact", part) for part in ("address", "email", "name")]
    assert all(field["type"] == "bytes" and field[PERSONAL] is True for field in speaking.values())


def test_nothing_else_is_marked():
    marked = {
        (record["name"], field["name"])
        for message in META_OF
        for record in _records(schema_of(message))
        for field in record["fields"]
        if field.get(PERSONAL)
    }
    assert marked == {("SealedContact", part) for part in ("address", "email", "name")}


def _records(schema: Any) -> Iterator[Any]:
    """Every record that a schema defines, itself among them."""
    if isinstance(schema, list):
        for branch in schema:
            yield from _records(branch)
    if isinstance(schema, dict):
        if schema["type"] == "record":
            yield schema
        for inner in (schema.get("items"), *(field["type"] for field in schema.get("fields", ()))):
            yield from _records(inner)


def _has_what_it_is_about(drawn: Any) -> bool:
    """A command about lines is never sent without any."""
    return bool(getattr(drawn, "lines", True))


def _items(datum: Any) -> list[Any]:
    if isinstance(datum, dict):
        return [item for inner in datum.values() for item in _items(inner)]
    return [*datum, *(item for inner in datum for item in _items(inner))] if isinstance(datum, list) else []


def _is_empty(item: Any) -> bool:
    return item is None or item == {}
