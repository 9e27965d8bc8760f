"""Products: what is for sale, and at what price."""

from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field

from api.answers import answered, is_new
from api.documented import reading, writing
from api.errands import Errand, ErrandOf
from api.readings import Reading, open_reading
from api.shapes import Body, Currency, Limit, Price, SkuInPath
from projections import product
from schemas.catalog import PublishProduct, RetireProduct, product_stream

routes = APIRouter(prefix="/v1/products", tags=["catalog"])

Merchants = Annotated[Errand, Depends(ErrandOf("merchant"))]
Anybodys = Annotated[Reading, Depends(open_reading)]
Category = Annotated[str, Field(min_length=1, max_length=100)]

EXAMPLE = {
    "sku": "85123A",
    "name": "WHITE HANGING HEART T-LIGHT HOLDER",
    "description": "",
    "categories": ["home"],
    "image": "",
    "price": 255,
    "currency": "GBP",
    "stocked": True,
    "retired": False,
    "version": 1,
}


class Publication(Body):
    """All of a product, as it is from now on. `stocked = false` is what is no goods (postage, vouchers)."""

    name: Annotated[str, Field(min_length=1, max_length=200, examples=["WHITE HANGING HEART T-LIGHT HOLDER"])]
    description: Annotated[str, Field(max_length=4_000)] = ""
    categories: Annotated[list[Category], Field(max_length=20, default_factory=list)]
    image: Annotated[str, Field(max_length=500, description="a reference")] = ""
    price: Price
    currency: Currency
    stocked: bool = True


@routes.put("/{sku}", **writing(created=True, sku="85123A"))
async def publish_product(sku: SkuInPath, body: Publication, errand: Merchants) -> Response:
    """Create the product or change it."""
    command = PublishProduct(
        sku,
        body.name,
        body.description,
        tuple(body.categories),
        body.image,
        body.price,
        body.currency,
        body.stocked,
    )
    decided = await errand.send("catalog", sku, command, body)
    created = is_new(decided, product_stream(sku))
    return answered(errand, decided, created=created, location=f"/v1/products/{quote(sku, safe='')}", sku=sku)


@routes.delete("/{sku}", **writing(sku="85123A"))
async def retire_product(sku: SkuInPath, errand: Merchants) -> Response:
    """Take the product off sale; what was sold stays sold."""
    return answered(errand, await errand.send("catalog", sku, RetireProduct(sku)), sku=sku)


@routes.get("/{sku}", **reading(EXAMPLE, guarded=False))
async def read_product(sku: SkuInPath, asked: Anybodys) -> Response:
    """One product; a retired one says so."""
    return asked.shown(await product.by_sku(asked.redis, sku, asked.after))


@routes.get("", **reading({"products": [EXAMPLE], "page": 1, "limit": 20, "total": 1}, guarded=False))
async def list_products(
    asked: Anybodys,
    category: Annotated[str, Query(max_length=100)] = "",
    sort: Literal["sku", "hot"] = "sku",
    page: Annotated[int, Query(ge=1, le=10_000)] = 1,
    limit: Limit = 20,
) -> Response:
    """The products of a category (or all), by SKU or the most wanted first."""
    return asked.shown(await product.listed(asked.redis, category, sort, page, limit, asked.after))
