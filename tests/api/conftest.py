"""The API called as a server calls it, with our own fakes where Kafka and the stores would be."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import pytest
from fastapi import FastAPI

from api.app import create_app
from api.personal import Vault
from api.personal_keys import PersonalKeys
from api.readings import Views
from api.security import Keys, Role, Verifier
from api.settings import from_environment
from api.signatures import Secrets, WebhookVerifier
from ops import tokens
from ops.local_stack import Addresses
from projections import cart, command, product
from projections.cassandra_store import CassandraReader, CassandraSettings
from projections.redis_store import RedisReader, RedisSettings, RedisStore
from projections.view import Batch, Recorded
from schemas.catalog import ProductPublished, ProductRetired
from schemas.codec import Decoded
from schemas.decisions import Decided, Decisions, Rejected
from schemas.meta import NO_HASH, CommandMeta, EventMeta, Micros, RecordMeta
from schemas.topics import Topics
from schemas.values import Position

Bearer: TypeAlias = tuple[Role, str]
"""Role and subject."""
ANNA: Bearer = ("merchant", "anna")
BEN: Bearer = ("customer", "ben")


@dataclass(frozen=True)
class Answered:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def type(self) -> str:
        return str(self.json["type"]).removeprefix("/problems/")


def accepted(meta: CommandMeta, *also: Position, version: int = 1, status: str = "") -> Decided:
    positions = (Position(meta.stream, version), *also)
    return _decided(meta, "accepted", status, None, positions)


def rejected(meta: CommandMeta, type_: str, kind: str) -> Decided:
    return _decided(meta, "rejected", "", Rejected(type_, kind, "because"), ())


def _decided(
    meta: CommandMeta,
    outcome: str,
    status: str,
    rejection: Rejected | None,
    positions: tuple[Position, ...],
) -> Decided:
    return Decided(
        command_id=meta.command_id,
        type="",
        stream=meta.stream,
        lines=(),
        attempt=0,
        reply_to=meta.reply_to,
        fingerprint=meta.fingerprint,
        outcome=outcome,
        status=status,
        refused=(),
        rejection=rejection,
        positions=positions,
        correlation_id=meta.correlation_id,
        traceparent=meta.traceparent,
        occurred_at=meta.occurred_at,
        recorded_at=meta.issued_at,
    )


@dataclass
class Writer:
    """Stands where the intake is: notes what it is asked, answers as `decide` says (None: not decided)."""

    decide: Callable[[CommandMeta], Decided | None] = accepted
    asked: list[tuple[str, str, Any, CommandMeta]] = field(default_factory=list)
    reply_to: str = "api/test"

    async def ask(self, aggregate: str, key: str, command: Any, meta: CommandMeta) -> Decided | None:
        self.asked.append((aggregate, key, command, meta))
        return self.decide(meta)

    @property
    def commands(self) -> list[Any]:
        return [command for _, _, command, _ in self.asked]

    @property
    def metas(self) -> list[CommandMeta]:
        return [meta for _, _, _, meta in self.asked]


@dataclass
class Window:
    """The API, and who may stand before it."""

    app: FastAPI
    writer: Writer
    jwks: Path
    keys_sent: int = 0

    def token(self, role: Role, subject: str, *, backdate: bool = False) -> str:
        return tokens.issue(self.jwks, role, subject, backdate=backdate)

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        by: Bearer | None = None,
        raw: bytes | None = None,
        **headers: str | None,
    ) -> Answered:
        """`headers` in snake case; an Idempotency-Key of its own is added to writes that have none."""
        sent: dict[str, str | None] = {"content_type": "application/json"}
        if method != "GET":
            self.keys_sent += 1
            sent["idempotency_key"] = f"key-{self.keys_sent}"
        if by:
            sent["authorization"] = f"Bearer {self.token(*by)}"
        content = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        named = {
            name.replace("_", "-"): value for name, value in (sent | headers).items() if value is not None
        }
        return await _call(self.app, method, path, content, named)


async def _call(app: FastAPI, method: str, url: str, body: bytes, headers: Mapping[str, str]) -> Answered:
    parts = urlsplit(url)
    messages: list[dict[str, Any]] = []
    chunks = [body[at : at + 65_536] for at in range(0, len(body), 65_536)] or [b""]

    async def receive() -> dict[str, Any]:
        if not chunks:
            await asyncio.Event().wait()
        chunk = chunks.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}

    async def send(message: Any) -> None:
        messages.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(parts.path),
        "raw_path": parts.path.encode(),
        "query_string": parts.query.encode(),
        "root_path": "",
        "server": ("localhost", 80),
        "client": ("localhost", 1),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    await app(scope, receive, send)
    start = messages[0]
    return Answered(
        start["status"],
        {name.decode(): value.decode() for name, value in start["headers"]},
        b"".join(message.get("body", b"") for message in messages[1:]),
    )


@pytest.fixture(scope="session")
def app() -> FastAPI:
    """Made once; what a test puts into its state, the next one replaces."""
    return create_app(from_environment({}))


@pytest.fixture
def window(app: FastAPI, tmp_path: Path) -> Window:
    jwks = tmp_path / "keys" / "jwks.json"
    tokens.ensure_keys(jwks)
    writer = Writer()
    app.state.intake, app.state.verifier, app.state.views = writer, Verifier(Keys(jwks)), None
    tokens.ensure_personal_key(tmp_path / "keys" / "personal.key")
    app.state.vault = Vault(PersonalKeys(tmp_path / "personal", tmp_path / "keys" / "personal.key"))
    app.state.webhooks = WebhookVerifier(Secrets(tmp_path / "webhooks.secrets"))
    return Window(app, writer, jwks)


@dataclass
class Shelf:
    """The views of products and carts in a real Redis, under a prefix of its own."""

    store: RedisStore
    topics: Topics
    applied: dict[str, int] = field(default_factory=dict)

    async def publish(self, sku: str, price: int = 255, *, retire: bool = False) -> None:
        body = ProductPublished(sku, f"the {sku}", "", (), "", price, "GBP", sku != "POST")
        await self.happened("catalog", 1, body)
        if retire:
            await self.happened("catalog", 2, ProductRetired(sku))

    async def happened(self, aggregate: str, version: int, body: Any) -> None:
        await self._apply(self.topics.events(aggregate), Decoded(_event_meta(body.stream, version), body))

    async def was_decided(self, decided: Decided) -> None:
        meta = RecordMeta("cart[0]", decided.recorded_at, "b")
        await self._apply(self.topics.decisions("cart"), Decoded(meta, Decisions(b"", (decided,))))

    async def _apply(self, topic: str, message: Decoded[Any]) -> None:
        at = self.applied.get(topic, 0)
        self.applied[topic] = at + 1
        record = Recorded(topic, 0, at, b"", message)
        assert await self.store.apply(Batch(topic, 0, at, at + 1, [record])) == []


def _event_meta(stream: str, version: int) -> EventMeta:
    now = Micros(1_291_191_960_000_000)
    return EventMeta(
        f"{stream}@{version}",
        stream,
        version,
        now,
        now,
        "c",
        "c",
        "c",
        "merchant",
        "anna",
        "b",
        0,
        1,
        "",
        NO_HASH,
    )


@pytest.fixture
async def shelf(stack: Addresses, window: Window) -> AsyncIterator[Shelf]:
    topics = Topics(f"api-test-{uuid4().hex}")
    settings = RedisSettings(stack.redis, topics.prefix)
    store = RedisStore(settings, [product.VIEW, cart.VIEW, command.VIEW])
    views = Views(RedisReader(settings), CassandraReader(CassandraSettings((stack.cassandra,))))
    window.app.state.views = views
    yield Shelf(store, topics)
    for view in store.views:
        await store.drop(view, 1)
    await store.close()
    await views.close()
