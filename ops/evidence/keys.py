"""The keys of sealer and witness: made once, one line in a file of mode 0600; the public halves beside them."""

import os
from collections.abc import Mapping
from pathlib import Path

from ops.evidence.checkpoint import COSIGNATURE, ED25519, Kind, NotANote, PrivateKey, PublicKey
from ops.key_files import PUBLIC, keep_first, replace

ORIGIN = "daybook.local"
_KINDS: Mapping[str, Kind] = {"sealer": ED25519, "witness": COSIGNATURE}


class NoKey(Exception):
    """There is no key, or the file holds none; the message says where."""


def ensure_key(folder: Path, who: str, name: str) -> PublicKey:
    """Make the key of the sealer or the witness unless it is there; `name` is what a new one is called.

    Raises NoKey when the file that is there holds none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not key_file(folder, who).exists():
        keep_first(key_file(folder, who), PrivateKey.generate(name, _KINDS[who]).text().encode())
    public = private_key(folder, who).public
    published = folder / f"{who}.pub"
    if not published.exists() or published.read_text("utf-8") != f"{public}\n":
        replace(published, f"{public}\n".encode(), PUBLIC)
    return public


def key_file(folder: Path, who: str) -> Path:
    return folder / f"{who}.key"


def private_key(folder: Path, who: str) -> PrivateKey:
    """Raises NoKey."""
    try:
        return PrivateKey.parse(key_file(folder, who).read_text("utf-8"))
    except FileNotFoundError:
        raise NoKey(f"there is no {key_file(folder, who)}; ./daybook prepare makes one") from None
    except (NotANote, UnicodeDecodeError) as error:
        raise NoKey(f"{key_file(folder, who)}: {error}") from error


def public_key(given: str) -> PublicKey:
    """A public key, as it is or in a file. Raises NoKey."""
    try:
        text = Path(given).read_text("utf-8") if "+" not in given or Path(given).exists() else given
        return PublicKey.parse(text)
    except OSError as error:
        raise NoKey(f"{given}: {error.strerror}") from error
    except (NotANote, UnicodeDecodeError) as error:
        raise NoKey(f"{given} holds no public key: {error}") from error


def origin_name(environ: Mapping[str, str] = os.environ) -> str:
    """What a new key is called, and every tree after it: best the merchant's own host."""
    return environ.get("DAYBOOK_ORIGIN") or ORIGIN
