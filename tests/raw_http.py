"""A client that sends and sees every byte: for what an HTTP library would refuse to send, or hide."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from multidict import CIMultiDict
from yarl import URL


@dataclass(frozen=True)
class RawReply:
    """One response as it was on the wire."""

    status: int
    headers: CIMultiDict[str]
    body: bytes

    @property
    def code(self) -> str:
        """The specification's code of an error."""
        errors: list[dict[str, Any]] = json.loads(self.body)["errors"]
        return str(errors[0]["code"])


class RawClient:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        """Send these bytes."""
        self._writer.write(data)

    def ask(self, method: str, path: str, *lines: str) -> None:
        """Send a request with these further header lines."""
        self.send("\r\n".join((f"{method} {path} HTTP/1.1", "Host: cache", *lines, "", "")).encode("latin-1"))

    async def head(self) -> tuple[int, CIMultiDict[str]]:
        """Status and headers of the next response."""
        text = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *lines = text.rstrip("\r\n").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return int(status.split(" ")[1]), CIMultiDict((name, value.strip()) for name, _, value in pairs)

    async def read(self, count: int) -> bytes:
        """So many bytes. Raises IncompleteReadError if the connection ends before."""
        return await self._reader.readexactly(count)

    async def reply(self, method: str = "GET") -> RawReply:
        """The next response, to a request with this method. Raises IncompleteReadError if it is short."""
        status, headers = await self.head()
        has_body = method != "HEAD" and status != 304
        return RawReply(status, headers, await self.read(int(headers["Content-Length"])) if has_body else b"")

    async def rest(self) -> bytes:
        """Everything up to the end of the connection, however it ends."""
        received = b""
        try:
            while piece := await self._reader.read(1 << 16):
                received += piece
        except ConnectionError:
            pass
        return received

    def half_close(self) -> None:
        """End our side of the connection, and go on reading."""
        self._writer.write_eof()

    def reset(self) -> None:
        """Break the connection with a TCP reset."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.leave()

    async def sent(self) -> None:
        """Wait until what was given to send has left."""
        await self._writer.drain()

    def leave(self) -> None:
        """Break the connection."""
        self._writer.transport.abort()


@asynccontextmanager
async def raw_client(
    url: str, receive_buffer: int | None = None, address: str | None = None
) -> AsyncIterator[RawClient]:
    """A connection to this server; with a small receive buffer, one that can be made to take no more.

    `address` is the client's own, on loopback.
    """
    server = URL(url)
    assert server.host and server.port
    sock = socket.socket()
    sock.setblocking(False)
    if address is not None:
        sock.bind((address, 0))
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await asyncio.get_running_loop().sock_connect(sock, (server.host, server.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=receive_buffer or 1 << 16)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()
