"""TLS in front of a server that has none: a relay with the tests' certificate of 127.0.0.1."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading

from tests.servers.process import Closing
from tests.servers.valkey import certificates

__all__ = ["TlsRelay"]


class TlsRelay(Closing):
    """Takes TLS connections on a port, and passes what they say to another port of this machine."""

    def __init__(self, to: int, listening: int) -> None:
        self._to = to
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificates() / "server.crt", certificates() / "server.key")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._open: set[asyncio.StreamWriter] = set()
        self.served = 0
        """Connections whose handshake succeeded."""
        starting = asyncio.start_server(self._serve, "127.0.0.1", listening, ssl=self._context)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result(10)

    def close(self) -> None:
        """Cut all connections and end the thread; may be called twice."""
        if not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        while self._open:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)  # in which the transports let go of their sockets

    async def _serve(self, near: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        self.served += 1
        self._open.add(answer)
        try:
            with contextlib.suppress(OSError):
                far, ask = await asyncio.open_connection("127.0.0.1", self._to)
                self._open.add(ask)
                try:
                    await asyncio.gather(_passed(near, ask), _passed(far, answer))
                finally:
                    ask.transport.abort()
                    self._open.discard(ask)
        finally:
            answer.transport.abort()
            self._open.discard(answer)


async def _passed(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65_536):
            target.write(data)
            await target.drain()
    target.transport.abort()  # the other direction ends, too
