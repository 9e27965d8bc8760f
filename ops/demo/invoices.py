"""The retailer's invoice lines, read from a parquet file: pence, UTC and nothing else interpreted."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from pathlib import Path
from sys import intern
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow.parquet as pq

# The file's times carry no zone. They are taken for the retailer's own clock: in winter that is UTC, in summer an hour ahead.
RETAILER_CLOCK = ZoneInfo("Europe/London")

_COLUMNS = [
    "invoice_no",
    "stock_code",
    "description",
    "quantity",
    "unit_price",
    "invoice_date",
    "customer_id",
]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an invoice as the retailer wrote it; `price_minor` in pence, `occurred_at` in UTC."""

    invoice_no: str
    sku: str
    description: str
    quantity: int
    price_minor: int
    occurred_at: datetime
    customer_id: int | None

    @property
    def is_sale(self) -> bool:
        """Whether it gives units for money. All else on an ordinary invoice adjusts the stock."""
        return self.quantity > 0 and self.price_minor > 0


def is_goods(sku: str) -> bool:
    """Whether the code names something on a shelf: it begins with five digits or with DCGS. All else is sold without stock."""
    return sku.startswith("DCGS") or (len(sku) >= 5 and sku[:5].isascii() and sku[:5].isdigit())


def read_lines(path: Path, first_day: date, last_day: date) -> list[Line]:
    """The file's lines of the retailer's days `first_day` to `last_day`, both included, in the file's order.

    Raises OSError where there is no such file, and pyarrow.ArrowInvalid where it is no parquet file.
    """
    file = pq.ParquetFile(path)
    batches = file.iter_batches(columns=_COLUMNS)
    return [line for batch in batches for line in _lines_of(batch.to_pydict(), first_day, last_day)]


def _lines_of(columns: Mapping[str, list[Any]], first_day: date, last_day: date) -> Iterator[Line]:
    for invoice_no, sku, description, quantity, price, local_time, customer_id in zip(
        *(columns[name] for name in _COLUMNS), strict=True
    ):
        if first_day <= local_time.date() <= last_day:
            yield Line(
                invoice_no=intern(invoice_no),
                sku=intern(sku),
                description=intern((description or "").strip()),
                quantity=quantity,
                price_minor=_pence(price),
                occurred_at=to_utc(local_time),
                customer_id=customer_id,
            )


@lru_cache(maxsize=10_000)
def _pence(pounds: float) -> int:
    """Half a penny goes up, and what costs anything at all costs a penny."""
    pence = int((Decimal(str(pounds)) * 100).quantize(Decimal(1), ROUND_HALF_UP))
    return max(1, pence) if pounds > 0 else pence


@lru_cache(maxsize=10_000)
def to_utc(local_time: datetime) -> datetime:
    return local_time.replace(tzinfo=RETAILER_CLOCK).astimezone(UTC)
