"""`/setup` on the client listener."""

from __future__ import annotations

from pathlib import Path

from proxy.config import ServerOptions
from tests.cache_rig import ANY_PORT, CacheRig
from tests.fake_hub import FakeHub


async def test_the_cache_tells_a_client_s_machine_what_to_put_where(cache: CacheRig) -> None:
    reply = await cache.send("GET", "/setup/dockerd", {"Host": "cache.example:5000"})

    assert (reply.status, reply.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    assert "http://cache.example:5000" in reply.body.decode()
    assert "/etc/docker/daemon.json" in reply.body.decode()


async def test_the_clients_are_listed(cache: CacheRig) -> None:
    reply = await cache.send("GET", "/setup")

    assert reply.status == 200
    assert {"dockerd", "containerd", "podman"} <= set(reply.body.decode().split())


async def test_an_unknown_client_is_404_with_the_known_ones(cache: CacheRig) -> None:
    reply = await cache.send("GET", "/setup/abacus")

    assert (reply.status, b"dockerd" in reply.body, b"abacus" in reply.body) == (404, True, False)


async def test_a_host_header_that_is_none_is_refused_and_not_echoed(cache: CacheRig) -> None:
    reply = await cache.send("GET", "/setup/dockerd", {"Host": "x$(reboot)"})

    assert (reply.status, b"reboot" in reply.body) == (400, False)


async def test_setup_can_be_switched_off(hub: FakeHub, tmp_path: Path) -> None:
    options = {"server": ServerOptions(listen=ANY_PORT, setup=False)}
    async with CacheRig(hub.url, tmp_path / "cache", options=options) as cache:
        assert (await cache.send("GET", "/setup/dockerd")).status == 404
