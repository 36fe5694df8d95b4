"""`pullthrough serve` as a process of a service manager: signals, sockets, and what it says of itself."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import sys
from pathlib import Path

import aiohttp
import pytest

from tests.fake_hub import FakeHub
from tests.ports import free_port
from tests.service_rig import LISTEN_HERE, service, service_manager, write_config


async def status_of(url: str) -> int:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status


async def receive(sock: socket.socket) -> list[str]:
    """The lines of the next message."""
    message = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 4096), 20)
    return message.decode().split("\n")


async def test_the_service_manager_is_told_of_each_change(hub: FakeHub, tmp_path: Path) -> None:
    config = write_config(tmp_path, hub)
    with service_manager(tmp_path) as (environ, manager):
        async with service(config, {**LISTEN_HERE, **environ}) as running:
            serving = f"STATUS=serving clients at {running.client_url}"
            assert await receive(manager) == ["READY=1", serving]
            assert await status_of(f"{running.admin_url}/readyz") == 200

            running.tell(signal.SIGHUP)
            reloading, moment, _ = await receive(manager)
            assert reloading == "RELOADING=1"
            assert moment.startswith("MONOTONIC_USEC=")
            assert await receive(manager) == ["READY=1", serving]

            running.tell(signal.SIGTERM)
            assert (await receive(manager))[0] == "STOPPING=1"
            assert await running.ended() == 0


async def test_the_watchdog_is_fed(hub: FakeHub, tmp_path: Path) -> None:
    with service_manager(tmp_path) as (environ, manager):
        async with service(write_config(tmp_path, hub), {**LISTEN_HERE, **environ, "WATCHDOG_USEC": "200000"}):
            heard = [await receive(manager) for _ in range(5)]
    assert heard.count(["WATCHDOG=1"]) >= 4


async def test_sighup_takes_what_the_file_says_now(hub: FakeHub, tmp_path: Path) -> None:
    config = write_config(tmp_path, hub)
    async with service(config) as running:
        assert await status_of(f"{running.client_url}/setup") == 200
        write_config(tmp_path, hub, "[server]\nsetup = false\nshutdown_timeout = 3")
        running.tell(signal.SIGHUP)
        await running.logged("the configuration is read again")
        assert await status_of(f"{running.client_url}/setup") == 404
        running.tell(signal.SIGTERM)
        assert await running.ended() == 0
    assert running.messages("warning") == running.messages("error") == []
    assert "stopping: running responses may end within 3 s" in running.messages()


async def test_sighup_names_what_only_a_restart_changes(hub: FakeHub, tmp_path: Path) -> None:
    config = write_config(tmp_path, hub)
    async with service(config) as running:
        write_config(tmp_path, hub, "[metrics]\naliases = true\n[freshness]\ntags = 1")
        running.tell(signal.SIGHUP)
        await running.logged("the configuration is read again; metrics.aliases: only a restart changes that")
        assert await status_of(f"{running.client_url}/v2/") == 200


@pytest.mark.parametrize(
    ("more", "said"),
    [("[server]\nsetup = 3", "setup"), ("nonsense", "config.toml"), ("[nowhere]", "no such section")],
)
async def test_sighup_with_a_file_that_cannot_be_used_changes_nothing(
    hub: FakeHub, tmp_path: Path, more: str, said: str
) -> None:
    config = write_config(tmp_path, hub)
    async with service(config) as running:
        write_config(tmp_path, hub, more)
        running.tell(signal.SIGHUP)
        await running.logged("the configuration is not taken, the one before stays")
        (message,) = running.messages("error")
        assert said in message
        assert await status_of(f"{running.client_url}/setup") == 200
        write_config(tmp_path, hub)
        running.tell(signal.SIGHUP)
        await running.logged("the configuration is read again")


async def test_as_many_files_may_be_open_as_the_system_allows(hub: FakeHub, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    try:
        async with service(write_config(tmp_path, hub)) as running:
            found = resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found == (hard, hard)


async def test_the_end_of_its_terminal_is_the_end_of_it(hub: FakeHub, tmp_path: Path) -> None:
    """The kernel tells of it by SIGHUP too."""
    config = write_config(tmp_path, hub)
    terminal, its_end = os.openpty()
    command = [sys.executable, "-m", "proxy", "serve", "--config", str(config)]
    process = await asyncio.create_subprocess_exec(*command, stderr=its_end, env={**os.environ, **LISTEN_HERE})
    os.close(its_end)
    try:
        shown = b""
        while b"clients: http" not in shown:
            shown += await asyncio.to_thread(os.read, terminal, 4096)
        os.close(terminal)
        process.send_signal(signal.SIGHUP)
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_clients_come_by_the_socket_that_was_passed(hub: FakeHub, tmp_path: Path) -> None:
    config = write_config(tmp_path, hub)
    with socket.create_server(("127.0.0.1", 0)) as clients, socket.create_server(("127.0.0.1", 0)) as admin:
        async with service(config, {}, {"clients": clients, "admin": admin}) as running:
            assert running.client_url == f"http://127.0.0.1:{clients.getsockname()[1]}"
            assert running.admin_url == f"http://127.0.0.1:{admin.getsockname()[1]}"
            assert await status_of(f"{running.client_url}/v2/") == 200
            assert await status_of(f"{running.admin_url}/readyz") == 200
            running.tell(signal.SIGTERM)
            assert await running.ended() == 0
        assert [each for each in running.messages() if "stopping" not in each and "clients" not in each] == []


async def test_the_admin_listener_is_our_own_where_none_was_passed(hub: FakeHub, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as clients:
        async with service(write_config(tmp_path, hub), LISTEN_HERE, {"clients": clients}) as running:
            assert await status_of(f"{running.admin_url}/readyz") == 200
            assert await status_of(f"{running.client_url}/v2/") == 200


async def test_a_socket_of_an_unknown_name_is_one_clear_line(hub: FakeHub, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        async with service(write_config(tmp_path, hub), LISTEN_HERE, {"unknown": other}) as running:
            assert await running.ended() == 1
    assert running.messages("plain") == [
        "pullthrough: cannot use the sockets of the service manager: a socket called 'unknown' was passed; "
        "expected FileDescriptorName=clients or admin\n"
    ]


async def test_two_processes_share_a_port_only_where_both_say_so(hub: FakeHub, tmp_path: Path) -> None:
    listen = {
        "PULLTHROUGH_SERVER__LISTEN": f"127.0.0.1:{free_port()}",
        "PULLTHROUGH_ADMIN__LISTEN": f"127.0.0.1:{free_port()}",
    }
    shared = {"PULLTHROUGH_SERVER__REUSE_PORT": "true"}
    config = write_config(tmp_path, hub)
    async with service(config, listen | shared) as first:
        assert first.client_url
        async with service(config, listen) as stubborn:
            assert await stubborn.ended() == 1
        assert "cannot listen on" in stubborn.messages("plain")[0]
        assert "stop that" in stubborn.messages("plain")[0]
        async with service(config, listen | shared) as second:
            assert second.client_url == first.client_url
    async with service(config, listen) as alone, service(config, listen | shared) as refused:
        assert alone.client_url
        assert await refused.ended() == 1
    assert "must allow that too" in refused.messages("plain")[0]
