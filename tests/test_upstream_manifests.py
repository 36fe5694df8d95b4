"""HEAD and GET of manifests (PROTOCOL 1.2-1.4, 6, 10)."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from proxy import __version__
from proxy.oci.errors import Denied, ManifestUnknown, NameUnknown, RegistryError, TooManyRequests, Unavailable
from proxy.oci.manifests import MAX_MANIFEST_BYTES, Descriptor
from proxy.oci.names import Digest, Tag
from proxy.policy.quota import Gate
from proxy.upstream.client import DigestMissing
from tests.fake_hub import OCI_INDEX, OCI_MANIFEST, FakeHub, at
from tests.upstream_rig import LATEST, REPOSITORY, RiggedUpstream, asking, asking_as_account

REQUESTS, PULLS = Gate.REQUESTS, Gate.PULLS


def closed_for(upstream: RiggedUpstream, gate: Gate) -> float | None:
    return upstream.limits.closed_for(gate, upstream.clock.now)


async def test_head_tells_digest_type_and_size_and_costs_nothing() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        image = hub.add_image(REPOSITORY.name, "latest", oci=True)
        digest = Digest.parse(image.digest)

        assert await upstream.head_manifest(REPOSITORY, LATEST) == Descriptor(digest, OCI_MANIFEST, len(image.body))
        assert await upstream.head_manifest(REPOSITORY, digest) == Descriptor(digest, OCI_MANIFEST, len(image.body))
        assert hub.counted_pulls == 0
        assert {request.headers["User-Agent"] for request in hub.requests} == {f"pullthrough/{__version__}"}
        assert upstream.sample("counted_pulls_total") is None


async def test_get_gives_the_exact_bytes_and_counts_one_pull() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        index = hub.add_index(REPOSITORY.name, "latest", oci=True)

        manifest = await upstream.get_manifest(REPOSITORY, Digest.parse(index.digest))

        assert (str(manifest.digest), manifest.media_type, manifest.body) == (index.digest, OCI_INDEX, index.body)
        assert hub.counted_pulls == 1
        assert upstream.sample("counted_pulls_total") == 1
        assert upstream.sample("fetched_bytes_total", kind="manifest") == len(index.body)


async def test_the_media_type_comes_without_parameters() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_manifest(REPOSITORY.name, b"{}", "application/vnd.oci.image.manifest.v1+json; charset=utf-8", "latest")

        assert (await upstream.get_manifest(REPOSITORY, LATEST)).media_type == OCI_MANIFEST
        assert (await upstream.head_manifest(REPOSITORY, LATEST)).media_type == OCI_MANIFEST


async def test_a_clients_own_accept_is_passed_on() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest", oci=True)

        with pytest.raises(ManifestUnknown):
            await upstream.get_manifest(REPOSITORY, LATEST, accept="application/json")


async def test_a_manifest_whose_bytes_are_not_those_of_its_digest_is_not_given() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        image = hub.add_image(REPOSITORY.name, "latest")
        hub.corrupt("manifest", 10)

        for reference in (Digest.parse(image.digest), LATEST):
            with pytest.raises(Unavailable, match="not those of its digest"):
                await upstream.get_manifest(REPOSITORY, reference)


async def test_another_manifest_than_was_asked_for_is_not_given_whatever_its_header_says() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        image, other = hub.add_image(REPOSITORY.name, "latest"), hub.add_image(REPOSITORY.name, "other")
        hub.redirect_to(image.digest, f"{hub.url}/v2/{REPOSITORY.name}/manifests/other")

        with pytest.raises(Unavailable, match=image.digest):
            await upstream.get_manifest(REPOSITORY, Digest.parse(image.digest))
        assert hub.count("GET", "manifest", "other", status=200) == 1
        assert other.digest != image.digest


async def test_a_tag_whose_digest_is_not_said_gets_the_digest_of_its_bytes() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        image = hub.add_image(REPOSITORY.name, "latest")
        hub.no_digest_header("manifest")

        assert str((await upstream.get_manifest(REPOSITORY, LATEST)).digest) == image.digest
        with pytest.raises(DigestMissing):
            await upstream.head_manifest(REPOSITORY, LATEST)
        assert str((await upstream.head_manifest(REPOSITORY, Digest.parse(image.digest))).digest) == image.digest


@pytest.mark.parametrize("body", [b"<html>please log in</html>", b"{}", b"[]", b"", b"[" * 100_000])
async def test_what_comes_without_a_digest_must_look_like_a_manifest(body: bytes) -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_manifest(REPOSITORY.name, body, "text/html", "latest")
        hub.no_digest_header("manifest")

        with pytest.raises(Unavailable, match="not a manifest"):
            await upstream.get_manifest(REPOSITORY, LATEST)


async def test_a_head_by_digest_that_answers_another_digest_is_unavailable() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        image = hub.add_image(REPOSITORY.name, "latest")
        hub.wrong_digest_header("manifest")

        with pytest.raises(Unavailable, match="was asked for"):
            await upstream.head_manifest(REPOSITORY, Digest.parse(image.digest))


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_manifest_beyond_the_limit_is_not_read(chunked: bool) -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_manifest(REPOSITORY.name, b" " * (MAX_MANIFEST_BYTES + 1), tag="big")
        hub.add_manifest(REPOSITORY.name, b" " * MAX_MANIFEST_BYTES, tag="largest")
        if chunked:
            hub.no_content_length("manifest")

        with pytest.raises(Unavailable, match="more than 8388608 bytes"):
            await upstream.get_manifest(REPOSITORY, Tag.parse("big"))
        assert len((await upstream.get_manifest(REPOSITORY, Tag.parse("largest"))).body) == MAX_MANIFEST_BYTES


async def test_a_manifest_that_announces_too_much_is_refused_before_it_comes() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_manifest(REPOSITORY.name, b" " * (MAX_MANIFEST_BYTES + 1), tag="latest")
        hub.hold("manifest", 10)

        with pytest.raises(Unavailable, match="more than 8388608 bytes"):
            await upstream.get_manifest(REPOSITORY, LATEST)


async def test_a_manifest_that_ends_early_is_unavailable() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        hub.truncate("manifest", 20)

        with pytest.raises(Unavailable, match="broke"):
            await upstream.get_manifest(REPOSITORY, LATEST)


async def test_an_encoded_answer_is_unavailable() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        hub.gzip_encode("manifest")

        with pytest.raises(Unavailable, match="Content-Encoding"):
            await upstream.get_manifest(REPOSITORY, LATEST)


async def test_an_encoded_refusal_keeps_its_meaning() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.fail("manifest", 403)
        hub.change("manifest", lambda answer: answer.headers.update({"content-encoding": "gzip"}))

        with pytest.raises(Denied):
            await upstream.get_manifest(REPOSITORY, LATEST)


async def test_a_missing_tag_is_manifest_unknown_and_a_missing_repository_name_unknown() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")

        for ask in (upstream.head_manifest, upstream.get_manifest):
            with pytest.raises(ManifestUnknown):
                await ask(REPOSITORY, Tag.parse("missing"))
        hub.fail("manifest", 404, body=b'{"errors":[{"code":"NAME_UNKNOWN"}]}')
        with pytest.raises(NameUnknown):
            await upstream.get_manifest(REPOSITORY, LATEST)


@pytest.mark.parametrize(
    ("status", "error"),
    [(403, Denied), (400, Unavailable), (405, Unavailable), (500, Unavailable), (502, Unavailable), (304, Unavailable)],
)
@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"errors":[]}', b'{"errors":7}', b"[" * 50_000])
async def test_other_statuses_whatever_their_body(status: int, error: type[RegistryError], body: bytes) -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        hub.fail("manifest", status, body=body)

        with pytest.raises(error, match=r"docker\.io"):
            await upstream.get_manifest(REPOSITORY, LATEST)
        assert closed_for(upstream, REQUESTS) is None


async def test_retry_after_of_a_503_is_kept() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.fail("manifest", 503, retry_after=17)

        with pytest.raises(Unavailable) as refused:
            await upstream.head_manifest(REPOSITORY, LATEST)
        assert refused.value.retry_after == 17


async def test_quota_is_read_from_heads_and_gets() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        hub.set_remaining(42)

        await upstream.head_manifest(REPOSITORY, LATEST)
        assert upstream.limits.quota is not None
        assert (upstream.limits.quota.limit, upstream.limits.quota.remaining) == (100, 42)
        await upstream.get_manifest(REPOSITORY, LATEST)
        assert upstream.limits.quota.remaining == 41


async def test_the_pull_limit_closes_its_gate_alone_and_a_head_that_tells_of_quota_opens_it() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        hub.set_remaining(0)
        hub.retry_after = 900

        with pytest.raises(TooManyRequests, match=r"the pull limit of docker\.io") as refused:
            await upstream.get_manifest(REPOSITORY, LATEST)
        assert refused.value.retry_after == 900
        assert closed_for(upstream, PULLS) == 900
        assert closed_for(upstream, REQUESTS) is None
        assert upstream.sample("counted_pulls_total") is None

        await upstream.head_manifest(REPOSITORY, LATEST)
        assert closed_for(upstream, PULLS) == 900
        hub.set_remaining(5)
        await upstream.head_manifest(REPOSITORY, LATEST)
        assert closed_for(upstream, PULLS) is None


@pytest.mark.parametrize("retry_after", ["60", "Sun, 06 Nov 1994 08:49:37 GMT", "701000060"])
async def test_the_abuse_limit_closes_everything(retry_after: str) -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        await upstream.head_manifest(REPOSITORY, LATEST)
        hub.fail("registry", 429, retry_after=retry_after, body=b"Too Many Requests (HAP429).\n")

        with pytest.raises(TooManyRequests, match=r"the request limit of docker\.io") as refused:
            await upstream.get_manifest(REPOSITORY, LATEST)
        assert refused.value.retry_after is not None
        assert closed_for(upstream, REQUESTS) == refused.value.retry_after > 0


async def test_a_429_to_a_head_closes_everything_and_its_headers_are_not_read_as_quota() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        await upstream.head_manifest(REPOSITORY, LATEST)
        hub.fail("manifest", 429)
        hub.change("manifest", lambda answer: answer.headers.update(CIMultiDict({"ratelimit-remaining": "7;w=60"})))

        with pytest.raises(TooManyRequests) as refused:
            await upstream.head_manifest(REPOSITORY, LATEST)
        assert refused.value.retry_after == closed_for(upstream, REQUESTS)
        assert 30 <= (closed_for(upstream, REQUESTS) or 0) <= 37.5  # It opens a little late, at random.
        assert upstream.limits.quota is not None and upstream.limits.quota.remaining == 100


async def test_every_answer_of_the_registry_but_401_and_429_counts_as_a_pull() -> None:
    async with FakeHub() as hub, asking_as_account(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        await upstream.get_manifest(REPOSITORY, LATEST)  # with a 401 before it
        hub.expire_tokens()
        await upstream.get_manifest(REPOSITORY, LATEST)  # likewise
        assert upstream.sample("counted_pulls_total") == 2

        with pytest.raises(ManifestUnknown):
            await upstream.get_manifest(REPOSITORY, Tag.parse("missing"))
        assert upstream.sample("counted_pulls_total") == 3
        hub.hang(at("manifest", method="GET"))
        await hub.gone("registry")
        with pytest.raises(Unavailable):
            await upstream.get_manifest(REPOSITORY, LATEST)
        assert upstream.sample("counted_pulls_total") == 3


async def test_responses_are_counted_by_kind_and_class() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        await upstream.head_manifest(REPOSITORY, LATEST)
        await hub.gone()
        with pytest.raises(Unavailable):
            await upstream.head_manifest(REPOSITORY, LATEST)

        assert upstream.sample("upstream_responses_total", kind="manifest", code="4xx") == 1
        assert upstream.sample("upstream_responses_total", kind="manifest", code="2xx") == 1
        assert upstream.sample("upstream_responses_total", kind="token", code="2xx") == 1
        assert upstream.sample("upstream_responses_total", kind="manifest", code="error") == 2, "asked once more"
