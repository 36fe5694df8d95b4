"""Several processes of one cache as one program: start, settings, limits, figures, the service manager, the end."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from yarl import URL

from tests.authority import Authority
from tests.blob_rig import KIB, MIB, add_layer
from tests.eventually import eventually
from tests.fake_hub import FakeHub
from tests.ports import free_port
from tests.raw_http import RawClient
from tests.service_rig import LISTEN_HERE, knocking, pulling, service, service_manager
from tests.workers_rig import Ship, fetched, is_alive, listening, ship, write_ship

REPOSITORY = "library/app"
LARGE = 24 * MIB
MANIFEST = f"/v2/{REPOSITORY}/manifests/latest"


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as running:
        yield running


async def clients_of(
    cache: Ship, stack: AsyncExitStack, *pids: int, receive_buffer: int | None = None
) -> list[RawClient]:
    """A connection with each of these processes."""
    return [await stack.enter_async_context(cache.client(pid, receive_buffer)) for pid in pids]


async def all_say(cache: Ship, path: str, status: int) -> None:
    """Wait until each process answers so."""
    for pid in cache.crew:

        async def says(pid: int = pid) -> bool:
            return (await cache.get(pid, path)).status == status

        await eventually(says, label=f"{pid} answers {status}")


# The end


async def test_at_the_end_what_runs_goes_on_and_nobody_new_is_let_in(
    hub: FakeHub, tmp_path: Path, stack: AsyncExitStack
) -> None:
    layer = add_layer(hub, LARGE)
    async with ship(tmp_path, hub) as cache:
        crew = cache.crew
        await cache.get(cache.host, layer.path)
        clients = await clients_of(cache, stack, cache.host, cache.server, receive_buffer=64 * KIB)
        for client in clients:
            client.ask("GET", layer.path)
            await client.head()
        idle, *_ = await clients_of(cache, stack, cache.server)

        cache.service.tell(signal.SIGTERM)

        await eventually(lambda: not listening(cache.service.client_url), label="the door is closed")
        assert (await fetched(f"{cache.service.admin_url}/readyz"))[0] == 503
        for client in clients:
            assert await client.read(LARGE) == layer.content
        assert await cache.service.ended() == 0
        assert await idle.rest() == b""
        assert [pid for pid in crew if is_alive(pid)] == []
        assert [each for each in cache.service.messages() if "stopping" not in each and "clients" not in each] == []


async def test_when_the_supervisor_is_killed_all_end(hub: FakeHub, tmp_path: Path) -> None:
    async with ship(tmp_path, hub, workers=3) as cache:
        crew = cache.crew
        cache.service.process.kill()
        await eventually(lambda: not any(is_alive(pid) for pid in crew), label="all have ended")
        assert not listening(cache.service.client_url)
    assert cache.service.messages("error") == []


# Settings


async def test_sighup_changes_the_settings_of_all(hub: FakeHub, tmp_path: Path) -> None:
    authority = Authority()
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    files = [authority.issue(tmp_path / name) for name in ("first", "second")]
    lines = [f'tls_certificate = "{certificate}"\ntls_key = "{key}"' for certificate, key in files]
    async with ship(tmp_path, hub, lines[0]) as cache:
        crew = cache.crew
        first, second = (each[0].read_text() for each in files)
        assert [await shown(cache, pid) for pid in crew] == [first] * 2
        write_ship(tmp_path, hub, lines[1])
        cache.service.tell(signal.SIGHUP)
        for pid in crew:
            await shows(cache, pid, second)
            await cache.killed(pid)  # Whoever comes after it begins with that.
        await cache.complete()
        assert [await shown(cache, pid) for pid in cache.crew] == [second] * 2


async def test_a_server_that_cannot_start_again_says_so_in_a_line(hub: FakeHub, tmp_path: Path) -> None:
    certificate, key = Authority().issue(tmp_path)
    right = certificate.read_text()
    async with ship(tmp_path, hub, f'tls_certificate = "{certificate}"\ntls_key = "{key}"') as cache:
        await eventually(lambda: cache.is_metric("pullthrough_workers", 2), label="the server has begun")
        certificate.write_text("")
        await cache.killed(cache.server)
        await cache.service.logged(f"{certificate} holds no certificate in PEM")
        assert await shown(cache, cache.host) == right
        certificate.write_text(right)
        await cache.complete()
        await shows(cache, cache.server, right)
        said = cache.service.messages("plain")
        assert {line.partition(":")[0] for line in said} == {"pullthrough"}, said


async def shown(cache: Ship, pid: int) -> str:
    """The certificate that this process shows."""
    async with cache.only(pid):
        url = URL(cache.service.client_url)
        assert url.host and url.port
        return await asyncio.to_thread(ssl.get_server_certificate, (url.host, url.port), timeout=20)


async def shows(cache: Ship, pid: int, certificate: str) -> None:
    """Wait until it shows this one."""

    async def does() -> bool:
        return await shown(cache, pid) == certificate

    await eventually(does, label=f"{pid} shows the certificate")


@pytest.mark.parametrize(
    "server", ["setup = 3", f"setup = {'[' * 5000}", 'tls_certificate = "/nowhere"\ntls_key = "/x"']
)
async def test_settings_that_cannot_be_used_change_nothing(hub: FakeHub, tmp_path: Path, server: str) -> None:
    async with ship(tmp_path, hub) as cache:
        write_ship(tmp_path, hub, server)
        cache.service.tell(signal.SIGHUP)
        await cache.service.logged("the configuration is not taken, the one before stays")
        assert len(cache.service.messages("error")) == 1
        for pid in cache.crew:
            assert (await cache.get(pid, "/setup")).status == 200
            await cache.killed(pid)
        await cache.complete()
        await all_say(cache, "/setup", 200)

        write_ship(tmp_path, hub, "setup = false")
        cache.service.tell(signal.SIGHUP)
        await cache.service.logged("the configuration is read again")
        await all_say(cache, "/setup", 404)
        await cache.stop()


# Limits and figures


async def test_limits_hold_over_all_processes(hub: FakeHub, tmp_path: Path, stack: AsyncExitStack) -> None:
    limits = "max_connections = 3\nmax_connections_per_client = 2"
    async with ship(tmp_path, hub, limits) as cache:
        host, server = cache.host, cache.server
        await clients_of(cache, stack, host, server)
        too_many_of_one = [await (await clients_of(cache, stack, pid))[0].reply() for pid in (host, server)]
        other = await stack.enter_async_context(cache.client(server, address="127.0.0.3"))
        too_many = [
            await (await stack.enter_async_context(cache.client(pid, address="127.0.0.4"))).reply()
            for pid in (host, server)
        ]
        assert [reply.status for reply in too_many_of_one] == [429, 429]
        assert [reply.status for reply in too_many] == [503, 503]
        refused = "pullthrough_connections_refused_total"
        assert await cache.metric(refused, reason="max_connections_per_client") == 2
        assert await cache.metric(refused, reason="max_connections") == 2
        other.leave()
        await eventually(lambda: cache.is_metric("pullthrough_connections", 2), label="one has left")
        assert (await cache.get(host, "/v2/", "Connection: close")).status == 429


async def test_each_answer_is_counted_and_logged_once(hub: FakeHub, tmp_path: Path, stack: AsyncExitStack) -> None:
    """Wherever it was given; also what was answered right before the end."""
    hub.rate_limit = None
    image = hub.add_image(REPOSITORY, "latest")
    path = f"/v2/{REPOSITORY}/manifests/{image.digest}"
    async with ship(tmp_path, hub) as cache:
        clients = await clients_of(cache, stack, cache.host, cache.server)
        for client in clients * 20:
            client.ask("GET", path)
            assert (await client.reply()).body == image.body
        assert await cache.metric("pullthrough_requests_total", kind="manifest", code="200") == 40
        assert await cache.metric("pullthrough_hits_total", kind="manifest") == 39
        assert await cache.metric("pullthrough_served_bytes_total", kind="manifest") == 40 * len(image.body)
        for client in clients * 20:
            client.ask("GET", path)
            await client.reply()
        await cache.stop()
        assert sum(image.digest in subject for subject in cache.access_log()) == 80
    async with ship(tmp_path, hub) as cache:
        _, _, body = await fetched(f"{cache.service.admin_url}/api/top?by=client")
        assert [row["answers"] for row in json.loads(body)["rows"]] == [80]


# The start


@pytest.mark.parametrize("fault", ["port", "folder", "certificate"])
async def test_a_start_that_fails_is_one_clear_line(hub: FakeHub, tmp_path: Path, fault: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        (tmp_path / "file").write_text("")
        server = {"certificate": 'tls_certificate = "/nowhere"\ntls_key = "/nowhere"'}.get(fault, "")
        more = {
            "port": {"PULLTHROUGH_SERVER__LISTEN": f"127.0.0.1:{taken.getsockname()[1]}"},
            "folder": {"PULLTHROUGH_CACHE__DIRECTORY": f"{tmp_path}/file/cache"},
        }.get(fault, {})
        async with service(write_ship(tmp_path, hub, server), {**LISTEN_HERE, **more}) as running:
            assert await running.ended() == (2 if fault == "certificate" else 1)
    assert len(running.log) == 1, running.log
    assert running.messages("plain")[0].startswith("pullthrough: "), running.log


async def test_a_host_that_cannot_start_again_is_tried_until_it_can(hub: FakeHub, tmp_path: Path) -> None:
    """Whoever asks meanwhile waits for it."""
    hub.add_image(REPOSITORY, "latest")
    async with ship(tmp_path, hub) as cache:
        (server,) = set(cache.crew) - {cache.host}
        (tmp_path / "cache").rename(tmp_path / "aside")
        (tmp_path / "cache").write_text("")
        await cache.killed(cache.host)
        answering = asyncio.ensure_future(cache.get(server, MANIFEST))
        for pause in ("0.1", "0.2", "0.5"):
            await cache.service.logged(f"and is started anew in {pause} s")
        (tmp_path / "cache").unlink()
        (tmp_path / "aside").rename(tmp_path / "cache")

        assert (await answering).status == 200

        assert server in cache.crew
        said = cache.service.messages("plain")
        assert said and all(each.startswith("pullthrough: cannot use the cache folder") for each in said)


# The service manager


async def receive(sock: socket.socket) -> list[str]:
    """The lines of the next message."""
    message = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 4096), 20)
    return message.decode().split("\n")


async def test_the_service_manager_is_told_by_the_process_that_it_started(hub: FakeHub, tmp_path: Path) -> None:
    with service_manager(tmp_path) as (environ, manager):
        async with service(write_ship(tmp_path, hub), {**LISTEN_HERE, **environ}) as running:
            cache, serving = Ship(running), f"STATUS=serving clients at {running.client_url}"
            assert await receive(manager) == ["READY=1", serving]
            await cache.complete()
            running.tell(signal.SIGHUP)
            assert (await receive(manager))[0] == "RELOADING=1"
            assert await receive(manager) == ["READY=1", serving]
            await cache.killed(cache.host)
            assert await receive(manager) == ["READY=1", serving]
            running.tell(signal.SIGTERM)
            assert (await receive(manager))[0] == "STOPPING=1"
            assert await running.ended() == 0


async def test_the_watchdog_hears_of_the_host(hub: FakeHub, tmp_path: Path) -> None:
    with service_manager(tmp_path) as (environ, manager):
        async with service(write_ship(tmp_path, hub), {**LISTEN_HERE, **environ, "WATCHDOG_USEC": "200000"}) as running:
            await Ship(running).complete()
            heard = [await receive(manager) for _ in range(5)]
    assert heard.count(["WATCHDOG=1"]) >= 4


async def test_clients_come_to_all_by_the_socket_that_was_passed(hub: FakeHub, tmp_path: Path) -> None:
    """And wait in it while one cache follows another."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as clients:
        for _ in range(2):
            async with ship(tmp_path, hub, sockets={"clients": clients}) as cache:
                assert URL(cache.service.client_url).port == clients.getsockname()[1]
                for pid in cache.crew:
                    assert (await cache.get(pid, "/v2/")).status == 200
                await cache.stop()
            assert listening(cache.service.client_url)


async def test_by_a_shared_port_no_pull_fails(hub: FakeHub, tmp_path: Path, stack: AsyncExitStack) -> None:
    hub.rate_limit = None
    layers = [hub.add_synthetic_blob(size, size) for size in (90_000, 9)]
    images = [hub.add_image(f"library/image-{number}", "latest", layers) for number in range(3)]
    environ = {
        "PULLTHROUGH_SERVER__LISTEN": f"127.0.0.1:{free_port()}",
        "PULLTHROUGH_ADMIN__LISTEN": f"127.0.0.1:{free_port()}",
        "PULLTHROUGH_SERVER__REUSE_PORT": "true",
        "PULLTHROUGH_LOG__ACCESS": "false",
    }
    old = await stack.enter_async_context(ship(tmp_path, hub, environ=environ))
    async with pulling(old.service.client_url, images) as pullers, knocking(old.service.client_url) as knocks:
        await pullers.more()
        new = await stack.enter_async_context(ship(tmp_path, hub, environ=environ))
        await pullers.more()
        await old.stop()
        await pullers.more()
    await new.stop()
    assert pullers.failures == knocks.failures == []
    assert hub.violations == []
