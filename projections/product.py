"""The product as a shopper sees it, and the lists by category."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, assert_never

import orjson

from projections import hot, stock
from projections.redis_store import Mark, RedisReader, RedisView
from projections.view import Served, existing
from schemas.catalog import (
    CatalogEvent,
    PriceChanged,
    ProductChanged,
    ProductPublished,
    ProductRetired,
    product_stream,
)
from schemas.codec import Decoded
from schemas.meta import EventMeta
from schemas.values import Position


@dataclass(frozen=True, slots=True)
class Product:
    """A retired product is still shown to who asks for it by sku, but no list names it."""

    sku: str
    name: str
    description: str
    categories: tuple[str, ...]
    image: str
    price: int
    currency: str
    stocked: bool
    retired: bool
    version: int


def evolve(product: Product | None, event: Decoded[EventMeta]) -> Product:
    body: CatalogEvent = event.body
    version = event.meta.version
    match body:
        case ProductPublished():
            return Product(**vars(body), retired=False, version=version)
        case ProductChanged():
            return replace(existing(product), **vars(body), version=version)
        case PriceChanged():
            return replace(existing(product), price=body.price, currency=body.currency, version=version)
        case ProductRetired():
            return replace(existing(product), retired=True, version=version)
        case _:
            assert_never(body)


def load(json: bytes) -> Product:
    fields = orjson.loads(json)
    return Product(**fields | {"categories": tuple(fields["categories"])})


def marks(before: Product | None, after: Product) -> Iterable[Mark]:
    """In which lists a product stands, and in which it does not stand any more."""
    now = _lists_of(after)
    gone = _lists_of(before) - now if before else set()
    yield from (Mark(index, after.sku, 0) for index in sorted(now))
    yield from (Mark(index, after.sku, None) for index in sorted(gone))


def _lists_of(product: Product) -> set[str]:
    return set() if product.retired else {_list_of(""), *map(_list_of, product.categories)}


def _list_of(category: str) -> str:
    """The list of a category; without a name the list of all products."""
    return f"category/{category}"


VIEW = RedisView(
    name="product",
    version=1,
    kind="product",
    aggregates=("catalog",),
    evolve=evolve,
    dump=orjson.dumps,
    load=load,
    marks=marks,
)


async def by_sku(reader: RedisReader, sku: str, after: Sequence[Position] = ()) -> Served | None:
    await reader.caught_up(after, VIEW)
    return await reader.document(VIEW, product_stream(sku))


async def by_skus(reader: RedisReader, skus: Sequence[str]) -> dict[str, Product]:
    """The products that there are (also retired ones) among these."""
    found = await reader.documents(VIEW, [product_stream(sku) for sku in skus])
    return {sku: load(served.body) for sku, served in zip(skus, found, strict=True) if served}


async def listed(
    reader: RedisReader,
    category: str = "",
    sort: Literal["sku", "hot"] = "sku",
    page: int = 1,
    limit: int = 20,
    after: Sequence[Position] = (),
) -> Served:
    """The `page`-th page (from 1) of a category, or of all products: by sku, or the most wanted goods first.

    `total` counts the list; sorted by demand it names goods that have a stock item, and no others.
    """
    start = (page - 1) * limit
    if sort == "hot":
        await reader.caught_up(after, VIEW, stock.VIEW)
        skus = await hot.hottest(reader, VIEW, _list_of(category), start, limit)
        _, total = await reader.members(VIEW, _list_of(category), 0, 1)
    else:
        await reader.caught_up(after, VIEW)
        skus, total = await reader.members(VIEW, _list_of(category), start, limit)
    found = await reader.documents(VIEW, [product_stream(sku) for sku in skus])
    products = b",".join(served.body for served in found if served)
    return Served(b'{"products":[%b],"page":%d,"limit":%d,"total":%d}' % (products, page, limit, total))
