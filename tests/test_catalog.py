"""`/v2/_catalog`: what is cached, for those who switch it on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proxy.config import ServerOptions
from tests.cache_rig import ANY_PORT, CacheRig
from tests.eventually import eventually
from tests.fake_hub import FakeHub

ON = {"server": ServerOptions(listen=ANY_PORT, catalog=True)}


async def names_of(cache: CacheRig, path: str = "/v2/_catalog") -> list[str]:
    found: list[str] = json.loads((await cache.send("GET", path)).body)["repositories"]
    return found


async def test_there_is_no_catalogue_unless_it_is_switched_on(cache: CacheRig) -> None:
    assert (await cache.send("GET", "/v2/_catalog")).status == 404


async def test_the_catalogue_lists_what_is_cached_page_by_page(hub: FakeHub, tmp_path: Path) -> None:
    expected = sorted(f"acme/app-{number:03}" for number in range(7))
    async with CacheRig(hub.url, tmp_path / "cache", options=ON) as cache:
        for name in expected:
            hub.add_image(name, "latest")
            await cache.get_manifest(name, "latest")

        async def all_there() -> bool:
            return await names_of(cache) == expected

        await eventually(all_there)
        seen, following = [], "/v2/_catalog?n=3"
        while following:
            reply = await cache.send("GET", following)
            seen += json.loads(reply.body)["repositories"]
            following = reply.headers.get("Link", "").partition("<")[2].partition(">")[0]

    assert seen == expected


async def test_private_repositories_are_not_listed(hub: FakeHub, tmp_path: Path) -> None:
    for name in ("acme/open", "acme/secret"):
        hub.add_image(name, "latest")
    hub.make_private("acme/secret")
    rig = CacheRig(hub.url, tmp_path / "cache", options=ON, private="serve")
    async with rig as cache:
        await cache.get_manifest("acme/secret", "latest")
        await cache.get_manifest("acme/open", "latest")
        await cache.stop()
        cache.private = "deny"
        await cache.start()
        assert (await cache.get_manifest("acme/open", "latest")).status == 200
        assert (await cache.get_manifest("acme/secret", "latest")).status == 403

        assert await names_of(cache) == ["acme/open"]


@pytest.mark.parametrize("count", ["0", "-1", "many", "9999999"])
async def test_a_page_size_that_is_none_is_refused(hub: FakeHub, tmp_path: Path, count: str) -> None:
    async with CacheRig(hub.url, tmp_path / "cache", options=ON) as cache:
        assert (await cache.send("GET", f"/v2/_catalog?n={count}")).status == 400
