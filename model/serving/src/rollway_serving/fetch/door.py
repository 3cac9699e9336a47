"""The one way out for the store's client, which follows redirects and cannot be told not to.

A proxy on loopback that leads to one host and no other. What a redirect asks for elsewhere is refused before a
byte of it leaves the pod, and the reason is kept for whoever must word the failure::

    obstore ──► Door ──► the endpoint          https: CONNECT, so TLS stays between the two ends
                  └─ ✕   anywhere else         http: one request a connection, its target checked
"""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import SplitResult, urlsplit

_CONNECT_SECONDS = 5.0
_HEAD_BYTES = 64 << 10
_CHUNK = 1 << 18
_PORTS = {"http": 80, "https": 443}


class Door:
    """A proxy to one host; ``refused`` is the last other one that was asked for, ``trouble`` the last failure."""

    def __init__(self, endpoint: str) -> None:
        self._allowed = _address(urlsplit(endpoint))
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None] | None] = set()
        self.refused: str | None = None
        self.trouble: str | None = None

    async def open(self) -> str:
        """Listen, and give the URL that the client takes as its proxy."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_HEAD_BYTES)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """End every connection."""
        if self._server:
            self._server.close()
            while self._serving:
                for writer in self._open:
                    writer.transport.abort()
                await asyncio.wait([task for task in self._serving if task], timeout=1)
            await self._server.wait_closed()

    async def _serve(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._serving.add(task)
        self._open.add(back)
        try:
            await self._pass_on(client, back)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            pass  # the client sees a broken connection, and tries again
        finally:
            back.close()
            self._open.discard(back)
            self._serving.discard(task)

    async def _pass_on(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        head = await client.readuntil(b"\r\n\r\n")
        line, _, headers = head.partition(b"\r\n")
        method, target, _ = line.decode("ascii").split(" ")
        tunnel = method == "CONNECT"
        parts = urlsplit(f"https://{target}" if tunnel else target)
        if _address(parts) != self._allowed:
            self.refused = parts.netloc[:200]
            back.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            await back.drain()
            return
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                server, forth = await asyncio.open_connection(*self._allowed, limit=_CHUNK)
        except (OSError, TimeoutError) as error:
            self.trouble = f"cannot connect to {parts.netloc[:200]}: {str(error) or 'no answer'}"
            back.write(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            await back.drain()
            return
        self.trouble = None
        self._open.add(forth)
        try:
            if tunnel:
                back.write(b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                path = "/" + target.partition("://")[2].partition("/")[2]
                forth.write(f"{method} {path} HTTP/1.1\r\nConnection: close\r\n".encode("ascii") + headers)
            async with asyncio.TaskGroup() as group:
                # Without a tunnel a second request on this connection would be one that nobody has checked.
                onward = group.create_task(_pump(client, forth if tunnel else None))
                await _pump(server, back)
                onward.cancel()
        finally:
            self._open.discard(forth)
            forth.close()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter | None) -> None:
    """Pass on, or drop, until one side is done."""
    with contextlib.suppress(OSError):
        while data := await source.read(_CHUNK):
            if target:
                target.write(data)
                await target.drain()
        if target and target.can_write_eof():
            target.write_eof()


def _address(parts: SplitResult) -> tuple[str, int]:
    """Host and port; a URL without them is nobody's."""
    return (parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0))
