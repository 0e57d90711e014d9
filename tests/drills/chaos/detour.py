"""A network between some clients and their brokers that can be slow, or be cut: one TCP proxy a broker."""

import asyncio
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Self

_CHUNK_BYTES = 65_536


class Detour:
    """Proxies on loopback, in a thread of their own; a context manager.

    Parameters
    ----------
    ports
        Broker -> the port to listen on.

    Attributes
    ----------
    delay_s
        What every chunk waits, either way.
    """

    def __init__(self, ports: Mapping[int, int]) -> None:
        self._ports = dict(ports)
        self._targets: dict[int, int] = {}
        self._open: set[asyncio.StreamWriter] = set()
        self._servers: list[asyncio.Server] = []
        self._cut = False
        self.delay_s = 0.0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="detour", daemon=True)

    def lead_to(self, targets: Mapping[int, int]) -> None:
        """Broker -> the port that it listens on."""
        self._targets = dict(targets)

    def cut(self) -> None:
        """Break every connection, and take no new one."""
        self._cut = True
        self._loop.call_soon_threadsafe(self._break)

    def mend(self) -> None:
        """Take connections again."""
        self._cut = False

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(120.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(120.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        self._loop.close()

    async def _listen(self) -> None:
        for broker, port in self._ports.items():
            self._servers.append(await asyncio.start_server(partial(self._serve, broker), "127.0.0.1", port))

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        self._break()
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=5.0)

    async def _serve(self, broker: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._targets[broker])
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, back}
        try:
            await asyncio.gather(self._carry(reader, back), self._carry(there, writer))
        finally:
            self._open -= {writer, back}

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.CancelledError):
            while chunk := await reader.read(_CHUNK_BYTES):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(chunk)
                await writer.drain()
        writer.transport.abort()

    def _break(self) -> None:
        for writer in self._open:
            writer.transport.abort()
