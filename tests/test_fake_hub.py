"""The fake hub is itself proved here, over real sockets, so that other tests may rely on what it says."""

import hashlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import aiohttp
import pytest
from yarl import URL

from tests.fake_hub import ANONYMOUS, DOCKER_LIST, OCI_MANIFEST, FakeHub, HubClient

REPOSITORY = "library/alpine"
BIG = 3_000_000


@pytest.fixture
async def hub() -> AsyncIterator[FakeHub]:
    async with FakeHub() as hub:
        yield hub


@pytest.fixture
async def client(hub: FakeHub) -> AsyncIterator[HubClient]:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield HubClient(hub, session, REPOSITORY)


@pytest.fixture
def blob(hub: FakeHub) -> str:
    digest = hub.add_synthetic_blob(BIG, seed=7)
    hub.link_blob(REPOSITORY, digest)
    return digest


# Who may ask


async def test_a_request_without_a_token_is_challenged_with_the_scope_it_needs(hub: FakeHub, client: HubClient) -> None:
    ping = await client.send("GET", f"{hub.url}/v2/")
    manifest = await client.send("GET", f"{hub.url}/v2/foo/bar/manifests/latest")

    assert (ping.status, manifest.status) == (401, 401)
    challenge = f'Bearer realm="{hub.realm}",service="registry.docker.io"'
    assert ping.headers["Www-Authenticate"] == challenge
    assert manifest.headers["Www-Authenticate"] == f'{challenge},scope="repository:foo/bar:pull"'
    assert manifest.headers["docker-ratelimit-source"] == "127.0.0.1"
    assert manifest.json()["errors"][0]["detail"] == [
        {"Type": "repository", "Class": "", "Name": "foo/bar", "Action": "pull"}
    ]
    assert hub.count("GET", "manifest") == 0
    assert hub.count("GET", "manifest", status=401) == 1


async def test_a_missing_right_is_no_error_at_the_token_server_but_insufficient_scope_at_the_registry(
    hub: FakeHub, client: HubClient
) -> None:
    hub.add_image(REPOSITORY, "latest")
    hub.make_private(REPOSITORY)

    refused = await client.ask("manifests/latest", token=await client.token())
    allowed = await client.ask("manifests/latest", token=await client.token("alice"))

    assert refused.status == 401
    assert refused.headers["Www-Authenticate"].endswith('pull",error="insufficient_scope"')
    assert allowed.status == 200


async def test_a_token_is_good_for_its_own_repository_only(hub: FakeHub, client: HubClient) -> None:
    hub.add_image(REPOSITORY, "latest")
    hub.add_image("foo/bar", "latest")

    reply = await client.ask("manifests/latest", token=await client.token(repository="foo/bar"))

    assert reply.status == 401


async def test_an_expired_token_is_invalid(hub: FakeHub, client: HubClient) -> None:
    hub.add_image(REPOSITORY, "latest")
    token = await client.token()
    hub.expire_tokens()
    hub.expires_in = 0

    forgotten = await client.ask("manifests/latest", token=token)
    stillborn = await client.ask("manifests/latest", token=await client.token())

    assert {forgotten.status, stillborn.status} == {401}
    assert forgotten.headers["Www-Authenticate"].endswith('error="invalid_token"')


async def test_wrong_passwords_lock_the_name_for_the_right_one_too(hub: FakeHub, client: HubClient) -> None:
    hub.login_attempts = 2
    first = await client.ask_token("alice", "wrong")
    await client.ask_token("alice", "wrong")
    locked = await client.ask_token("alice")
    hub.unlock_logins()

    assert (first.status, first.json()) == (401, {"details": "incorrect username or password"})
    assert locked.status == 429
    assert "too many failed login attempts" in locked.json()["errors"][0]["message"]
    assert (await client.ask_token("alice")).status == 200
    assert hub.token_count("alice") == 4


async def test_a_public_read_only_pat_sees_nothing_private(hub: FakeHub, client: HubClient) -> None:
    hub.add_image(REPOSITORY, "latest")
    hub.make_private(REPOSITORY)
    hub.public_read_only = True
    refused = await client.ask("manifests/latest", token=await client.token("alice"))
    hub.make_public(REPOSITORY)

    assert refused.status == 401
    assert (await client.ask("manifests/latest", token=await client.token("alice"))).status == 200


async def test_a_repository_that_is_no_more_looks_like_one_that_is_forbidden(hub: FakeHub, client: HubClient) -> None:
    hub.add_image(REPOSITORY, "latest")
    hub.remove_repository(REPOSITORY)

    reply = await client.ask("manifests/latest")

    assert (reply.status, "insufficient_scope" in reply.headers["Www-Authenticate"]) == (401, True)


async def test_credentials_in_the_wrong_place_are_noted(hub: FakeHub, client: HubClient) -> None:
    await client.send("GET", f"{hub.url}/v2/", Authorization="Basic YWxpY2U6c2VjcmV0")
    await client.send("GET", hub.realm, Authorization="Bearer secret")
    await client.send("GET", hub.stranger_url, Authorization="Basic YWxpY2U6c2VjcmV0")

    assert hub.violations == [
        "a password was sent to the registry",
        "a bearer token was sent to the token server",
        "Authorization was sent to a stranger",
    ]


# Manifests and what they cost


async def test_manifests_come_byte_for_byte_by_tag_and_by_digest(hub: FakeHub, client: HubClient) -> None:
    index = hub.add_index(REPOSITORY, "latest")

    by_tag = await client.ask("manifests/latest")
    by_digest = await client.ask(f"manifests/{index.digest}")

    assert by_tag.body == by_digest.body == index.body
    assert by_tag.headers["Content-Type"] == DOCKER_LIST
    assert by_tag.headers["Docker-Content-Digest"] == index.digest == f"sha256:{hashlib.sha256(index.body).hexdigest()}"
    assert by_tag.headers["ETag"] == f'"{index.digest}"'


async def test_an_oci_manifest_is_unknown_to_those_who_do_not_accept_it(hub: FakeHub, client: HubClient) -> None:
    hub.add_image(REPOSITORY, "latest", oci=True)

    assert (await client.ask("manifests/latest")).status == 404
    assert (await client.ask("manifests/latest", Accept=f"{OCI_MANIFEST}, */*")).status == 200


async def test_a_moved_tag_names_the_new_manifest_and_a_removed_one_none(hub: FakeHub, client: HubClient) -> None:
    hub.add_image(REPOSITORY, "latest")
    newer = hub.add_image(REPOSITORY, "3.22")
    hub.tag(REPOSITORY, "latest", newer.digest)
    hub.untag(REPOSITORY, "3.22")

    assert (await client.ask("manifests/latest")).body == newer.body
    gone = await client.ask("manifests/3.22")
    assert (gone.status, gone.json()["errors"][0]["code"]) == (404, "MANIFEST_UNKNOWN")


async def test_every_manifest_get_is_a_pull_even_a_304_and_no_head_is(hub: FakeHub, client: HubClient) -> None:
    image = hub.add_image(REPOSITORY, "latest")

    full = await client.ask("manifests/latest")
    unchanged = await client.ask(f"manifests/{image.digest}", If_None_Match=full.headers["ETag"])
    head = await client.ask("manifests/latest", method="HEAD")

    assert (full.status, unchanged.status, head.status) == (200, 304, 200)
    assert head.headers["ratelimit-limit"] == "100;w=21600"
    assert head.headers["ratelimit-remaining"] == "98;w=21600"
    assert hub.counted_pulls == hub.counted_pulls_of(ANONYMOUS) == 2


async def test_an_account_has_a_quota_of_its_own(hub: FakeHub, client: HubClient) -> None:
    hub.add_image(REPOSITORY, "latest")
    hub.set_remaining(0, ANONYMOUS)

    reply = await client.ask("manifests/latest", token=await client.token("alice"))

    assert reply.status == 200
    assert reply.headers["ratelimit-remaining"] == "99;w=21600"
    assert reply.headers["docker-ratelimit-source"].count("-") == 4


async def test_with_nothing_left_get_is_refused_and_head_still_answers(hub: FakeHub, client: HubClient) -> None:
    hub.add_image(REPOSITORY, "latest")
    hub.set_remaining(0)
    hub.retry_after = 30

    get = await client.ask("manifests/latest")
    head = await client.ask("manifests/latest", method="HEAD")

    assert (get.status, get.json()["errors"][0]["code"], get.headers["Retry-After"]) == (429, "TOOMANYREQUESTS", "30")
    assert (head.status, head.headers["ratelimit-remaining"]) == (200, "0;w=21600")
    assert hub.counted_pulls == 0


async def test_with_a_clock_each_pull_comes_back_a_window_after_it_was_made(hub: FakeHub, client: HubClient) -> None:
    hub.add_image(REPOSITORY, "latest")
    now = 1000.0
    hub.rolls = lambda: now
    hub.set_remaining(2, ANONYMOUS)

    await client.ask("manifests/latest")
    now += 600.0
    await client.ask("manifests/latest")
    assert (await client.ask("manifests/latest")).status == 429

    now = 1000.0 + 21600.0
    assert hub.remaining(ANONYMOUS) == 1
    now += 600.0
    assert hub.remaining(ANONYMOUS) == 2


async def test_without_a_limit_or_for_a_sponsored_repository_no_quota_is_told(hub: FakeHub, client: HubClient) -> None:
    hub.add_image(REPOSITORY, "latest")
    hub.rate_limit = None
    unlimited = await client.ask("manifests/latest")
    hub.sponsor(REPOSITORY)
    sponsored = await client.ask("manifests/latest")

    assert "ratelimit-limit" not in unlimited.headers
    assert "docker-ratelimit-source" in unlimited.headers
    assert "docker-ratelimit-source" not in sponsored.headers
    assert hub.counted_pulls == 1


async def test_under_abuse_every_url_is_refused_in_plain_text(hub: FakeHub, client: HubClient) -> None:
    hub.abuse_limit(retry_after=60)

    replies = [await client.send("GET", f"{hub.url}/v2/"), await client.send("GET", hub.realm)]

    for reply in replies:
        assert (reply.status, reply.headers["Content-Type"]) == (429, "text/plain")
        assert (reply.body, reply.headers["Retry-After"]) == (b"Too Many Requests (HAP429).\n", "60")


# Blobs


async def test_a_blob_is_redirected_to_a_signed_url_that_serves_it(hub: FakeHub, client: HubClient, blob: str) -> None:
    redirect = await client.ask(f"blobs/{blob}")
    reply = await client.send("GET", redirect.headers["Location"])

    assert (redirect.status, redirect.headers["Content-Length"]) == (307, "0")
    assert "Docker-Content-Digest" not in redirect.headers
    assert "%2F" in redirect.headers["Location"]
    assert urlsplit(redirect.headers["Location"]).netloc != urlsplit(hub.url).netloc
    assert f"sha256:{hashlib.sha256(reply.body).hexdigest()}" == blob
    assert hub.count("GET", "blob", blob) == hub.cdn_count(blob) == 1
    assert hub.blob_bytes_sent == BIG
    assert hub.violations == []


async def test_a_blob_belongs_to_the_repositories_that_link_it(hub: FakeHub, client: HubClient) -> None:
    hub.add_image(REPOSITORY, "latest")
    elsewhere = hub.add_image("foo/bar", "latest")

    reply = await client.ask(f"blobs/{elsewhere.config}")

    assert (reply.status, reply.json()["errors"][0]["code"]) == (404, "BLOB_UNKNOWN")


async def test_a_requoted_url_is_refused_and_noted(hub: FakeHub, client: HubClient, blob: str) -> None:
    location = await client.location(blob)

    reply = await client.send("GET", str(URL(location)))

    assert (reply.status, reply.headers["Content-Type"]) == (403, "application/xml")
    assert b"SignatureDoesNotMatch" in reply.body
    assert hub.violations == ["a signed URL was re-quoted"]


async def test_a_url_is_signed_for_one_method_and_can_expire(hub: FakeHub, client: HubClient, blob: str) -> None:
    location = await client.location(blob)

    assert (await client.send("HEAD", location)).status == 403
    assert (await client.send("HEAD", await client.location(blob, "HEAD"))).headers["Content-Length"] == str(BIG)
    hub.expire_urls()
    assert b"Request has expired" in (await client.send("GET", location)).body
    assert hub.violations == []


async def test_the_cdn_refuses_a_token_and_any_encoding(hub: FakeHub, client: HubClient, blob: str) -> None:
    location = await client.location(blob)

    token = await client.send("GET", location, Authorization="Bearer x")
    encoding = await client.send("GET", location, Accept_Encoding="gzip")
    hub.identity_only = False
    ignored = await client.send("GET", location, Accept_Encoding="gzip")

    assert (token.status, encoding.status, ignored.status) == (400, 406, 200)
    assert b"Only one auth mechanism allowed" in token.body
    assert len(hub.violations) == 2


@pytest.mark.parametrize(
    ("asked", "status", "content_range", "expected"),
    [
        ("bytes=2-4", 206, "bytes 2-4/10", b"234"),
        ("bytes=8-", 206, "bytes 8-9/10", b"89"),
        ("bytes=-3", 206, "bytes 7-9/10", b"789"),
        ("bytes=8-99", 206, "bytes 8-9/10", b"89"),
        ("bytes=10-", 416, "bytes */10", None),
        ("bytes=1-2,4-5", 200, None, b"0123456789"),
        ("lines=1-2", 200, None, b"0123456789"),
    ],
)
async def test_ranges(
    hub: FakeHub, client: HubClient, asked: str, status: int, content_range: str | None, expected: bytes | None
) -> None:
    digest = hub.add_blob(b"0123456789")
    hub.link_blob(REPOSITORY, digest)

    reply = await client.send("GET", await client.location(digest), Range=asked)

    assert (reply.status, reply.headers.get("Content-Range")) == (status, content_range)
    assert expected in (None, reply.body)
    assert hub.requests[-1].range == asked


async def test_direct_blobs_come_without_a_redirect(hub: FakeHub, client: HubClient, blob: str) -> None:
    hub.direct_blobs = True

    reply = await client.ask(f"blobs/{blob}", Range="bytes=10-19")

    assert (reply.status, len(reply.body), reply.headers["Docker-Content-Digest"]) == (206, 10, blob)
    assert hub.bytes_sent(blob) == 10


# Lists


async def test_tags_come_in_pages(hub: FakeHub, client: HubClient) -> None:
    digest = hub.add_image(REPOSITORY, "1").digest
    hub.tag(REPOSITORY, "2", digest)
    hub.tag(REPOSITORY, "3", digest)

    first = await client.ask("tags/list?n=2")
    second = await client.ask("tags/list?n=2&last=2")

    assert first.json() == {"name": REPOSITORY, "tags": ["1", "2"]}
    assert first.headers["Link"] == f'</v2/{REPOSITORY}/tags/list?n=2&last=2>; rel="next"'
    assert second.json()["tags"] == ["3"]
    assert "Link" not in second.headers


async def test_referrers_are_the_manifests_whose_subject_it_is(hub: FakeHub, client: HubClient) -> None:
    image = hub.add_image(REPOSITORY, "latest", oci=True)
    signature = hub.add_image(REPOSITORY, layers=[b"signature"], oci=True, subject=image.digest)

    listed = (await client.ask(f"referrers/{image.digest}")).json()["manifests"]
    filtered = await client.ask(f"referrers/{image.digest}?artifactType=none")

    assert [each["digest"] for each in listed] == [signature.digest]
    assert filtered.json()["manifests"] == []
    assert filtered.headers["OCI-Filters-Applied"] == "artifactType"
