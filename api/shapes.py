"""Shapes that several routes share: ids and SKUs as they stand in paths, and what every body has in common."""

from typing import Annotated

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from schemas.values import PRICE_MAX, QUANTITY_MAX

JSON = "application/json"

_UUID = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
_SKU = r"^[^\p{C}\p{Z}/]([^\p{C}\p{Zl}\p{Zp}/]{0,62}[^\p{C}\p{Z}/])?$"
"""1 to 64 visible characters without a slash; blanks within (`BANK CHARGES`), not around."""
_SKU_TOLD = WithJsonSchema(
    {
        "type": "string",
        "format": "sku",
        "minLength": 1,
        "maxLength": 64,
        "examples": ["85123A"],
        "description": "visible characters without a slash; blanks within, not around",
    }
)
"""What OpenAPI says of it: the pattern's classes of characters are unknown to many readers of JSON schemas."""
VISIBLE_ASCII = r"^[\x21-\x7e]+$"

Uuid = Annotated[str, Field(pattern=_UUID, examples=["7c0f6d9e-8f8e-5d6b-9a53-3b1a4f0c7d11"])]
Id = Annotated[str, Path(pattern=_UUID, examples=["7c0f6d9e-8f8e-5d6b-9a53-3b1a4f0c7d11"])]
SkuInPath = Annotated[str, Path(alias="sku", pattern=_SKU), _SKU_TOLD]
Sku = Annotated[str, Field(pattern=_SKU), _SKU_TOLD]
Subject = Annotated[str, Path(pattern=r"^[\x21-\x2e\x30-\x7e]{1,200}$", examples=["17850"])]

Quantity = Annotated[int, Field(ge=1, le=QUANTITY_MAX)]
Threshold = Annotated[int, Field(ge=0, le=QUANTITY_MAX)]
Delta = Annotated[int, Field(ge=-QUANTITY_MAX, le=QUANTITY_MAX)]
Price = Annotated[int, Field(ge=1, le=PRICE_MAX, description="minor units of the currency")]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="ISO 4217", examples=["GBP"])]

Limit = Annotated[int, Query(ge=1, le=100)]
Cursor = Annotated[str, Query(max_length=1_000, description="`next` of the page before; empty for the first")]


class Body(BaseModel):
    """JSON says exactly what is meant: unknown fields and other types are refused. No error repeats what was said."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class Nothing(Body):
    """No field at all."""
