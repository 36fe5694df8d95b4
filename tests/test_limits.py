"""Limits of upstream: the pull limit stops fetches of manifests and nothing else (PROTOCOL 1.4)."""

from __future__ import annotations

import json
import logging

import pytest

from proxy.policy.quota import DEFAULT_PAUSE_SECONDS
from tests.asked import gets, heads
from tests.cache_rig import CacheRig, Reply, gather
from tests.fake_hub import ANONYMOUS, FakeHub, Image, at

APP = "acme/app"
WINDOW = 300.0
PAUSE = DEFAULT_PAUSE_SECONDS["pulls"]


def refusal(reply: Reply) -> tuple[int, str, int]:
    """Status, code and Retry-After."""
    return reply.status, json.loads(reply.body)["errors"][0]["code"], int(reply.headers["Retry-After"])


async def exhausted(cache: CacheRig, hub: FakeHub, *, retry_after: int | str | None = None) -> Image:
    """A cached image; after it, upstream refused a pull."""
    image = hub.add_image(APP, "cached")
    for reply in [await cache.get_manifest(APP, "cached"), await cache.get_blob(APP, image.config)]:
        assert reply.status == 200
    hub.retry_after = retry_after
    hub.set_remaining(0)
    hub.add_image(APP, "refused", [b"refused"])
    assert (await cache.get_manifest(APP, "refused")).status == 429
    hub.reset_counts()
    return image


async def test_a_refused_pull_is_answered_with_the_time_to_wait(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "latest")
    hub.set_remaining(0)
    hub.retry_after = 77

    reply = await cache.get_manifest(APP, "latest")

    assert refusal(reply) == (429, "TOOMANYREQUESTS", 77)
    assert reply.headers["Content-Type"] == "application/json"
    assert cache.blobs_on_disk() == set()
    assert gets(hub, image.digest) == 1


async def test_while_the_pull_limit_lasts_what_is_not_cached_is_refused_from_memory(
    cache: CacheRig, hub: FakeHub
) -> None:
    await exhausted(cache, hub, retry_after=600)
    other = hub.add_image(APP, "other", [b"other"])
    await cache.head_manifest(APP, "refused")
    hub.reset_counts()
    cache.clock.advance(100)

    replies = await gather(*(cache.get_manifest(APP, reference) for reference in ("refused", other.digest) * 10))

    assert {refusal(reply) for reply in replies} == {(429, "TOOMANYREQUESTS", 500)}
    assert hub.requests == []
    assert cache.blobs_on_disk() & {other.digest} == set()


async def test_the_refusal_of_a_head_has_headers_only(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(APP, "latest")
    await cache.head_manifest(APP, "latest")
    hub.abuse_limit(retry_after=60)

    reply = await cache.head_manifest(APP, "other")

    assert (reply.status, reply.body) == (429, b"")
    assert 60 <= int(reply.headers["Retry-After"]) <= 75  # The gate opens a little late, at random.


async def test_while_the_pull_limit_lasts_cached_images_are_served_and_blobs_are_fetched(
    cache: CacheRig, hub: FakeHub
) -> None:
    image = await exhausted(cache, hub, retry_after=600)
    assert image.layers[0] not in cache.blobs_on_disk()

    by_tag, by_digest = await cache.get_manifest(APP, "cached"), await cache.get_manifest(APP, image.digest)
    blobs = [await cache.get_blob(APP, digest) for digest in image.blobs]

    assert by_tag.body == by_digest.body == image.body
    assert [reply.status for reply in blobs] == [200, 200]
    assert hub.cdn_count(image.layers[0]) == 1
    assert gets(hub) == 0


async def test_the_gate_opens_when_the_time_is_over_and_a_free_head_finds_quota(cache: CacheRig, hub: FakeHub) -> None:
    await exhausted(cache, hub, retry_after=60)
    hub.set_remaining(50)
    cache.clock.advance(59)
    early = await cache.get_manifest(APP, "refused")
    cache.clock.advance(1)

    late = await cache.get_manifest(APP, "refused")

    assert (early.status, late.status) == (429, 200)
    assert gets(hub) == 1


async def test_the_gate_opens_early_when_a_revalidation_shows_that_quota_is_back(cache: CacheRig, hub: FakeHub) -> None:
    await exhausted(cache, hub, retry_after=6 * 3600)
    cache.clock.advance(WINDOW)
    hub.set_remaining(50)

    refused = await cache.get_manifest(APP, hub.add_image(APP, None, [b"by digest"]).digest)
    confirmed = await cache.get_manifest(APP, "cached")
    served = await cache.get_manifest(APP, "refused")

    assert (refused.status, confirmed.status, served.status) == (429, 200, 200)
    assert hub.counted_pulls == 1


async def test_after_our_own_pause_a_free_head_decides_and_no_pull_is_tried(cache: CacheRig, hub: FakeHub) -> None:
    await exhausted(cache, hub)
    image = hub.repositories[APP].tags["refused"]
    within = await cache.get_manifest(APP, image)
    cache.clock.advance(PAUSE)
    hub.reset_counts()

    still = await cache.get_manifest(APP, image)
    probes = heads(hub)
    again = await cache.get_manifest(APP, image)
    cache.clock.advance(PAUSE)
    hub.set_remaining(1)
    served = await cache.get_manifest(APP, image)

    back = 6 * 3600  # All was used up a moment ago: that is how long the window keeps it.
    assert refusal(within) == (429, "TOOMANYREQUESTS", back)
    assert refusal(still) == refusal(again) == (429, "TOOMANYREQUESTS", back - PAUSE)
    assert probes == 1
    assert served.status == 200
    assert gets(hub) == 1


async def test_a_probe_that_says_nothing_of_quota_lets_the_pull_tell(cache: CacheRig, hub: FakeHub) -> None:
    await exhausted(cache, hub)
    hub.rate_limit = None
    cache.clock.advance(PAUSE)

    served = await cache.get_manifest(APP, hub.repositories[APP].tags["refused"])
    probes = heads(hub)
    after = await cache.get_manifest(APP, hub.add_image(APP, None, [b"after"]).digest)

    assert (served.status, after.status) == (200, 200)
    assert probes == heads(hub) == 1


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (90, 90),
        ("0", 1),
        ("1800000090", 90),
        ("Fri, 15 Jan 2027 08:01:30 GMT", 90),
        ("880.092µs, allowed: 44000/minute".encode().decode("latin-1"), int(PAUSE)),
        ("-5", int(PAUSE)),
        (10**9, 6 * 3600),
    ],
)
async def test_retry_after_is_understood_in_all_its_forms(
    cache: CacheRig, hub: FakeHub, said: int | str, seconds: int
) -> None:
    hub.add_image(APP, "latest")
    hub.set_remaining(0)
    hub.retry_after = said

    first, from_memory = await cache.get_manifest(APP, "latest"), await cache.get_manifest(APP, "latest")

    assert refusal(first) == refusal(from_memory) == (429, "TOOMANYREQUESTS", seconds)
    assert gets(hub) == 1


async def test_a_moved_tag_is_answered_with_what_we_hold_while_pulls_are_refused(cache: CacheRig, hub: FakeHub) -> None:
    image = await exhausted(cache, hub, retry_after=6 * 3600)
    hub.add_image(APP, "cached", [b"moved"])
    cache.clock.advance(WINDOW)

    head, got = await cache.head_manifest(APP, "cached"), await cache.get_manifest(APP, "cached")
    by_digest = await cache.get_manifest(APP, head.headers["Docker-Content-Digest"])

    assert head.headers["Docker-Content-Digest"] == got.headers["Docker-Content-Digest"] == image.digest
    assert got.body == by_digest.body == image.body
    for reply in (head, got):
        assert reply.headers["Warning"] == '299 - "served stale: the upstream registry\'s rate limit is reached"'
        assert reply.cache_status == "pullthrough; fwd=stale; detail=limited"
    assert gets(hub) == 0


async def test_a_head_of_a_moved_tag_names_nothing_that_the_last_quota_cannot_buy(
    cache: CacheRig, hub: FakeHub
) -> None:
    image = hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    hub.add_image(APP, "latest", [b"moved"])
    hub.set_remaining(0)
    cache.clock.advance(WINDOW)

    head = await cache.head_manifest(APP, "latest")

    assert head.headers["Docker-Content-Digest"] == image.digest
    assert "Warning" in head.headers


async def test_a_moved_tag_is_fetched_when_quota_is_back(cache: CacheRig, hub: FakeHub) -> None:
    await exhausted(cache, hub, retry_after=6 * 3600)
    moved = hub.add_image(APP, "cached", [b"moved"])
    cache.clock.advance(WINDOW)
    hub.set_remaining(50)

    head, got = await cache.head_manifest(APP, "cached"), await cache.get_manifest(APP, "cached")

    assert head.headers["Docker-Content-Digest"] == moved.digest
    assert (got.body, "Warning" in got.headers) == (moved.body, False)


async def test_the_request_limit_stops_everything_until_its_time_is_over(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    limited = hub.abuse_limit(retry_after=60)
    assert (await cache.get_manifest(APP, "other")).status == 429
    asked = limited.used
    hub.heal()

    replies = [
        await cache.get_manifest(APP, "other"),
        await cache.get_manifest(APP, "sha256:" + "b" * 64),
        await cache.get_blob(APP, image.layers[0]),
    ]
    cached = await cache.get_manifest(APP, "latest")
    cache.clock.advance(75)
    after = await cache.get_blob(APP, image.layers[0])

    assert {refusal(reply)[:2] for reply in replies} == {(429, "TOOMANYREQUESTS")}
    assert {60 <= refusal(reply)[2] <= 75 for reply in replies} == {True}
    assert asked == 1
    assert (cached.status, after.status) == (200, 200)


async def test_a_429_of_a_head_is_the_request_limit_and_what_is_held_is_stale(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    cache.clock.advance(WINDOW)
    hub.fail(at("manifest", method="HEAD"), 429, retry_after=60)
    hub.reset_counts()

    replies = [await cache.get_manifest(APP, "latest") for _ in range(5)]

    assert {(reply.status, reply.body) for reply in replies} == {(200, image.body)}
    assert all("rate limit is reached" in reply.headers["Warning"] for reply in replies)
    assert hub.count("HEAD", "manifest") == 1


async def test_quota_shows_in_the_metrics_and_is_absent_where_it_is_unknown(cache: CacheRig, hub: FakeHub) -> None:
    hub.rate_limit = None
    hub.add_image(APP, "paid")
    await cache.get_manifest(APP, "paid")
    unknown = await cache.metric("pullthrough_ratelimit_remaining")
    hub.rate_limit = (100, 21600)
    hub.set_remaining(42)
    await cache.get_manifest(APP, hub.add_image(APP, None, [b"metered"]).digest)

    assert unknown is None
    assert await cache.metric("pullthrough_ratelimit_limit") == 100
    assert await cache.metric("pullthrough_ratelimit_remaining") == 41
    assert await cache.metric("pullthrough_ratelimit_window_seconds") == 21600


async def test_a_sponsored_repository_leaves_the_quota_as_it_was_known(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(APP, "latest")
    hub.add_image("sponsored/app", "latest")
    hub.sponsor("sponsored/app")
    await cache.get_manifest(APP, "latest")

    await cache.get_manifest("sponsored/app", "latest")

    assert await cache.metric("pullthrough_ratelimit_remaining") == 99


async def test_the_quota_of_the_anonymous_question_is_not_taken_for_the_accounts(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(APP, "latest")
    hub.set_remaining(80, hub.username)
    hub.set_remaining(3, ANONYMOUS)

    other = hub.add_image("acme/other", "latest")

    await cache.get_manifest(APP, "latest")
    assert (await cache.get_blob("acme/other", other.config)).status == 200

    assert await cache.metric("pullthrough_ratelimit_remaining") == 79


async def test_a_wrong_token_is_sent_once_said_once_and_replaced_by_anonymous_pulls(
    cache: CacheRig, hub: FakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    hub.pat = "dckr_pat_another"
    images = [hub.add_image(f"acme/app-{number}", "latest") for number in range(5)]

    replies = await gather(*(cache.get_manifest(image.repository, "latest") for image in images))

    assert [reply.body for reply in replies] == [image.body for image in images]
    assert hub.token_count(hub.username) == 1
    assert hub.counted_pulls_of(ANONYMOUS) == 5
    assert await cache.metric("pullthrough_credentials_rejected") == 1
    said = [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]
    assert len(said) == 1
    assert "rejected the user name or access token" in said[0]
    assert cache.password not in caplog.text


async def test_what_is_cached_is_served_with_a_wrong_token_and_no_anonymous_quota(
    cache: CacheRig, hub: FakeHub
) -> None:
    image = hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    hub.pat = "dckr_pat_another"
    hub.expire_tokens()
    hub.set_remaining(0)
    cache.clock.advance(WINDOW)

    cached = await cache.get_manifest(APP, "latest")
    uncached = await cache.get_manifest(APP, hub.add_image(APP, None, [b"new"]).digest)

    assert (cached.status, cached.body) == (200, image.body)
    assert uncached.status == 429
