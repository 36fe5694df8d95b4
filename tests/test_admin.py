"""The admin listener, by the door."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from aiohttp.test_utils import TestClient
from aiohttp.web import Application, Request

from proxy.metrics import Metrics
from proxy.server.admin import admin_application

Client = TestClient[Request, Application]
Start = Callable[[Application], Awaitable[Client]]


class Process:
    """What the admin listener is told of the process."""

    def __init__(self) -> None:
        self.metrics = Metrics(version="1")
        self.ready = False
        self.uptime = 0
        self.settled = 0

    async def settle(self) -> None:
        self.settled += 1

    def application(self) -> Application:
        return admin_application(self.metrics, lambda: self.ready, self.status, self.settle)

    def status(self) -> dict[str, object]:
        return {"uptime_seconds": self.uptime}


@pytest.mark.parametrize(("path", "times"), [("/metrics", 1), ("/api/status", 1), ("/healthz", 0), ("/readyz", 0)])
async def test_figures_are_read_when_they_are_settled_and_health_at_once(
    aiohttp_client: Start, path: str, times: int
) -> None:
    process = Process()
    client = await aiohttp_client(process.application())
    await client.get(path)
    assert process.settled == times


async def test_healthz_answers_while_the_process_lives(aiohttp_client: Start) -> None:
    client = await aiohttp_client(Process().application())
    response = await client.get("/healthz")
    assert (response.status, await response.text()) == (200, "ok\n")


async def test_readyz_follows_the_process(aiohttp_client: Start) -> None:
    process = Process()
    client = await aiohttp_client(process.application())
    assert (await client.get("/readyz")).status == 503
    process.ready = True
    assert (await client.get("/readyz")).status == 200
    process.ready = False
    assert (await client.get("/readyz")).status == 503


async def test_metrics_are_those_of_the_moment_in_the_format_of_the_scraper(aiohttp_client: Start) -> None:
    process = Process()
    client = await aiohttp_client(process.application())
    process.metrics.hit("blob")
    response = await client.get("/metrics", headers={"Accept": "text/plain"})
    assert response.content_type == "text/plain"
    assert 'pullthrough_hits_total{kind="blob"} 1.0' in await response.text()

    response = await client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert response.content_type == "application/openmetrics-text"
    assert (await response.text()).endswith("# EOF\n")


async def test_the_status_document_is_asked_for_at_each_request(aiohttp_client: Start) -> None:
    process = Process()
    client = await aiohttp_client(process.application())
    process.uptime = 5
    response = await client.get("/api/status")
    assert (response.content_type, await response.json()) == ("application/json", {"uptime_seconds": 5})


async def test_the_index_links_pages_that_are_there(aiohttp_client: Start) -> None:
    process = Process()
    process.ready = True
    client = await aiohttp_client(process.application())
    page = await (await client.get("/")).text()
    for path in ("/metrics", "/api/status", "/healthz", "/readyz"):
        assert f'href="{path}"' in page
        assert (await client.get(path)).status == 200


@pytest.mark.parametrize("path", ["/v2/", "/v2/library/alpine/manifests/latest", "/nothing", "/metrics/"])
async def test_there_is_nothing_else(aiohttp_client: Start, path: str) -> None:
    client = await aiohttp_client(Process().application())
    response = await client.get(path)
    assert (response.status, response.content_type) == (404, "text/plain")


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/readyz", "/api/status"])
async def test_nothing_is_kept_by_caches_and_nothing_can_be_changed(aiohttp_client: Start, path: str) -> None:
    client = await aiohttp_client(Process().application())
    assert (await client.get(path)).headers["Cache-Control"] == "no-store"
    assert (await client.post(path)).status == 405
