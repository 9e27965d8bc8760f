"""Frozen dataclasses made quickly are like those of the standard library in all but time."""

import inspect
from dataclasses import FrozenInstanceError, dataclass, fields, is_dataclass, replace

import pytest

from schemas.frozen import frozen


@frozen
class Whole:
    sku: str
    quantity: int = 1


@frozen
class Part(Whole):
    note: str = ""


@dataclass(frozen=True)
class Plain:
    sku: str
    quantity: int = 1


def test_it_has_the_signature_the_fields_and_the_defaults_of_a_dataclass():
    assert inspect.signature(Whole) == inspect.signature(Plain)
    assert [f.name for f in fields(Part)] == ["sku", "quantity", "note"]
    assert Part("A", note="n") == Part("A", 1, "n")
    assert is_dataclass(Whole)


def test_it_cannot_be_changed_and_can_be_replaced_compared_and_hashed():
    one = Whole("A")
    with pytest.raises(FrozenInstanceError):
        one.quantity = 2  # type: ignore[misc]
    assert replace(one, quantity=2) == Whole("A", 2)
    assert hash(one) == hash(Whole("A", 1))
    assert repr(one) == "Whole(sku='A', quantity=1)".replace("Whole", Whole.__qualname__)


def test_a_missing_or_unknown_argument_is_named():
    with pytest.raises(TypeError, match="sku"):
        Whole()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="colour"):
        Whole("A", colour="red")  # type: ignore[call-arg]
