"""Personal data: who ordered and how to reach them, in messages only ever as ciphertext (docs/adr/0020)."""

from typing import Annotated, TypeAlias

from schemas.frozen import frozen

PERSONAL = "daybook.personal"
"""Marks a field that speaks of a person; in the `.avsc` it is a property of the field."""

Personal: TypeAlias = Annotated[bytes, PERSONAL]
"""Ciphertext under a person's own key. No other field of a message may hold a person's name, e-mail or address."""

VEILED = "[personal]"
"""What is shown in place of such a field, to whomever."""


@frozen
class SealedContact:
    """How to reach whoever ordered. `key_id` names the key, which only the API holds; once that is destroyed, nobody
    reads the rest.
    """

    key_id: str
    name: Personal
    email: Personal
    address: Personal
