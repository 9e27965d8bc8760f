"""What a person tells us of themselves is sealed here before it goes to Kafka, and opened here for who may read it.

A field's ciphertext is its nonce, then AES-256-GCM's. The nonce is an HMAC of all that is sealed, so that the same said
again is the same bytes (docs/adr/0020).
"""

import asyncio
import hmac
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fastapi import Request

from api.personal_keys import NONCE_BYTES, PersonalKey, PersonalKeys
from schemas.personal import SealedContact

CIPHERS_MAX = 4_096
ERASURES_LOOK_INTERVAL_S = 0.5
"""So soon a process hears that another one destroyed a key."""

PARTS = ("name", "email", "address")


@dataclass(frozen=True, slots=True)
class _Cipher:
    """A person's key, ready for use: one half of it encrypts, the other makes nonces."""

    key_id: str
    cipher: AESGCM
    nonces: bytes

    @classmethod
    def of(cls, key: PersonalKey) -> "_Cipher":
        return cls(key.key_id, AESGCM(_derived(key, b"encrypt")), _derived(key, b"nonce"))

    def seal(self, text: str, bound_to: bytes) -> bytes:
        said = text.encode()
        nonce = hmac.digest(self.nonces, bound_to + said, "sha256")[:NONCE_BYTES]
        return nonce + self.cipher.encrypt(nonce, said, bound_to)

    def open(self, sealed: bytes, bound_to: bytes) -> str:
        return self.cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound_to).decode()


def _derived(key: PersonalKey, purpose: bytes) -> bytes:
    return hmac.digest(key.secret, purpose, "sha256")


def vault_of(request: Request) -> "Vault":
    vault: Vault = request.app.state.vault
    return vault


class Vault:
    """Lives in one event loop; the store of keys is asked in a thread. Both methods raise KeysUnusable."""

    def __init__(self, keys: PersonalKeys, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._clock = clock
        self._looked_at = float("-inf")
        self._stamp: tuple[int, int] | None = None
        self._ciphers: OrderedDict[str, _Cipher] = OrderedDict()

    async def seal(self, person: str, place: str, contact: Mapping[str, str]) -> SealedContact:
        """The contact (name, email, address), readable for this person at this place (a stream) alone."""
        cipher = await self._cipher(person, self._keys.key_for)
        assert cipher is not None, "one is made where there is none"
        sealed = (cipher.seal(contact[part], _bound_to(part, person, place)) for part in PARTS)
        return SealedContact(cipher.key_id, *sealed)

    async def open(self, person: str, place: str, sealed: SealedContact) -> dict[str, str] | None:
        """None where its key is destroyed. Raises InvalidTag where somebody changed or moved it."""
        cipher = await self._cipher(person, self._keys.key_of)
        if cipher is None or cipher.key_id != sealed.key_id:
            return None
        return {part: cipher.open(getattr(sealed, part), _bound_to(part, person, place)) for part in PARTS}

    async def close(self) -> None:
        await asyncio.to_thread(self._keys.close)

    async def _cipher(self, person: str, fetch: Callable[[str], PersonalKey | None]) -> _Cipher | None:
        if self._clock() - self._looked_at >= ERASURES_LOOK_INTERVAL_S:
            self._looked_at = self._clock()
            self._look()
        known = self._ciphers.get(person)
        if known is not None:
            self._ciphers.move_to_end(person)
            return known
        stamp = self._stamp
        key = await asyncio.to_thread(fetch, person)
        if key is None:
            return None
        cipher = _Cipher.of(key)
        if stamp == self._stamp:  # else it may have been destroyed while we waited
            self._remember(person, cipher)
        return cipher

    def _look(self) -> None:
        try:
            status = os.stat(self._keys.erasures)  # noqa: PTH116  # as in security: asked again and again
            stamp = status.st_mtime_ns, status.st_size
        except OSError:
            stamp = None
        if stamp != self._stamp:
            self._stamp = stamp
            self._ciphers.clear()

    def _remember(self, person: str, cipher: _Cipher) -> None:
        self._ciphers[person] = cipher
        if len(self._ciphers) > CIPHERS_MAX:
            self._ciphers.popitem(last=False)


def _bound_to(part: str, person: str, place: str) -> bytes:
    return f"contact\x1f{part}\x1f{person}\x1f{place}\x1f".encode()
