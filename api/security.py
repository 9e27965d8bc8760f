"""Who calls: bearer tokens, verified against the public keys of a JWKS file that may change while we run."""

import json
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, cast, get_args

import jwt
import structlog
from fastapi import Request
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase

from api.problems import ForbiddenError, UnauthorizedError

ISSUER = "daybook"
AUDIENCE = "daybook-api"
ALGORITHM = "EdDSA"

Role = Literal["customer", "merchant", "auditor", "analyst", "operator"]

LEEWAY_S = 5
JWKS_BYTES_MAX = 65_536
JWKS_LOOK_INTERVAL_S = 1.0
TOKEN_CHARS_MAX = 4_096
SUBJECT_CHARS_MAX = 200
VERIFIED_MAX = 4_096
VERIFIED_FOR_S = 60.0
"""A verified token is believed for so long without asking again (a verification costs 0.1 ms): a key that is taken
out of the file stops counting at once all the same, since every change of the file empties the cache."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Principal:
    """A verified caller. `backdate`: may say when a thing happened."""

    subject: str
    role: Role
    backdate: bool

    @property
    def name(self) -> str:
        """Unlike the subject alone it names one caller: the merchant anna is not the customer anna."""
        return f"{self.role}/{self.subject}"


class Keys:
    """The public keys by their `kid`, as the file says now; a file that is missing or broken holds none."""

    def __init__(self, jwks: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = jwks
        self._clock = clock
        self._looked_at = float("-inf")
        self._stamp: tuple[int, int, int] | None = None
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self.edition = 0
        """Grows with every change of the file."""

    def current(self) -> Mapping[str, jwt.PyJWK]:
        if self._clock() - self._looked_at >= JWKS_LOOK_INTERVAL_S:
            self._looked_at = self._clock()
            self._look()
        return self._keys

    def _look(self) -> None:
        stamp = self._stamp_of_file()
        if stamp != self._stamp:
            self._stamp = stamp
            self._keys = self._read() if stamp else {}
            self.edition += 1

    def _stamp_of_file(self) -> tuple[int, int, int] | None:
        try:
            status = os.stat(self._path)  # noqa: PTH116  # Path.stat costs more, and this is asked every second
        except OSError:
            return None
        return (status.st_mtime_ns, status.st_size, status.st_ino)

    def _read(self) -> Mapping[str, jwt.PyJWK]:
        try:
            with self._path.open("rb") as file:
                document = json.loads(file.read(JWKS_BYTES_MAX))
            return dict(self._usable(document["keys"]))
        except (OSError, ValueError, KeyError, TypeError, jwt.PyJWTError):
            log.exception("jwks_unreadable", path=str(self._path))
            return {}

    def _usable(self, keys: list[dict[str, Any]]) -> list[tuple[str, jwt.PyJWK]]:
        ours = [key for key in keys if key.get("kty") == "OKP" and key.get("kid")]
        return [(str(key["kid"]), jwt.PyJWK(key, ALGORITHM)) for key in ours]


class Verifier:
    """From a token to whom it speaks for."""

    def __init__(self, keys: Keys, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._clock = clock
        self._edition = -1
        self._verified: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()

    def principal_of(self, token: str) -> Principal:
        """Raises UnauthorizedError."""
        keys = self._keys.current()
        if self._edition != self._keys.edition:
            self._verified.clear()
            self._edition = self._keys.edition
        digest = sha256(token.encode()).digest()
        known = self._verified.get(digest)
        if known and self._clock() < known[0]:
            return known[1]
        claims = self._claims(token, keys)
        principal = _principal(claims)
        self._remember(digest, float(claims["exp"]), principal)
        return principal

    def _claims(self, token: str, keys: Mapping[str, jwt.PyJWK]) -> dict[str, Any]:
        if len(token) > TOKEN_CHARS_MAX:
            raise UnauthorizedError("The token is too long.")
        try:
            key = keys[str(jwt.get_unverified_header(token).get("kid"))]
            return jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                issuer=ISSUER,
                audience=AUDIENCE,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except KeyError:
            raise UnauthorizedError("The token is signed with a key that is not ours.") from None
        except jwt.ExpiredSignatureError:
            raise UnauthorizedError("The token has expired.") from None
        except (jwt.PyJWTError, ValueError):
            raise UnauthorizedError("The token is not one of ours.") from None

    def _remember(self, digest: bytes, expires_at: float, principal: Principal) -> None:
        self._verified[digest] = (min(expires_at, self._clock() + VERIFIED_FOR_S), principal)
        self._verified.move_to_end(digest)
        if len(self._verified) > VERIFIED_MAX:
            self._verified.popitem(last=False)


def _principal(claims: Mapping[str, Any]) -> Principal:
    subject, role = claims["sub"], claims.get("role")
    if role not in get_args(Role):
        raise UnauthorizedError("The token names no role that we know.")
    if not is_subject(subject):
        raise UnauthorizedError("The token names no subject.")
    return Principal(subject, cast("Role", role), claims.get("backdate") is True)


def is_subject(subject: object) -> bool:
    """Visible ASCII without a slash, since it stands in paths and in streams' names."""
    return (
        isinstance(subject, str)
        and 0 < len(subject) <= SUBJECT_CHARS_MAX
        and subject.isascii()
        and subject.isprintable()
        and not set(subject) & set(" /")
    )


class Guard(SecurityBase):
    """What routes depend on to know their caller: a bearer token whose role is one of `roles` (any, if none)."""

    def __init__(self, *roles: Role) -> None:
        self.model = HTTPBearer(bearerFormat="JWT", description="`./daybook token --role R --subject S`")
        self.scheme_name = "bearer"
        self._roles = frozenset(roles or get_args(Role))

    def admit(self, request: Request) -> Principal:
        """Raises UnauthorizedError or ForbiddenError."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise UnauthorizedError("A bearer token is needed.")
        verifier: Verifier = request.app.state.verifier
        principal = verifier.principal_of(token.strip())
        if principal.role not in self._roles:
            raise ForbiddenError(f"This is for {' or '.join(sorted(self._roles))}, not for {principal.role}.")
        return principal


class Caller(Guard):
    """The verified caller itself."""

    async def __call__(self, request: Request) -> Principal:
        return self.admit(request)
