"""A client of TLS that sees every record: what was said at the end, and what was not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from multidict import CIMultiDict
from yarl import URL

from proxy.config import ServerOptions
from tests.authority import Authority
from tests.cache_rig import ANY_PORT, CacheRig
from tests.raw_http import RawReply

READ = 64 * 1024


def trusting(authority: Authority, folder: Path) -> ssl.SSLContext:
    """A client that trusts this authority and no other."""
    return ssl.create_default_context(cafile=str(authority.write(folder)))


def options(files: tuple[Path, Path], **settings: Any) -> ServerOptions:
    """Settings of the listener with this certificate and key."""
    return ServerOptions(listen=ANY_PORT, tls_certificate=files[0], tls_key=files[1], **settings)


def secured(upstream_url: str, folder: Path, authority: Authority, **settings: Any) -> CacheRig:
    """A cache that speaks TLS, and whose own client trusts it."""
    server = options(authority.issue(folder), **settings)
    return CacheRig(upstream_url, folder / "cache", options={"server": server}, trust=trusting(authority, folder))


class TlsClient:
    """One connection; reads no more from its socket than it is asked for."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.socket = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self._read = bytearray()
        self.said_end = False
        """Whether the server has sent close_notify."""

    async def shake_hands(self) -> None:
        while True:
            try:
                self.session.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._receive():
                    raise ConnectionResetError("in the handshake") from None
            except ssl.SSLError:
                await self._flush()  # Why, for the server.
                raise
            else:
                return await self._flush()

    async def send(self, data: bytes) -> None:
        """As one record."""
        self.session.write(data)
        await self._flush()

    async def ask(self, path: str, *lines: str, method: str = "GET") -> None:
        await self.send("\r\n".join((f"{method} {path} HTTP/1.1", "Host: cache", *lines, "", "")).encode())

    async def head(self) -> tuple[int, CIMultiDict[str]]:
        """Status and headers of the next response."""
        while b"\r\n\r\n" not in self._read:
            assert await self._more(), "the connection ended within the headers"
        head, _, rest = bytes(self._read).partition(b"\r\n\r\n")
        self._read = bytearray(rest)
        status, *lines = head.decode().split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return int(status.split(" ")[1]), CIMultiDict((name, value.strip()) for name, _, value in pairs)

    async def reply(self) -> RawReply:
        """The next response, whole."""
        status, headers = await self.head()
        return RawReply(status, headers, await self.read(int(headers["Content-Length"])))

    async def read(self, count: int) -> bytes:
        """So many bytes, or fewer if the connection ends."""
        while len(self._read) < count and await self._more():
            pass
        taken = bytes(self._read[:count])
        del self._read[:count]
        return taken

    async def rest(self) -> bytes:
        """Everything up to the end, however that comes."""
        return await self.read(1 << 40)

    async def say_end(self) -> None:
        """Send close_notify, and go on reading."""
        with contextlib.suppress(ssl.SSLError):
            self.session.unwrap()
        await self._flush()

    async def _more(self) -> bool:
        while True:
            try:
                data = self.session.read(READ)
            except ssl.SSLWantReadError:
                if not await self._receive():
                    return False
            except ssl.SSLZeroReturnError:
                data = b""
                self.said_end = True
                return False
            else:
                self._read += data
                self.said_end = not data
                return bool(data)

    async def _receive(self) -> bool:
        try:
            data = await asyncio.get_running_loop().sock_recv(self.socket, READ)
        except ConnectionError:
            return False
        self._incoming.write(data)
        return bool(data)

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await asyncio.get_running_loop().sock_sendall(self.socket, self._outgoing.read())


@asynccontextmanager
async def connected(url: str, receive_buffer: int | None = None) -> AsyncIterator[socket.socket]:
    """A connection to this server without a word said."""
    server = URL(url)
    with closing_socket(receive_buffer) as sock:
        await asyncio.get_running_loop().sock_connect(sock, (server.host, server.port))
        yield sock


@contextlib.contextmanager
def closing_socket(receive_buffer: int | None) -> Iterator[socket.socket]:
    with socket.socket() as sock:
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        yield sock


@asynccontextmanager
async def tls_client(url: str, context: ssl.SSLContext, receive_buffer: int | None = None) -> AsyncIterator[TlsClient]:
    """A connection with its handshake done."""
    async with connected(url, receive_buffer) as sock:
        client = TlsClient(sock, context)
        await client.shake_hands()
        yield client
