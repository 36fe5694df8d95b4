"""How many questions an upstream is asked at the same time: `requests` of its configuration."""

from __future__ import annotations

import asyncio

import pytest

from proxy.oci.errors import Unavailable
from proxy.oci.names import Repository, Tag
from proxy.policy.breaker import FAILURES
from proxy.upstream import failures
from tests.eventually import eventually
from tests.fake_hub import FakeHub
from tests.upstream_rig import LATEST, REPOSITORY, asking, fetched


async def test_no_more_questions_are_asked_at_a_time_and_all_are_answered() -> None:
    async with FakeHub() as hub, asking(hub, requests=2) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        await upstream.head_manifest(REPOSITORY, LATEST)
        hub.reset_counts()
        gate = hub.hang("manifest")
        asked = [asyncio.create_task(upstream.head_manifest(REPOSITORY, LATEST)) for _ in range(6)]
        await eventually(lambda: gate.waiting == 2)
        assert len(hub.requests) == 2

        gate.release()
        await asyncio.gather(*asked)
        assert len(hub.requests) == 6


async def test_a_waiter_that_leaves_takes_no_place_with_it() -> None:
    async with FakeHub() as hub, asking(hub, requests=1) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        await upstream.head_manifest(REPOSITORY, LATEST)
        gate = hub.hang("manifest")
        asked = [asyncio.create_task(upstream.head_manifest(REPOSITORY, LATEST)) for _ in range(6)]
        await eventually(lambda: gate.waiting == 1)
        for task in (asked[0], asked[1], asked[3]):  # The one that is asked, the next in the row, and one behind.
            task.cancel()
        gate.release()

        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert [isinstance(each, asyncio.CancelledError) for each in outcomes] == [1, 1, 0, 1, 0, 0]
        await upstream.head_manifest(REPOSITORY, LATEST)


async def test_the_place_of_a_question_does_for_its_token() -> None:
    """Were a token's exchange to wait for a place, it could wait for those that wait for it."""
    async with FakeHub() as hub, asking(hub, requests=1) as upstream:
        repositories = [Repository.parse(f"acme/app-{number}") for number in range(4)]
        for repository in repositories:
            hub.add_image(repository.name, "latest")
        async with asyncio.timeout(10):
            await asyncio.gather(
                *(
                    upstream.head_manifest(repository, Tag(tag))
                    for repository in repositories
                    for tag in ("latest", "latest", "latest")
                )
            )


async def test_blobs_take_no_place_and_wait_for_none() -> None:
    async with FakeHub() as hub, asking(hub, requests=1) as upstream:
        image = hub.add_image(REPOSITORY.name, "latest", [b"layer"])
        gate = hub.hang("manifest")
        asked = asyncio.create_task(upstream.head_manifest(REPOSITORY, LATEST))
        await eventually(lambda: gate.waiting == 1)

        assert await fetched(upstream, image.layers[0]) == b"layer"
        gate.release()
        await asked


async def test_waiting_for_a_place_is_bounded_and_no_failure_of_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeHub() as hub, asking(hub, requests=1) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        gate = hub.hang("manifest")
        asked = asyncio.create_task(upstream.head_manifest(REPOSITORY, LATEST))
        await eventually(lambda: gate.waiting == 1)
        monkeypatch.setattr(failures, "SMALL_SECONDS", 0.05)

        for _ in range(FAILURES + 1):
            with pytest.raises(Unavailable, match="no answer in time"):
                await upstream.head_manifest(REPOSITORY, LATEST)
        assert upstream.breaker_open_for() is None
        gate.release()
        await asked
        assert hub.count("HEAD", "manifest") == 1


async def test_0_is_no_limit() -> None:
    async with FakeHub() as hub, asking(hub, requests=0) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        gate = hub.hang("manifest")
        asked = [asyncio.create_task(upstream.head_manifest(REPOSITORY, LATEST)) for _ in range(100)]
        await eventually(lambda: gate.waiting == 100)
        gate.release()
        await asyncio.gather(*asked)


async def test_who_waited_while_the_breaker_opened_is_told_at_once() -> None:
    async with FakeHub() as hub, asking(hub, requests=1, idle_timeout=0.2) as upstream:
        gate = hub.hang("registry")
        asked = [asyncio.create_task(upstream.head_manifest(REPOSITORY, LATEST)) for _ in range(FAILURES + 20)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)

        assert all(isinstance(each, Unavailable) for each in outcomes)
        assert len(hub.requests) == FAILURES
        gate.release()
