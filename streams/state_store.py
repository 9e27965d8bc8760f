"""The worker's local copy of its state: RocksDB, which the topics can always make anew."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import structlog
from rocksdict import BlockBasedOptions, Cache, Options, Rdict, WriteBatch

log = structlog.get_logger(__name__)

BLOCK_CACHE_BYTES = 2 << 20
WRITE_BUFFER_BYTES = 2 << 20
DIRECTORIES_MAX = 4
"""Places to look for one that no other process holds."""


class StateStore:
    """Implements `commands.journal.Store`. One directory per slot; a frozen predecessor may still hold its lock,
    then the next one is used and made from the topics.
    """

    def __init__(self, folder: Path) -> None:
        self._db = _open_first_free(folder)

    def get(self, key: bytes) -> bytes | None:
        value: bytes | None = self._db.get(key)
        return value

    def get_many(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        values: Any = self._db.get(list(keys))
        return cast("Sequence[bytes | None]", values)

    def write(self, puts: Mapping[bytes, bytes | None]) -> None:
        if not puts:
            return
        batch = WriteBatch(raw_mode=True)
        for key, value in puts.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        self._db.write(batch)

    def delete_range(self, start: bytes, end: bytes) -> None:
        self._db.delete_range(start, end)

    def scan(self, start: bytes, end: bytes, limit: int) -> Sequence[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        pairs: Any = self._db.items(from_key=start)  # rocksdict types keys as if they were not raw
        for key, value in pairs:
            if key >= end or len(found) == limit:
                break
            found.append((key, value))
        return found

    def close(self) -> None:
        self._db.close()


def _open_first_free(folder: Path) -> Rdict:
    for number in range(DIRECTORIES_MAX):
        path = folder / f"state-{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return Rdict(str(path), options=bounded_options(BLOCK_CACHE_BYTES, WRITE_BUFFER_BYTES))
        except Exception as error:  # rocksdict raises plain Exception for a lock that is held
            if "lock" not in str(error).lower():
                raise
            log.warning("state_directory_is_held", path=str(path), reason=str(error))
    raise RuntimeError(f"{DIRECTORIES_MAX} state directories under {folder} are all held by other processes")


def bounded_options(block_cache_bytes: int, write_buffer_bytes: int) -> Options:
    """Options of a database whose memory is bounded: by its cache, which holds indexes and filters too, and two buffers."""
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(write_buffer_bytes)
    options.set_max_write_buffer_number(2)
    options.set_max_open_files(256)
    options.set_keep_log_file_num(2)
    options.set_max_total_wal_size(64 << 20)
    table = BlockBasedOptions()
    table.set_block_cache(Cache(block_cache_bytes))
    table.set_bloom_filter(10, False)
    table.set_cache_index_and_filter_blocks(True)
    options.set_block_based_table_factory(table)
    return options
