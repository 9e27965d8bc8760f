"""What the demo traded, counted line by line: the figures for machines and the words for a shopkeeper."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, Literal, TypeAlias

from ops.demo.invoices import is_goods
from ops.demo.plan import Fate, Order, TradePlan

OrderStatus: TypeAlias = Literal[
    "confirmed", "rejected_stock", "rejected_payment", "rejected_timeout", "cancelled", "placed"
]

HOLDS = "holds"

# ── what was seen ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class OrderOutcome:
    """How an order ended; still `placed` means that it has not. `refused_skus` are those that were short."""

    status: OrderStatus
    units_shipped: int = 0
    captured_minor: int = 0
    refused_skus: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What the client was told, by invoice number and by adjustment key. What it never heard of is missing."""

    orders: Mapping[str, OrderOutcome]
    adjustments: Mapping[str, Literal["adjusted", "refused"]]


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Milliseconds; 0 where nothing was measured."""

    p50: float
    p99: float

    @classmethod
    def of(cls, samples_ms: Iterable[float]) -> "Percentiles":
        """The nearest-rank percentiles of the samples."""
        ranked = sorted(samples_ms)
        return cls(_rank(ranked, 50), _rank(ranked, 99))


def _rank(ranked: Sequence[float], percent: int) -> float:
    return round(ranked[-(-len(ranked) * percent // 100) - 1], 3) if ranked else 0.0


@dataclass(frozen=True, slots=True)
class Measures:
    """What the run cost. `elapsed_s` runs from the first cart to the last shipment; the mappings are per role and store."""

    elapsed_s: float
    commands: int
    transactions: int
    command_ms: Percentiles
    freshness_ms: Percentiles
    rss_mb_max: Mapping[str, float]
    rss_mb_thirds: Mapping[str, tuple[float, float, float]]
    cpu_s: Mapping[str, float]


# ── the report ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Input:
    """The lines and invoices of the input, and the fate of each line."""

    lines: int
    invoices: int
    by_fate: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class OrderCounts:
    placed: int
    confirmed: int
    rejected_stock: int
    rejected_payment: int
    rejected_timeout: int
    cancelled: int


@dataclass(frozen=True, slots=True)
class Report:
    """The figures under the names that the demo's JSON gives them; money in pence, memory in MB, CPU in seconds."""

    input: Input
    orders: OrderCounts
    repriced: int
    units_shipped: int
    captured_minor: int
    elapsed_s: float
    orders_per_s: float
    commands_per_s: float
    transactions_per_s: float
    command_ms: Percentiles
    freshness_ms: Percentiles
    rss_mb_max: Mapping[str, float]
    rss_mb_thirds: Mapping[str, tuple[float, float, float]]
    cpu_s: Mapping[str, float]
    laws: Mapping[str, str]
    ran_out: Mapping[str, int]  # orders refused, by the description of what was short
    remarks: tuple[str, ...]


def build_report(plan: TradePlan, outcomes: Outcomes, measures: Measures, laws: Mapping[str, str]) -> Report:
    per_second = 1 / measures.elapsed_s if measures.elapsed_s > 0 else 0.0
    orders = _count_orders(outcomes)
    return Report(
        input=Input(plan.lines, plan.invoices, _count_fates(plan, outcomes)),
        orders=orders,
        repriced=plan.repriced_lines,
        units_shipped=sum(outcome.units_shipped for outcome in outcomes.orders.values()),
        captured_minor=sum(outcome.captured_minor for outcome in outcomes.orders.values()),
        elapsed_s=round(measures.elapsed_s, 3),
        orders_per_s=round(orders.placed * per_second, 1),
        commands_per_s=round(measures.commands * per_second, 1),
        transactions_per_s=round(measures.transactions * per_second, 1),
        command_ms=measures.command_ms,
        freshness_ms=measures.freshness_ms,
        rss_mb_max=measures.rss_mb_max,
        rss_mb_thirds=measures.rss_mb_thirds,
        cpu_s=measures.cpu_s,
        laws=laws,
        ran_out=_count_shortages(plan, outcomes),
        remarks=(*plan.remarks, *(f"Invoice {each.invoice_no}: {each.why}" for each in plan.untradable)),
    )


def adds_up(report: Report) -> bool:
    """Whether every line of the input has a fate and every placed order an end. An outcome nobody heard breaks it."""
    orders = report.orders
    ended = (
        orders.confirmed
        + orders.rejected_stock
        + orders.rejected_payment
        + orders.rejected_timeout
        + orders.cancelled
    )
    return sum(report.input.by_fate.values()) == report.input.lines and ended == orders.placed


def laws_hold(report: Report) -> bool:
    return set(report.laws) == set(LAWS) and all(verdict == HOLDS for verdict in report.laws.values())


def to_json(report: Report) -> dict[str, Any]:
    """The report as plain JSON values, under the keys that it promises and no others."""
    document = asdict(report)
    del document["ran_out"], document["remarks"]
    return document


# ── counting ──────────────────────────────────────────────────────────────────────────────────────────────

_FATE_OF_STATUS: Mapping[OrderStatus, Fate] = {
    "rejected_stock": Fate.REFUSED_STOCK,
    "rejected_payment": Fate.DECLINED_PAYMENT,
    "rejected_timeout": Fate.TIMED_OUT,
    "cancelled": Fate.CANCELLED,
}


def _count_fates(plan: TradePlan, outcomes: Outcomes) -> dict[str, int]:
    """The fates of all lines whose end is known, each fate named even where it is 0."""
    fates: Counter[Fate] = Counter(plan.untraded)
    for order in plan.orders:
        if order.invoice_no in outcomes.orders:
            fates.update(_fates_of(order, outcomes.orders[order.invoice_no].status))
    for adjustment in plan.adjustments:
        if adjustment.key in outcomes.adjustments:
            fates[_ADJUSTMENT_FATES[outcomes.adjustments[adjustment.key]]] += 1
    return {fate.value: fates[fate] for fate in Fate if fate is not Fate.NOT_TRADABLE or fates[fate]}


_ADJUSTMENT_FATES = {"adjusted": Fate.ADJUSTED, "refused": Fate.ADJUSTMENT_REFUSED}


def _fates_of(order: Order, status: OrderStatus) -> Counter[Fate]:
    """An order's fate is that of all its lines; one that is still placed has none."""
    if status == "confirmed":
        goods = sum(line.source_lines for line in order.lines if is_goods(line.sku))
        return Counter({Fate.SOLD: goods, Fate.SOLD_WITHOUT_STOCK: order.source_lines - goods})
    if status == "placed":
        return Counter()
    return Counter({_FATE_OF_STATUS[status]: order.source_lines})


def _count_orders(outcomes: Outcomes) -> OrderCounts:
    counts = Counter(outcome.status for outcome in outcomes.orders.values())
    return OrderCounts(
        placed=len(outcomes.orders),
        confirmed=counts["confirmed"],
        rejected_stock=counts["rejected_stock"],
        rejected_payment=counts["rejected_payment"],
        rejected_timeout=counts["rejected_timeout"],
        cancelled=counts["cancelled"],
    )


def _count_shortages(plan: TradePlan, outcomes: Outcomes) -> dict[str, int]:
    """How many orders each product's shortage turned away, most first."""
    names = {product.sku: f"{product.description} ({product.sku})" for product in plan.products}
    short = chain.from_iterable(outcome.refused_skus for outcome in outcomes.orders.values())
    return {names.get(sku, sku): orders for sku, orders in Counter(short).most_common()}


# ── in plain words ────────────────────────────────────────────────────────────────────────────────────────

_FATES_IN_WORDS: Mapping[Fate, str] = {
    Fate.SOLD: "sold and shipped from stock",
    Fate.SOLD_WITHOUT_STOCK: "sold, no goods (postage, fees, vouchers)",
    Fate.REFUSED_STOCK: "refused: not enough stock for the whole order",
    Fate.DECLINED_PAYMENT: "refused: the card was declined",
    Fate.TIMED_OUT: "refused: the checkout took too long",
    Fate.CANCELLED: "cancelled",
    Fate.ADJUSTED: "stock corrected (damages, finds, counts)",
    Fate.ADJUSTMENT_REFUSED: "stock correction refused: below an empty shelf",
    Fate.ADJUSTMENT_NOT_STOCKED: "correction of something that has no stock",
    Fate.CANCELLATION_NOT_TRADED: "customer's cancellation, not traded yet",
    Fate.BAD_DEBT_NOT_TRADED: "bad debt, not traded yet",
    Fate.NOT_TRADABLE: "too large to be true, not sent",
}

LAWS: Mapping[str, str] = {
    "1": "stock on hand is the sum of its movements, promises the sum of the orders'",
    "2": "nothing is promised that is not on the shelf",
    "3": "every order ends in time",
    "4": "every reservation ends in time",
    "5": "nobody pays twice, or for an order that did not happen",
    "6": "a command has one effect, whole or not at all",
    "7": "every page shows what the log says",
    "8": "no event is missing, doubled or changed",
}

_SHORTAGES_SHOWN = 10


def render(report: Report) -> str:
    """The report as text, some sixty lines of at most 100 characters."""
    sections = (
        _render_trade(report),
        _render_lines(report.input),
        _render_shortages(report.ran_out),
        _render_speed(report),
        _render_processes(report),
        _render_laws(report.laws),
        _render_remarks(report),
    )
    return "\n\n".join("\n".join(section) for section in map(list, sections) if section) + "\n"


def _render_trade(report: Report) -> Iterator[str]:
    orders = report.orders
    yield "WHAT WAS TRADED"
    yield _row("orders placed", orders.placed)
    yield _row("  confirmed", orders.confirmed)
    yield _row("  refused, not enough stock", orders.rejected_stock)
    yield _row("  refused, card declined", orders.rejected_payment)
    yield _row("  refused, took too long", orders.rejected_timeout)
    yield _row("  cancelled", orders.cancelled)
    yield _row("units shipped", report.units_shipped)
    yield f"{'money taken':<54}{_pounds(report.captured_minor):>16}"
    yield _row("lines ordered at another price than the published one", report.repriced)


def _render_lines(traded: Input) -> Iterator[str]:
    yield f"WHERE THE {traded.lines:,} LINES OF {traded.invoices:,} INVOICES WENT"
    for fate, lines in traded.by_fate.items():
        yield _row(_FATES_IN_WORDS[Fate(fate)], lines)
    known = sum(traded.by_fate.values())
    yield _row("together", known) + (
        "" if known == traded.lines else f"   DOES NOT ADD UP TO {traded.lines:,}"
    )


def _render_shortages(ran_out: Mapping[str, int]) -> Iterator[str]:
    if ran_out:
        yield "WHAT RAN OUT, AND HOW MANY ORDERS IT TURNED AWAY"
        yield from (_row(name, orders) for name, orders in list(ran_out.items())[:_SHORTAGES_SHOWN])
        if len(ran_out) > _SHORTAGES_SHOWN:
            yield f"and {len(ran_out) - _SHORTAGES_SHOWN:,} other products"


def _render_speed(report: Report) -> Iterator[str]:
    yield "HOW FAST"
    yield f"{'first cart to last shipment':<54}{report.elapsed_s:>14,.1f} s"
    yield f"{'orders, commands, transactions a second':<54}" + (
        f"{report.orders_per_s:,.1f}, {report.commands_per_s:,.1f}, {report.transactions_per_s:,.1f}".rjust(
            16
        )
    )
    yield _milliseconds("an answer takes, typically (1 in 100 more than)", report.command_ms)
    yield _milliseconds("and is seen on a page after", report.freshness_ms)


def _render_processes(report: Report) -> Iterator[str]:
    if report.rss_mb_max:
        yield f"{'WHAT IT COST':<32}{'CPU s':>10}{'MB at most':>12}   MB by thirds of the time"
    for name in sorted(report.rss_mb_max):
        thirds = "  ".join(f"{mb:.0f}" for mb in report.rss_mb_thirds.get(name, ()))
        yield f"{name:<32}{report.cpu_s.get(name, 0.0):>10,.1f}{report.rss_mb_max[name]:>12,.0f}   {thirds}"


def _render_laws(laws: Mapping[str, str]) -> Iterator[str]:
    yield "DO THE BOOKS HOLD? (read from the first event of the log)"
    for law, words in LAWS.items():
        yield f"{law}  {words:<80}{laws.get(law, 'NOT CHECKED')}"


def _render_remarks(report: Report) -> Iterator[str]:
    if report.remarks:
        yield "TO KNOW"
        yield from report.remarks


def _row(words: str, number: int) -> str:
    return f"{words[:53]:<54}{number:>16,}"


def _milliseconds(words: str, measured: Percentiles) -> str:
    return f"{words:<54}" + f"{measured.p50:,.1f} ms ({measured.p99:,.1f} ms)".rjust(16)


def _pounds(minor: int) -> str:
    """Pence as pounds: -123456 is -£1,234.56."""
    pounds, pence = divmod(abs(minor), 100)
    return f"{'-' if minor < 0 else ''}£{pounds:,}.{pence:02}"
