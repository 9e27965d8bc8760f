"""The verify button: a bundle and a key go in, the verifier's own words come out; nothing is kept."""

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from fastapi import APIRouter, Request, Response
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from ops.console.pages import page
from ops.console.visitors import HOME, OwnForm, Visitor
from ops.evidence.checkpoint import NotANote, PublicKey
from ops.settings import REPOSITORY

BUNDLE_BYTES_MAX = 64 * 1024 * 1024
WITHIN_S = 60.0
PIECE = 1 << 20
AT_ONCE = asyncio.Semaphore(1)
KEY_CHARS_MAX = 1_000

Standing = Literal["true", "false", "not verified"]

routes = APIRouter(prefix=HOME)


@dataclass(frozen=True)
class Told:
    """The verdict, and what the verifier said line by line."""

    standing: Standing
    lines: tuple[str, ...]


@routes.get("/verify")
async def show_verify(request: Request, _: Visitor) -> Response:
    return page(request, "verify", told=None, key="", name="", bytes_max=BUNDLE_BYTES_MAX)


@routes.post("/verify", dependencies=[OwnForm])
async def verify_bundle(request: Request, _: Visitor) -> Response:
    """200 for a verdict, good or bad; 422 where there is none to be had."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise HTTPException(415, "A form with a file is needed.")  # any other kind would be held in memory
    async with request.form(max_files=1, max_fields=1, max_part_size=KEY_CHARS_MAX) as form:
        key = str(form.get("key", "")).strip()
        bundle = form.get("bundle")
        name = (bundle.filename or "") if isinstance(bundle, UploadFile) else ""
        told = await _verdict(form, key, name)
    status = 422 if told.standing == "not verified" else 200
    return page(request, "verify", status, told=told, key=key, name=name, bytes_max=BUNDLE_BYTES_MAX)


async def _verdict(form: FormData, key: str, name: str) -> Told:
    bundle = form.get("bundle")
    if not isinstance(bundle, UploadFile) or not name:
        return Told("not verified", ("Choose a bundle: the file that `./daybook audit export` wrote.",))
    try:
        sealer = PublicKey.parse(key)
    except NotANote as error:
        return Told("not verified", (f"This is no public key: {error}.", "It is one line, `name+id+key`."))
    if AT_ONCE.locked():
        return Told("not verified", ("Another bundle is being verified; try again in a moment.",))
    async with AT_ONCE:
        with TemporaryDirectory(prefix="daybook-verify-") as folder:
            path = Path(folder, "bundle.zip")
            await _write(bundle, path)
            return await verified(path, sealer)


async def _write(bundle: UploadFile, path: Path) -> None:
    with path.open("wb") as file:
        while piece := await bundle.read(PIECE):
            await asyncio.to_thread(file.write, piece)


async def verified(path: Path, sealer: PublicKey, within_s: float = WITHIN_S) -> Told:
    """`./daybook audit verify`, in a process of its own: whatever a bundle does to it, it ends in time."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ops", "audit", "verify", str(path), f"--key={sealer}", "--processes=1",
        cwd=REPOSITORY, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        said, _ = await asyncio.wait_for(process.communicate(), within_s)
    except TimeoutError:
        how = f"It takes longer than {within_s:.0f} s; `./daybook audit verify` has all the time there is."
        return Told("not verified", (how,))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    lines = tuple(line.removeprefix("BAD  ") for line in said.decode(errors="replace").splitlines())
    standings: dict[int | None, Standing] = {0: "true", 1: "false"}
    return Told(standings.get(process.returncode, "not verified"), lines)
