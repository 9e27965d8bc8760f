"""The demo's client: customers and a merchant who trade the retailer's days over HTTP, in a process of its own.

It says how far it is as one JSON object a line on standard output, and leaves what it was told in a file.
"""

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import orjson
import structlog
import uvloop

from ops.demo.contacts import contact_of
from ops.demo.frontend import Frontend, RefusedError, UnansweredError, Write, open_session
from ops.demo.invoices import read_lines
from ops.demo.plan import Adjustment, Order, Product, Receipt, TradePlan, plan_trade
from ops.demo.report import OrderOutcome, OrderStatus, Outcomes, Percentiles
from ops.roles import die_with_supervisor
from ops.tokens import issue

AT_ONCE = 64
"""So many customers are in flight."""

SETTLED_WITHIN_S = 150.0
"""A placed order is decided within 60 s; what an ended one is owed is asked for again every 60 s."""

TOKEN_TTL_S = 12 * 3_600
SAY_EVERY_S = 0.25
FIRST_GUESS_S = 0.2
SHORTEST_LOOK_S = 0.05
LONGEST_LOOK_S = 2.0
SHIPMENTS_MAX = 10

T = TypeVar("T")
Said = Callable[[str, int, int], None]
"""Hears a step's name, how much of it is done, and of how much."""

log = structlog.get_logger(__name__)


async def each(pieces: Iterable[T], do: Callable[[T], Awaitable[object]], at_once: int = AT_ONCE) -> None:
    """Does it for each, begun in their order, never more than `at_once` under way; the first failure ends all."""
    remaining = iter(pieces)

    async def go_on() -> None:
        for piece in remaining:
            await do(piece)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(go_on())


class Turns:
    """One after the other under each name, in the order of asking."""

    def __init__(self) -> None:
        self._last: dict[str, asyncio.Event] = {}

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        before, done = self._last.get(name), asyncio.Event()
        self._last[name] = done
        try:
            if before:
                await before.wait()
            yield
        finally:
            done.set()
            if self._last.get(name) is done:
                del self._last[name]


class Patience:
    """How long to leave something alone before looking again: about as long as it took the last times."""

    def __init__(self) -> None:
        self._usual_s = FIRST_GUESS_S

    def learn(self, took_s: float) -> None:
        self._usual_s += (took_s - self._usual_s) / 8

    def pauses(self, within_s: float) -> Iterable[float]:
        """A long pause first, short ones when it is nearly due; UnansweredError when nothing came of it."""
        gives_up_at = time.monotonic() + within_s
        pause_s = _bounded(0.9 * self._usual_s)
        while time.monotonic() < gives_up_at:
            yield pause_s
            pause_s = _bounded(0.3 * self._usual_s)
        raise UnansweredError(f"nothing came of it within {within_s:.0f} s")


def _bounded(pause_s: float) -> float:
    return min(max(SHORTEST_LOOK_S, pause_s), LONGEST_LOOK_S)


class Badges:
    """Bearer tokens that may backdate, one for each subject, signed with this machine's development key."""

    def __init__(self, jwks: Path) -> None:
        self._jwks = jwks
        self._customers: dict[str, str] = {}
        self.merchant = issue(jwks, "merchant", "retailer", backdate=True, ttl_s=TOKEN_TTL_S)

    def customer(self, subject: str) -> str:
        if subject not in self._customers:
            self._customers[subject] = issue(
                self._jwks, "customer", subject, backdate=True, ttl_s=TOKEN_TTL_S
            )
        return self._customers[subject]


class Trade:
    """Customers and a merchant at one Daybook. What they were told is in `outcomes` at the end."""

    def __init__(self, frontend: Frontend, badges: Badges, said: Said) -> None:
        self._frontend = frontend
        self._badges = badges
        self._said = said
        self._turns = Turns()
        self._decisions = Patience()
        self._allocations = Patience()
        self._ids: dict[str, str] = {}
        self._unsettled: dict[str, Order] = {}
        self._orders: dict[str, OrderOutcome] = {}
        self._adjustments: dict[str, Literal["adjusted", "refused"]] = {}

    @property
    def outcomes(self) -> Outcomes:
        return Outcomes(self._orders, self._adjustments)

    async def run(self, plan: TradePlan) -> None:
        await self._step("publishing", plan.products, lambda product: self._publish(product, plan))
        await self._await_catalog(len(plan.products))
        await self._step("receiving", plan.receipts, self._receive)
        await self._step("trading", plan.trade, self._trade)
        await self._step("settling", plan.orders, self._settle)

    async def _step(self, name: str, pieces: Sequence[T], do: Callable[[T], Awaitable[object]]) -> None:
        done = 0
        self._said(name, 0, len(pieces))

        async def count(piece: T) -> None:
            nonlocal done
            await do(piece)
            done += 1
            self._said(name, done, len(pieces))

        await each(pieces, count)

    # The merchant opens the shop.

    async def _publish(self, product: Product, plan: TradePlan) -> None:
        path = f"/products/{quote(product.sku, safe='')}"
        body = {
            "name": product.description,
            "categories": [product.category],
            "price": product.price_minor,
            "currency": product.currency,
            "stocked": product.stocked,
        }
        await self._frontend.write(
            Write("PUT", path, "publish", self._badges.merchant, path, body, plan.opens_at)
        )

    async def _await_catalog(self, products: int) -> None:
        """Nobody can put into a cart what the shop does not show yet."""
        for pause_s in Patience().pauses(SETTLED_WITHIN_S):
            if (await self._frontend.read("/products?limit=1"))["total"] >= products:
                return
            await asyncio.sleep(pause_s)

    async def _receive(self, receipt: Receipt) -> None:
        level = f"/inventory/{quote(receipt.sku, safe='')}"
        body = {"document": receipt.document, "quantity": receipt.quantity}
        await self._frontend.write(
            Write(
                "POST",
                f"{level}/receipts",
                receipt.document,
                self._badges.merchant,
                level,
                body,
                receipt.occurred_at,
            )
        )

    # The days.

    async def _trade(self, piece: Order | Adjustment) -> None:
        if isinstance(piece, Adjustment):
            async with self._turns.turn(f"stock of {piece.sku}"):
                await self._adjust(piece)
        else:
            async with self._turns.turn(piece.customer):
                await self._serve(piece)

    async def _adjust(self, adjustment: Adjustment) -> None:
        level = f"/inventory/{quote(adjustment.sku, safe='')}"
        body = {"delta": adjustment.delta, "reason": adjustment.reason, "note": adjustment.note}
        write = Write(
            "POST",
            f"{level}/adjustments",
            adjustment.key,
            self._badges.merchant,
            level,
            body,
            adjustment.occurred_at,
        )
        try:
            await self._frontend.write(write)
        except RefusedError as refused:
            if refused.kind != "stock-below-empty-shelf":
                raise
            self._adjustments[adjustment.key] = "refused"
        else:
            self._adjustments[adjustment.key] = "adjusted"

    async def _serve(self, order: Order) -> None:
        """From the empty cart to the parcel."""
        token = self._badges.customer(order.customer)
        order_id, receipt = await self._check_out(order, token)
        self._ids[order.invoice_no] = order_id
        decided = await self._watch(order_id, token, self._decisions, _is_decided, receipt)
        if decided["status"] == "confirmed":
            await self._ship(order, order_id, decided)

    async def _check_out(self, order: Order, token: str) -> tuple[str, str]:
        """The order's id, and the receipt of the checkout."""

        def write(path: str, body: object, seen_at: str) -> Write:
            key = f"{order.invoice_no}-{path.rpartition('/')[2]}"
            return Write("POST", path, key, token, seen_at, body, order.occurred_at)

        created = await self._frontend.write(write("/carts", {}, "/carts/{cart_id}"))
        cart = f"/carts/{created.document['cart_id']}"
        items = [{"sku": line.sku, "quantity": line.quantity} for line in order.lines]
        filled = await self._frontend.write(write(f"{cart}/items", items, cart))
        await self._frontend.read(cart, token, filled.receipt)
        body = {"payment_token": order.token, "contact": contact_of(order.customer)}
        checkout = await self._frontend.write(write(f"{cart}/checkout", body, "/orders/{order_id}"))
        return checkout.document["order_id"], checkout.receipt

    async def _ship(self, order: Order, order_id: str, seen: dict[str, Any]) -> None:
        """As the merchant, once all goods are allocated: what is not, cannot leave."""
        if not _is_shippable(seen):
            seen = await self._watch(order_id, self._badges.merchant, self._allocations, _is_shippable)
        if seen["status"] == "confirmed":
            await self._ask_for_shipment(order, order_id, attempt=1)

    async def _ask_for_shipment(self, order: Order, order_id: str, attempt: int) -> None:
        path = f"/orders/{order_id}"
        write = Write(
            "POST",
            f"{path}/shipment",
            f"ship-{attempt}",
            self._badges.merchant,
            path,
            {},
            order.occurred_at,
        )
        try:
            await self._frontend.write(write)
        except RefusedError as refused:
            if refused.kind != "order-is-closed":  # cancelled meanwhile, and told so when it settles
                raise

    async def _watch(
        self,
        order_id: str,
        token: str,
        patience: Patience,
        is_enough: Callable[[dict[str, Any]], bool],
        after: str = "",
    ) -> dict[str, Any]:
        """The order as soon as it has come far enough; looks when that is likely, not all the time."""
        began = time.monotonic()
        for pause_s in patience.pauses(SETTLED_WITHIN_S):
            await asyncio.sleep(pause_s)
            seen = await self._frontend.read(f"/orders/{order_id}", token, after)
            if is_enough(seen):
                patience.learn(time.monotonic() - began)
                return seen
            after = ""  # what was shown once stays so
        raise AssertionError("patience ends by itself")

    # The evening.

    async def _settle(self, order: Order) -> None:
        """Looks until nothing is owed any more, ships again what was refused, and notes how the order ended."""
        path, attempt = f"/orders/{self._ids[order.invoice_no]}", 1
        seen: dict[str, Any] = {}
        try:
            for pause_s in Patience().pauses(SETTLED_WITHIN_S):
                seen = await self._frontend.read(path, self._badges.merchant)
                if seen["settled"]:
                    break
                if _wants_shipment(seen) and attempt < SHIPMENTS_MAX:
                    attempt += 1
                    await self._ask_for_shipment(order, seen["order_id"], attempt)
                await asyncio.sleep(pause_s)
        except UnansweredError:
            log.warning("order_not_settled", invoice_no=order.invoice_no, order=seen)
        if seen:
            self._orders[order.invoice_no] = outcome_of(seen)


def _is_decided(seen: dict[str, Any]) -> bool:
    return bool(seen["status"] != "placed")


def _is_shippable(seen: dict[str, Any]) -> bool:
    """Also what will never be shipped need not be waited for."""
    return seen["status"] != "confirmed" or seen["fulfilment_status"] in ("none", "allocated", "requested")


def _wants_shipment(seen: dict[str, Any]) -> bool:
    return bool(seen["status"] == "confirmed" and seen["fulfilment_status"] == "refused")


def outcome_of(seen: dict[str, Any]) -> OrderOutcome:
    """How an order ended, from its page."""
    shipped = seen["fulfilment_status"] == "shipped"
    return OrderOutcome(
        status=_status_of(seen),
        units_shipped=sum(line["quantity"] for line in seen["lines"] if line["stocked"]) if shipped else 0,
        captured_minor=seen["amount"] if seen["payment_status"] == "captured" else 0,
        refused_skus=tuple(sorted({line["sku"] for line in seen["refused"]})),
    )


def _status_of(seen: dict[str, Any]) -> OrderStatus:
    rejected: dict[str, OrderStatus] = {
        "stock": "rejected_stock",
        "payment": "rejected_payment",
        "timeout": "rejected_timeout",
    }
    match seen["status"]:
        case "confirmed" | "completed":
            return "confirmed"
        case "rejected":
            return rejected[seen["reason"]]
        case "cancelled":
            return "cancelled"
        case _:
            return "placed"


# ── the process ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Told:
    """What the client leaves behind: what it was told, and what it measured."""

    outcomes: Outcomes
    command_ms: Percentiles
    freshness_ms: Percentiles
    acknowledged: tuple[str, ...]

    def to_json(self) -> bytes:
        return orjson.dumps(self)

    @classmethod
    def from_json(cls, text: bytes) -> "Told":
        said = orjson.loads(text)
        orders = {
            invoice: OrderOutcome(**{**outcome, "refused_skus": tuple(outcome["refused_skus"])})
            for invoice, outcome in said["outcomes"]["orders"].items()
        }
        return cls(
            Outcomes(orders, said["outcomes"]["adjustments"]),
            Percentiles(**said["command_ms"]),
            Percentiles(**said["freshness_ms"]),
            tuple(said["acknowledged"]),
        )


def say(step: str, done: int, of: int) -> None:
    print(orjson.dumps({"step": step, "done": done, "of": of}).decode(), flush=True)


def now_and_then(tell: Said) -> Said:
    """Beginnings and ends at once, else four times a second."""
    told_at = 0.0

    def said(step: str, done: int, of: int) -> None:
        nonlocal told_at
        now = time.monotonic()
        if done in (0, of) or now - told_at >= SAY_EVERY_S:
            told_at = now
            tell(step, done, of)

    return said


async def trade(plan: TradePlan, address: str, jwks: Path, said: Said) -> Told:
    """Trades the plan at the Daybook whose API listens at `address` (host:port)."""
    async with open_session() as session:
        frontend = Frontend(session, address)
        trading = Trade(frontend, Badges(jwks), said)
        await trading.run(plan)
    samples = frontend.samples
    return Told(
        trading.outcomes,
        Percentiles.of(samples.command_ms),
        Percentiles.of(samples.freshness_ms),
        tuple(f"{stream}@{version}" for stream, version in samples.acknowledged.items()),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--api", required=True, help="host:port")
    parser.add_argument("--jwks", required=True, type=Path)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--from", required=True, type=date.fromisoformat, dest="first_day")
    parser.add_argument("--to", required=True, type=date.fromisoformat, dest="last_day")
    parser.add_argument("--scarcity", required=True, type=float)
    parser.add_argument("--told", required=True, type=Path, help="the file that is left behind")
    given = parser.parse_args()
    die_with_supervisor()
    plan = plan_trade(read_lines(given.data, given.first_day, given.last_day), given.scarcity)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        told = runner.run(trade(plan, given.api, given.jwks, now_and_then(say)))
    given.told.write_bytes(told.to_json())


if __name__ == "__main__":
    main()
