"""Signed tree heads: C2SP's checkpoints, signed notes and cosignatures, all of them text that other tools read too.

daybook.local/daybook.events.inventory/0        the origin: which tree
1532                                            its size
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=    its root

— daybook.local Az3grlgtzPICa5OS8npVmf1Myq/5I…  who signed: name, key id and signature
"""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ops.evidence.merkle import HASH_BYTES

ED25519: Final = 1
COSIGNATURE: Final = 4
"""What a key signs: a note as it is, or that its owner had seen it grow consistently by a certain time."""

Kind = Literal[1, 4]
NOTE_BYTES_MAX = 64_000
SIGNATURES_MAX = 32
PROOF_MAX = 63
"""Hashes in a consistency proof, as C2SP's witness protocol bounds it: enough for any tree."""

_DASH = "\u2014 "
_NAME = re.compile(r"[^\s+]+")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


class NotANote(Exception):
    """The text is no signed note, no checkpoint, or no key."""


class BadSignature(Exception):
    """A signature carries the key's name and id, and is not by it."""


class Unsigned(Exception):
    """No signature is by the key."""


@dataclass(frozen=True)
class PublicKey:
    """Who may have signed: `name` and the key's 32 bytes."""

    name: str
    raw: bytes
    kind: Kind = ED25519

    @property
    def id(self) -> bytes:
        return sha256(self.name.encode() + b"\n" + self._encoded).digest()[:4]

    def __str__(self) -> str:
        """The verifier key, in C2SP's form: name, id, kind and key on one line."""
        return f"{self.name}+{self.id.hex()}+{_base64(self._encoded)}"

    @classmethod
    def parse(cls, text: str) -> "PublicKey":
        """Raises NotANote."""
        name, _, rest = text.strip().partition("+")
        key_id, _, encoded = rest.partition("+")
        kind, raw = _decoded_key(encoded)
        if not _NAME.fullmatch(name):
            raise NotANote("a key's name has neither blanks nor a plus")
        key = cls(name, raw, kind)
        if key.id.hex() != key_id:
            raise NotANote(f"the id of this key is {key.id.hex()}, not {key_id}")
        return key

    @property
    def _encoded(self) -> bytes:
        return bytes([self.kind]) + self.raw


@dataclass(frozen=True)
class PrivateKey:
    """One line of text in a file that nobody else may read."""

    name: str
    secret: Ed25519PrivateKey
    kind: Kind = ED25519

    @classmethod
    def generate(cls, name: str, kind: Kind = ED25519) -> "PrivateKey":
        """Raises NotANote where the name has blanks or a plus."""
        if not _NAME.fullmatch(name):
            raise NotANote(f"{name!r} is no name of a key: it has neither blanks nor a plus")
        return cls(name, Ed25519PrivateKey.generate(), kind)

    @classmethod
    def parse(cls, text: str) -> "PrivateKey":
        """Raises NotANote."""
        match text.strip().split("+", 4):
            case ["PRIVATE", "KEY", name, key_id, encoded]:
                kind, raw = _decoded_key(encoded)
                key = cls(name, Ed25519PrivateKey.from_private_bytes(raw), kind)
                if key.public.id.hex() == key_id:
                    return key
        raise NotANote("this is no private key of ours")

    @property
    def public(self) -> PublicKey:
        return PublicKey(self.name, self.secret.public_key().public_bytes_raw(), self.kind)

    def text(self) -> str:
        """As `parse` reads it, and as Go's note tools write it."""
        encoded = _base64(bytes([self.kind]) + self.secret.private_bytes_raw())
        return f"PRIVATE+KEY+{self.name}+{self.public.id.hex()}+{encoded}\n"


@dataclass(frozen=True)
class Signature:
    """By a key of this name and id, perhaps."""

    name: str
    key_id: bytes
    body: bytes

    def line(self) -> str:
        return f"{_DASH}{self.name} {_base64(self.key_id + self.body)}\n"


@dataclass(frozen=True)
class Note:
    """`text` ends with a newline; it means nothing before a signature on it was verified."""

    text: str
    signatures: tuple[Signature, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Note":
        """Raises NotANote."""
        body, found, lines = text.rpartition("\n\n")
        if not found or len(text) > NOTE_BYTES_MAX or any(char < " " and char != "\n" for char in text):
            raise NotANote("this is no signed note")
        if not lines.endswith("\n") or lines.count("\n") > SIGNATURES_MAX:
            raise NotANote("a note ends with its signatures, 32 at most")
        return cls(body + "\n", tuple(map(_signature_in, lines[:-1].split("\n"))))

    def __str__(self) -> str:
        return f"{self.text}\n{''.join(signature.line() for signature in self.signatures)}"

    def signed(self, key: PrivateKey, at: int = 0) -> "Note":
        """The note with one signature more; `at` (seconds since 1970) is what a cosignature says of its time."""
        stamp = at.to_bytes(8, "big") if key.kind == COSIGNATURE else b""
        body = stamp + key.secret.sign(_message(self.text, key.kind, stamp))
        return replace(self, signatures=(*self.signatures, Signature(key.name, key.public.id, body)))

    def verify(self, key: PublicKey) -> int:
        """The time of a cosignature, 0 of a plain signature. Raises Unsigned, and BadSignature for a forged one."""
        found = [one for one in self.signatures if (one.name, one.key_id) == (key.name, key.id)]
        if not found:
            raise Unsigned(f"not signed by {key.name} with key {key.id.hex()}")
        return min(_verified(self.text, one, key) for one in found)


@dataclass(frozen=True)
class Checkpoint:
    """The tree `origin` had this root when it had `size` leaves."""

    origin: str
    size: int
    root: bytes

    @classmethod
    def of(cls, note: Note) -> "Checkpoint":
        """What the note says, whoever signed it; no extension lines. Raises NotANote."""
        match note.text.split("\n"):
            case [origin, size, root, ""] if origin and _SIZE.fullmatch(size):
                return cls(origin, int(size), _hash_in(root))
        raise NotANote("the note is no checkpoint: origin, size and root, one on a line")

    def note(self) -> Note:
        return Note(f"{self.origin}\n{self.size}\n{_base64(self.root)}\n")


@dataclass(frozen=True)
class Submission:
    """A checkpoint with the proof that it grew out of one of `old` leaves: what a witness asks for (C2SP tlog-witness)."""

    old: int
    proof: tuple[bytes, ...]
    note: Note

    @classmethod
    def parse(cls, text: str) -> "Submission":
        """Raises NotANote."""
        head, _, note = text.partition("\n\n")
        first, *proof = head.split("\n")
        keyword, _, old = first.partition(" ")
        if keyword != "old" or not _SIZE.fullmatch(old) or len(proof) > PROOF_MAX:
            raise NotANote("a checkpoint with its proof begins with the size that it grew from")
        return cls(int(old), tuple(map(_hash_in, proof)), Note.parse(note))

    def __str__(self) -> str:
        return "".join(
            (f"old {self.old}\n", *(f"{_base64(one)}\n" for one in self.proof), "\n", str(self.note))
        )


def origin_of(name: str, topic: str, partition: int) -> str:
    """What the tree of a partition is called."""
    return f"{name}/{topic}/{partition}"


def split(text: str) -> list[str]:
    """One submission after the other, as a file has them: no line of theirs but the first begins with `old `."""
    return [part for part in re.split(r"(?m)^(?=old )", text) if part]


def sealed(checkpoint: Checkpoint, old: int, proof: Sequence[bytes], key: PrivateKey) -> Submission:
    """The checkpoint, signed, with the proof of its growth."""
    return Submission(old, tuple(proof), checkpoint.note().signed(key))


def _message(text: str, kind: Kind, stamp: bytes) -> bytes:
    if kind == COSIGNATURE:
        return f"cosignature/v1\ntime {int.from_bytes(stamp, 'big')}\n{text}".encode()
    return text.encode()


def _verified(text: str, signature: Signature, key: PublicKey) -> int:
    stamped = 8 if key.kind == COSIGNATURE else 0
    stamp, body = signature.body[:stamped], signature.body[stamped:]
    try:
        Ed25519PublicKey.from_public_bytes(key.raw).verify(body, _message(text, key.kind, stamp))
    except InvalidSignature:
        raise BadSignature(f"the signature of {key.name} is forged, or what it signs was changed") from None
    return int.from_bytes(stamp, "big")


def _signature_in(line: str) -> Signature:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not _NAME.fullmatch(name):
        raise NotANote("a signature's line has a dash, a name and the signature")
    body = _unbase64(encoded)
    if len(body) <= 4:
        raise NotANote("a signature is longer than its key's id")
    return Signature(name, body[:4], body[4:])


def _decoded_key(encoded: str) -> tuple[Kind, bytes]:
    body = _unbase64(encoded)
    if len(body) != 33 or body[0] not in (ED25519, COSIGNATURE):
        raise NotANote("this is no Ed25519 key")
    return (COSIGNATURE if body[0] == COSIGNATURE else ED25519), body[1:]


def _hash_in(encoded: str) -> bytes:
    found = _unbase64(encoded)
    if len(found) != HASH_BYTES:
        raise NotANote(f"a hash has {HASH_BYTES} bytes")
    return found


def _base64(body: bytes) -> str:
    return base64.b64encode(body).decode()


def _unbase64(text: str) -> bytes:
    """Raises NotANote, also where the same bytes would usually be written otherwise."""
    try:
        body = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        body = b""
    if not text or _base64(body) != text:
        raise NotANote("this is no base64")
    return body
