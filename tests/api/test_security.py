"""Who acts is verified: tokens that are ours and nobody else's, roles, and what belongs to somebody else."""

import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from api.problems import UnauthorizedError
from api.security import VERIFIED_MAX, Keys, Principal, Verifier
from ops import tokens
from tests.api.conftest import Window

CART = "7c0f6d9e-8f8e-5d6b-9a53-3b1a4f0c7d11"


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    tokens.ensure_keys(path)
    return path


def private_key(jwks: Path) -> Any:
    return load_pem_private_key(jwks.with_name("tokens.pem").read_bytes(), None)


def kid(jwks: Path) -> str:
    return str(jwt.get_unverified_header(tokens.issue(jwks, "customer", "ben"))["kid"])


def claims(**changed: object) -> dict[str, Any]:
    usual = {
        "iss": "daybook",
        "aud": "daybook-api",
        "sub": "ben",
        "role": "customer",
        "exp": time.time() + 60,
    }
    return {name: value for name, value in (usual | changed).items() if value is not None}


def test_a_token_of_ours_says_who_its_bearer_is(jwks: Path):
    token = tokens.issue(jwks, "merchant", "anna", backdate=True)

    assert Verifier(Keys(jwks)).principal_of(token) == Principal("anna", "merchant", backdate=True)


def test_the_private_key_is_its_owners_alone_and_is_made_once(jwks: Path):
    before = jwks.read_bytes()
    tokens.ensure_keys(jwks)

    assert jwks.with_name("tokens.pem").stat().st_mode & 0o777 == 0o600
    assert jwks.read_bytes() == before
    assert b'"d"' not in before


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "somebody"},
        {"iss": None},
        {"aud": "other-api"},
        {"aud": None},
        {"exp": time.time() - 60},
        {"exp": None},
        {"nbf": time.time() + 86_400},
        {"sub": None},
        {"sub": ""},
        {"sub": "a/b"},
        {"sub": 7},
        {"role": "king"},
        {"role": None},
        {"role": ["customer"]},
    ],
)
def test_a_token_with_a_wrong_claim_is_refused(jwks: Path, changed: dict[str, object]):
    token = jwt.encode(claims(**changed), private_key(jwks), "EdDSA", headers={"kid": kid(jwks)})

    with pytest.raises(UnauthorizedError):
        Verifier(Keys(jwks)).principal_of(token)


def forged(jwks: Path) -> list[str]:
    public = private_key(jwks).public_key().public_bytes_raw()
    good = tokens.issue(jwks, "customer", "ben")
    head, body, signature = good.split(".")
    return [
        jwt.encode(claims(), Ed25519PrivateKey.generate(), "EdDSA", headers={"kid": kid(jwks)}),
        jwt.encode(claims(), Ed25519PrivateKey.generate(), "EdDSA", headers={"kid": "another"}),
        jwt.encode(claims(), private_key(jwks), "EdDSA"),
        jwt.encode(claims(), public, "HS256", headers={"kid": kid(jwks)}),
        jwt.encode(claims(), "", "none", headers={"kid": kid(jwks)}),
        f"{head}.{body}.{signature[::-1]}",
        f"{head}.{body[:-2]}.{signature}",
        "x",
        "..",
        "é.é.é",
        "a" * 10_000,
    ]


def test_no_forgery_is_taken(jwks: Path):
    verifier = Verifier(Keys(jwks))
    verifier.principal_of(tokens.issue(jwks, "customer", "ben"))
    for token in forged(jwks):
        with pytest.raises(UnauthorizedError):
            verifier.principal_of(token)


def test_a_token_is_believed_without_asking_again_until_it_expires(
    jwks: Path, monkeypatch: pytest.MonkeyPatch
):
    clock = Clock(time.time())
    verifier = Verifier(Keys(jwks), clock)
    token = tokens.issue(jwks, "customer", "ben", ttl_s=30)
    verifier.principal_of(token)

    def asked_again(*_: object) -> None:
        raise UnauthorizedError("asked again")

    monkeypatch.setattr(verifier, "_claims", asked_again)
    clock.now += 29
    assert verifier.principal_of(token).subject == "ben"
    clock.now += 1
    with pytest.raises(UnauthorizedError, match="asked again"):
        verifier.principal_of(token)


def test_remembered_tokens_are_bounded(jwks: Path):
    verifier = Verifier(Keys(jwks))
    verifier.principal_of(tokens.issue(jwks, "customer", "ben"))
    for n in range(VERIFIED_MAX):
        verifier._remember(bytes([n % 256, n // 256]), 0.0, Principal("x", "customer", backdate=False))

    assert len(verifier._verified) == VERIFIED_MAX


def test_a_key_taken_out_of_the_file_stops_counting(jwks: Path):
    clock = Clock(0)
    verifier = Verifier(Keys(jwks, clock))
    token = tokens.issue(jwks, "customer", "ben")
    verifier.principal_of(token)
    jwks.write_text('{"keys": []}')
    clock.now += 1.1

    with pytest.raises(UnauthorizedError):
        verifier.principal_of(token)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"keys": [{"kty": "OKP", "kid": "k", "crv": "Ed25519", "x": "!"}]}']
)
def test_a_broken_key_file_lets_nobody_in_and_heals(jwks: Path, content: str):
    clock = Clock(0)
    verifier, good = Verifier(Keys(jwks, clock)), jwks.read_text()
    token = tokens.issue(jwks, "customer", "ben")
    jwks.write_text(content)
    with pytest.raises(UnauthorizedError):
        verifier.principal_of(token)
    jwks.write_text(good)
    clock.now += 1.1

    assert verifier.principal_of(token).subject == "ben"


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer ", "Basic YTpi", "Bearer x.y.z"])
async def test_without_a_good_token_nobody_is_asked(window: Window, authorization: str | None):
    answered = await window.ask("POST", "/v1/carts", {}, authorization=authorization)

    assert (answered.status, answered.type) == (401, "unauthorized")
    assert answered.headers["www-authenticate"] == "Bearer"
    assert window.writer.asked == []


@pytest.mark.parametrize(
    ("method", "path", "body", "role"),
    [
        ("PUT", "/v1/products/A", {"name": "a", "price": 1, "currency": "GBP"}, "customer"),
        ("DELETE", "/v1/products/A", None, "auditor"),
        ("POST", "/v1/inventory/A/receipts", {"document": "d", "quantity": 1}, "customer"),
        ("POST", "/v1/inventory/A/adjustments", {"delta": 1, "reason": "found"}, "operator"),
        ("PUT", "/v1/inventory/A/policy", {"safety_stock": 1, "low_stock_at": 1}, "analyst"),
        ("GET", "/v1/inventory/A/history", None, "customer"),
        ("POST", "/v1/carts", {}, "merchant"),
        ("GET", f"/v1/carts/{CART}", None, "merchant"),
        ("POST", f"/v1/carts/{CART}/checkout", {"payment_token": "t"}, "auditor"),
        ("POST", f"/v1/orders/{CART}/shipment", {}, "customer"),
        ("POST", f"/v1/orders/{CART}/cancellation", {}, "auditor"),
        ("GET", f"/v1/orders/{CART}", None, "analyst"),
    ],
)
async def test_a_wrong_role_is_a_403(window: Window, method, path, body, role):
    answered = await window.ask(method, path, body, by=(role, "x"))

    assert (answered.status, answered.type) == (403, "forbidden")
    assert window.writer.asked == []
