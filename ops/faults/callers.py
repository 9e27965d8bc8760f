"""Callers: customers and a merchant at one Daybook over HTTP, side by side, who write down what they are told."""

import asyncio
import random
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote
from uuid import uuid4

import aiohttp
import orjson
from yarl import URL

from ops.faults.history import BY_RECEIPT, UNAVAILABLE, UNSENT, Attempt, History, Told
from ops.tokens import issue
from schemas.meta import derived_id

TOKEN_TTL_S = 6 * 3_600
REQUEST_S = 10.0
PATIENCE_S = 45.0
"""So long a write is sent again under its key; then its sender does not know what became of it."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
GIVES_UP_AT_ONCE = 0.2
"""The share of senders who never send again: for what they doubt, the log alone must answer."""
READS_OWN_WRITE = 0.3
OWN_WRITE = " after a receipt"
"""What reads wait for the projections; in the name of their route."""
STOPS_WITHIN_S = PATIENCE_S + 2 * REQUEST_S
OK, CREATED, UNDECIDED = 200, 201, 202
ORDERS_KEPT = 200
UNITS = 1_000_000
SCARCE_UNITS = 40


@dataclass(frozen=True)
class Habits:
    """What the callers do: how many there are, how long each rests between two errands (seconds), what they buy.

    `readers` are callers beside them who only look; `tokens` are the cards, one drawn for each checkout; `hot` is the
    share of purchases of the first SKU alone, `reads` that of errands that only look.
    """

    callers: int = 8
    readers: int = 0
    rest_s: float = 0.05
    skus: tuple[str, ...] = tuple(f"FAULT-{number:02}" for number in range(12))
    scarce: tuple[str, ...] = ("SCARCE-0", "SCARCE-1")
    tokens: tuple[str, ...] = ("tok_ok",) * 9 + ("tok_declined",)
    hot: float = 0.0
    reads: float = 0.5


@dataclass(frozen=True)
class Caller:
    """Somebody with a bearer token, under the name from which the API makes his commands' ids."""

    name: str
    token: str


@dataclass(frozen=True)
class Street:
    """What all callers share: where Daybook is, who they may be, and where they write down what they hear."""

    api: str
    jwks: Path
    history: History
    habits: Habits
    run: str
    orders: deque[tuple[Caller, str]]
    """The latest, each with its owner, who alone may look at it."""

    @classmethod
    def at(cls, api: str, jwks: Path, history: History, habits: Habits) -> Self:
        """`run` keeps the keys and subjects of two streets apart."""
        return cls(api, jwks, history, habits, uuid4().hex[:8], deque(maxlen=ORDERS_KEPT))

    def customer(self, subject: str) -> Caller:
        return Caller(f"customer/{subject}", issue(self.jwks, "customer", subject, ttl_s=TOKEN_TTL_S))

    def merchant(self) -> Caller:
        return Caller("merchant/faults", issue(self.jwks, "merchant", "faults", ttl_s=TOKEN_TTL_S))


@dataclass(frozen=True)
class Reply:
    """`status` 0 where none came."""

    status: int
    document: Mapping[str, Any]
    receipt: str = ""

    @property
    def kind(self) -> str:
        """The last part of a problem's type; empty for what is no problem."""
        return str(self.document.get("type", "")).rpartition("/")[2]


class Connection:
    """One caller's requests: each is noted as an attempt, each write as what its sender was told."""

    def __init__(self, session: aiohttp.ClientSession, street: Street, rng: random.Random) -> None:
        self._session = session
        self._street = street
        self._random = rng
        self._keys = 0
        self._seen: dict[str, int] = {}

    async def write(
        self, who: Caller, method: str, route: str, path: str, body: object, *, insists: bool | None = None
    ) -> Reply:
        """Sent under one key until somebody says what became of it, or patience ends; some never send again."""
        self._keys += 1
        key = f"{self._street.run}-{self._random.getrandbits(48):x}-{self._keys}"
        told = self._street.history.told(derived_id(who.name, method, f"/v1{path}", key), f"{method} {route}")
        if insists is None:
            insists = self._random.random() >= GIVES_UP_AT_ONCE
        reply = Reply(0, {})
        for pause_s in _pauses(PATIENCE_S):
            reply = await self._send(who, told.route, method, path, body, {"Idempotency-Key": key})
            _note(told, reply)
            if told.outcome != "unknown" and reply.kind not in UNSENT:
                break
            if not insists:
                break
            await asyncio.sleep(pause_s * self._random.uniform(0.5, 1.0))
        return reply

    async def read(self, who: Caller, route: str, path: str, receipt: str = "", stream: str = "") -> Reply:
        """A document, at least as new as the receipt says; `stream` is the one whose version is the document's."""
        after = {"Daybook-After": receipt} if receipt else {}
        name = f"GET {route}{OWN_WRITE if receipt else ''}"
        reply = await self._send(who, name, "GET", path, None, after)
        if reply.status == OK and "version" in reply.document:
            self._compare(path, int(reply.document["version"]), _version_of(stream, receipt))
        return reply

    def _compare(self, path: str, version: int, promised: int) -> None:
        seen = self._seen.get(path, 0)
        if version < promised:
            self._street.history.backwards.append(f"{path}@{version} {BY_RECEIPT} @{promised}")
        elif version < seen:
            self._street.history.backwards.append(f"{path}@{version} after @{seen}")
        self._seen[path] = max(seen, version)

    async def _send(
        self, who: Caller, route: str, method: str, path: str, body: object, headers: Mapping[str, str]
    ) -> Reply:
        data = None if body is None else orjson.dumps(body)
        typed = {"Content-Type": "application/json"} if data is not None else {}
        sent = {"Authorization": f"Bearer {who.token}", **typed, **headers}
        began, retry_after, reply = time.monotonic(), False, Reply(0, {})
        url = URL(f"http://{self._street.api}/v1{path}", encoded=True)
        try:
            async with self._session.request(method, url, headers=sent, data=data) as response:
                document = orjson.loads(await response.read())
                retry_after = "Retry-After" in response.headers
                reply = Reply(response.status, document, response.headers.get("Daybook-Receipt", ""))
        except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError):
            pass  # no answer: a status of 0
        took_s = time.monotonic() - began
        self._street.history.attempts.append(Attempt(route, began, took_s, reply.status, retry_after))
        return reply


def _note(told: Told, reply: Reply) -> None:
    if reply.status in (OK, CREATED):
        told.accept(reply.document.get("positions", ()))
    elif reply.kind in UNSENT or 400 <= reply.status < 500:
        told.refuse(by_writer="command_id" in reply.document and reply.status != UNAVAILABLE)
    else:
        told.doubt()


def _version_of(stream: str, receipt: str) -> int:
    """Of the stream in a receipt (`cart/1@3, order/2@1`); 0 where it names none."""
    for position in receipt.split(","):
        name, _, version = position.strip().rpartition("@")
        if stream and name == stream:
            return int(version)
    return 0


def _pauses(within_s: float) -> Iterator[float]:
    ends_at, pause_s = time.monotonic() + within_s, FIRST_PAUSE_S
    while time.monotonic() < ends_at:
        yield pause_s
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


class Errands:
    """One caller's day: he shops, now and then he is the merchant, and he reads what he and others wrote."""

    def __init__(self, street: Street, connection: Connection, rng: random.Random, number: int) -> None:
        self._habits = street.habits
        self._only_looks = number >= street.habits.callers
        self._random = rng
        self._http = connection
        self._customer = street.customer(f"c{street.run}-{number}")
        self._merchant = street.merchant()
        self._orders = street.orders

    async def one(self) -> None:
        chance = self._random.random()
        if self._only_looks or chance < self._habits.reads:
            await self._look()
        elif chance < self._habits.reads + 0.15:
            await self._receive()
        else:
            await self._buy()

    async def _look(self) -> None:
        sku = self._sku()
        what = self._random.randrange(3)
        if what == 0:
            await self._http.read(self._merchant, "/inventory/{sku}", f"/inventory/{sku}")
        elif what == 1 or not self._orders:
            await self._http.read(self._customer, "/products/{sku}", f"/products/{sku}")
        else:
            owner, order = self._random.choice(self._orders)
            await self._http.read(owner, "/orders/{order_id}", f"/orders/{order}")

    async def _receive(self) -> None:
        sku = self._sku()
        body = {"document": f"delivery {self._random.getrandbits(40):x}", "quantity": 1}
        path = f"/inventory/{sku}"
        reply = await self._http.write(
            self._merchant, "POST", "/inventory/{sku}/receipts", f"{path}/receipts", body
        )
        await self._look_at(self._merchant, "/inventory/{sku}", path, reply, f"stock/{sku}/main")

    async def _buy(self) -> None:
        who = self._customer
        created = await self._http.write(who, "POST", "/carts", "/carts", {}, insists=True)
        if "cart_id" not in created.document:
            return
        cart = f"/carts/{created.document['cart_id']}"
        items = [{"sku": self._sku(), "quantity": self._random.randint(1, 3)}]
        added = await self._http.write(who, "POST", "/carts/{cart_id}/items", f"{cart}/items", items)
        if "outcome" not in added.document:
            return
        await self._look_at(who, "/carts/{cart_id}", cart, added, cart[1:].replace("carts/", "cart/"))
        payment = {"payment_token": self._random.choice(self._habits.tokens)}
        placed = await self._http.write(who, "POST", "/carts/{cart_id}/checkout", f"{cart}/checkout", payment)
        if placed.document.get("order_id"):
            self._orders.append((who, str(placed.document["order_id"])))

    async def _look_at(self, who: Caller, route: str, path: str, written: Reply, stream: str) -> None:
        if written.receipt and self._random.random() < READS_OWN_WRITE:
            await self._http.read(who, route, path, written.receipt, stream)

    def _sku(self) -> str:
        if self._random.random() < self._habits.hot:
            return self._habits.skus[0]
        return self._random.choice((*self._habits.skus, *self._habits.scarce))


class Callers:
    """A thread with an event loop of its own; the history is whole when `with` has ended."""

    def __init__(self, street: Street, seed: int) -> None:
        self._street = street
        self._random = random.Random(seed)  # noqa: S311  # chooses what to buy, keeps no secret
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="callers", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        """No new errands; returns when those that are under way have ended. Raises what broke a caller.

        Where something failed already, nobody waits for anybody's errands.
        """
        self._stopping.set()
        if failed is not None:
            return
        self._thread.join(STOPS_WITHIN_S)
        if self._failure:
            failure, self._failure = self._failure, None
            raise failure

    def _main(self) -> None:
        try:
            asyncio.run(self._trade())
        except BaseException as failure:  # noqa: BLE001  # raised again where it is waited for
            self._failure = failure

    async def _trade(self) -> None:
        timeout = aiohttp.ClientTimeout(total=REQUEST_S)
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            aiohttp.ClientSession(timeout=timeout, connector=connector) as session,
            asyncio.TaskGroup() as group,
        ):
            for number in range(self._street.habits.callers + self._street.habits.readers):
                group.create_task(self._live(session, number))

    async def _live(self, session: aiohttp.ClientSession, number: int) -> None:
        rng = random.Random(self._random.getrandbits(64))  # noqa: S311  # as above
        errands = Errands(self._street, Connection(session, self._street, rng), rng, number)
        while not self._stopping.is_set():
            await errands.one()
            await asyncio.sleep(self._street.habits.rest_s * rng.uniform(0.5, 1.5))


def open_shop(street: Street) -> None:
    """The merchant publishes all products and puts units on the shelves; answered."""
    asyncio.run(_open_shop(street, street.merchant(), street.habits))


async def _open_shop(street: Street, merchant: Caller, habits: Habits) -> None:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REQUEST_S)) as session:
        http = Connection(session, street, random.Random(0))  # noqa: S311  # as above
        for sku in (*habits.skus, *habits.scarce):
            path = f"/products/{quote(sku)}"
            body = {"name": sku, "categories": ["faults"], "price": 100, "currency": "GBP", "stocked": True}
            published = await http.write(merchant, "PUT", "/products/{sku}", path, body, insists=True)
            units = SCARCE_UNITS if sku in habits.scarce else UNITS
            delivery = {"document": "opening", "quantity": units}
            stocked = f"/inventory/{quote(sku)}/receipts"
            await http.write(merchant, "POST", "/inventory/{sku}/receipts", stocked, delivery, insists=True)
            # Nobody can put into a cart what the shop does not show yet.
            await http.read(merchant, "/products/{sku}", path, published.receipt)


def flood(street: Street, count: int) -> list[Reply]:
    """So many receipts of one SKU at the same moment, each sent once."""
    return asyncio.run(_flood(street, count))


async def _flood(street: Street, count: int) -> list[Reply]:
    merchant, sku = street.merchant(), street.habits.skus[0]
    timeout = aiohttp.ClientTimeout(total=4 * REQUEST_S)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        http = Connection(session, street, random.Random(count))  # noqa: S311  # names keys, keeps no secret
        body = {"document": "flood", "quantity": 1}
        route, path = "/inventory/{sku}/receipts", f"/inventory/{sku}/receipts"
        sent = (http.write(merchant, "POST", route, path, body, insists=False) for _ in range(count))
        return await asyncio.gather(*sent)
