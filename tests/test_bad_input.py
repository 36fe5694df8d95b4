"""Bad input: the specification's JSON error, nothing on disk, nothing upstream, nothing alarming in the log."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest

from proxy.server.routes import Routes
from tests.cache_rig import CacheRig, Reply
from tests.fake_hub import FakeHub
from tests.raw_http import raw_client

HEX = "0123456789abcdef" * 4
LATEST = "/v2/library/alpine/manifests/latest"

BAD_PATHS = [
    ("/v2/..%2f..%2fetc/manifests/x", 400, "NAME_INVALID"),
    ("/v2/a/../../b/manifests/x", 400, "NAME_INVALID"),
    ("/v2//a/manifests/x", 400, "NAME_INVALID"),
    ("/v2/Library/Alpine/manifests/x", 400, "NAME_INVALID"),
    (f"/v2/{'a' * 300}/manifests/x", 400, "NAME_INVALID"),
    ("/v2/a/b%0a/manifests/x", 400, "NAME_INVALID"),
    ("/v2/a/b%0d%0aX-Evil:%201/manifests/x", 400, "NAME_INVALID"),
    ("/v2/a/b%00/manifests/x", 400, "NAME_INVALID"),
    ("/v2/a/%ff%fe/manifests/x", 400, "NAME_INVALID"),
    ("/v2/a%252f..%252fb/manifests/x", 400, "NAME_INVALID"),
    ("/v2/a/b/manifests/", 400, "TAG_INVALID"),
    ("/v2/a/b/manifests/x%0a", 400, "TAG_INVALID"),
    (f"/v2/a/b/manifests/{'t' * 129}", 400, "TAG_INVALID"),
    ("/v2/a/b/manifests/..", 400, "TAG_INVALID"),
    (f"/v2/a/b/manifests/sha256:{HEX.upper()}", 400, "DIGEST_INVALID"),
    ("/v2/a/b/blobs/", 400, "DIGEST_INVALID"),
    ("/v2/a/b/blobs/sha256:aa%0a", 400, "DIGEST_INVALID"),
    (f"/v2/a/b/blobs/sha256:{HEX}%0a", 400, "DIGEST_INVALID"),
    (f"/v2/a/b/blobs/sha256:{HEX.upper()}", 400, "DIGEST_INVALID"),
    (f"/v2/a/b/blobs/sha512:{HEX}", 400, "DIGEST_INVALID"),
    (f"/v2/a/b/blobs/md5:{HEX[:32]}", 400, "DIGEST_INVALID"),
    ("/v2/a/b/blobs/latest", 400, "DIGEST_INVALID"),
    ("/v2/a/b/manifests/x?ns=ghcr.io", 404, "NAME_UNKNOWN"),
    ("/v2/a/b/manifests/x?ns=docker.io%0d%0aX-Evil:%201", 404, "NAME_UNKNOWN"),
    ("/v2/a/b/manifests/x?ns=docker.io&ns=evil.example", 400, "NAME_INVALID"),
    ("/v2/?ns=docker.io%0d%0aX-Evil:%201", 404, "NAME_UNKNOWN"),
    ("/evil.example/v2/", 404, "NAME_UNKNOWN"),
    ("/evil.example/v2/a/b/manifests/x", 404, "NAME_UNKNOWN"),
    ("/", 404, "UNSUPPORTED"),
    ("/v1/_ping", 404, "UNSUPPORTED"),
    ("/v1/search?q=alpine", 404, "UNSUPPORTED"),
    ("/v2/_catalog", 404, "UNSUPPORTED"),
    ("/v2/a/b/tags/all", 404, "UNSUPPORTED"),
    ("/v2/A/b/tags/list", 400, "NAME_INVALID"),
    ("/v2/a/b/referrers/latest", 400, "DIGEST_INVALID"),
    ("/v2/a/b/blobs/uploads/", 404, "UNSUPPORTED"),
    ("/metrics", 404, "UNSUPPORTED"),
]
"""What is asked for, and the answer."""


def files(directory: Path) -> set[Path]:
    """Everything that has a name below a folder."""
    return set(directory.rglob("*"))


def code_of(reply: Reply) -> object:
    """The code of an error that is told as the specification wants it."""
    assert reply.headers["Content-Type"] == "application/json"
    (error,) = json.loads(reply.body)["errors"]
    assert set(error) == {"code", "message", "detail"}
    return error["code"]


@pytest.mark.parametrize(("path", "status", "code"), BAD_PATHS)
async def test_a_bad_path_is_refused_before_anything_is_done(
    cache: CacheRig, hub: FakeHub, path: str, status: int, code: str
) -> None:
    before = files(cache.directory)

    got = await cache.send("GET", path, {"Range": "bytes=0-", "Authorization": "Basic c2VjcmV0"})
    head = await cache.send("HEAD", path)

    assert (got.status, head.status, code_of(got)) == (status, status, code)
    assert head.body == b"" and head.headers["Content-Length"] == got.headers["Content-Length"]
    assert not {"WWW-Authenticate", "X-Evil", "OCI-Namespace"} & set(got.headers)
    assert (files(cache.directory), hub.requests) == (before, [])


async def test_the_refusal_of_an_unknown_registry_names_the_known_ones(cache: CacheRig) -> None:
    reply = await cache.send("GET", f"{LATEST}?ns=ghcr.io")
    assert "known are: docker.io" in reply.body.decode()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
@pytest.mark.parametrize("path", [LATEST, "/v2/library/alpine/blobs/uploads/", "/v2/", "/elsewhere"])
async def test_other_verbs_are_refused_with_those_that_are_answered(
    cache: CacheRig, hub: FakeHub, method: str, path: str
) -> None:
    before = files(cache.directory)

    reply = await cache.send(method, path)

    assert (reply.status, code_of(reply), reply.headers["Allow"]) == (405, "UNSUPPORTED", "GET, HEAD")
    assert (files(cache.directory), hub.requests) == (before, [])


async def test_a_query_of_any_length_is_read(cache: CacheRig) -> None:
    reply = await cache.send("GET", "/v2/?" + "a=1&" * 1500 + "ns=docker.io")
    assert (reply.status, reply.headers["OCI-Namespace"]) == (200, "docker.io")


async def test_bad_requests_are_no_errors_of_ours_in_the_log(cache: CacheRig, caplog: pytest.LogCaptureFixture) -> None:
    for path, _, _ in BAD_PATHS:
        await cache.send("GET", path)

    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_defect_is_answered_without_its_details_and_logged_once(
    cache: CacheRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr(Routes, "_manifest", broken)
    reply = await cache.send("GET", LATEST)

    assert (reply.status, code_of(reply)) == (500, "UNKNOWN")
    assert b"secret" not in reply.body
    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR"]


async def test_an_upload_is_refused_without_waiting_for_it(cache: CacheRig) -> None:
    async with raw_client(cache.url) as client, asyncio.timeout(3):
        client.ask("PUT", "/v2/a/b/blobs/uploads/1", "Content-Length: 1000000000")
        assert (await client.reply()).status == 405
