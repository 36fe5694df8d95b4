"""What the host and a server say to each other, over real sockets: in order, to the end, and with the next host."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from proxy.app.crew import gather_crew
from proxy.oci.errors import Unavailable
from proxy.workers.asking import Asking
from proxy.workers.desk import Desk
from proxy.workers.line import Line
from proxy.workers.link import Link
from proxy.workers.messages import MAX_PIECE_BYTES, Answer, Ask, Done, File, Kind, read, written, written_offset
from tests.eventually import eventually
from tests.leftovers import nothing_left_over

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nDocker-Content-Digest: sha256:a\r\n\r\n"
BODY = b"0123456789"


@dataclass
class Heard:
    """One end of a link, and what came."""

    messages: list[tuple[Kind, int, bytes, int | None]] = field(default_factory=list)
    is_ended: bool = False

    def received(self, kind: Kind, number: int, content: bytes, fd: int | None) -> None:
        self.messages.append((kind, number, content, fd))

    def ended(self) -> None:
        self.is_ended = True


def an_open_file(content: bytes = b"") -> int:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        return os.dup(file.fileno())


# Link


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Link, Heard, socket.socket]]:
    """A link, what it hears, and the other side, which reads when the test says so."""
    async with nothing_left_over():
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        heard = Heard()
        link = Link(one, heard)
        with other:
            yield link, heard, other
        link.close()


async def test_what_cannot_be_sent_at_once_comes_later_and_in_order(pair: tuple[Link, Heard, socket.socket]) -> None:
    link, _, other = pair
    for number in range(100):
        link.send(Kind.PIECE, number, bytes(MAX_PIECE_BYTES), an_open_file() if number % 2 else None)
    reader = Heard()
    receiving = Link(other.dup(), reader)

    await eventually(lambda: len(reader.messages) == 100, label="all have come")

    assert [number for _, number, _, _ in reader.messages] == list(range(100))
    assert all(len(content) == MAX_PIECE_BYTES for _, _, content, _ in reader.messages)
    fds = [fd for _, _, _, fd in reader.messages]
    assert [fd is not None for fd in fds] == [number % 2 == 1 for number in range(100)]
    for fd in fds:
        if fd is not None:
            os.close(fd)
    receiving.close()


async def test_descriptors_that_wait_are_closed_at_the_end(pair: tuple[Link, Heard, socket.socket]) -> None:
    link, heard, _ = pair
    for number in range(20):
        link.send(Kind.FILE, number, bytes(MAX_PIECE_BYTES), an_open_file())
    link.close()
    link.send(Kind.FILE, 21, b"", an_open_file())
    assert heard.is_ended


@pytest.mark.parametrize("waiting", [0, 20])
async def test_the_end_of_the_other_side_is_noticed(pair: tuple[Link, Heard, socket.socket], waiting: int) -> None:
    link, heard, other = pair
    for number in range(waiting):
        link.send(Kind.FILE, number, bytes(MAX_PIECE_BYTES), an_open_file())
    other.close()
    link.send(Kind.FILE, 21, b"", an_open_file())
    assert not heard.is_ended, "never within a call"
    await eventually(lambda: heard.is_ended)


# Asking


class Host:
    """What listens for servers, and answers as the test says."""

    def __init__(self) -> None:
        self.crew = gather_crew(2)
        self.line = Line(self.crew.address, list)
        self.sock: socket.socket | None = None

    async def comes(self) -> None:
        """The next one, after the one before has gone."""
        self.goes()
        sock, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(self.crew.desk), 20)
        sock.setblocking(False)
        self.sock = sock
        self.says(Kind.HELLO)

    def says(self, kind: Kind, number: int = 0, content: bytes = b"", file: bytes | None = None) -> None:
        assert self.sock is not None
        fds = [] if file is None else [an_open_file(file)]
        socket.send_fds(self.sock, [written(kind, number, content)], fds)
        for fd in fds:
            os.close(fd)

    async def hears(self, kind: Kind) -> tuple[int, bytes]:
        """The number and the content of the next message, which is one of this kind."""
        assert self.sock is not None
        found, number, content = read(
            await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.sock, 1 << 18), 20)
        )
        assert found is kind
        return number, content

    async def asked(self) -> tuple[int, Ask]:
        number, content = await self.hears(Kind.ASK)
        return number, Ask.read(content)

    def goes(self) -> None:
        if self.sock is not None:
            self.sock.close()


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    async with nothing_left_over():
        host = Host()
        host.crew.desk.setblocking(False)
        host.line.start()
        yield host
        host.line.close()
        host.goes()
        host.crew.desk.close()


ASK = Ask(b"GET /v2/ HTTP/1.1\r\n\r\n", "127.0.0.1", False)


async def half_sent(host: Host, asking: Asking) -> asyncio.Task[int]:
    """Four bytes are with the client, and the host goes; the next one is there. Ends when more can be sent."""
    answering = asyncio.ensure_future(asking.answer())
    await host.comes()
    number, ask = await host.asked()
    assert ask == ASK
    host.says(Kind.ANSWER, number, Answer(HEAD, more=10).written())
    host.says(Kind.FILE, number, File(2, 6).written(), b"__" + BODY[:4])
    assert (await answering).more == 10
    assert (await asking.first(), await asking.visible(2)) == (2, 6)
    assert os.pread(asking.fd, 4, 2) == BODY[:4]
    more = asyncio.ensure_future(asking.visible(6))
    await host.hears(Kind.NEXT)
    await host.comes()
    return more


async def test_the_next_host_goes_on_where_the_body_stopped(host: Host) -> None:
    asking = Asking(host.line, ASK)
    more = await half_sent(host, asking)
    number, ask = await host.asked()
    assert ask.sent == 4
    host.says(Kind.ANSWER, number, Answer(HEAD + b"X: other\r\n", more=10).written())
    host.says(Kind.FILE, number, File(2, 8).written(), b"--" + BODY)
    assert await more == 8
    assert os.pread(asking.fd, 4, 6) == BODY[4:8]
    last = asyncio.ensure_future(asking.visible(8))
    await host.hears(Kind.NEXT)
    host.says(Kind.VISIBLE, number, written_offset(12))
    assert await last == 12
    asking.close(10, left=False)
    assert Done.read((await host.hears(Kind.DONE))[1]) == Done(10, left=False)


async def test_the_next_host_may_have_it_in_no_file(host: Host) -> None:
    asking = Asking(host.line, ASK)
    more = await half_sent(host, asking)
    number, _ = await host.asked()
    host.says(Kind.ANSWER, number, Answer(HEAD, more=10).written())
    host.says(Kind.PIECE, number, BODY[4:])
    assert await more == 6
    assert [piece async for piece in asking.rest(6, 12)] == [BODY[4:]]
    asking.close(10, left=False)


@pytest.mark.parametrize(
    ("answer", "start"),
    [
        (Answer(HEAD.replace(b"sha256:a", b"sha256:b"), more=10), 2),
        (Answer(HEAD.replace(b"200 OK", b"206 Partial Content"), more=10), 2),
        (Answer(HEAD.replace(b"10", b"11"), more=11), 2),
        (Answer(b"HTTP/1.1 404 Not Found\r\n\r\n", b"{}"), 2),
        (Answer(HEAD, more=10), 0),
    ],
)
async def test_another_answer_of_the_next_host_is_not_mixed_with_the_first(
    host: Host, answer: Answer, start: int
) -> None:
    asking = Asking(host.line, ASK)
    more = await half_sent(host, asking)
    number, _ = await host.asked()
    host.says(Kind.ANSWER, number, answer.written())
    host.says(Kind.FILE, number, File(start, start + 8).written(), b"__" + BODY)
    with pytest.raises(ConnectionError):
        await more
    asking.close(4, left=True)


async def test_a_host_that_breaks_off_ends_the_connection(host: Host) -> None:
    asking = Asking(host.line, ASK)
    answering = asyncio.ensure_future(asking.answer())
    await host.comes()
    number, _ = await host.asked()
    host.says(Kind.BROKEN, number)
    with pytest.raises(ConnectionError):
        await answering
    asking.close(0, left=True)


async def test_what_comes_for_those_who_have_left_is_closed(host: Host) -> None:
    asking = Asking(host.line, ASK)
    answering = asyncio.ensure_future(asking.answer())
    await host.comes()
    number, _ = await host.asked()
    answering.cancel()
    await asyncio.wait([answering])
    asking.close(0, left=True)
    host.says(Kind.FILE, number, File(0, 10).written(), BODY)
    assert Done.read((await host.hears(Kind.DONE))[1]) == Done(0, left=True)


async def test_without_a_host_it_is_not_waited_for_ever(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.workers.asking.PATIENCE_SECONDS", 0.01)
    asking = Asking(host.line, ASK)
    with pytest.raises(Unavailable) as caught:
        await asking.answer()
    assert caught.value.retry_after == 5
    asking.close(0, left=False)


# Desk and supervisor


async def test_a_process_of_another_user_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    crew, heard = gather_crew(2), Heard()
    monkeypatch.setattr("proxy.workers.desk._user", lambda sock: os.getuid() + 1)
    desk = Desk(crew.desk, lambda request: pytest.fail("it was asked"), lambda counts: None, lambda: 0)
    await desk.start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(crew.address)
        link = Link(sock.dup(), heard)
        await eventually(lambda: heard.is_ended)
    link.close()
    assert (heard.messages, len(desk)) == ([], 0)
    await desk.aclose()


_BORN = """
import os, signal, sys
from proxy.workers.supervisor import Supervisor
def begin(lines):
    os.kill(os.getppid(), signal.SIGHUP)
    while signal.SIGHUP not in signal.sigpending():
        pass
    return 7
def nothing(*_):
    return False
sys.exit(Supervisor(
    [("one", begin)], died=nothing, tell=nothing, hung_up=nothing, stopping=nothing, patience=lambda: 1.0
).run())
"""
"""A process that has not come to its signals yet."""


async def test_a_process_that_is_just_born_does_not_die_of_sighup() -> None:
    ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", _BORN], timeout=30, check=False)
    assert ended.returncode == 7
