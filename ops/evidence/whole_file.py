"""A small file that is replaced in one step, and lies on the disk when that is done."""

import os
from pathlib import Path


def replace_file(path: Path, text: str) -> None:
    """Whoever reads it sees the old text or the new one, also after a power cut. Raises OSError."""
    draft = path.with_name(f"{path.name}.draft")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    flush_names(path.parent)


def flush_names(folder: Path) -> None:
    """A new name, as a rename, is an entry of the folder: it, too, may still be in memory. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
