"""A TCP proxy that passes bytes on to one server, and can refuse and cut its connections, slow them down, or lose some."""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Self

from ops.local_stack import HOST, free_ports

CHUNK_BYTES = 65_536
CALL_TIMEOUT_S = 10.0


class TcpProxy:
    """Listens on one port of 127.0.0.1, also after it was cut, and passes on to `server` (host:port)."""

    def __init__(self, server: str) -> None:
        self._upstream = ("", 0)
        self.switch(server)
        # Not one the kernel gives to clients: while it is cut, the port must stay ours.
        (self._port,) = free_ports(1)
        self._stall_s = 0.0
        self._lost = b""
        self.losses = 0
        self._links: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="tcp-proxy")

    @property
    def address(self) -> str:
        return f"{HOST}:{self._port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._refuse())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_TIMEOUT_S)
        self._loop.close()

    def switch(self, server: str) -> None:
        """New connections go to this server (host:port); those that are open stay."""
        host, _, port = server.rpartition(":")
        self._upstream = (host, int(port))

    def cut(self) -> None:
        """Every connection is lost and new ones are refused, until it is restored."""
        self._call(self._refuse())

    def stall(self, seconds: float) -> None:
        """From now on each chunk of bytes waits so long, either way."""
        self._stall_s = seconds

    def lose(self, pattern: bytes) -> None:
        """From now on a connection is lost as soon as a client sends these bytes over it; `losses` counts."""
        self._lost = pattern

    def restore(self) -> None:
        """Connections are welcome again, and nothing waits or is lost."""
        self._stall_s = 0.0
        self._lost = b""
        self._call(self._listen())

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_TIMEOUT_S)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, HOST, self._port)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = self._loop.create_task(self._serve(reader, writer))
        self._links.add(link)
        link.add_done_callback(self._links.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it or it is cut."""
        try:
            from_server, to_server = await asyncio.open_connection(*self._upstream)
        except OSError:
            writer.transport.abort()
            return
        ways = [
            self._loop.create_task(self._pass(reader, to_server, may_lose=True)),
            self._loop.create_task(self._pass(from_server, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            to_server.transport.abort()
            writer.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, may_lose: bool = False
    ) -> None:
        with suppress(ConnectionError):
            while chunk := await reader.read(CHUNK_BYTES):
                if may_lose and self._lost and self._lost in chunk:
                    self.losses += 1
                    return
                await asyncio.sleep(self._stall_s)
                writer.write(chunk)
                await writer.drain()
