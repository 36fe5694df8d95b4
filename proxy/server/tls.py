"""TLS on a connection of a client: a protocol towards the socket, a transport towards `Connection`.

asyncio's own does not do: it keeps a quarter of a MiB for each connection, cannot end one direction alone, lets a
handshake be no connection yet, which no limit counts, and hides its buffers from whoever is to measure a client. Here:

- A connection counts, and its time runs, from the first byte of the handshake on: all rules of `Connection` hold.
- Nothing is kept here: what was given to `write` waits in the socket's own transport, encrypted, or was sent.
- Bodies go past that transport (`Pump`): inside of `direct`, `seal` alone makes what is sent.
- The end is said (close_notify) where a response may end, and never when one was broken off.

The cryptography is OpenSSL's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

log = logging.getLogger(__name__)

READ_BYTES: Final = 16 * 1024
"""What is read from a connection at once; a record of TLS holds as much."""

PIECE_BYTES: Final = 64 * 1024
"""What is encrypted at once."""

_HANDSHAKE: Final = 0x16
"""The first byte of every client that speaks TLS (RFC 8446 section 5.1)."""

Buffer = bytes | bytearray | memoryview


class Tls(asyncio.Transport, asyncio.Protocol):
    """One connection. `plain` is what a client is told that speaks no TLS; `refused` hears why one was ended by us."""

    def __init__(
        self, protocol: asyncio.Protocol, context: ssl.SSLContext, plain: bytes, refused: Callable[[str], None]
    ) -> None:
        super().__init__()
        self._protocol: asyncio.BaseProtocol = protocol
        self._context = context
        self._plain = plain
        self._refused = refused
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._wire: asyncio.Transport | None = None
        self._early: list[Buffer] = []
        """What was written before the handshake was done."""
        self._has_begun = False
        """Whether the client has said something, and that was TLS."""
        self._is_open = False
        """Whether the handshake is done."""
        self._is_direct = False
        self._is_reading = True
        self._is_closing = False
        self._has_ended = False
        """Whether the client says no more."""
        self._end_wanted = False
        self.max_size = READ_BYTES

    # Towards the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection begins, with its handshake."""
        self._wire = cast(asyncio.Transport, transport)
        cast(Any, transport).max_size = READ_BYTES
        self._protocol.connection_made(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection has ended."""
        self._is_closing = True
        self._early.clear()
        self._protocol.connection_lost(cast(Any, exc))

    def pause_writing(self) -> None:
        """The socket is full."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """All is sent."""
        self._protocol.resume_writing()

    def data_received(self, data: bytes) -> None:
        """Go on with the handshake, or pass on what these bytes hold."""
        if self._is_closing:
            return
        if not self._has_begun and not self._speaks_tls(data):
            self._turn_away()
            return
        self._has_begun = True
        self._incoming.write(data)
        self._go_on()

    def eof_received(self) -> bool:
        """The client ends its side, with or without saying so first."""
        if not self._is_open:
            self.abort()
        elif not self._has_ended:
            self._end()
        return True

    # Towards the connection

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Of the socket's transport; also `sslcontext`, `ssl_object`."""
        if name in ("sslcontext", "ssl_object"):
            return self._context if name == "sslcontext" else self._session
        return self._socket().get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """From now on this one."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Whoever is told."""
        return self._protocol

    def is_closing(self) -> bool:
        """Whether nothing more can be written."""
        return self._is_closing or self._socket().is_closing()

    def is_reading(self) -> bool:
        """Whether the client is listened to."""
        return self._is_reading

    def pause_reading(self) -> None:
        """Listen to the client no more, until `resume_reading`."""
        self._is_reading = False
        self._socket().pause_reading()

    def resume_reading(self) -> None:
        """Listen to the client again; first to what was understood of it already."""
        if not self._is_reading and not self.is_closing():
            self._is_reading = True
            self._socket().resume_reading()
            asyncio.get_running_loop().call_soon(self._go_on)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """In bytes of the socket's transport, which are encrypted."""
        self._socket().set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Likewise."""
        return self._socket().get_write_buffer_limits()

    def get_write_buffer_size(self) -> int:
        """Likewise."""
        return self._socket().get_write_buffer_size()

    def write(self, data: Buffer) -> None:
        """Send this, after the handshake if that is not done."""
        if not self._is_open:
            self._early.append(data)
        elif not self._is_closing:
            self._send(data)

    def can_write_eof(self) -> bool:
        """Yes."""
        return True

    def write_eof(self) -> None:
        """End our side of the connection, and go on reading."""
        if not self._is_open:
            self._end_wanted = True
        elif not self._is_closing and not self._is_direct:
            self._say_end()
            self._socket().write_eof()

    def close(self) -> None:
        """End the connection when all is sent. In a handshake, or in the middle of a body, that is at once."""
        if self._is_closing:
            return
        if not self._is_open or self._is_direct:
            self.abort()
            return
        self._say_end()
        self._is_closing = True
        self._socket().close()

    def abort(self) -> None:
        """End the connection at once, without a word that could be taken for the end of a body."""
        self._is_closing = True
        self._socket().abort()

    # Towards the pump

    @contextmanager
    def direct(self) -> Iterator[None]:
        """Meanwhile what `seal` gives goes into the socket, in its order, and nothing else does.

        When that fails there may be half a record in the socket: nothing can follow, and closing is breaking off.
        """
        self._is_direct = True
        yield
        self._is_direct = False
        self._flush()

    def seal(self, data: Buffer) -> bytes:
        """This and what else is due, encrypted."""
        self._encrypt(data)
        return self._outgoing.read()

    # Inside

    def _socket(self) -> asyncio.Transport:
        assert self._wire is not None
        return self._wire

    def _speaks_tls(self, data: bytes) -> bool:
        return data[0] == _HANDSHAKE

    def _turn_away(self) -> None:
        self._refused("not_tls")
        self._is_closing = True
        self._socket().write(self._plain)
        self._socket().close()

    def _go_on(self) -> None:
        try:
            if not self._is_closing and (self._is_open or self._shake_hands()):
                self._read()
        except ssl.SSLError as error:
            self._failed(error)

    def _shake_hands(self) -> bool:
        """Whether that is done."""
        try:
            self._session.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        self._is_open = True
        self._send(b"".join(self._early))
        self._early.clear()
        if self._end_wanted:
            self.write_eof()
        return True

    def _read(self) -> None:
        while self._is_reading and not self._is_closing and not self._has_ended:
            try:
                data = self._session.read(self.max_size)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                data = b""
            if data:
                cast(asyncio.Protocol, self._protocol).data_received(data)
            else:
                self._end()
        self._flush()

    def _end(self) -> None:
        self._has_ended = True
        if not cast(asyncio.Protocol, self._protocol).eof_received():
            self.close()

    def _say_end(self) -> None:
        with contextlib.suppress(ssl.SSLError):  # Of the client, which has not said it yet.
            self._session.unwrap()
        self._flush()

    def _send(self, data: Buffer) -> None:
        """At once, so that whoever measures what waits sees all of it; but encrypted in pieces, since OpenSSL keeps
        what room it has once needed."""
        if self._is_direct:
            self._encrypt(data)
            return
        pieces = [self._outgoing.read()]
        for start in range(0, len(data), PIECE_BYTES):
            pieces.append(self.seal(memoryview(data)[start : start + PIECE_BYTES]))
        self._socket().write(b"".join(pieces))

    def _encrypt(self, data: Buffer) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._session.write(rest) :]

    def _flush(self) -> None:
        """Send what OpenSSL has to say; what it says meanwhile `seal` brings along."""
        if not self._is_direct and self._outgoing.pending and not self.is_closing():
            self._socket().write(self._outgoing.read())

    def _failed(self, error: ssl.SSLError) -> None:
        """Tell the client in TLS's own words, and end."""
        if not self._is_open:
            self._refused("tls_handshake")
            client, reason = self.get_extra_info("peername"), (error.reason or "").replace("_", " ").lower()
            log.info("the handshake of TLS with %s failed: %s", client[0] if client else "a client", reason)
        self._flush()
        if self._is_direct:
            self.abort()
        elif not self._is_closing:
            self._is_closing = True
            self._socket().close()
