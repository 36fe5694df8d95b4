"""Two listening sockets on one address: who gets new connections, and that none is lost when one of them closes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest

from proxy.app.sockets import prefer_newest, share_evenly, sharing

ATTEMPTS = 64


def listening(address: tuple[str, int] = ("127.0.0.1", 0), family: int = socket.AF_INET) -> socket.socket:
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(address)
    sock.listen(ATTEMPTS)
    sock.setblocking(False)
    return sock


def waiting(sock: socket.socket) -> int:
    """How many connections are in its queue; they are taken out."""
    count = 0
    while True:
        try:
            connection, _ = sock.accept()
        except BlockingIOError:
            return count
        connection.close()
        count += 1


def connect(address: tuple[str, int], times: int = ATTEMPTS) -> None:
    """Connections that have come to a queue when this returns."""
    for _ in range(times):
        socket.create_connection(address, timeout=5).close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with closing(listening()) as old, closing(listening(old.getsockname())) as new:
        yield old, new


def test_the_newer_one_gets_all_that_comes_once_it_is_preferred(pair: tuple[socket.socket, socket.socket]) -> None:
    old, new = pair
    connect(old.getsockname())
    assert 0 < waiting(old) < ATTEMPTS
    waiting(new)

    assert prefer_newest([old])

    connect(old.getsockname())
    assert (waiting(old), waiting(new)) == (0, ATTEMPTS)


def test_a_preference_can_be_ended(pair: tuple[socket.socket, socket.socket]) -> None:
    old, new = pair
    prefer_newest([old])
    assert share_evenly([new])
    assert not share_evenly([new])
    connect(old.getsockname())
    assert 0 < waiting(old) < ATTEMPTS


def test_the_one_that_is_left_gets_all_and_the_next_one_is_preferred_to_it() -> None:
    with ExitStack() as stack:
        first = stack.enter_context(closing(listening()))
        address = first.getsockname()
        second = stack.enter_context(closing(listening(address)))
        prefer_newest([first])
        first.close()
        connect(address)
        assert waiting(second) == ATTEMPTS
        third = stack.enter_context(closing(listening(address)))
        share_evenly([third])
        prefer_newest([second])
        connect(address)
        assert (waiting(second), waiting(third)) == (0, ATTEMPTS)


@pytest.mark.parametrize("others", [0, 2])
def test_only_of_two_it_is_known_which_is_newer(others: int) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(closing(listening()))
        for _ in range(others):
            stack.enter_context(closing(listening(first.getsockname())))
        assert not prefer_newest([first])


def test_ipv6_too() -> None:
    if not socket.has_ipv6:
        pytest.skip("there is no IPv6 here")
    with closing(listening(("::1", 0), socket.AF_INET6)) as old:
        address = old.getsockname()[:2]
        with closing(listening(address, socket.AF_INET6)) as new:
            assert prefer_newest([old])
            connect(address)
            assert (waiting(old), waiting(new)) == (0, ATTEMPTS)


def test_sockets_are_counted_by_address_and_state() -> None:
    table = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1\n"
        "   1: 0100007F:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1\n"
        "   2: 00000000:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 13 1\n"
        "   3: 0100007F:1388 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 14 1\n"
        "nonsense\n"
    )
    assert [sharing(table, inode) for inode in (11, 12, 13, 14, 99)] == [2, 2, 1, 0, 0]


@contextmanager
def knocking(address: tuple[str, int], failures: list[OSError]) -> Iterator[Callable[[], int]]:
    """Clients that connect, say a byte and wait for one, again and again; how often that went well."""
    stopping = threading.Event()
    counts = [0] * 8

    def knock(number: int) -> None:
        while not stopping.is_set():
            try:
                with socket.create_connection(address, timeout=10) as connection:
                    connection.sendall(b"?")
                    if connection.recv(1) != b"!":
                        raise ConnectionResetError("no answer")
                    counts[number] += 1
            except OSError as error:
                failures.append(error)

    threads = [threading.Thread(target=knock, args=(number,)) for number in range(len(counts))]
    for thread in threads:
        thread.start()
    try:
        yield lambda: sum(counts)
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


@contextmanager
def answering(sock: socket.socket) -> Iterator[None]:
    """Accepts from a socket and answers, until the end; what is in its queue then is not looked at."""
    stopping = threading.Event()
    sock.settimeout(0.01)

    def answer() -> None:
        while not stopping.is_set():
            try:
                connection, _ = sock.accept()
            except TimeoutError:
                continue
            with connection:
                connection.settimeout(10)
                if connection.recv(1):
                    connection.sendall(b"!")

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def test_nobody_is_lost_when_the_older_one_closes_after_a_moment() -> None:
    failures: list[OSError] = []
    old = listening()
    with ExitStack() as stack, knocking(old.getsockname(), failures) as answered:
        running = ExitStack()
        running.enter_context(answering(old))
        for _ in range(10):
            new = listening(old.getsockname())
            share_evenly([new])
            following = ExitStack()
            following.enter_context(answering(new))
            enough(answered, 50)
            assert prefer_newest([old])
            enough(answered, 200)  # The moment: those who had begun with the old one are answered by then.
            running.close()
            old.close()
            old, running = new, following
        stack.callback(running.close)
    old.close()
    assert failures == []


def enough(answered: Callable[[], int], more: int) -> None:
    """Wait until so many more clients were answered."""
    wanted, never = answered() + more, threading.Event()
    while answered() < wanted:
        never.wait(0.001)
