"""Accept values of bytes that are no text: no type, but no trouble either."""

from __future__ import annotations

import pytest

from tests.cache_rig import CacheRig
from tests.fake_hub import FakeHub
from tests.raw_http import raw_client

APP = "acme/app"


@pytest.mark.parametrize("accept", [b"application/\xff\xfe", b"\xff", b"application/\xc3\xa9, \x80/*"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_an_accept_that_is_no_text_is_answered_and_the_index_goes_on(
    cache: CacheRig, hub: FakeHub, accept: bytes, method: str
) -> None:
    image = hub.add_image(APP, "latest")
    request = f"{method} /v2/{APP}/manifests/latest HTTP/1.1\r\nHost: x\r\nAccept: ".encode() + accept + b"\r\n\r\n"

    async with raw_client(cache.url) as client:
        replies = []
        for _ in range(2):
            client.send(request)
            replies.append(await client.reply(method))
    await cache.restart()  # What was to be written to the index is written.
    hub.reset_counts()

    assert {(reply.status, reply.headers["Docker-Content-Digest"]) for reply in replies} == {(200, image.digest)}
    assert (await cache.get_manifest(APP, "latest")).body == image.body
    assert hub.count("HEAD", "manifest") == 0
