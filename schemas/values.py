"""Values that several aggregates speak of: lines, positions, and the limits of what is sensible."""

from schemas.frozen import frozen

MAIN = "main"
"""The one location of the spine."""

QUANTITY_MAX = 1_000_000
PRICE_MAX = 1_000_000
LINES_MAX = 2_000


@frozen
class Line:
    """So many units of a SKU, on the `line`-th line (from 1) of an order."""

    line: int
    sku: str
    quantity: int


@frozen
class RefusedLine:
    """A line that inventory could not grant; `available` is what it could have granted at that moment."""

    line: int
    sku: str
    quantity: int
    available: int


@frozen
class PricedLine:
    """A line as it was checked out: `unit_price` in minor units, as of `price_version` of the product's stream."""

    line: int
    sku: str
    name: str
    quantity: int
    unit_price: int
    price_version: int
    stocked: bool


@frozen
class Position:
    """A point in a stream; written `stream@version`."""

    stream: str
    version: int

    def __str__(self) -> str:
        return f"{self.stream}@{self.version}"
