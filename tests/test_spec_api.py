"""The OCI distribution spec, requirement by requirement: proxies, errors and warnings, and what is not served.

Lines as in test_spec_pull.py: `spec.md` at commit ed885fa765593c5294d3b55c0c78ee52825647f0.

Left out, since nobody but a client can keep it: L757-758 (what a host in a name is), L764-765 (when to send `ns`),
L906-908 (what to do about warnings). Left out, since nothing can be deleted here: L716, L726-727, L746-747.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from proxy.config import UpstreamOptions
from tests.cache_rig import CacheRig, Reply
from tests.fake_hub import FakeHub, Image, at

APP = "acme/app"
MANIFESTS, BLOBS = f"/v2/{APP}/manifests", f"/v2/{APP}/blobs"
NOTHING = "sha256:" + "0" * 64
CODES = frozenset(
    {"BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN"}
    | {"MANIFEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID", "UNAUTHORIZED"}
    | {"DENIED", "UNSUPPORTED", "TOOMANYREQUESTS"}
)
"""L873-888."""
WARNING = re.compile(r'299 - "(?:[^"\\]|\\.)*"')
"""L894: the code, the agent and the text; no date."""


@pytest.fixture
def image(hub: FakeHub) -> Image:
    return hub.add_image(APP, "latest", [b"layer" * 100])


def digest_in(reply: Reply) -> str:
    return reply.headers["Docker-Content-Digest"]


# Registry Proxying


@pytest.fixture
async def other() -> AsyncIterator[FakeHub]:
    """Another registry, which has the same repository with other content."""
    async with FakeHub(username="bob", pat="other-secret") as running:
        running.add_image(APP, "latest", [b"of the other registry"])
        yield running


@pytest.fixture
async def both(hub: FakeHub, other: FakeHub, image: Image, tmp_path: Path) -> AsyncIterator[CacheRig]:
    """A cache in front of two registries."""
    upstreams = tuple(
        UpstreamOptions(name=name, url=url) for name, url in (("docker.io", hub.url), ("ghcr.io", other.url))
    )
    async with CacheRig(hub.url, tmp_path / "both", options={"upstreams": upstreams}) as running:
        yield running


async def test_registry_proxying__L755_the_host_header_is_ours(cache: CacheRig, hub: FakeHub, image: Image) -> None:
    """A client may reach us by any name; upstream is asked by its own."""
    for host in ("cache.example:5000", "docker.io", "ghcr.io"):
        assert digest_in(await cache.send("GET", f"{MANIFESTS}/latest", {"Host": host})) == image.digest
    asked = {each.headers["Host"] for each in hub.requests if each.listener == "registry"}
    assert asked == {hub.url.removeprefix("http://")}


async def test_registry_proxying__L756_ns_is_optional(cache: CacheRig, image: Image) -> None:
    listed = [f"{MANIFESTS}/latest", f"{MANIFESTS}/none", f"/v2/{APP}/tags/list", f"{BLOBS}/{NOTHING}", "/v2/"]
    for path in listed:
        without, with_namespace = await cache.send("GET", path), await cache.send("GET", f"{path}?ns=docker.io")
        assert (without.status, without.body) == (with_namespace.status, with_namespace.body), path


async def test_registry_proxying__L760_ns_names_the_upstream(
    both: CacheRig, hub: FakeHub, other: FakeHub, image: Image
) -> None:
    theirs = other.repositories[APP].tags["latest"]
    for namespace, digest in (("docker.io", image.digest), ("ghcr.io", theirs)):
        reply = await both.send("GET", f"{MANIFESTS}/latest?ns={namespace}")
        assert (reply.status, digest_in(reply)) == (200, digest)
    assert [hub.count("GET", "manifest"), other.count("GET", "manifest")] == [1, 1]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_registry_proxying__L762_ns_is_said_back(both: CacheRig, image: Image, method: str) -> None:
    paths = [f"{MANIFESTS}/latest", f"{MANIFESTS}/{NOTHING}", f"{BLOBS}/{NOTHING}", f"/v2/{APP}/tags/list"]
    for path in [*paths, f"/v2/{APP}/referrers/{image.digest}", "/v2/"]:
        for namespace in ("docker.io", "ghcr.io"):
            assert (await both.send(method, f"{path}?ns={namespace}")).headers["OCI-Namespace"] == namespace
        assert "OCI-Namespace" not in (await both.send(method, path)).headers


async def test_registry_proxying__L768_credentials_sent_to_us_go_nowhere(
    both: CacheRig, hub: FakeHub, other: FakeHub
) -> None:
    """Clients SHOULD NOT send any; what one sends all the same no upstream sees."""
    sent = {"Authorization": "Basic YWxpY2U6c2VjcmV0"}
    for namespace in ("docker.io", "ghcr.io"):
        assert (await both.send("GET", f"{MANIFESTS}/latest?ns={namespace}", sent)).status == 200
    for each in (*hub.requests, *other.requests):
        assert each.headers.get("Authorization") != sent["Authorization"]


# Error Codes


@dataclass(frozen=True)
class Refused:
    """A request that is answered with an error of the client's."""

    status: int
    code: str
    path: str
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()


REFUSED = {
    "code-1: no such blob": Refused(404, "BLOB_UNKNOWN", f"{BLOBS}/{NOTHING}"),
    "code-4: no digest": Refused(400, "DIGEST_INVALID", f"{BLOBS}/sha256:bad"),
    "code-4: no digest of a subject": Refused(400, "DIGEST_INVALID", f"/v2/{APP}/referrers/sha256:bad"),
    "code-7: no such tag": Refused(404, "MANIFEST_UNKNOWN", f"{MANIFESTS}/none"),
    "code-7: no such manifest": Refused(404, "MANIFEST_UNKNOWN", f"{MANIFESTS}/{NOTHING}"),
    "code-8: no name": Refused(400, "NAME_INVALID", "/v2/NO/NAME/manifests/latest"),
    "code-9: no such registry": Refused(404, "NAME_UNKNOWN", f"{MANIFESTS}/latest?ns=nowhere.example"),
    "code-9: no such repository": Refused(404, "NAME_UNKNOWN", "/v2/open/gone/tags/list"),
    "code-12: not for everybody": Refused(403, "DENIED", "/v2/secret/app/manifests/latest"),
    "code-13: a push": Refused(405, "UNSUPPORTED", f"{BLOBS}/uploads/", "POST"),
    "code-13: a deletion": Refused(405, "UNSUPPORTED", f"{MANIFESTS}/latest", "DELETE"),
    "code-13: no path of the spec": Refused(404, "UNSUPPORTED", "/v2/_catalog"),
    "L54: no tag": Refused(400, "TAG_INVALID", f"{MANIFESTS}/.bad"),
    "no code: no such range": Refused(416, "RANGE_INVALID", f"{BLOBS}/LAYER", headers=(("Range", "bytes=9999-"),)),
    "code-14: upstream's limit": Refused(429, "TOOMANYREQUESTS", "/v2/limited/app/manifests/latest"),
}
"""Each 4XX that there is on the side of pulls, and its code."""


def error_of(reply: Reply) -> dict[str, Any]:
    (error,) = json.loads(reply.body)["errors"]
    assert isinstance(error, dict)
    return error


async def test_error_codes__L851_to_L871_an_error_is_json_with_a_code_of_the_table(
    cache: CacheRig, hub: FakeHub, image: Image
) -> None:
    """L851: the format. L867: the code's characters. L868: a message for people. L871: the code is one of the table.

    Two codes are not: `TAG_INVALID`, which L54 says there may be, and `RANGE_INVALID`, with a status that the table
    has nothing for; both are those that distribution, the registry that most clients were written against, sends.
    """
    for name in ("secret/app", "open/gone", "limited/app"):
        hub.add_image(name, "latest")
    hub.make_private("secret/app")
    hub.fail(at("tags", repository="open/gone"), 404, body=b"{}")
    hub.fail(at("manifest", repository="limited/app"), 429, retry_after=30)

    for case, refused in REFUSED.items():
        path = refused.path.replace("LAYER", image.layers[0])
        reply = await cache.send(refused.method, path, list(refused.headers))
        error = error_of(reply)
        assert (reply.status, error["code"]) == (refused.status, refused.code), case
        assert reply.headers["Content-Type"] == "application/json", case
        assert set(error) <= {"code", "message", "detail"}, case
        assert re.fullmatch(r"[A-Z_]+", error["code"]), case
        assert isinstance(error["message"], str) and " " in error["message"], case
        assert error["code"] in CODES | {"TAG_INVALID", "RANGE_INVALID"}, case


async def test_content_management__L717_L728_L748_deletion_is_disabled(
    cache: CacheRig, hub: FakeHub, image: Image
) -> None:
    """L717: of tags. L728: of manifests. L748: of blobs."""
    for path in (f"{MANIFESTS}/latest", f"{MANIFESTS}/{image.digest}", f"{BLOBS}/{image.layers[0]}"):
        assert (await cache.send("DELETE", path)).status == 405
    assert hub.requests == []


# Warnings


async def test_warnings__L894_ours_have_code_299_no_agent_and_no_date(
    cache: CacheRig, hub: FakeHub, image: Image
) -> None:
    paths = [f"{MANIFESTS}/latest", f"/v2/{APP}/tags/list", f"/v2/{APP}/referrers/{image.digest}"]
    for path in paths:
        await cache.send("GET", path)
    cache.clock.advance(400)
    await hub.gone()
    for path in paths:
        (warning,) = (await cache.send("GET", path)).headers.getall("Warning")
        assert WARNING.fullmatch(warning)


async def test_warnings__L894_upstreams_are_passed_on(cache: CacheRig, hub: FakeHub, image: Image) -> None:
    sent = ['299 - "this image is deprecated"', r'299 - "with \"quotes\" and, a comma"']
    hub.change("tags", lambda answer: answer.headers.extend([("warning", each) for each in sent]))
    for _ in range(2):
        assert (await cache.send("GET", f"/v2/{APP}/tags/list")).headers.getall("Warning") == sent
