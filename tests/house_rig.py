"""What the tests of keeping house share: images to pull, and the admin API."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import aiohttp

from tests.cache_rig import CacheRig
from tests.fake_hub import FakeHub
from tests.fake_hub.library import Image, Index

Document = dict[str, Any]

ALPINE, BUSYBOX, OTHER = "library/alpine", "library/busybox", "owner/app"
BASE = b"a base layer that several images have" * 100


async def ask(
    cache: CacheRig,
    method: str,
    path: str,
    body: object = None,
    *,
    headers: Mapping[str, str] | None = None,
    data: bytes | None = None,
    query: Mapping[str, str | int] | None = None,
) -> tuple[int, Document]:
    """Status and document of an answer of the admin API."""
    given = {"Content-Type": "application/json"} | dict(headers or {})
    sent = data if data is not None else None if body is None else json.dumps(body).encode()
    url = cache.app.admin_url + path
    async with aiohttp.request(method, url, data=sent, headers=given, params=query) as response:
        assert response.content_type == "application/json", await response.text()
        document: Document = await response.json()
    return response.status, document


async def told(cache: CacheRig, path: str, **query: str | int) -> Document:
    """The document at a path."""
    status, document = await ask(cache, "GET", path, query=query)
    assert status == 200, document
    return document


async def purged(cache: CacheRig, **wanted: object) -> Document:
    """The answer to a purge."""
    status, document = await ask(cache, "POST", "/api/purge", wanted)
    assert status == 200, document
    return document


async def pull(cache: CacheRig, repository: str, reference: str) -> None:
    """Pull an image, or of an index the first one, as clients do."""
    reply = await cache.get_manifest(repository, reference)
    assert reply.status == 200, reply.body
    document = json.loads(reply.body)
    if "manifests" in document:
        await pull(cache, repository, document["manifests"][0]["digest"])
        return
    for part in (document["config"], *document["layers"]):
        assert (await cache.get_blob(repository, part["digest"])).status == 200


async def pulled(hub: FakeHub, cache: CacheRig, repository: str, tag: str, *layers: bytes) -> Image:
    """An image that was pulled."""
    image = hub.add_image(repository, tag, layers)
    await pull(cache, repository, tag)
    return image


async def pulled_index(hub: FakeHub, cache: CacheRig, repository: str, tag: str) -> Index:
    """An index of two platforms, of which the first was pulled."""
    index = hub.add_index(repository, tag)
    await pull(cache, repository, tag)
    return index


def on_disk(image: Image) -> set[str]:
    """The digests that an image has on disk once it was pulled."""
    return {image.digest, *image.blobs}
