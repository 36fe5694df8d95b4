"""The OCI distribution spec, requirement by requirement: what binds a registry that is pulled from.

Sections and lines are those of `spec.md` of opencontainers/distribution-spec at commit
ed885fa765593c5294d3b55c0c78ee52825647f0 (main after v1.1.1: it has "Registry Proxying", and the digest and the size in
headers are MUST where 1.1.1 says SHOULD). A test is named `test_<section>__L<line>_<requirement>`. What is asked for
twice is asked once of an empty cache and once of one that holds the answer. The rest of the spec:
test_spec_discovery.py and test_spec_api.py.

Left out, since nobody but a client can keep it: L162, L165, L167, L174-177 and L191-192 (Accept; ignoring parameters;
verifying type and digest). L153-156 is advice on the length of names. Left out, since nothing can be pushed here: all
of "Push" (L216-550) but L529. L132 (SHOULD also push) is what a pull-through cache decides against.
"""

from __future__ import annotations

import hashlib
import json

import pytest

from tests.cache_rig import CacheRig, Reply
from tests.fake_hub import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    FakeHub,
    Image,
    at,
)
from tests.fake_hub.library import Manifest

APP = "acme/app"
MANIFESTS, BLOBS = f"/v2/{APP}/manifests", f"/v2/{APP}/blobs"
LARGE, SMALL = bytes(range(256)) * 1024, b"small" * 100  # the small one is answered from memory
ARTIFACT = "application/vnd.example.thing.v1+json"
NOTHING = "sha256:" + "0" * 64


@pytest.fixture
def image(hub: FakeHub) -> Image:
    return hub.add_image(APP, "latest", [LARGE, SMALL])


async def cold_and_warm(cache: CacheRig, method: str, path: str) -> tuple[Reply, Reply]:
    """The same asked of a cache that holds nothing, and of one that holds the answer."""
    cold = await cache.send(method, path)
    await cache.send("GET", path)
    warm = await cache.send(method, path)
    assert cold.cache_status != "pullthrough; hit"
    assert warm.cache_status == "pullthrough; hit"
    return cold, warm


def digest_in(reply: Reply) -> str:
    return reply.headers["Docker-Content-Digest"]


# Requirements; Pull


async def test_determining_support__L822_200_at_the_base(cache: CacheRig, hub: FakeHub) -> None:
    await hub.gone()
    for path in ("/v2/", "/docker.io/v2/", "/v2/?ns=docker.io"):
        assert (await cache.send("GET", path)).status == 200


async def test_requirements__L130_all_of_pull_is_served(cache: CacheRig, image: Image) -> None:
    """end-1, end-2 and end-3 with every method that L830-832 give them."""
    requests = [("GET", "/v2/")]
    requests += [(method, f"{BLOBS}/{image.layers[0]}") for method in ("GET", "HEAD")]
    requests += [(method, f"{MANIFESTS}/{each}") for method in ("GET", "HEAD") for each in ("latest", image.digest)]
    assert {(await cache.send(method, path)).status for method, path in requests} == {200}


async def test_pull__L139_content_comes_in_any_order(cache: CacheRig, image: Image) -> None:
    first = await cache.send("GET", f"{BLOBS}/{image.layers[1]}")
    second = await cache.send("GET", f"{BLOBS}/{image.config}")
    last = await cache.send("GET", f"{MANIFESTS}/{image.digest}")
    assert [first.status, second.status, last.status] == [200, 200, 200]


# Pulling manifests


async def test_pulling_manifests__L147_a_reference_is_a_digest_or_a_tag(cache: CacheRig, image: Image) -> None:
    by_tag = await cache.send("GET", f"{MANIFESTS}/latest")
    by_digest = await cache.send("GET", f"{MANIFESTS}/{image.digest}")
    assert by_tag.body == by_digest.body == image.body


async def test_pulling_manifests__L148_no_other_reference_is_taken(cache: CacheRig, hub: FakeHub, image: Image) -> None:
    malformed_tags = ["", ".dot", "-dash", "a%20b", "a%0A", "a+b", "caf%C3%A9", "latest@" + NOTHING]
    malformed_digests = [
        "sha256:",
        "sha256:abc",
        "sha256:" + "g" * 64,
        "sha256:" + "A" * 64,
        NOTHING + "0",
        NOTHING + "%0A",
    ]
    for reference in malformed_tags + malformed_digests:
        for method in ("GET", "HEAD"):
            assert (await cache.send(method, f"{MANIFESTS}/{reference}")).status == 400, reference
    assert hub.requests == []


async def test_pulling_manifests__L149_every_name_of_the_grammar_is_served(cache: CacheRig, hub: FakeHub) -> None:
    """A first component like a host's needs `ns`: without it, clients and we take it for a registry."""
    names = ["a/b", "a/b.c_d", "a__b/c-d", "a---b/c", "0/1/2/3", "a/manifests/blobs", "tags/list/x", "a/" + "b" * 253]
    for name, query in [*((name, "") for name in names), ("a.b/c", "?ns=docker.io")]:
        image = hub.add_image(name, "latest")
        assert (await cache.send("GET", f"/v2/{name}/manifests/latest{query}")).body == image.body, name
        assert (await cache.send("GET", f"/v2/{name}/blobs/{image.config}{query}")).status == 200, name


async def test_pulling_manifests__L149_no_other_name_is_taken(cache: CacheRig, hub: FakeHub) -> None:
    names = ["A/b", "a//b", "/a", "a/", "a/.b", "a/b.", "a/b..c", "a/b._c", "a/b___c", "a/_b", "a/-b", "a/b-"]
    for name in [*names, "a/%C3%BC", "a/b%0A"]:
        for rest in ("manifests/latest", f"manifests/{NOTHING}", f"blobs/{NOTHING}"):
            reply = await cache.send("GET", f"/v2/{name}/{rest}")
            assert (reply.status, json.loads(reply.body)["errors"][0]["code"]) == (400, "NAME_INVALID"), name
    assert hub.requests == []


async def test_pulling_manifests__L158_every_tag_of_the_grammar_is_served(cache: CacheRig, hub: FakeHub) -> None:
    for tag in ("a", "_", "0", "A.b-c_D", "v1.0.0-rc.1", "t" * 128):
        image = hub.add_image(APP, tag)
        assert (await cache.send("GET", f"{MANIFESTS}/{tag}")).body == image.body, tag


async def test_pulling_manifests__L158_a_tag_has_at_most_128_characters(cache: CacheRig, hub: FakeHub) -> None:
    assert (await cache.send("GET", f"{MANIFESTS}/{'t' * 129}")).status == 400
    assert hub.requests == []


@pytest.mark.parametrize("media_type", [DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX, ARTIFACT])
async def test_pulling_manifests__L163_the_content_type_is_the_manifests(
    cache: CacheRig, hub: FakeHub, media_type: str
) -> None:
    hub.add_manifest(APP, json.dumps({"mediaType": media_type}).encode(), media_type, "latest")
    for method in ("HEAD", "GET", "HEAD", "GET"):
        assert (await cache.send(method, f"{MANIFESTS}/latest")).headers["Content-Type"] == media_type


async def test_pulling_manifests__L164_the_content_type_has_no_parameters(cache: CacheRig, hub: FakeHub) -> None:
    """Though upstream sends some."""
    digest = hub.add_image(APP, "latest", oci=True).digest
    hub.change("manifest", lambda answer: answer.headers.update({"content-type": f"{OCI_MANIFEST}; charset=utf-8"}))
    for reference in ("latest", digest):
        for method in ("HEAD", "GET", "HEAD"):
            reply = await cache.send(method, f"{MANIFESTS}/{reference}")
            assert (reply.status, reply.headers["Content-Type"]) == (200, OCI_MANIFEST)


async def test_pulling_manifests__L166_the_content_type_is_the_one_of_the_push(cache: CacheRig, hub: FakeHub) -> None:
    """Not the one that the bytes name, where they name another, or none."""
    pushed = {"none": b"{}", "other": json.dumps({"mediaType": DOCKER_MANIFEST}).encode()}
    for tag, body in pushed.items():
        hub.add_manifest(APP, body, ARTIFACT, tag)
        for reply in await cold_and_warm(cache, "GET", f"{MANIFESTS}/{tag}"):
            assert (reply.headers["Content-Type"], reply.body) == (ARTIFACT, body)


async def test_pulling_manifests__L170_200_with_the_manifest_byte_for_byte(cache: CacheRig, hub: FakeHub) -> None:
    bodies = [b'{"schemaVersion": 2}', b'{\n\t"schemaVersion" : 2 ,"a":"\\u00e9"}\r\n', '{"é":1}'.encode(), b"{}"]
    for number, body in enumerate(bodies):
        digest = hub.add_manifest(APP, body, OCI_MANIFEST, f"v{number}")
        for reference in (f"v{number}", digest):
            for reply in [await cache.send("GET", f"{MANIFESTS}/{reference}") for _ in range(2)]:
                assert (reply.status, reply.body) == (200, body)


@pytest.mark.parametrize("told", [True, False], ids=["upstream says it", "upstream does not"])
async def test_pulling_manifests__L171_the_digest_is_in_the_header(
    cache: CacheRig, hub: FakeHub, image: Image, told: bool
) -> None:
    if not told:
        hub.no_digest_header("manifest")
    for reference in ("latest", image.digest):
        for reply in [await cache.send("GET", f"{MANIFESTS}/{reference}") for _ in range(2)]:
            assert (reply.status, digest_in(reply)) == (200, image.digest)


async def test_pulling_manifests__L173_a_digest_of_another_algorithm_is_one_too(cache: CacheRig, hub: FakeHub) -> None:
    body = b'{"schemaVersion": 2}'
    digest = f"sha512:{hashlib.sha512(body).hexdigest()}"
    hub.add_image(APP, "latest")
    hub.repositories[APP].manifests[digest] = Manifest(digest, OCI_MANIFEST, body)
    for reply in await cold_and_warm(cache, "GET", f"{MANIFESTS}/{digest}"):
        algorithm, _, value = digest_in(reply).partition(":")
        assert (reply.status, reply.body) == (200, body)
        assert hashlib.new(algorithm, reply.body).hexdigest() == value


@pytest.mark.parametrize("reference", ["none", NOTHING])
async def test_pulling_manifests__L179_404_for_what_is_not_there(cache: CacheRig, image: Image, reference: str) -> None:
    for _ in range(2):
        assert (await cache.send("GET", f"{MANIFESTS}/{reference}")).status == 404


# Pulling blobs


@pytest.mark.parametrize("number", [0, 1], ids=["large", "small"])
async def test_pulling_blobs__L188_200_with_the_blob(cache: CacheRig, image: Image, number: int) -> None:
    for reply in await cold_and_warm(cache, "GET", f"{BLOBS}/{image.layers[number]}"):
        assert (reply.status, reply.body) == (200, (LARGE, SMALL)[number])


@pytest.mark.parametrize("number", [0, 1], ids=["large", "small"])
async def test_pulling_blobs__L189_the_digest_is_in_the_header(cache: CacheRig, image: Image, number: int) -> None:
    """Though the CDN that upstream redirects to does not say it."""
    for reply in await cold_and_warm(cache, "GET", f"{BLOBS}/{image.layers[number]}"):
        assert digest_in(reply) == image.layers[number]


async def test_pulling_blobs__L190_the_digest_is_that_of_the_body(cache: CacheRig, hub: FakeHub, image: Image) -> None:
    """Also when upstream sends other bytes: then no body comes whole."""
    good, bad = image.layers[1], image.layers[0]
    hub.corrupt(bad, at_byte=len(LARGE) // 2)

    whole = await cache.send("GET", f"{BLOBS}/{good}")
    with pytest.raises(Exception, match=r"(?i)payload|disconnect|reset"):
        await cache.send("GET", f"{BLOBS}/{bad}")

    assert digest_in(whole) == f"sha256:{hashlib.sha256(whole.body).hexdigest()}"
    assert bad not in cache.blobs_on_disk()


async def test_pulling_blobs__L194_404_for_what_is_not_there(cache: CacheRig, image: Image) -> None:
    for _ in range(2):
        assert (await cache.send("GET", f"{BLOBS}/{NOTHING}")).status == 404


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("number", [0, 1], ids=["large", "small"])
async def test_pulling_blobs__L196_range_as_in_rfc_9110(cache: CacheRig, image: Image, number: int, warm: bool) -> None:
    """Section 14: a first part, one from the middle, the rest of a resumed download, a suffix, and none that fits."""
    path, content = f"{BLOBS}/{image.layers[number]}", (LARGE, SMALL)[number]
    if warm:
        await cache.send("GET", path)
    for header, start, stop in (
        ("0-9", 0, 10),
        ("100-199", 100, 200),
        ("400-", 400, len(content)),
        ("-7", len(content) - 7, len(content)),
    ):
        reply = await cache.send("GET", path, {"Range": f"bytes={header}"})
        assert (reply.status, reply.body) == (206, content[start:stop])
        assert reply.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(content)}"
    beyond = await cache.send("GET", path, {"Range": f"bytes={len(content)}-"})
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{len(content)}")
    assert (await cache.send("GET", path)).headers["Accept-Ranges"] == "bytes"


# Checking if content exists in the registry


def places(image: Image) -> dict[str, tuple[str, int]]:
    """Where an image's content is, by digest: one path of each kind, and the size of what is there."""
    return {
        f"{MANIFESTS}/latest": (image.digest, len(image.body)),
        f"{MANIFESTS}/{image.digest}": (image.digest, len(image.body)),
        f"{BLOBS}/{image.layers[0]}": (image.layers[0], len(LARGE)),
        f"{BLOBS}/{image.layers[1]}": (image.layers[1], len(SMALL)),
    }


async def test_checking_existence__L206_head_is_200(cache: CacheRig, image: Image) -> None:
    for path in places(image):
        for reply in [await cache.send("HEAD", path), *await cold_and_warm_head(cache, path)]:
            assert (reply.status, reply.body) == (200, b"")


@pytest.mark.parametrize("told", [True, False], ids=["upstream says it", "upstream does not"])
async def test_checking_existence__L207_head_has_the_digest(
    cache: CacheRig, hub: FakeHub, image: Image, told: bool
) -> None:
    if not told:
        hub.no_digest_header("registry")
        hub.no_digest_header("cdn")
    for path, (digest, _) in places(image).items():
        for reply in await cold_and_warm_head(cache, path):
            assert digest_in(reply) == digest


async def test_checking_existence__L208_head_has_the_size(cache: CacheRig, image: Image) -> None:
    for path, (_, size) in places(image).items():
        for reply in await cold_and_warm_head(cache, path):
            assert reply.headers["Content-Length"] == str(size)


async def cold_and_warm_head(cache: CacheRig, path: str) -> tuple[Reply, Reply]:
    cold = await cache.send("HEAD", path)
    await cache.send("GET", path)
    return cold, await cache.send("HEAD", path)


async def test_checking_existence__L214_404_for_what_is_not_there(cache: CacheRig, image: Image) -> None:
    for path in (f"{MANIFESTS}/none", f"{MANIFESTS}/{NOTHING}", f"{BLOBS}/{NOTHING}"):
        for _ in range(2):
            reply = await cache.send("HEAD", path)
            assert (reply.status, reply.body) == (404, b"")


# Pushing manifests: the one line about pulls


async def test_pushing_manifests__L529_404_for_a_repository_that_does_not_exist(cache: CacheRig, hub: FakeHub) -> None:
    """Where upstream says so. One that hides it behind a refusal, as Docker Hub does, is answered 403."""
    unknown = b'{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}'
    hub.add_image("open/gone", "latest")
    hub.fail(at(repository="open/gone"), 404, body=unknown)

    for path in ("manifests/latest", f"manifests/{NOTHING}", f"blobs/{NOTHING}", "tags/list"):
        assert (await cache.send("GET", f"/v2/open/gone/{path}")).status == 404
        assert (await cache.send("GET", f"/v2/no/such/{path}")).status == 403
