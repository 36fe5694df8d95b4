"""What the service manager passes and is told, with real sockets: descriptors, datagrams, the watchdog."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from proxy.systemd.activation import ActivationError, adopt, passed_fds
from proxy.systemd.notify import Notifier

PID = 4242

# Sockets that are passed


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, {}),
        ({"LISTEN_FDS": "1", "LISTEN_FDNAMES": "clients"}, {}),
        ({"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "clients"}, {}),
        ({"LISTEN_PID": "4242", "LISTEN_FDS": "0", "LISTEN_FDNAMES": ""}, {}),
        ({"LISTEN_PID": "4242", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "clients"}, {"clients": [3]}),
        (
            {"LISTEN_PID": "4242", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "clients:admin:clients"},
            {"clients": [3, 5], "admin": [4]},
        ),
    ],
)
def test_passed_sockets_are_known_by_name(environ: dict[str, str], expected: dict[str, list[int]]) -> None:
    assert passed_fds(environ, PID) == expected


@pytest.mark.parametrize(
    ("count", "names", "said"),
    [
        ("x", "clients", "LISTEN_FDS is 'x'"),
        ("-1", "clients", "LISTEN_FDS"),
        ("65", "clients", "up to 64"),
        ("2", "clients", "1 names for 2 sockets"),
        ("1", "unknown", "'unknown' was passed; expected FileDescriptorName=clients or admin"),
        ("1", "", "FileDescriptorName=clients"),
    ],
)
def test_what_cannot_be_meant_for_us_is_said(count: str, names: str, said: str) -> None:
    with pytest.raises(ActivationError, match=said):
        passed_fds({"LISTEN_PID": str(PID), "LISTEN_FDS": count, "LISTEN_FDNAMES": names}, PID)


def test_a_socket_that_listens_is_adopted_and_not_inherited_further() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        fd = os.dup(listening.fileno())
        os.set_inheritable(fd, True)
        (adopted,) = adopt([fd])
        with adopted:
            assert adopted.getsockname() == listening.getsockname()
            assert (adopted.get_inheritable(), adopted.getblocking()) == (False, False)


@contextmanager
def other_than_listening(kind: str, folder: Path) -> Iterator[int]:
    if kind == "file":
        fd = os.open(folder / "file", os.O_CREAT | os.O_RDWR)
    elif kind == "unix":
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(folder / "socket"))
            sock.listen()
            fd = os.dup(sock.fileno())
    else:
        with socket.socket(type=socket.SOCK_DGRAM if kind == "datagram" else socket.SOCK_STREAM) as sock:
            fd = os.dup(sock.fileno())
    yield fd
    if kind == "file":
        os.close(fd)


@pytest.mark.parametrize("kind", ["file", "unix", "datagram", "not listening"])
def test_a_descriptor_of_another_kind_is_refused_and_the_others_are_closed(tmp_path: Path, kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, other_than_listening(kind, tmp_path) as other:
        good = os.dup(listening.fileno())
        with pytest.raises(ActivationError):
            adopt([good, other])
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(good)


# What is told


@contextmanager
def service_manager(address: str) -> Iterator[socket.socket]:
    """A socket like the one that systemd reads from."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sock:
        sock.bind("\0" + address[1:] if address.startswith("@") else address)
        sock.settimeout(5)
        yield sock


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{tmp_path}/notify" if request.param == "path" else f"@pullthrough-test-{os.getpid()}"


def test_each_change_is_one_message(address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address}, PID)
    with service_manager(address) as manager:
        notifier.ready("serving\nclients")
        assert manager.recv(4096) == b"READY=1\nSTATUS=serving clients"
        notifier.reloading()
        first, moment, _ = manager.recv(4096).split(b"\n")
        assert (first, moment.partition(b"=")[0]) == (b"RELOADING=1", b"MONOTONIC_USEC")
        assert moment.partition(b"=")[2].isdigit()
        notifier.stopping("soon")
        assert manager.recv(4096) == b"STOPPING=1\nSTATUS=soon"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere/notify"}])
def test_telling_nobody_is_no_error(environ: dict[str, str]) -> None:
    Notifier(environ, PID).ready("serving")


def test_a_service_manager_that_does_not_read_holds_nothing_up(tmp_path: Path) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": f"{tmp_path}/notify"}, PID)
    with service_manager(f"{tmp_path}/notify"):
        for _ in range(1000):
            notifier.ready("serving")


@pytest.mark.parametrize(
    ("environ", "fed"),
    [
        ({"WATCHDOG_USEC": "20000"}, True),
        ({"WATCHDOG_USEC": "20000", "WATCHDOG_PID": str(PID)}, True),
        ({"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"}, False),
        ({"WATCHDOG_USEC": "0"}, False),
        ({"WATCHDOG_USEC": "soon"}, False),
        ({}, False),
    ],
)
async def test_the_watchdog_is_fed_while_the_event_loop_runs(
    tmp_path: Path, environ: dict[str, str], fed: bool
) -> None:
    notifier = Notifier(environ | {"NOTIFY_SOCKET": f"{tmp_path}/notify"}, PID)
    with service_manager(f"{tmp_path}/notify") as manager:
        await notifier.start()
        if fed:
            for _ in range(3):
                assert await asyncio.to_thread(manager.recv, 4096) == b"WATCHDOG=1"
        await notifier.aclose()
        manager.setblocking(False)
        while fed:
            try:
                manager.recv(4096)
            except BlockingIOError:
                break
        await asyncio.sleep(0)
        with pytest.raises(BlockingIOError):
            manager.recv(4096)
