"""One event in three generations of its schema: before there were reasons, as it is today, and as it may be later."""

import copy
import json
from dataclasses import replace
from hashlib import sha256
from typing import Any

from schemas.avro import Schema, fingerprint_of, released_files, schema_of
from schemas.codec import Codec
from schemas.inventory import StockAdjusted
from schemas.meta import NO_HASH, Micros
from schemas.resolution import encode_sample
from tests.messages import EVENT

CODEC = Codec()
FIRST: Schema = json.loads(released_files()["StockAdjusted", "83bcb11195981b41"].read_text("utf-8"))
THIRD: Schema = copy.deepcopy(schema_of(StockAdjusted))
THIRD["fields"].append({"name": "counted_by", "type": ["null", "string"], "default": None})

ADJUSTED = tuple(
    StockAdjusted("85123A", "main", after, 0, 0, 0, before, after, reason, note, None)
    for before, after, reason, note in (
        (0, 7, "unknown", "found behind the door"),
        (7, 5, "damaged", "rain"),
        (5, 6, "found", "again"),
    )
)
"""As today's code has them; the first reason was never written down."""


def schemas() -> dict[str, Schema]:
    """What the topic `schemas` holds where a later release runs beside this one."""
    return {fingerprint_of(THIRD).hex(): THIRD}


def values() -> list[bytes]:
    """The three events of the stream, each as its generation wrote it, chained like any others."""
    found, previous = list[bytes](), NO_HASH
    for version, (body, write) in enumerate(zip(ADJUSTED, (_first, _second, _third), strict=True), start=1):
        meta = replace(
            EVENT, version=version, recorded_at=Micros(EVENT.recorded_at + version), previous=previous
        )
        found.append(write(vars(meta), body))
        previous = sha256(found[-1]).digest()
    return found


def _first(meta: dict[str, Any], body: StockAdjusted) -> bytes:
    return encode_sample(FIRST, _without({"meta": meta, **vars(body)}, "reason", "corrects"))


def _second(meta: dict[str, Any], body: StockAdjusted) -> bytes:
    return CODEC.encode(body, meta)


def _third(meta: dict[str, Any], body: StockAdjusted) -> bytes:
    return encode_sample(THIRD, {"meta": meta, **vars(body), "counted_by": "anna"})


def _without(datum: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in datum.items() if name not in names}
