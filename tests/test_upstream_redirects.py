"""Redirects, followed by hand (PROTOCOL 3, 8.9)."""

from __future__ import annotations

import pytest
from yarl import URL

from proxy.oci.errors import Unavailable
from proxy.oci.names import Digest
from proxy.upstream.redirects import redirect_target
from tests.fake_hub import FakeHub, at
from tests.upstream_rig import LATEST, REPOSITORY, asking, asking_as_account, fetched

AT = URL("https://registry.example/v2/a/blobs/x?y=1")
CONTENT = bytes(range(256)) * 2000


@pytest.mark.parametrize(
    ("location", "target"),
    [
        (
            "https://cdn.example/d?verify=1-a%2Fb%2Bc%3d&X=a+b%20c",
            "https://cdn.example/d?verify=1-a%2Fb%2Bc%3d&X=a+b%20c",
        ),
        ("https://cdn.example/%7euser/%2e%2e/a", "https://cdn.example/%7euser/%2e%2e/a"),
        ("//cdn.example/d?s=%2F", "https://cdn.example/d?s=%2F"),
        ("/d?s=%2F%2B", "https://registry.example/d?s=%2F%2B"),
        ("d?s=%2F", "https://registry.example/v2/a/blobs/d?s=%2F"),
        ("https://cdn.example:8443/", "https://cdn.example:8443/"),
    ],
)
def test_a_location_is_used_as_it_is_written(location: str, target: str) -> None:
    assert str(redirect_target("hub", AT, location)) == target


@pytest.mark.parametrize(
    "location",
    [
        None,
        "",
        "http://cdn.example/",
        "ftp://cdn.example/",
        "file:///etc/passwd",
        "https://user:password@cdn.example/",
        "https://cdn.example/a b",
        "https://cdn.example/\udcff",
        "https://cdn.example:99999/",
        "https://[::1",
        "javascript:alert(1)",
    ],
)
def test_what_leads_nowhere_is_refused_without_a_word_of_it(location: str | None) -> None:
    with pytest.raises(Unavailable) as refused:
        redirect_target("hub", AT, location)
    assert "cdn" not in str(refused.value)


def test_only_an_http_upstream_may_redirect_to_http() -> None:
    assert str(redirect_target("hub", URL("http://registry.example/"), "http://cdn.example/")) == "http://cdn.example/"
    assert (
        str(redirect_target("hub", URL("http://registry.example/"), "https://cdn.example/")) == "https://cdn.example/"
    )


async def test_a_signed_url_arrives_unchanged_and_authorization_stays_home() -> None:
    async with FakeHub() as hub, asking_as_account(hub) as upstream:
        digest = hub.add_blob(CONTENT)
        hub.link_blob(REPOSITORY.name, digest)

        assert await fetched(upstream, digest, offset=1000) == CONTENT[1000:]

        at_cdn = [request for request in hub.requests if request.listener == "cdn"]
        assert [request.range for request in at_cdn] == ["bytes=1000-"]
        assert hub.violations == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_every_kind_of_redirect_is_followed_with_the_same_method(status: int) -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        image = hub.add_image(REPOSITORY.name, "latest")
        moved = f"{hub.url}/v2/{REPOSITORY.name}/manifests/{image.digest}"
        hub.redirect_to(at("manifest", reference="latest"), moved, status=status)

        assert str((await upstream.head_manifest(REPOSITORY, LATEST)).digest) == image.digest
        assert (await upstream.get_manifest(REPOSITORY, LATEST)).body == image.body


async def test_a_loop_ends_after_five_redirects() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        hub.redirect_loop("manifest")

        with pytest.raises(Unavailable, match="more than 5 redirects"):
            await upstream.get_manifest(REPOSITORY, LATEST)
        assert hub.count("GET", "manifest") == 6


async def test_a_redirect_without_location_is_refused() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        hub.fail("manifest", 307)

        with pytest.raises(Unavailable, match="nowhere"):
            await upstream.get_manifest(REPOSITORY, LATEST)


async def test_a_dead_signed_url_is_unavailable_and_the_next_opening_gets_a_fresh_one() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        digest = hub.add_blob(CONTENT)
        hub.link_blob(REPOSITORY.name, digest)
        hub.fail("cdn", 403, times=1)

        with pytest.raises(Unavailable, match="403"):
            await fetched(upstream, digest)
        assert await fetched(upstream, digest) == CONTENT
        assert hub.count("GET", "blob", digest) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
async def test_what_a_redirects_target_says_is_never_the_registrys_word(status: int) -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        digest = hub.add_blob(CONTENT)
        hub.link_blob(REPOSITORY.name, digest)
        hub.fail("cdn", status)

        with pytest.raises(Unavailable):
            async with upstream.open_blob(REPOSITORY, Digest.parse(digest)):
                pass
        assert hub.count("GET", "blob", digest) == 1
