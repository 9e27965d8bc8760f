"""A TCP proxy that reads Kafka's request headers: it holds, cuts or loses what a client sends by its API key, and keeps a topic from it."""

import asyncio
import struct
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Self, TypeVar

T = TypeVar("T")


class ApiKey(IntEnum):
    PRODUCE = 0
    FETCH = 1
    INIT_PRODUCER_ID = 22
    ADD_PARTITIONS_TO_TXN = 24
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26
    TXN_OFFSET_COMMIT = 28


@dataclass
class Held:
    """A rule for the next request with `api_key`: it waits in the proxy until it is released.

    That happens by `release`, or when a request with `until` comes by after `after` others of them. With `cut` its
    client loses the connection meanwhile; with `lose_answer` the request is passed on at once and the connection is
    cut instead of an answer.
    """

    api_key: ApiKey
    cut: bool = False
    lose_answer: bool = False
    until: ApiKey | None = None
    after: int = 1
    caught: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    delivered: threading.Event = field(default_factory=threading.Event)
    _passed: int = 0

    def release(self) -> None:
        """Let the request go on its way now."""
        self.released.set()

    def passes(self, api_key: int) -> None:
        """Another request goes by, after this one was caught."""
        if self.caught.is_set() and api_key == self.until:
            self._passed += 1
            if self._passed > self.after:
                self.release()


class KafkaProxy:
    """Listens on a free port of 127.0.0.1 and passes on to one broker.

    The broker's address in answers becomes its own, so that a client that starts here stays here.
    """

    def __init__(self, broker: str) -> None:
        host, port = broker.rsplit(":", 1)
        self._upstream = (host, int(port))
        self._rules: list[Held] = []
        self._withheld = b""
        self.withheld = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="kafka-proxy")
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.address = ""

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def add(self, rule: Held) -> Held:
        """From now on; a rule catches one request."""
        self._loop.call_soon_threadsafe(self._rules.append, rule)
        return rule

    @contextmanager
    def withholding(self, topic_id: bytes) -> Iterator[None]:
        """Meanwhile nobody here is given records of this topic: fetches do not ask for it; `withheld` counts them."""
        self._withheld, self.withheld = topic_id, 0
        try:
            yield
        finally:
            self._withheld = b""

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        self.address = f"127.0.0.1:{self._port}"

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve(_Link(reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, link: "_Link") -> None:
        upstream = _Link(*await asyncio.open_connection(*self._upstream))
        answers = self._loop.create_task(self._pass_answers(upstream, link))
        try:
            while (frame := await link.read()) is not None:
                await self._request(frame, link, upstream)
        finally:
            answers.cancel()
            link.close()
            upstream.close()

    async def _request(self, frame: bytes, link: "_Link", upstream: "_Link") -> None:
        api_key = struct.unpack_from(">h", frame)[0]
        if api_key == ApiKey.FETCH and self._withheld and self._withheld in frame:
            self.withheld += 1
            frame = without_topic(frame, self._withheld)
        for one in self._rules:
            one.passes(api_key)
        await self._deliver_released()
        rule = next((r for r in self._rules if r.api_key == api_key and not r.caught.is_set()), None)
        if rule is None:
            await upstream.write(frame)
            return
        if rule.lose_answer:
            upstream.silent = True
            await upstream.write(frame)
        rule.caught.set()
        if rule.cut or rule.lose_answer:
            link.close()
        if not rule.lose_answer:
            await _wait(rule.released)
            await upstream.write(frame)
        await asyncio.sleep(0.05)  # the broker reads it before its connection goes
        rule.delivered.set()

    async def _deliver_released(self) -> None:
        """What was just released reaches the broker before the request that released it."""
        for rule in self._rules:
            if rule.released.is_set() and not rule.delivered.is_set():
                await _wait(rule.delivered)

    async def _pass_answers(self, upstream: "_Link", link: "_Link") -> None:
        before = self._upstream[0].encode() + struct.pack(">i", self._upstream[1])
        after = self._upstream[0].encode() + struct.pack(">i", self._port)
        while (frame := await upstream.read()) is not None:
            if not upstream.silent:
                await link.write(frame.replace(before, after))


FETCH_VERSIONS = range(15, 18)
"""Those whose body begins with `max_wait_ms` and names topics by their ids."""
_CLIENT_ID_AT, _BEFORE_TOPICS, _PARTITION_BYTES, _ID_BYTES = 8, 4 + 4 + 4 + 1 + 4 + 4, 33, 16


def without_topic(fetch: bytes, topic_id: bytes) -> bytes:
    """A request to fetch, which no longer asks for this topic. ValueError for versions of another layout."""
    version, client_id_bytes = (
        struct.unpack_from(">h", fetch, 2)[0],
        struct.unpack_from(">h", fetch, _CLIENT_ID_AT)[0],
    )
    if version not in FETCH_VERSIONS:
        raise ValueError(f"Fetch in version {version}")
    at = _CLIENT_ID_AT + 2 + client_id_bytes + 1 + _BEFORE_TOPICS
    count, first = _varint(fetch, at)
    kept, place = [], first
    for _ in range(count - 1):
        partitions, after = _varint(fetch, place + _ID_BYTES)
        end = after + (partitions - 1) * _PARTITION_BYTES + 1
        if fetch[place : place + _ID_BYTES] != topic_id:
            kept.append(fetch[place:end])
        place = end
    return fetch[:at] + _as_varint(len(kept) + 1) + b"".join(kept) + fetch[place:]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned number of seven bits a byte, and where it ends."""
    value = shift = 0
    while data[at] & 0x80:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | data[at] << shift, at + 1


def _as_varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


class _Link:
    """Frames of Kafka's protocol over one connection: a length of four bytes, then so many."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.silent = False

    async def read(self) -> bytes | None:
        try:
            (size,) = struct.unpack(">i", await self._reader.readexactly(4))
            return await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def write(self, frame: bytes) -> None:
        if self._writer.is_closing():
            return
        self._writer.write(struct.pack(">i", len(frame)) + frame)
        try:
            await self._writer.drain()
        except ConnectionError:
            self.close()

    def close(self) -> None:
        self._writer.close()


async def _wait(event: threading.Event) -> None:
    while not event.is_set():  # noqa: ASYNC110  # set from the test's thread, which has no event loop
        await asyncio.sleep(0.002)
