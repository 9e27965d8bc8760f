"""The catalog: what is for sale and at what price. Stream `product/{sku}`."""

from typing import TypeAlias

from schemas.frozen import frozen


@frozen
class CatalogMessage:
    sku: str

    @property
    def stream(self) -> str:
        return product_stream(self.sku)


def product_stream(sku: str) -> str:
    return f"product/{sku}"


@frozen
class PublishProduct(CatalogMessage):
    """Creates the product or changes it; the decider finds out which. `stocked = False` is no goods (postage)."""

    name: str
    description: str
    categories: tuple[str, ...]
    image: str
    price: int
    currency: str
    stocked: bool


@frozen
class RetireProduct(CatalogMessage):
    pass


@frozen
class ProductPublished(CatalogMessage):
    name: str
    description: str
    categories: tuple[str, ...]
    image: str
    price: int
    currency: str
    stocked: bool


@frozen
class ProductChanged(CatalogMessage):
    """All but the price, as it is from now on."""

    name: str
    description: str
    categories: tuple[str, ...]
    image: str
    stocked: bool


@frozen
class PriceChanged(CatalogMessage):
    price: int
    currency: str
    price_before: int


@frozen
class ProductRetired(CatalogMessage):
    pass


@frozen
class PublishedProduct(CatalogMessage):
    name: str
    description: str
    categories: tuple[str, ...]
    image: str
    price: int
    currency: str
    stocked: bool


@frozen
class RetiredProduct(CatalogMessage):
    name: str
    description: str
    categories: tuple[str, ...]
    image: str
    price: int
    currency: str
    stocked: bool


CatalogCommand: TypeAlias = PublishProduct | RetireProduct
CatalogEvent: TypeAlias = ProductPublished | ProductChanged | PriceChanged | ProductRetired
Product: TypeAlias = PublishedProduct | RetiredProduct
