"""Files of keys and secrets: only their owner reads them, and nobody ever sees half of one."""

import os
from pathlib import Path

PRIVATE = 0o600
PUBLIC = 0o644


def keep_first(path: Path, content: bytes) -> None:
    """Of two processes that make the file at once, the first one's is kept."""
    draft = _draft(path, content, PRIVATE)
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def replace(path: Path, content: bytes, mode: int = PRIVATE) -> None:
    """In one step, whatever was there."""
    _draft(path, content, mode).replace(path)


def _draft(path: Path, content: bytes, mode: int) -> Path:
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    return draft
