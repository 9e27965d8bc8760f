"""The dedupe window: what became of every command of the last 24 hours, so that each has one effect."""

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from commands.journal import Store, Stored
from schemas.codec import Codec, Decoded, UndecodableError
from schemas.decisions import Decided, Decisions
from schemas.meta import DAY, Micros, RecordMeta

ID_BYTES = 16
_COMMAND_ID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
INSTANTS_END = DAY << 32
"""The number of a bucket has four bytes."""

DECODED_MAX = 32
"""Decisions records that are kept decoded, for callers who repeat themselves."""


class Window:
    """Keeps whole decisions records as they stand in Kafka, and for each command id where its outcome is.

    Two buckets of a day each: an outcome is known for at least 24 hours and at most 48.
    """

    def __init__(self, prefix: bytes, store: Store, codec: Codec) -> None:
        self._prefix = prefix
        self._store = store
        self._codec = codec
        self._decoded: OrderedDict[bytes, Sequence[Decided]] = OrderedDict()
        self._bucket = -1

    def find(self, command_ids: Sequence[str], now: Micros) -> Mapping[str, Decided]:
        """The first outcomes of those commands that were decided before."""
        bucket = now // DAY
        keys = [self._id_key(b, _id_bytes(i)) for b in (bucket, bucket - 1) for i in command_ids]
        places = self._store.get_many(keys)
        ids = [*command_ids, *command_ids]
        return {ids[n]: self._outcome(place) for n, place in enumerate(places) if place is not None}

    def put(self, offset: int, value: bytes, ids: bytes, at: Micros) -> dict[bytes, bytes | None]:
        """What must be written so that the decisions record at `offset` can be found by its commands."""
        bucket = at // DAY
        record_key = self._record_key(bucket, offset)
        puts: dict[bytes, bytes | None] = {record_key: value}
        for index in range(len(ids) // ID_BYTES):
            command_id = ids[index * ID_BYTES : (index + 1) * ID_BYTES]
            puts[self._id_key(bucket, command_id)] = record_key + index.to_bytes(4, "big")
        return puts

    def restore(self, stored: Stored) -> dict[bytes, bytes | None]:
        """The same for a record read from the topic, without decoding its outcomes; raises UndecodableError."""
        value = stored.value or b""
        meta, ids = self._codec.peek(value, "ids")
        if not 0 <= meta["recorded_at"] < INSTANTS_END:
            raise UndecodableError(f"no writer's clock says {meta['recorded_at']}")
        return self.put(stored.offset, value, ids, meta["recorded_at"])

    def forget(self, now: Micros) -> None:
        """Delete what is older than the two buckets, once a day."""
        bucket = now // DAY
        if bucket == self._bucket:
            return
        self._bucket = bucket
        for kind in (b"w", b"d"):
            self._store.delete_range(
                self._prefix + kind, self._prefix + kind + (bucket - 1).to_bytes(4, "big")
            )

    def _outcome(self, place: bytes) -> Decided:
        record_key, index = place[:-4], int.from_bytes(place[-4:], "big")
        return self._record(record_key)[index]

    def _record(self, key: bytes) -> Sequence[Decided]:
        decided = self._decoded.get(key)
        if decided is None:
            value = self._store.get(key)
            assert value is not None, "an id is written together with the record it points at"
            decoded: Decoded[RecordMeta] = self._codec.decode(value)
            decisions: Decisions = decoded.body
            decided = self._decoded[key] = decisions.decided
            if len(self._decoded) > DECODED_MAX:
                self._decoded.popitem(last=False)
        return decided

    def _id_key(self, bucket: int, command_id: bytes) -> bytes:
        return self._prefix + b"w" + bucket.to_bytes(4, "big") + command_id

    def _record_key(self, bucket: int, offset: int) -> bytes:
        return self._prefix + b"d" + bucket.to_bytes(4, "big") + offset.to_bytes(8, "big")


def ids_of(decided: Sequence[Decided]) -> bytes:
    """The 16-byte ids in a row, as `Decisions.ids` holds them."""
    return b"".join(_id_bytes(one.command_id) for one in decided)


def _id_bytes(command_id: str) -> bytes:
    return bytes.fromhex(command_id.replace("-", ""))


def is_command_id(text: str) -> bool:
    """Whether it is a UUID in its usual form, as the window needs."""
    return _COMMAND_ID.fullmatch(text) is not None
