"""From the retailer's invoice lines to a trade plan: what is published, received, adjusted and ordered, in time order."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time
from enum import StrEnum
from fractions import Fraction
from math import ceil
from typing import Literal, TypeAlias, TypeVar

from ops.demo.invoices import RETAILER_CLOCK, Line, is_goods, to_utc
from ops.demo.words import SERVICES, Reason, category_of, reason_of

CURRENCY = "GBP"

# What the API refuses with a 422. The plan names such trade instead of sending it.
MOST_LINES_OF_A_CART = 2_000
MOST_UNITS = 1_000_000
DEAREST_PRICE_MINOR = 1_000_000

# One customer in so many has a card that the bank declines.
DECLINED_DIVISOR = 97

Token: TypeAlias = Literal["tok_ok", "tok_declined"]


class Fate(StrEnum):
    """What became of one line of the input; every line has exactly one."""

    SOLD = "sold"
    SOLD_WITHOUT_STOCK = "sold_without_stock"
    REFUSED_STOCK = "refused_stock"
    DECLINED_PAYMENT = "declined_payment"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    ADJUSTED = "adjusted"
    ADJUSTMENT_REFUSED = "adjustment_refused"
    ADJUSTMENT_NOT_STOCKED = "adjustment_not_stocked"
    CANCELLATION_NOT_TRADED = "cancellation_not_traded"
    BAD_DEBT_NOT_TRADED = "bad_debt_not_traded"
    NOT_TRADABLE = "not_tradable"  # what the API would refuse as absurd: none in the retailer's year, so reports name it only then


@dataclass(frozen=True, slots=True)
class Product:
    """A stock code as it is published; one that is not `sellable` has no price of its own and is in no order."""

    sku: str
    description: str
    category: str
    price_minor: int
    currency: str
    stocked: bool
    sellable: bool


@dataclass(frozen=True, slots=True)
class Receipt:
    """Units of one SKU received before the first day opens."""

    sku: str
    quantity: int
    document: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class Adjustment:
    """One zero-price or negative line of an ordinary invoice; `delta` has the retailer's sign, `note` is his free text."""

    key: str
    invoice_no: str
    sku: str
    delta: int
    reason: Reason
    note: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class OrderLine:
    """All of an invoice's lines of one SKU: `source_lines` of them, `repriced_lines` at another price than the published."""

    sku: str
    quantity: int
    source_lines: int
    repriced_lines: int


@dataclass(frozen=True, slots=True)
class Order:
    """What one ordinary invoice sold, one line per SKU in the order in which they first appear."""

    invoice_no: str
    customer: str
    occurred_at: datetime
    lines: tuple[OrderLine, ...]
    token: Token

    @property
    def source_lines(self) -> int:
        return sum(line.source_lines for line in self.lines)

    @property
    def units(self) -> int:
        return sum(line.quantity for line in self.lines)


@dataclass(frozen=True, slots=True)
class Untradable:
    """Lines that Daybook's API would refuse as absurd, and why; they are not sent."""

    invoice_no: str
    source_lines: int
    why: str


@dataclass(frozen=True, slots=True)
class TradePlan:
    """Everything the demo sends: first `products` and `receipts`, then `trade` in time order.

    `untraded` counts the lines whose fate is known without trading; `remarks` are sentences about what differs from the input.
    """

    lines: int
    invoices: int
    opens_at: datetime
    products: tuple[Product, ...]
    receipts: tuple[Receipt, ...]
    trade: tuple[Order | Adjustment, ...]
    untraded: Mapping[Fate, int]
    untradable: tuple[Untradable, ...]
    remarks: tuple[str, ...]

    @property
    def orders(self) -> tuple[Order, ...]:
        return tuple(piece for piece in self.trade if isinstance(piece, Order))

    @property
    def adjustments(self) -> tuple[Adjustment, ...]:
        return tuple(piece for piece in self.trade if isinstance(piece, Adjustment))

    @property
    def repriced_lines(self) -> int:
        return sum(line.repriced_lines for order in self.orders for line in order.lines)

    @property
    def accounted_lines(self) -> int:
        """The lines of the input that have a place in this plan; equal to `lines` or the plan is wrong."""
        ordered = sum(order.source_lines for order in self.orders)
        return ordered + len(self.adjustments) + sum(self.untraded.values())


# ── planning ────────────────────────────────────────────────────────────────────────────────────────────────


def plan_trade(lines: Sequence[Line], scarcity: float) -> TradePlan:
    """The trade of these lines, received short of what is needed by `scarcity`, a share; ValueError unless 0 to 1."""
    if not 0 <= scarcity <= 1:
        raise ValueError(f"scarcity is a share between 0 and 1, not {scarcity}")
    prices = _published_prices(lines)
    books = _Books.of(lines)
    orders, absurd_orders = _plan_orders(books.sales, prices)
    adjustments, absurd_adjustments = _plan_adjustments(books.adjustments, _product_names(lines))
    untradable = (*absurd_orders, *absurd_adjustments)
    opens_at = _opening_time(lines)
    plan = TradePlan(
        lines=len(lines),
        invoices=len({line.invoice_no for line in lines}),
        opens_at=opens_at,
        products=_plan_products(lines, prices),
        receipts=_plan_receipts(_units_needed(orders, adjustments), scarcity, opens_at),
        trade=_in_time_order(orders, adjustments),
        untraded=_count_untraded(books, untradable),
        untradable=untradable,
        remarks=_remarks(lines, prices),
    )
    if plan.accounted_lines != plan.lines:
        raise AssertionError(f"{plan.accounted_lines} of {plan.lines} lines have a place in the plan")
    return plan


@dataclass(frozen=True, slots=True)
class _Books:
    """The lines, sorted by what the retailer meant by them."""

    sales: list[Line]
    adjustments: list[Line]
    adjustments_not_stocked: list[Line]
    cancellations: list[Line]
    bad_debts: list[Line]

    @classmethod
    def of(cls, lines: Iterable[Line]) -> "_Books":
        books = cls([], [], [], [], [])
        for line in lines:
            books._book_of(line).append(line)
        return books

    def _book_of(self, line: Line) -> list[Line]:
        if line.invoice_no.startswith("C"):
            return self.cancellations
        if line.invoice_no.startswith("A"):
            return self.bad_debts
        if line.is_sale:
            return self.sales
        return self.adjustments if is_goods(line.sku) else self.adjustments_not_stocked


def _count_untraded(books: _Books, untradable: Iterable[Untradable]) -> dict[Fate, int]:
    return {
        Fate.ADJUSTMENT_NOT_STOCKED: len(books.adjustments_not_stocked),
        Fate.CANCELLATION_NOT_TRADED: len(books.cancellations),
        Fate.BAD_DEBT_NOT_TRADED: len(books.bad_debts),
        Fate.NOT_TRADABLE: sum(each.source_lines for each in untradable),
    }


def _in_time_order(
    orders: Iterable[Order], adjustments: Iterable[Adjustment]
) -> tuple[Order | Adjustment, ...]:
    return tuple(sorted((*orders, *adjustments), key=lambda piece: (piece.occurred_at, piece.invoice_no)))


def _opening_time(lines: Sequence[Line]) -> datetime:
    """Midnight, by the retailer's clock, of the first day; without any line, of the day time began."""
    first = min((line.occurred_at for line in lines), default=datetime.fromtimestamp(0, UTC))
    return to_utc(datetime.combine(first.astimezone(RETAILER_CLOCK).date(), time.min))


# ── products ────────────────────────────────────────────────────────────────────────────────────────────────


def _published_prices(lines: Iterable[Line]) -> dict[str, int]:
    """Of each SKU that has one, its commonest price: the lowest on a tie, and never dearer than the API takes."""
    seen: dict[str, Counter[int]] = defaultdict(Counter)
    for line in lines:
        if line.is_sale:
            seen[line.sku][line.price_minor] += 1
    return {sku: min(_commonest(counts), DEAREST_PRICE_MINOR) for sku, counts in seen.items()}


_Key = TypeVar("_Key", int, str)


def _commonest(counts: Counter[_Key]) -> _Key:
    """The key counted most often, the lowest of several."""
    return min(counts, key=lambda key: (-counts[key], key))


def _product_names(lines: Iterable[Line]) -> dict[str, Counter[str]]:
    """What each SKU is called where it is sold: on the other lines the description may be a reason such as "damages"."""
    names: dict[str, Counter[str]] = defaultdict(Counter)
    for line in lines:
        if line.is_sale and line.description:
            names[line.sku][line.description] += 1
    return names


def _plan_products(lines: Iterable[Line], prices: Mapping[str, int]) -> tuple[Product, ...]:
    """Every stock code of the lines, in the order in which they first appear."""
    names = _product_names(lines)
    fallback: dict[str, Counter[str]] = defaultdict(Counter)
    for line in lines:
        fallback[line.sku][line.description or line.sku] += 1
    return tuple(
        _plan_product(sku, _commonest(names.get(sku) or others), prices) for sku, others in fallback.items()
    )


def _plan_product(sku: str, name: str, prices: Mapping[str, int]) -> Product:
    return Product(
        sku=sku,
        description=name,
        category=category_of(name) if is_goods(sku) else SERVICES,
        price_minor=prices.get(sku, 1),
        currency=CURRENCY,
        stocked=is_goods(sku),
        sellable=sku in prices,
    )


def _remarks(lines: Iterable[Line], prices: Mapping[str, int]) -> tuple[str, ...]:
    capped = {line.sku for line in lines if line.is_sale and line.price_minor > DEAREST_PRICE_MINOR}
    dearest = f"£{DEAREST_PRICE_MINOR / 100:,.2f}"
    return tuple(
        f"{sku} is published at {dearest}, the dearest price that the API takes"
        for sku in sorted(capped)
        if prices[sku] == DEAREST_PRICE_MINOR
    )


# ── stock ───────────────────────────────────────────────────────────────────────────────────────────────────


def _units_needed(orders: Iterable[Order], adjustments: Iterable[Adjustment]) -> Counter[str]:
    """Units sold plus units written off, per SKU that has stock."""
    needed: Counter[str] = Counter()
    for order in orders:
        for line in order.lines:
            if is_goods(line.sku):
                needed[line.sku] += line.quantity
    for adjustment in adjustments:
        if adjustment.delta < 0:
            needed[adjustment.sku] -= adjustment.delta
    return needed


def _plan_receipts(needed: Mapping[str, int], scarcity: float, opens_at: datetime) -> tuple[Receipt, ...]:
    """⌈needed x (1 - scarcity)⌉ of each SKU, in exact arithmetic: 0.01 means one in a hundred, not the nearest float."""
    share = 1 - Fraction(str(scarcity))
    return tuple(
        Receipt(sku, quantity, f"opening-{opens_at.astimezone(RETAILER_CLOCK):%Y-%m-%d}-{number}", opens_at)
        for sku, units in needed.items()
        for number, quantity in enumerate(_deliveries(ceil(units * share)), start=1)
    )


def _deliveries(units: int) -> Iterator[int]:
    """The units in receipts that the API takes: one in practice, none where nothing is needed."""
    while units > 0:
        yield min(units, MOST_UNITS)
        units -= MOST_UNITS


def _plan_adjustments(
    lines: Iterable[Line], names: Mapping[str, Counter[str]]
) -> tuple[list[Adjustment], list[Untradable]]:
    planned: list[Adjustment] = []
    absurd: list[Untradable] = []
    for line in lines:
        if line.quantity == 0 or abs(line.quantity) > MOST_UNITS:
            absurd.append(Untradable(line.invoice_no, 1, f"{line.sku} adjusted by {line.quantity:,} units"))
        else:
            planned.append(_plan_adjustment(line, len(planned), names.get(line.sku, Counter())))
    return planned, absurd


def _plan_adjustment(line: Line, number: int, names: Counter[str]) -> Adjustment:
    """The product's own name says nothing about why: only other words are a reason."""
    return Adjustment(
        key=f"{line.invoice_no}-{number}",
        invoice_no=line.invoice_no,
        sku=line.sku,
        delta=line.quantity,
        reason="unknown" if line.description in names else reason_of(line.description),
        note=line.description,
        occurred_at=line.occurred_at,
    )


# ── orders ──────────────────────────────────────────────────────────────────────────────────────────────────


def _plan_orders(sales: Iterable[Line], prices: Mapping[str, int]) -> tuple[list[Order], list[Untradable]]:
    invoices: dict[str, list[Line]] = defaultdict(list)
    for line in sales:
        invoices[line.invoice_no].append(line)
    planned: list[Order] = []
    absurd: list[Untradable] = []
    for lines in invoices.values():
        order = _plan_order(lines, prices)
        why = _why_untradable(order)
        if why is None:
            planned.append(order)
        else:
            absurd.append(Untradable(order.invoice_no, order.source_lines, why))
    return planned, absurd


def _plan_order(lines: Sequence[Line], prices: Mapping[str, int]) -> Order:
    """An invoice may spread over two minutes: it is dated by its first line."""
    customer_id = next((line.customer_id for line in lines if line.customer_id is not None), None)
    invoice_no = lines[0].invoice_no
    return Order(
        invoice_no=invoice_no,
        customer=f"guest-{invoice_no}" if customer_id is None else f"c-{customer_id}",
        occurred_at=min(line.occurred_at for line in lines),
        lines=_merge_by_sku(lines, prices),
        token="tok_ok" if customer_id is None or customer_id % DECLINED_DIVISOR else "tok_declined",
    )


def _merge_by_sku(lines: Iterable[Line], prices: Mapping[str, int]) -> tuple[OrderLine, ...]:
    by_sku: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        by_sku[line.sku].append(line)
    return tuple(
        OrderLine(
            sku=sku,
            quantity=sum(line.quantity for line in same),
            source_lines=len(same),
            repriced_lines=sum(line.price_minor != prices[sku] for line in same),
        )
        for sku, same in by_sku.items()
    )


def _why_untradable(order: Order) -> str | None:
    if len(order.lines) > MOST_LINES_OF_A_CART:
        return f"{len(order.lines):,} SKUs in one cart"
    most = max(order.lines, key=lambda line: line.quantity)
    return f"{most.quantity:,} units of {most.sku}" if most.quantity > MOST_UNITS else None
