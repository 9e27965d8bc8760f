"""One event in three generations of its schema: before there were reasons, as it is today, and as it may be later."""

import copy
import json
from dataclasses import replace
from typing import Any

from schemas.avro import Schema, fingerprint_of, released_files, schema_of
from schemas.codec import Codec
from schemas.inventory import StockAdjusted
from schemas.meta import Micros
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
    """The three events of the stream, each as its generation wrote it."""
    first, second, third = (
        (vars(replace(EVENT, version=n, recorded_at=Micros(EVENT.recorded_at + n))), body)
        for n, body in enumerate(ADJUSTED, start=1)
    )
    return [
        encode_sample(FIRST, _without({"meta": first[0], **vars(first[1])}, "reason", "corrects")),
        CODEC.encode(second[1], second[0]),
        encode_sample(THIRD, {"meta": third[0], **vars(third[1]), "counted_by": "anna"}),
    ]


def _without(datum: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in datum.items() if name not in names}
