"""What a customer says of themselves: read by those who may, ciphertext to all others, and gone with its key."""

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from api.personal import ERASURES_LOOK_INTERVAL_S, PARTS, Vault
from api.personal_keys import KeysUnusable, PersonalKeys
from ops.tokens import ensure_personal_key
from schemas.cart import CheckOutCart
from schemas.personal import SealedContact
from tests.api.conftest import BEN, Window

CART = "7c0f6d9e-8f8e-5d6b-9a53-3b1a4f0c7d11"
HERE, ELSEWHERE = f"cart/{CART}", "cart/another"
CONTACT = {"name": "Ben Planted", "email": "ben@planted.test", "address": "1 Planted Row\nExampleton"}


@pytest.fixture
def open_keys(tmp_path: Path) -> Callable[[], PersonalKeys]:
    """The same store, as another process opens it."""
    ensure_personal_key(tmp_path / "master.key")
    return lambda: PersonalKeys(tmp_path / "personal", tmp_path / "master.key")


@pytest.fixture
def keys(open_keys: Callable[[], PersonalKeys]) -> PersonalKeys:
    return open_keys()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_what_is_sealed_is_opened_and_says_nothing_itself(keys: PersonalKeys):
    sealed = await Vault(keys).seal("ben", HERE, CONTACT)

    assert await Vault(keys).open("ben", HERE, sealed) == CONTACT
    assert not any(CONTACT[part].encode() in getattr(sealed, part) for part in PARTS)


async def test_the_same_said_again_is_the_same_bytes_and_anything_else_has_another_nonce(keys: PersonalKeys):
    sealed = await Vault(keys).seal("ben", HERE, CONTACT)
    others = [
        await Vault(keys).seal("ben", ELSEWHERE, CONTACT),
        await Vault(keys).seal("bea", HERE, CONTACT),
        await Vault(keys).seal("ben", HERE, CONTACT | {"name": "Ben Plantec"}),
    ]

    assert await Vault(keys).seal("ben", HERE, CONTACT) == sealed
    assert len({one.name[:12] for one in (sealed, *others)}) == 4
    assert len({getattr(sealed, part)[:12] for part in PARTS}) == 3


@pytest.mark.parametrize("moved", ["to another place", "to another person", "to another field", "changed"])
async def test_what_was_moved_or_changed_is_not_opened(keys: PersonalKeys, moved: str):
    vault = Vault(keys)
    sealed = await vault.seal("ben", HERE, CONTACT)
    person, place = "ben", HERE
    if moved == "to another place":
        place = ELSEWHERE
    elif moved == "to another person":
        person = "bea"
        sealed = replace(sealed, key_id=(await vault.seal("bea", HERE, CONTACT)).key_id)
    elif moved == "to another field":
        sealed = replace(sealed, name=sealed.email)
    else:
        sealed = replace(sealed, name=bytes([*sealed.name[:-1], sealed.name[-1] ^ 1]))

    with pytest.raises(InvalidTag):
        await vault.open(person, place, sealed)


async def test_with_its_key_a_contact_is_gone_and_who_comes_back_has_another(keys: PersonalKeys):
    before = await Vault(keys).seal("ben", HERE, CONTACT)
    bea = await Vault(keys).seal("bea", HERE, CONTACT)
    erasure = keys.destroy("ben")
    again = await Vault(keys).seal("ben", HERE, CONTACT)

    assert erasure is not None
    assert erasure.key_id == before.key_id
    assert (keys.erasures_of("ben"), keys.erasures_of("bea")) == ([erasure], [])
    assert await Vault(keys).open("ben", HERE, before) is None
    assert await Vault(keys).open("ben", HERE, again) == CONTACT
    assert await Vault(keys).open("bea", HERE, bea) == CONTACT
    assert keys.destroy("nobody") is None


async def test_another_process_obeys_an_erasure_within_half_a_second(open_keys: Callable[[], PersonalKeys]):
    clock = Clock()
    vault = Vault(open_keys(), clock)
    sealed = await vault.seal("ben", HERE, CONTACT)
    open_keys().destroy("ben")
    clock.now += ERASURES_LOOK_INTERVAL_S

    assert await vault.open("ben", HERE, sealed) is None


def test_a_restored_store_obeys_what_was_erased_since(open_keys: Callable[[], PersonalKeys], tmp_path: Path):
    keys, file = open_keys(), tmp_path / "personal" / "keys.db"
    keys.key_for("ben")
    kept = keys.key_for("bea")
    keys.close()
    backup = file.read_bytes()
    open_keys().destroy("ben")
    file.write_bytes(backup)

    restored = open_keys()
    assert restored.key_of("ben") is None
    assert restored.key_of("bea") == kept


def test_a_destroyed_key_leaves_no_bytes_and_a_copy_of_the_store_opens_nothing_by_itself(
    open_keys: Callable[[], PersonalKeys], tmp_path: Path
):
    keys, file = open_keys(), tmp_path / "personal" / "keys.db"
    secret = keys.key_for("ben").secret
    with sqlite3.connect(file) as db:
        ((wrapped,),) = db.execute("SELECT wrapped FROM keys").fetchall()
    assert wrapped in file.read_bytes()
    assert secret not in file.read_bytes()

    keys.destroy("ben")
    assert not any(wrapped in each.read_bytes() for each in file.parent.iterdir())


def test_without_the_right_master_key_it_says_so(open_keys: Callable[[], PersonalKeys], tmp_path: Path):
    open_keys().key_for("ben")
    (tmp_path / "master.key").unlink()
    with pytest.raises(KeysUnusable, match=r"there is no .*master\.key"):
        open_keys().key_of("ben")

    ensure_personal_key(tmp_path / "master.key")
    with pytest.raises(KeysUnusable, match="another master key"):
        open_keys().key_of("ben")


async def test_a_checkout_is_encrypted_before_it_goes_anywhere_and_a_retry_is_the_same_command(
    window: Window,
):
    body = {"payment_token": "tok_ok", "contact": CONTACT}
    for _ in range(2):
        await window.ask("POST", f"/v1/carts/{CART}/checkout", body, by=BEN, idempotency_key="once")
    other = body | {"contact": CONTACT | {"name": "Ben Plantec"}}
    await window.ask("POST", f"/v1/carts/{CART}/checkout", other, by=BEN, idempotency_key="once")

    first, second, third = window.writer.commands
    assert isinstance(first, CheckOutCart)
    assert isinstance(first.contact, SealedContact)
    assert first == second != third
    assert await window.app.state.vault.open("ben", HERE, first.contact) == CONTACT
    one, two, three = (meta.fingerprint for meta in window.writer.metas)
    assert one == two != three


async def test_without_a_contact_a_checkout_is_the_command_that_it_ever_was(window: Window):
    for body in ({"payment_token": "tok_ok"}, {"payment_token": "tok_ok", "contact": None}):
        await window.ask("POST", f"/v1/carts/{CART}/checkout", body, by=BEN, idempotency_key="once")

    assert window.writer.commands == [CheckOutCart(CART, "tok_ok")] * 2
    # As a release without contacts had it, so that a retry across the two is the same command.
    said = f'POST\n/v1/carts/{CART}/checkout\n{{"payment_token":"tok_ok"}}'
    assert {meta.fingerprint for meta in window.writer.metas} == {sha256(said.encode()).hexdigest()}


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "Ben\nPlanted"},
        {"name": "x" * 201},
        {"email": "ben.planted.test"},
        {"email": "ben planted@test"},
        {"address": "x" * 501},
        {"address": "\x00"},
        {"phone": "123"},
        {"name": 7},
    ],
)
async def test_a_contact_that_is_none_is_refused_without_being_repeated(
    window: Window, wrong: dict[str, object]
):
    body = {"payment_token": "tok_ok", "contact": CONTACT | wrong}
    answered = await window.ask("POST", f"/v1/carts/{CART}/checkout", body, by=BEN)

    assert (answered.status, window.writer.asked) == (422, [])
    assert not any(said.encode() in answered.body for said in ("Planted", "planted.test", "xxx"))


async def test_where_keys_cannot_be_used_nothing_is_sent(window: Window, tmp_path: Path):
    window.app.state.vault = Vault(PersonalKeys(tmp_path / "personal", tmp_path / "nowhere"))
    body = {"payment_token": "tok_ok", "contact": CONTACT}
    answered = await window.ask("POST", f"/v1/carts/{CART}/checkout", body, by=BEN)

    assert (answered.status, answered.type, window.writer.asked) == (503, "keys-unavailable", [])


@given(
    contact=st.fixed_dictionaries({part: st.text(max_size=30) for part in PARTS}), person=st.text(max_size=9)
)
async def test_whatever_is_said_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, contact: dict[str, str], person: str
):
    folder = tmp_path_factory.getbasetemp() / "any"
    ensure_personal_key(folder / "master.key")
    vault = Vault(PersonalKeys(folder / "personal", folder / "master.key"))

    assert await vault.open(person, HERE, await vault.seal(person, HERE, contact)) == contact
