"""A power loss, as a broker that was killed finds its disk afterwards: what was not flushed is gone."""

import struct
from collections.abc import Iterator
from pathlib import Path

CHECKPOINT = "recovery-point-offset-checkpoint"
"""Kafka's own record of what it has flushed: a version, a count, then `topic partition offset` a line."""

RAFT = "__cluster_metadata-0"
_BATCH_HEADER = struct.Struct(">qi")
"""Base offset, and the length of what follows these twelve bytes."""


def recovery_points(data: Path) -> dict[str, int]:
    """The offset up to which each partition (`topic-0`) was flushed, as of the last checkpoint."""
    lines = (data / CHECKPOINT).read_text("ascii").splitlines()[2:]
    return {f"{topic}-{number}": int(offset) for topic, number, offset in (line.split() for line in lines)}


def lose_power(data: Path) -> dict[str, int]:
    """Cuts the active segment of each partition back to its recovery point; the broker must not run.

    Returns the bytes that were lost, by partition that lost some. Raft's own log is left alone: it is flushed always.
    """
    flushed = recovery_points(data)
    folders = (folder for folder in data.iterdir() if folder.is_dir() and _is_partition(folder))
    lost = {folder.name: _cut_back(folder, flushed.get(folder.name, 0)) for folder in folders}
    return {name: size for name, size in lost.items() if size}


def _is_partition(folder: Path) -> bool:
    """Also one that no checkpoint knows yet, of which nothing was flushed."""
    return folder.name != RAFT and any(folder.glob("*.log"))


def _cut_back(partition: Path, flushed: int) -> int:
    *_, active = sorted(partition.glob("*.log"))
    keep = sum(size for offset, size in batches(active) if offset < flushed)
    lost = active.stat().st_size - keep
    if lost:
        with active.open("r+b") as segment:
            segment.truncate(keep)
        for beside in partition.glob(f"{active.stem}.*index"):
            beside.unlink()  # made anew from the segment
    return lost


def batches(segment: Path) -> Iterator[tuple[int, int]]:
    """The base offset and the bytes of each whole batch in a segment."""
    size = segment.stat().st_size
    with segment.open("rb") as log:
        at = 0
        while len(header := log.read(_BATCH_HEADER.size)) == _BATCH_HEADER.size:
            offset, length = _BATCH_HEADER.unpack(header)
            whole = _BATCH_HEADER.size + length
            if length <= 0 or at + whole > size:
                return  # preallocated, or torn by the kill
            yield offset, whole
            at += whole
            log.seek(at)
