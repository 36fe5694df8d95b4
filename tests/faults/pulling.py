"""The usual course of a fault: a client pulls while it lasts, it ends, another client pulls."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Final

from tests.blob_rig import no_fills
from tests.eventually import eventually
from tests.faults.client import Received, assert_harmless, bounded
from tests.faults.fault import Fault, Seen
from tests.faults.moved import Samples, moved
from tests.faults.stand import AFTERWARDS, Asked, Stand

COLD_SECONDS: Final = 10.0
CACHED_SECONDS: Final = 5.0
"""When a client counts as hung: with what is cached, stale or not, it is answered within some two seconds."""

Act = Callable[[Stand], object]
"""Makes something happen; an awaitable that it returns is awaited."""


def heal(stand: Stand) -> None:
    """The upstream is well again."""
    stand.hub.heal()


def fault(title: str, asked: Asked, strike: Act, *, within: float | None = None, mend: Act = heal) -> Fault:
    """What `strike` does lasts until `mend`, if it does not end before."""
    bound = within or (COLD_SECONDS if asked.is_cold else CACHED_SECONDS)

    async def run(stand: Stand) -> Seen:
        await stand.prepare(asked)
        right = (stand.content_of(asked), stand.before.body)
        app, before = stand.cache.app, await stand.cache.metrics()
        await acted(strike, stand)
        if stand.cache.app is not app:  # It was started anew, and so were its counters.
            before = await stand.cache.metrics()
        got = await bounded(stand.pull(asked), bound)
        assert_harmless(got, *right)
        return await aftermath(stand, asked, str(got), before, mend)

    return Fault(title, asked.value, bound, run)


async def aftermath(stand: Stand, asked: Asked, client: str, before: Samples, mend: Act = heal) -> Seen:
    """What the fault has left, and how the next client fares."""
    await no_fills(stand.cache)
    digest, content = stand.digest_of(asked), stand.content_of(asked)
    disk = stand.on_disk(digest, content)
    metrics = moved(before, await stand.cache.metrics(), refused=stand.upstream_refused)
    await acted(mend, stand)
    stand.cache.clock.advance(AFTERWARDS)
    asked_before = len(stand.hub.requests)
    got = await bounded(stand.pull(asked), 10.0)
    assert (got.status, got.whole, got.body) == (200, True, content), f"the next pull: {got}"
    await eventually(lambda: digest in stand.cache.blobs_on_disk(), label="what was pulled is stored")
    await stand.assert_nothing_is_left_over()
    stand.assert_blobs_are_right()
    return Seen(client, disk, metrics, then_in_words(got, resumed_since(stand, digest, asked_before)))


async def acted(act: Act, stand: Stand) -> None:
    """Let it happen."""
    done = act(stand)
    if inspect.isawaitable(done):
        await done


def resumed_since(stand: Stand, digest: str, since: int) -> bool:
    """Whether only a part of the blob was asked for."""
    return any(request.reference == digest and request.range for request in stand.hub.requests[since:])


def then_in_words(got: Received, resumed: bool) -> str:
    """A hit, stale, or a miss that fetched all or the rest."""
    if "hit" in got.cache_status or "stale" in got.cache_status:
        return "hit" if "hit" in got.cache_status else "stale"
    return "miss, fetched from where it broke" if resumed else "miss"
