"""The pump: exactly the bytes asked for, fairly, to the right socket, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.oci.errors import RegistryError, Unavailable
from proxy.server.floor import Floor, TooSlow, unacknowledged
from proxy.server.pump import TURN_BYTES, Pump
from tests.eventually import eventually

CONTENT = bytes(range(256)) * 8192


class Stored:
    """Content that is all there."""

    def __init__(self, path: Path, size: int) -> None:
        self.fd = os.open(path, os.O_RDONLY)
        self.size = size

    async def visible(self, offset: int) -> int:
        return self.size


class Growing(Stored):
    """Content that comes piece by piece and then fails."""

    def __init__(self, stored: Stored, ends: list[int], error: RegistryError) -> None:
        self.fd = stored.fd
        self._ends = ends
        self._error = error

    async def visible(self, offset: int) -> int:
        await asyncio.sleep(0)
        for end in self._ends:
            if end > offset:
                return end
        raise self._error


class Sent:
    """How many bytes the pump said it moved."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, count: int) -> None:
        self.count += count


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Stored]:
    (tmp_path / "content").write_bytes(CONTENT)
    content = Stored(tmp_path / "content", len(CONTENT))
    yield content
    os.close(content.fd)


@asynccontextmanager
async def connection(buffer: int | None = None) -> AsyncIterator[tuple[asyncio.Transport, socket.socket]]:
    """Our end of a connection, and the client's."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    if buffer is not None:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
    try:
        yield transport, theirs
    finally:
        transport.abort()
        theirs.close()


@asynccontextmanager
async def tcp_connection(buffer: int) -> AsyncIterator[tuple[asyncio.Transport, socket.socket]]:
    """The same over TCP; the client takes a little at a time."""
    with socket.socket() as listener, socket.socket() as theirs:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        theirs.setblocking(False)
        connecting = asyncio.ensure_future(asyncio.get_running_loop().sock_connect(theirs, listener.getsockname()))
        ours, _ = await asyncio.to_thread(listener.accept)
        await connecting
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
        try:
            yield transport, theirs
        finally:
            transport.abort()


async def receive(sock: socket.socket, count: int) -> bytes:
    """So many bytes, or fewer if the connection ends."""
    received = b""
    while len(received) < count:
        piece = await asyncio.get_running_loop().sock_recv(sock, min(1 << 20, count - len(received)))
        if not piece:
            break
        received += piece
    return received


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def watched() -> int:
    """How many descriptors the event loop watches."""
    loop = asyncio.get_running_loop()
    return len(loop._selector.get_map())  # type: ignore[attr-defined]


@pytest.mark.parametrize(("start", "stop"), [(0, len(CONTENT)), (5, 6), (70_000, 1_500_000), (9, 9)])
async def test_exactly_the_bytes_asked_for_are_sent(stored: Stored, start: int, stop: int) -> None:
    sent = Sent()
    async with connection() as (transport, theirs):
        sending = asyncio.ensure_future(Pump().send(transport, stored, start, stop, sent))
        received = await receive(theirs, stop - start)
        await sending
    assert (received, sent.count) == (CONTENT[start:stop], stop - start)


async def test_no_turn_of_the_loop_moves_more_than_its_budget_however_many_read(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved_in_turn = [0]
    real_sendfile = os.sendfile

    def counted(*arguments: int) -> int:
        count = real_sendfile(*arguments)
        moved_in_turn[-1] += count
        return count

    def turn() -> None:
        moved_in_turn.append(0)
        loop.call_soon(turn)

    def drain(sock: socket.socket) -> None:
        while sock.recv(1 << 20):
            pass

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(os, "sendfile", counted)
    pump = Pump()
    pairs = [socket.socketpair() for _ in range(24)]
    transports = [(await loop.create_connection(asyncio.Protocol, sock=ours))[0] for ours, _ in pairs]
    threads = [threading.Thread(target=drain, args=(theirs,)) for _, theirs in pairs]
    for thread in threads:
        thread.start()
    loop.call_soon(turn)

    await asyncio.gather(*(pump.send(each, stored, 0, stored.size, Sent()) for each in transports))

    for transport in transports:
        transport.abort()
    for (_, theirs), thread in zip(pairs, threads, strict=True):
        theirs.shutdown(socket.SHUT_RDWR)
        await asyncio.to_thread(thread.join)
        theirs.close()
    assert sum(moved_in_turn) == 24 * stored.size
    assert max(moved_in_turn) <= TURN_BYTES


async def test_a_client_that_takes_nothing_is_given_up(stored: Stored) -> None:
    sent = Sent()
    async with connection(buffer=4096) as (transport, _):
        before = descriptors(), watched()
        with pytest.raises(TooSlow):
            async with asyncio.timeout(3):
                await Pump(Floor(bytes=1, seconds=0.05)).send(transport, stored, 0, stored.size, sent)
        assert (descriptors(), watched()) == before
    assert 0 < sent.count < stored.size


async def test_a_client_that_takes_less_than_the_floor_is_given_up(stored: Stored) -> None:
    async with connection(buffer=4096) as (transport, theirs):
        sending = asyncio.ensure_future(
            Pump(Floor(bytes=100_000, seconds=0.2)).send(transport, stored, 0, stored.size, Sent())
        )
        async with asyncio.timeout(10):
            while not sending.done():
                await asyncio.wait([sending], timeout=0.02)
                await receive(theirs, 500)  # At most 5 KB in a window.
    with pytest.raises(TooSlow):
        await sending


async def test_a_client_that_takes_little_but_enough_is_not_given_up(stored: Stored) -> None:
    async with connection(buffer=4096) as (transport, theirs):
        sending = asyncio.ensure_future(
            Pump(Floor(bytes=20_000, seconds=0.2)).send(transport, stored, 0, 400_000, Sent())
        )
        for _ in range(10):  # A second in all: five windows.
            assert await receive(theirs, 40_000)
            await asyncio.wait([sending], timeout=0.1)
        await sending


async def test_a_client_is_measured_by_what_it_takes_and_not_by_when_its_socket_has_room(stored: Stored) -> None:
    """A socket is writable again only when a good part of its megabytes has gone, long after a slow client's window."""
    async with tcp_connection(buffer=1 << 20) as (transport, theirs):
        pump = Pump(Floor(bytes=4_000, seconds=0.3))
        sent = Sent()
        sending = asyncio.ensure_future(pump.send(transport, stored, 0, stored.size, sent))
        await eventually(lambda: unacknowledged(transport.get_extra_info("socket").fileno()) > 500_000)
        for _ in range(25):  # 50 KB a window of 0.3 s, so that nothing leaves our end for several of them.
            await receive(theirs, 8_000)
            await asyncio.wait([sending], timeout=0.05)
            assert not sending.done()
        sending.cancel()
        await asyncio.wait([sending])


async def test_a_client_that_leaves_ends_its_sending_alone(stored: Stored) -> None:
    pump = Pump()
    async with connection() as (transport, theirs), connection() as (other, theirs_too):
        before = descriptors(), watched()
        leaving = asyncio.ensure_future(pump.send(transport, stored, 0, stored.size, Sent()))
        staying = asyncio.ensure_future(pump.send(other, stored, 0, stored.size, Sent()))
        await receive(theirs, 1000)
        theirs.close()
        with pytest.raises(ConnectionAbortedError):
            await leaving
        assert await receive(theirs_too, stored.size) == CONTENT
        await staying
        assert (descriptors(), watched()) <= before


async def test_a_cancelled_sending_leaves_nothing_behind(stored: Stored) -> None:
    pump = Pump()
    async with connection(buffer=4096) as (transport, theirs):
        before = descriptors(), watched()
        sending = asyncio.ensure_future(pump.send(transport, stored, 0, stored.size, Sent()))
        await receive(theirs, 1000)
        sending.cancel()
        await asyncio.wait([sending])
        assert sending.cancelled()
        assert (descriptors(), watched()) == before


async def test_bytes_never_go_to_a_connection_that_got_the_number_of_a_closed_one(stored: Stored) -> None:
    ours, theirs = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
    transport.pause_reading()
    sending = asyncio.ensure_future(Pump().send(transport, stored, 0, 1000, Sent()))
    await asyncio.sleep(0)  # It waits for its turn now.

    number = ours.fileno()
    ours.close()
    strangers = socket.socketpair()
    await sending

    assert number in {each.fileno() for each in strangers}
    assert theirs.recv(1001) == CONTENT[:1000]
    for each in strangers:
        each.setblocking(False)
        with pytest.raises(BlockingIOError):
            each.recv(1)
    for each in (theirs, *strangers):
        each.close()
    transport.abort()


async def test_a_file_that_is_shorter_than_promised_breaks_the_sending(stored: Stored) -> None:
    stored.size += 10
    async with connection() as (transport, theirs):
        sending = asyncio.ensure_future(Pump().send(transport, stored, 0, stored.size, Sent()))
        await receive(theirs, len(CONTENT))
        with pytest.raises(ConnectionAbortedError, match="ended early"):
            await sending


async def test_content_that_fails_passes_its_error_on_after_what_there_was(stored: Stored) -> None:
    growing = Growing(stored, [1000, 50_000], Unavailable("gone"))
    sent = Sent()
    async with connection() as (transport, theirs):
        before = descriptors()
        with pytest.raises(Unavailable):
            await Pump().send(transport, growing, 0, len(CONTENT), sent)
        assert await receive(theirs, 50_000) == CONTENT[:50_000]
        assert (sent.count, descriptors()) == (50_000, before)
