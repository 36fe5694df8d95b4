"""What goes wrong upstream in a soak: one thing at a time, for a while, and then all is well for a while."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from endurance.goods import KIB, MIB
from tests.fake_hub import FakeHub, at, spoilt

Trouble = Callable[[FakeHub], object]

TROUBLES: Final[dict[str, Trouble]] = {
    "the CDN answers 503": lambda hub: hub.fail("cdn", 503),
    "the CDN answers 403": lambda hub: hub.fail("cdn", 403),
    "the registry answers 500": lambda hub: hub.fail("registry", 500),
    "the registry answers 404 for blobs": lambda hub: hub.fail(at("blob"), 404),
    "the token server answers 500": lambda hub: hub.fail("token", 500),
    "the abuse limit": lambda hub: hub.abuse_limit(retry_after=1),
    "transfers break after 100 KiB": lambda hub: hub.cut("cdn", 100 * KIB, times=None),
    "transfers break after a byte": lambda hub: hub.cut("cdn", 1, times=None),
    "transfers stall": lambda hub: hub.hold("cdn", 200 * KIB),
    "transfers end early": lambda hub: hub.truncate("cdn", 200 * KIB),
    "transfers drip": lambda hub: hub.change("cdn", spoilt.drip(100, 0.1), content_only=True),
    "wrong bytes": lambda hub: hub.corrupt("cdn", 1000),
    "a login page": lambda hub: hub.garbage("cdn", b"<html>Please log in</html>"),
    "too many bytes": lambda hub: hub.garbage("cdn", bytes(MIB)),
    "no Content-Length": lambda hub: hub.no_content_length("cdn"),
    "gzip": lambda hub: hub.gzip_encode("cdn"),
    "Range is ignored": lambda hub: hub.no_range("cdn"),
    "a redirect loop": lambda hub: hub.redirect_loop("cdn"),
    "no HTTP": lambda hub: hub.garbage("registry"),
    "wrong manifests": lambda hub: hub.corrupt(at("manifest", method="GET"), 5),
    "HEAD without a digest": lambda hub: hub.no_digest_header(at("manifest", method="HEAD")),
    "the registry says nothing": lambda hub: hub.hang("registry"),
    "the CDN says nothing": lambda hub: hub.hang("cdn"),
    "the token server says nothing": lambda hub: hub.hang("token"),
    "nobody listens": lambda hub: hub.gone(),
    "the CDN does not listen": lambda hub: hub.gone("cdn"),
    "tokens are worthless": lambda hub: hub.expire_tokens(),
    "signed URLs are dead": lambda hub: hub.expire_urls(),
}


async def trouble_now_and_then(hub: FakeHub, rng: random.Random, seconds: float, pace: spoilt.Change) -> Counter[str]:
    """For so many seconds: trouble, peace, other trouble. How often which. Afterwards all is well."""
    happened: Counter[str] = Counter()
    try:
        async with asyncio.timeout(seconds):
            while True:
                name = rng.choice(list(TROUBLES))
                happened[name] += 1
                await _begin(hub, name)
                await asyncio.sleep(rng.uniform(0.3, 3.0))
                await _end(hub, pace)
                await asyncio.sleep(rng.uniform(0.5, 3.0))
    except TimeoutError:
        pass
    await _end(hub, pace)
    return happened


async def _begin(hub: FakeHub, name: str) -> None:
    happening = TROUBLES[name](hub)
    if isinstance(happening, Awaitable):
        await happening


async def _end(hub: FakeHub, pace: spoilt.Change) -> None:
    hub.heal()
    hub.change("cdn", pace, content_only=True)
    await hub.back()
