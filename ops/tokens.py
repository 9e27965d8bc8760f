"""Tokens for development: a key pair of this machine's own, bearer tokens signed with it, and other secrets beside it."""

import base64
import json
import secrets
import time
from pathlib import Path
from typing import Annotated

import jwt
import typer
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

from api.personal_keys import new_master
from api.security import ALGORITHM, AUDIENCE, ISSUER, Role, is_subject
from ops.key_files import keep_first, replace
from ops.settings import from_environment

HOUR_S = 3_600
DAYS_MAX_S = 30 * 24 * HOUR_S
WEBHOOK_SECRET_BYTES = 32


def ensure_keys(jwks: Path) -> None:
    """Make the JWKS file, and the private key (mode 600) beside it, unless they are there."""
    jwks.parent.mkdir(parents=True, exist_ok=True)
    private = jwks.with_name("tokens.pem")
    if not private.exists():
        keep_first(private, _pem(Ed25519PrivateKey.generate()))
    document = {"keys": [_public_jwk(_read(private))]}
    text = json.dumps(document, indent=1).encode()
    if not jwks.exists() or jwks.read_bytes() != text:
        replace(jwks, text)


def ensure_webhook_secret(path: Path) -> None:
    """Make the file (mode 600) with one secret, unless it is there. To rotate, add a line; remove the old one later."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        secret = base64.b64encode(secrets.token_bytes(WEBHOOK_SECRET_BYTES)).decode()
        keep_first(path, f"whsec_{secret}\n".encode())


def ensure_personal_key(path: Path) -> None:
    """Make the file (mode 600) with the master key of persons' keys, unless it is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        keep_first(path, new_master())


def issue(jwks: Path, role: Role, subject: str, *, backdate: bool = False, ttl_s: int = HOUR_S) -> str:
    """A token for `subject` that is good for `ttl_s` seconds; FileNotFoundError before `ensure_keys`."""
    key = _read(jwks.with_name("tokens.pem"))
    now = int(time.time())
    claims: dict[str, object] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": subject,
        "role": role,
        "iat": now,
        "exp": now + ttl_s,
    }
    if backdate:
        claims["backdate"] = True
    return jwt.encode(claims, key, ALGORITHM, headers={"kid": _public_jwk(key)["kid"]})


def token(
    role: Annotated[Role, typer.Option(help="What the bearer may do.")],
    subject: Annotated[str, typer.Option(help="Who the bearer is: a customer's or a merchant's id.")],
    *,
    backdate: Annotated[bool, typer.Option("--backdate", help="May send Daybook-Occurred-At.")] = False,
    ttl: Annotated[int, typer.Option(min=1, max=DAYS_MAX_S, help="Seconds until it expires.")] = HOUR_S,
) -> None:
    """Print a bearer token for development, signed with this machine's own key.

    It goes into a header: -H "Authorization: Bearer $(./daybook token --role merchant --subject anna)".
    """
    if not is_subject(subject):
        raise typer.BadParameter(
            "visible ASCII without blanks and slashes, at most 200", param_hint="--subject"
        )
    jwks = from_environment().jwks
    ensure_keys(jwks)
    typer.echo(issue(jwks, role, subject, backdate=backdate, ttl_s=ttl))


def _pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _read(private: Path) -> Ed25519PrivateKey:
    key = serialization.load_pem_private_key(private.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise TypeError(f"{private} holds no Ed25519 key; remove it to have a new one made")
    return key


def _public_jwk(key: Ed25519PrivateKey) -> dict[str, str]:
    """The public half; its `kid` is the first characters of the key itself, so that a new key has another."""
    jwk = json.loads(OKPAlgorithm.to_jwk(key.public_key()))
    return {**jwk, "kid": jwk["x"][:16], "alg": ALGORITHM, "use": "sig"}
