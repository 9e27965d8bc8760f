"""Kafka values read by the .avsc files that came with them, and by nothing else of ours."""

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from fastavro import parse_schema
from fastavro.schema import fingerprint, to_parsing_canonical_form

from ops.evidence.datum_reader import MALFORMED, Datum, Read, compile_datum_reader

HEADER_BYTES = 10
_MARKER = b"\xc3\x01"

# A schema's fingerprint has 64 bits and is no secret: a forger can make another schema of the same fingerprint that
# calls the bytes by other names. So the fields that the laws read are pinned here, by name, type and place.
_META = (
    *(("event_id", "string"), ("stream", "string"), ("version", "long"), ("occurred_at", "long")),
    *(("recorded_at", "long"), ("command_id", "string"), ("correlation_id", "string")),
    *(("causation_id", "string"), ("actor_kind", "string"), ("actor_id", "string"), ("batch_id", "string")),
    *(("batch_index", "long"), ("batch_size", "long"), ("traceparent", "string"), ("previous", "bytes")),
)
_STOCK = (
    *(("sku", "string"), ("location", "string")),
    *(("sellable", "long"), ("reserved", "long"), ("allocated", "long"), ("shipped", "long")),
)
_CLAIM = (*_STOCK, ("order_id", "string"), ("line", "long"), ("claim_id", "string"), ("quantity", "long"))
LAYOUTS = {
    "StockItemRegistered": _STOCK,
    "StockReceived": (*_STOCK, ("quantity", "long")),
    "StockPolicyChanged": (*_STOCK, ("safety_stock", "long")),
    "StockAdjusted": (*_STOCK, ("before", "long"), ("after", "long")),
    "StockShortfallFound": (*_STOCK, ("uncovered", "long")),
    "StockReserved": (*_CLAIM, ("expires_at", "long")),
    "StockReservationRefused": (*_CLAIM, ("available", "long")),
    "StockReservationReleased": _CLAIM,
    "StockReservationExpired": _CLAIM,
    "StockAllocated": (*_CLAIM, ("from_reserved", "long")),
    "StockAllocationRefused": (*_CLAIM, ("available", "long")),
    "StockAllocationReleased": _CLAIM,
    "StockShipped": _CLAIM,
    "StockShipmentRefused": _CLAIM,
    "StockDepleted": _STOCK,
    "StockReplenished": (*_STOCK, ("available", "long")),
    "LowStockReached": (*_STOCK, ("available", "long"), ("low_stock_at", "long")),
}
_NOTHING_ON_THE_WIRE = ("null",)


class WrongSchema(Exception):
    """A schema does not say what its name promises."""


class Unreadable(Exception):
    """The bytes are no record of a known schema."""


class Shapes:
    """The stock events among some schemas (JSON), by their header on the wire."""

    def __init__(self, schemas: Iterable[Any]) -> None:
        """Raises WrongSchema."""
        self._shapes: dict[bytes, tuple[str, Read]] = {}
        for schema in schemas:
            self.learn(schema)

    def learn(self, schema: Any) -> bytes:
        """The header of its records on the wire; a schema of no stock event is passed over. Raises WrongSchema."""
        try:
            header, name, read = _shape_of(json.dumps(schema))
        except WrongSchema:
            raise
        except Exception as error:  # fastavro raises whatever the JSON makes it trip over
            raise WrongSchema(f"{type(error).__name__}: {error}") from error
        if read is not None:
            self._shapes[header] = name, read
        return header

    def read(self, value: bytes) -> tuple[str, Datum]:
        """The event's name and its datum; instants are microseconds. Raises Unreadable."""
        shape = self._shapes.get(value[:HEADER_BYTES])
        if shape is None:
            raise Unreadable(f"no stock event by a schema of the bundle ({value[:HEADER_BYTES].hex()})")
        name, read = shape
        try:
            return name, read(value)
        except MALFORMED as error:
            raise Unreadable(f"{name}: {type(error).__name__}: {error}") from error


@lru_cache(maxsize=256)
def _shape_of(text: str) -> tuple[bytes, str, Read | None]:
    """Header, name, and of a stock event the reader; fastavro takes over 10 ms for a fingerprint. Raises WrongSchema, and more."""
    plain = _without_logical_types(json.loads(text))
    header = _MARKER + bytes.fromhex(fingerprint(to_parsing_canonical_form(plain), "CRC-64-AVRO"))
    name = str(plain["name"]).rpartition(".")[2]
    if name not in LAYOUTS:
        return header, name, None
    _check_layout(name, plain["fields"])
    parse_schema(plain, named_schemas={})
    return header, name, compile_datum_reader(plain, HEADER_BYTES)


def _check_layout(name: str, fields: list[Any]) -> None:
    meta, *own = fields
    if meta["name"] != "meta" or _pairs(meta["type"]["fields"]) != _META:
        raise WrongSchema(f"{name}: what an event says about itself is laid out otherwise")
    wanted = LAYOUTS[name]
    if _pairs(own[: len(wanted)]) != wanted:
        raise WrongSchema(f"{name}: its fields are laid out otherwise")
    for field in own[len(wanted) :]:
        if not _takes_room(
            field["type"]
        ):  # a field of no bytes can have any name, and so make any fingerprint
            raise WrongSchema(f"{name}: {field['name']} is a field of nothing")


def _pairs(fields: list[Any]) -> tuple[tuple[str, Any], ...]:
    return tuple((field["name"], field["type"]) for field in fields)


def _takes_room(kind: Any) -> bool:
    """Whether every value of the type takes at least a byte, and every item of a list."""
    if isinstance(kind, dict) and kind.get("type") == "array":
        return _takes_room(kind["items"])  # of what takes none a few bytes make millions
    if isinstance(kind, dict) and kind.get("type") == "record":
        return any(_takes_room(field["type"]) for field in kind["fields"])
    if isinstance(kind, dict) and kind.get("type") == "fixed":
        return bool(kind["size"] > 0)
    return kind not in _NOTHING_ON_THE_WIRE


def _without_logical_types(schema: Any) -> Any:
    """The same schema and fingerprint with plain values: ints decode 2.4 times as fast as datetimes."""
    if isinstance(schema, list):
        return [_without_logical_types(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: _without_logical_types(value) for key, value in schema.items() if key != "logicalType"}
    return plain["type"] if plain.keys() == {"type"} and isinstance(plain["type"], str) else plain
