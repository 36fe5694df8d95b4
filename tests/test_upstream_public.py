"""Whether a repository is public: asked without an account, for free (DESIGN promise 2; PROTOCOL 2.3, 8.4)."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from proxy.oci.errors import TooManyRequests, Unavailable
from proxy.oci.names import Digest, Repository, Tag
from proxy.upstream.client import Upstream
from tests.fake_hub import ANONYMOUS, OCI_INDEX, Answer, FakeHub, at
from tests.upstream_rig import LATEST, REPOSITORY, asking, asking_as_account, started


async def test_a_public_repository_is_public_and_asking_is_free_and_anonymous() -> None:
    async with FakeHub() as hub, asking_as_account(hub) as upstream:
        image = hub.add_image(REPOSITORY.name, "latest")

        assert await upstream.is_public(REPOSITORY, LATEST)
        assert await upstream.is_public(REPOSITORY, Digest.parse(image.digest))
        assert await upstream.is_public(REPOSITORY, None)
        assert hub.counted_pulls == 0
        assert {request.identity for request in hub.requests} == {ANONYMOUS}


async def test_a_private_repository_is_not_public_though_the_account_may_pull_it() -> None:
    async with FakeHub() as hub, asking_as_account(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        hub.make_private(REPOSITORY.name)

        await upstream.head_manifest(REPOSITORY, LATEST)
        assert not await upstream.is_public(REPOSITORY, LATEST)
        await upstream.head_manifest(REPOSITORY, LATEST)
        assert not await upstream.is_public(Repository.parse("acme/missing"), None)


async def test_on_docker_hub_a_missing_tag_shows_that_the_repository_may_be_read() -> None:
    async with FakeHub() as hub, asking_as_account(hub) as upstream:
        hub.add_image(REPOSITORY.name, "v1")

        assert await upstream.is_public(REPOSITORY, None)
        assert await upstream.is_public(REPOSITORY, Tag.parse("missing"))
        assert hub.count("GET", "tags") == 0


@pytest.mark.parametrize(("tags", "public"), [(200, True), (404, False), (401, False), (403, False)])
async def test_elsewhere_a_404_may_hide_a_private_repository_so_its_tags_are_asked_for(tags: int, public: bool) -> None:
    async with FakeHub() as hub, started(hub.url, name="registry.example") as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        hub.fail("manifest", 404)
        if tags != 200:
            hub.fail("tags", tags)

        assert await upstream.is_public(REPOSITORY, LATEST) is public


async def test_403_is_not_public() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.fail("manifest", 403)

        assert not await upstream.is_public(REPOSITORY, LATEST)


async def test_a_token_server_that_refuses_strangers_means_not_public() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.fail("token", 403)

        assert not await upstream.is_public(REPOSITORY, LATEST)


async def test_a_registry_that_wants_no_token_is_public_and_one_that_wants_basic_is_not() -> None:
    async with FakeHub() as hub, asking_as_account(hub) as upstream:
        hub.replace("manifest", lambda _: Answer(200, CIMultiDict({"content-type": OCI_INDEX})))
        assert await upstream.is_public(REPOSITORY, LATEST)
        hub.heal()

        hub.fail(at("manifest"), 401)
        hub.change("manifest", lambda answer: answer.headers.update({"www-authenticate": "Basic realm=r"}))
        assert not await upstream.is_public(REPOSITORY, LATEST)
        assert {request.headers.get("Authorization") for request in hub.requests} == {None}


@pytest.mark.parametrize(("status", "error"), [(429, TooManyRequests), (500, Unavailable), (503, Unavailable)])
async def test_what_cannot_be_found_out_is_raised(status: int, error: type[Exception]) -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.fail("manifest", status)

        with pytest.raises(error):
            await upstream.is_public(REPOSITORY, LATEST)


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_the_refusal_of_a_redirects_target_says_nothing_of_the_repository(status: int) -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.redirect_to("manifest", hub.stranger_url)
        hub.fail("stranger", status)

        with pytest.raises(Unavailable):
            await upstream.is_public(REPOSITORY, LATEST)


async def test_the_page_of_a_login_is_not_taken_for_a_public_repository() -> None:
    async with FakeHub() as hub, started(hub.url, name="registry.example") as upstream:
        page = Answer(200, CIMultiDict({"content-type": "text/html"}))
        hub.redirect_to("manifest", hub.stranger_url + "/login")
        with pytest.raises(Unavailable, match="not a registry's"):
            await upstream.is_public(REPOSITORY, LATEST)

        hub.heal()
        hub.fail("manifest", 404)
        hub.replace("tags", lambda _: page)
        with pytest.raises(Unavailable, match="not a registry's"):
            await upstream.is_public(REPOSITORY, LATEST)


async def test_the_quota_of_strangers_is_not_taken_for_the_accounts() -> None:
    async with FakeHub() as hub, asking_as_account(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        hub.set_remaining(3, ANONYMOUS)

        await upstream.is_public(REPOSITORY, LATEST)
        assert remaining(upstream) is None
        await upstream.head_manifest(REPOSITORY, LATEST)
        assert remaining(upstream) == 100
        await upstream.is_public(REPOSITORY, LATEST)
        assert remaining(upstream) == 100


def remaining(upstream: Upstream) -> int | None:
    return upstream.limits.quota.remaining if upstream.limits.quota else None
