"""The catalog decides: what of a publication is new."""

from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from commands.decider import Context, of_one_record
from commands.rejections import Rejection, UnknownProduct
from schemas.catalog import (
    CatalogCommand,
    CatalogEvent,
    PriceChanged,
    Product,
    ProductChanged,
    ProductPublished,
    ProductRetired,
    PublishedProduct,
    PublishProduct,
    RetiredProduct,
    RetireProduct,
)


def decide(
    product: Product | None, command: CatalogCommand, _context: Context
) -> Sequence[CatalogEvent] | Rejection:
    match command:
        case PublishProduct():
            return _publish(product, command)
        case RetireProduct():
            return _retire(product, command)
        case _:
            assert_never(command)


def _publish(product: Product | None, wanted: PublishProduct) -> Sequence[CatalogEvent]:
    match product:
        case None | RetiredProduct():
            return [
                ProductPublished(
                    wanted.sku,
                    wanted.name,
                    wanted.description,
                    wanted.categories,
                    wanted.image,
                    wanted.price,
                    wanted.currency,
                    wanted.stocked,
                )
            ]
        case PublishedProduct():
            return [*_changes(product, wanted), *_price_changes(product, wanted)]
        case _:
            assert_never(product)


def _changes(product: PublishedProduct, wanted: PublishProduct) -> Sequence[CatalogEvent]:
    changed = ProductChanged(
        wanted.sku, wanted.name, wanted.description, wanted.categories, wanted.image, wanted.stocked
    )
    as_it_is = ProductChanged(
        wanted.sku, product.name, product.description, product.categories, product.image, product.stocked
    )
    return [] if changed == as_it_is else [changed]


def _price_changes(product: PublishedProduct, wanted: PublishProduct) -> Sequence[CatalogEvent]:
    if (wanted.price, wanted.currency) == (product.price, product.currency):
        return []
    return [PriceChanged(wanted.sku, wanted.price, wanted.currency, product.price)]


def _retire(product: Product | None, command: RetireProduct) -> Sequence[CatalogEvent] | Rejection:
    match product:
        case None:
            return UnknownProduct(f"no product {command.sku}")
        case RetiredProduct():
            return []
        case PublishedProduct():
            return [ProductRetired(command.sku)]
        case _:
            assert_never(product)


def evolve(product: Product | None, event: CatalogEvent) -> Product:
    match event:
        case ProductPublished():
            return PublishedProduct(
                event.sku,
                event.name,
                event.description,
                event.categories,
                event.image,
                event.price,
                event.currency,
                event.stocked,
            )
        case ProductChanged():
            assert product is not None
            return replace(
                product,
                name=event.name,
                description=event.description,
                categories=event.categories,
                image=event.image,
                stocked=event.stocked,
            )
        case PriceChanged():
            assert product is not None
            return replace(product, price=event.price, currency=event.currency)
        case ProductRetired():
            assert product is not None
            return RetiredProduct(**vars(product))
        case _:
            assert_never(event)


DECIDER = of_one_record("catalog", decide, evolve)
