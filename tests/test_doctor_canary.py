"""The pull that `doctor` makes through the cache: what it costs, and what it sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from aiohttp import web

from proxy.doctor.findings import State
from tests.doctor_rig import SetUp, case_of, findings, healthy, short, wrong
from tests.fake_hub import FakeHub

__all__ = ["healthy", "short"]  # Fixtures: used by their names.


async def test_no_pull_is_counted_but_the_canary_s_and_that_once(healthy: SetUp) -> None:
    await healthy.examine()
    assert healthy.hub.counted_pulls == 1
    again = await healthy.examine()
    assert healthy.hub.counted_pulls == 1
    assert again["canary pull"].text.endswith("cost no pull, the cache held it")


async def test_without_a_canary_nothing_is_counted(healthy: SetUp) -> None:
    found = await findings(replace(healthy.case(), canary=None))
    assert found["canary pull"].state is State.SKIPPED
    assert healthy.hub.counted_pulls == 0


async def test_an_index_that_is_new_to_the_cache_costs_one_pull_a_run(healthy: SetUp) -> None:
    healthy.hub.add_index("library/hello-world", "latest")

    first = await healthy.examine()
    assert "blobs would cost a second pull" in first["canary pull"].text
    assert healthy.hub.counted_pulls == 1

    second = await healthy.examine()
    assert second["canary pull"].text.endswith("manifest and blob; cost 1 counted pull")
    assert healthy.hub.counted_pulls == 2

    third = await healthy.examine()
    assert third["canary pull"].text.endswith("cost no pull, the cache held it")
    assert healthy.hub.counted_pulls == 2


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda hub: hub.corrupt("cdn"), "configuration blob of docker.io/library/hello-world:latest was answered 503"),
        (lambda hub: hub.fail("manifest", 500), "was answered 503"),
        (lambda hub: hub.remove_repository("library/hello-world"), "was answered 403"),
        (lambda hub: hub.untag("library/hello-world", "latest"), "was answered 404"),
    ],
)
async def test_an_image_that_does_not_come_through_is_named(
    healthy: SetUp, spoil: Callable[[FakeHub], object], text: str
) -> None:
    spoil(healthy.hub)
    found = await healthy.examine()
    assert text in wrong(found)["canary pull"]
    assert found["canary pull"].cure


@pytest.mark.parametrize(
    ("digest", "text"), [("sha256:" + "0" * 64, "has other bytes than its digest"), ("", "names no digest")]
)
async def test_what_is_changed_on_the_way_is_named(healthy: SetUp, digest: str, text: str) -> None:
    """Between us and a cache there can be a proxy that means well."""

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=b"{}", headers={"Server": "pullthrough", "Docker-Content-Digest": digest})

    runner = web.ServerRunner(web.Server(answer, access_log=None), shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = "http://{}:{}".format(*runner.addresses[0])
        found = await findings(case_of(healthy.config, None, url))
    finally:
        await runner.cleanup()
    assert text in wrong(found)["canary pull"]
    assert "changes answers" in (found["canary pull"].cure or "")
