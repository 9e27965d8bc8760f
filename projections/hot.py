"""Hot products: the goods that customers hold or have got the most units of, ranked by the stock view's fold."""

from typing import Any

from projections import stock
from projections.redis_store import RedisReader, RedisView

STRIDE = 256
DEPTH_MAX = 20_000
"""No list is looked for further down the ranking."""


async def hottest(
    reader: RedisReader, listing: RedisView[Any], index: str, start: int, count: int
) -> list[str]:
    """The `start`-th (from 0) and following of the most wanted SKUs that stand in an index of another view."""
    found: list[str] = []
    for depth in range(0, DEPTH_MAX, STRIDE):
        skus, total = await reader.members(stock.VIEW, stock.DEMAND, depth, STRIDE, best_first=True)
        listed = await reader.are_members(listing, index, skus)
        found += [sku for sku, is_listed in zip(skus, listed, strict=True) if is_listed]
        if len(found) >= start + count or depth + STRIDE >= total:
            break
    return found[start : start + count]
