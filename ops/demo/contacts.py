"""Invented people: the retailer's data has no names, and a shop without any would not show that it can forget them."""

from hashlib import sha256
from typing import TypeAlias

Contact: TypeAlias = dict[str, str]

_FIRST = ("Ada", "Basil", "Cora", "Dexter", "Edith", "Felix", "Greta", "Hugo")
_LAST = ("Sample", "Example", "Placeholder", "Specimen", "Dummy", "Pattern", "Model", "Standin")
_STREETS = ("Sample Street", "Example Road", "Placeholder Lane", "Specimen Close")


def contact_of(customer: str) -> Contact:
    """Always the same of the same customer, and nobody's: `.test` is no domain that mail goes to."""
    first, last, street, number = sha256(customer.encode()).digest()[:4]
    return {
        "name": f"{_FIRST[first % len(_FIRST)]} {_LAST[last % len(_LAST)]}",
        "email": f"{customer}@example.test",
        "address": f"{1 + number} {_STREETS[street % len(_STREETS)]}\nExampleton",
    }
