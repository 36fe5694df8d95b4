"""What operators see: every counter moves by what happened, every request is one line of the log."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any, get_args

import aiohttp
import pytest

from proxy.config import LogOptions, MetricsOptions
from proxy.policy import eviction
from proxy.pull import outcome
from proxy.store import room
from tests.cache_rig import CacheRig, gather
from tests.eventually import eventually
from tests.fake_hub import FakeHub, Image, at
from tests.raw_http import raw_client

REPOSITORY = "library/alpine"
LARGE = bytes(range(256)) * 1024

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def image(hub: FakeHub) -> Image:
    return hub.add_image(REPOSITORY, "latest", [LARGE])


def moved(before: Samples, after: Samples) -> dict[str, float]:
    """What was added to our counters, as Prometheus would write it, without the shape of histograms."""
    return {
        f"{name.removeprefix('pullthrough_')}{{{','.join(f'{key}={value}' for key, value in sorted(labels))}}}": added
        for (name, labels), value in after.items()
        if name.endswith(("_total", "_count"))
        and name.startswith("pullthrough_")
        and (added := value - before.get((name, labels), 0.0))
    }


async def lines(cache: CacheRig) -> list[dict[str, Any]]:
    """The access log, whole; the cache is stopped for that."""
    await cache.stop()
    found = [json.loads(line) for line in cache.log.getvalue().splitlines()]
    await cache.start()
    return found


async def test_a_cold_pull_counts_what_it_cost(cache: CacheRig, image: Image) -> None:
    before = await cache.metrics()
    await cache.get_manifest(REPOSITORY, "latest")
    await cache.get_blob(REPOSITORY, image.layers[0])

    counted = moved(before, await cache.metrics())
    ours = {name: value for name, value in counted.items() if not name.startswith("upstream_responses")}
    assert ours == {
        "requests_total{code=200,kind=manifest,method=GET}": 1,
        "requests_total{code=200,kind=blob,method=GET}": 1,
        "misses_total{kind=manifest}": 1,
        "misses_total{kind=blob}": 1,
        "served_bytes_total{kind=manifest}": len(image.body),
        "served_bytes_total{kind=blob}": len(LARGE),
        "fetched_bytes_total{kind=manifest,upstream=docker.io}": len(image.body),
        "fetched_bytes_total{kind=blob,upstream=docker.io}": len(LARGE),
        "counted_pulls_total{upstream=docker.io}": 1,
        "governor_decisions_total{decision=pass,upstream=docker.io}": 1,
        "revalidations_total{result=changed,upstream=docker.io}": 1,
        "time_to_first_byte_seconds_count{kind=manifest,outcome=miss}": 1,
        "time_to_first_byte_seconds_count{kind=blob,outcome=miss}": 1,
    }


async def test_a_warm_pull_is_hits_and_costs_nothing(cache: CacheRig, image: Image) -> None:
    await cache.get_manifest(REPOSITORY, "latest")
    await cache.get_blob(REPOSITORY, image.layers[0])
    before = await cache.metrics()

    await cache.get_manifest(REPOSITORY, "latest")
    await cache.head_manifest(REPOSITORY, "latest")
    await cache.get_blob(REPOSITORY, image.layers[0], Range="bytes=0-9")

    assert moved(before, await cache.metrics()) == {
        "requests_total{code=200,kind=manifest,method=GET}": 1,
        "requests_total{code=200,kind=manifest,method=HEAD}": 1,
        "requests_total{code=206,kind=blob,method=GET}": 1,
        "hits_total{kind=manifest}": 2,
        "hits_total{kind=blob}": 1,
        "served_bytes_total{kind=manifest}": len(image.body),
        "served_bytes_total{kind=blob}": 10,
        "saved_pulls_total{upstream=docker.io}": 1,
        "saved_bytes_total{upstream=docker.io}": len(image.body) + 10,
        "time_to_first_byte_seconds_count{kind=manifest,outcome=hit}": 2,
        "time_to_first_byte_seconds_count{kind=blob,outcome=hit}": 1,
    }


async def test_a_tag_that_upstream_confirms_is_a_revalidation_and_no_pull(cache: CacheRig, image: Image) -> None:
    await cache.get_manifest(REPOSITORY, "latest")
    cache.clock.advance(400)
    before = await cache.metrics()

    await cache.get_manifest(REPOSITORY, "latest")

    counted = moved(before, await cache.metrics())
    assert counted["revalidations_total{result=unchanged,upstream=docker.io}"] == 1
    assert counted["hits_total{kind=manifest}"] == 1
    assert counted["upstream_responses_total{code=2xx,kind=manifest,upstream=docker.io}"] == 1
    assert "counted_pulls_total{upstream=docker.io}" not in counted


async def test_stale_answers_are_counted_with_their_reason(cache: CacheRig, hub: FakeHub, image: Image) -> None:
    await cache.get_manifest(REPOSITORY, "latest")
    cache.clock.advance(400)
    hub.fail(at("manifest"), 503)
    before = await cache.metrics()

    await cache.get_manifest(REPOSITORY, "latest")

    counted = moved(before, await cache.metrics())
    assert counted["stale_total{kind=manifest,reason=unavailable}"] == 1
    assert counted["upstream_responses_total{code=5xx,kind=manifest,upstream=docker.io}"] >= 1
    assert counted["time_to_first_byte_seconds_count{kind=manifest,outcome=stale}"] == 1
    assert not {"hits_total{kind=manifest}", "misses_total{kind=manifest}"} & set(counted)


async def test_requests_that_share_a_fill_are_counted_as_collapsed(cache: CacheRig, hub: FakeHub, image: Image) -> None:
    digest = image.layers[0]
    hub.hold(digest, 1000)
    before = await cache.metrics()

    pulls = [asyncio.ensure_future(cache.get_blob(REPOSITORY, digest)) for _ in range(3)]
    await eventually(lambda: [fill["readers"] for fill in cache.app.status()["fills"]] == [3])  # type: ignore[attr-defined]
    running = await cache.metric("pullthrough_fills_running")
    hub.release()
    await gather(*pulls)

    counted = moved(before, await cache.metrics())
    assert counted["collapsed_total{kind=blob}"] == 2
    assert counted["fetched_bytes_total{kind=blob,upstream=docker.io}"] == len(LARGE)
    assert counted["served_bytes_total{kind=blob}"] == 3 * len(LARGE)
    assert counted["time_to_first_byte_seconds_count{kind=blob,outcome=collapsed}"] == 2
    assert (running, await cache.metric("pullthrough_fills_running")) == (1, 0)


async def test_refusals_are_counted_by_status_and_pings_do_not_blur_the_latency(cache: CacheRig) -> None:
    before = await cache.metrics()
    await cache.send("GET", "/v2/")
    await cache.send("GET", "/v2/UPPER/manifests/x")
    await cache.send("PROPFIND", "/v2/")

    counted = moved(before, await cache.metrics())
    assert {name: value for name, value in counted.items() if not name.startswith("served")} == {
        "requests_total{code=200,kind=ping,method=GET}": 1,
        "requests_total{code=400,kind=other,method=GET}": 1,
        "requests_total{code=405,kind=other,method=other}": 1,
        "time_to_first_byte_seconds_count{kind=other,outcome=error}": 2,
    }


async def test_bytes_are_counted_as_far_as_they_were_sent_when_a_client_leaves(cache: CacheRig, hub: FakeHub) -> None:
    digest = hub.add_synthetic_blob(20_000_000)
    hub.add_image(REPOSITORY, "latest", [digest])
    await cache.get_blob(REPOSITORY, digest)
    before = await cache.metrics()

    async with raw_client(cache.url, receive_buffer=4096) as client:
        client.ask("GET", f"/v2/{REPOSITORY}/blobs/{digest}", "Range: bytes=0-")
        await client.head()
        await client.read(100_000)

    async def aborted() -> bool:
        return await cache.metric("pullthrough_aborted_total", kind="blob") == 1

    await eventually(aborted)
    counted = moved(before, await cache.metrics())
    assert 100_000 <= counted["served_bytes_total{kind=blob}"] < 20_000_000
    assert counted["requests_total{code=206,kind=blob,method=GET}"] == 1
    (line,) = [each for each in await lines(cache) if each["client_left"]]
    assert (line["status"], line["error"]) == (206, None)
    assert line["bytes"] == counted["served_bytes_total{kind=blob}"]


async def test_the_quota_is_shown_with_its_account(cache: CacheRig, hub: FakeHub, image: Image) -> None:
    await cache.get_manifest(REPOSITORY, "latest")
    labels = {"upstream": "docker.io", "account": "alice"}
    assert await cache.metric("pullthrough_ratelimit_limit", **labels) == 100
    assert await cache.metric("pullthrough_ratelimit_remaining", **labels) == hub.remaining("alice")
    assert await cache.metric("pullthrough_ratelimit_window_seconds", **labels) == 21600


async def test_a_quota_that_upstream_does_not_tell_is_absent_and_not_0(
    cache: CacheRig, hub: FakeHub, image: Image
) -> None:
    hub.rate_limit = None
    await cache.get_manifest(REPOSITORY, "latest")
    for name in ("limit", "remaining", "window_seconds"):
        assert await cache.metric(f"pullthrough_ratelimit_{name}") is None
    assert (await cache.status())["upstreams"][0]["quota"] is None


async def test_what_alerts_are_made_of_starts_at_0_so_that_its_first_event_is_seen(cache: CacheRig) -> None:
    first: dict[str, dict[str, str]] = {name: {} for name in ("counted_pulls", "vanished")} | {
        "governor_decisions": {"decision": "refused"},
        "fetched_bytes": {"kind": "blob"},
        "limited": {"limit": "requests"},
    }
    for name, labels in first.items():
        assert await cache.metric(f"pullthrough_{name}_total", upstream="docker.io", **labels) == 0, name
    reasons: dict[str, tuple[str, ...]] = {
        "stale": get_args(outcome.Reason),
        "not_stored": get_args(room.Reason),
        "evicted_blobs": (*eviction.GOES, "leftover"),
        "evicted_bytes": (*eviction.GOES, "leftover"),
    }
    for name, known in reasons.items():
        for reason in known:
            assert await cache.metric(f"pullthrough_{name}_total", reason=reason) == 0, (name, reason)


async def test_a_request_that_is_sent_once_more_is_counted(cache: CacheRig, hub: FakeHub, image: Image) -> None:
    hub.fail("token", 503, times=1)

    assert (await cache.get_manifest(REPOSITORY, "latest")).status == 200

    assert await cache.metric("pullthrough_upstream_retries_total", upstream="docker.io", kind="token") == 1
    assert await cache.metric("pullthrough_upstream_retries_total", upstream="docker.io", kind="manifest") == 0


@pytest.mark.parametrize("limit", ["pulls", "requests"])
async def test_a_limit_that_is_reached_is_counted_and_shown_until_it_is_over(
    cache: CacheRig, hub: FakeHub, image: Image, limit: str
) -> None:
    labels = {"upstream": "docker.io", "limit": limit}
    if limit == "pulls":
        hub.set_remaining(0)
        hub.retry_after = 60
    else:
        hub.abuse_limit(retry_after=60)

    assert (await cache.get_manifest(REPOSITORY, "latest")).status == 429

    assert await cache.metric("pullthrough_limited_total", **labels) == 1
    assert (await cache.metric("pullthrough_limit_closed_seconds", **labels) or 0) >= 60
    other = "pulls" if limit == "requests" else "requests"
    assert await cache.metric("pullthrough_limited_total", upstream="docker.io", limit=other) == 0
    cache.clock.advance(100)
    assert await cache.metric("pullthrough_limit_closed_seconds", **labels) == 0


@pytest.mark.parametrize("aliases", [True, False])
async def test_the_names_that_other_dashboards_read_are_there_if_wanted(
    hub: FakeHub, image: Image, tmp_path: Path, aliases: bool
) -> None:
    options = {"metrics": MetricsOptions(aliases=aliases)}
    async with CacheRig(hub.url, tmp_path / "cache", options=options) as cache:
        await cache.get_manifest(REPOSITORY, "latest")
        await cache.get_blob(REPOSITORY, image.layers[0])
        found = {
            "limit": await cache.metric("dockerhub_limit_max_requests_total"),
            "remaining": await cache.metric("dockerhub_limit_remaining_requests_total"),
            "requests": await cache.metric("registry_proxy_requests_total", type="manifest"),
            "misses": await cache.metric("registry_proxy_misses_total", type="blob"),
            "pushed": await cache.metric("registry_proxy_pushed_bytes_total", type="blob"),
        }
    expected = {"limit": 100, "remaining": 99, "requests": 1, "misses": 1, "pushed": len(LARGE)}
    assert found == (expected if aliases else dict.fromkeys(expected))


async def test_every_request_is_one_line_with_what_it_cost(cache: CacheRig, image: Image) -> None:
    await cache.get_manifest(REPOSITORY, "latest")
    await cache.get_manifest("alpine", "latest")
    await cache.get_blob(REPOSITORY, image.layers[0], Range="bytes=5-")
    await cache.head_blob(REPOSITORY, image.layers[0])
    await cache.send("GET", "/v2/?ns=docker.io")
    await cache.send("GET", "/v2/a/b/manifests/x%0aforged%1b[2J")
    await cache.send("GET", "/v2/evil.example/forged/manifests/x%0d%0a?ns=evil.example")

    found = await lines(cache)

    names = ("method", "kind", "subject", "status", "bytes", "cache_status", "counted", "error", "client_left")
    tag, blob = f"docker.io/{REPOSITORY} latest", f"docker.io/{REPOSITORY} {image.layers[0]}"
    size, miss, hit = len(image.body), "pullthrough; fwd=miss; stored", "pullthrough; hit"
    assert [tuple(line[name] for name in names) for line in found] == [
        ("GET", "manifest", tag, 200, size, miss, 1, None, False),
        ("GET", "manifest", tag, 200, size, hit, 0, None, False),
        ("GET", "blob", blob, 206, len(LARGE) - 5, miss, 0, None, False),
        ("HEAD", "blob", blob, 200, 0, hit, 0, None, False),
        ("GET", "ping", "-", 200, 2, None, 0, None, False),
        ("GET", "other", "-", 400, found[5]["bytes"], None, 0, "TAG_INVALID", False),
        ("GET", "other", "-", 404, found[6]["bytes"], None, 0, "NAME_UNKNOWN", False),
    ]
    assert {line["peer"] for line in found} == {"127.0.0.1"}
    assert "forged" not in cache.log.getvalue()


async def test_a_response_that_upstream_broke_says_so_in_its_line(
    cache: CacheRig, hub: FakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    digest = hub.add_synthetic_blob(1_000_000)
    hub.add_image(REPOSITORY, "latest", [digest])
    hub.corrupt(digest, 999_999)

    with pytest.raises(aiohttp.ClientPayloadError):
        await cache.get_blob(REPOSITORY, digest)

    (line,) = await lines(cache)
    assert (line["status"], line["error"], line["client_left"]) == (200, "UNAVAILABLE", False)
    assert line["bytes"] < 1_000_000
    warnings = [record for record in caplog.records if record.name == "proxy.server.routes"]
    assert [record.levelno for record in warnings] == [logging.WARNING]


async def test_the_log_can_be_text(hub: FakeHub, image: Image, tmp_path: Path) -> None:
    options = {"log": LogOptions(format="text")}
    async with CacheRig(hub.url, tmp_path / "cache", options=options) as cache:
        await cache.get_manifest(REPOSITORY, "latest")
    _, rest = cache.log.getvalue().split(" ", 1)
    assert rest.startswith(f"127.0.0.1 GET manifest docker.io/{REPOSITORY} latest 200 {len(image.body)}B ")
    assert rest.endswith("ms [fwd=miss; stored] counted=1\n")


async def test_the_log_of_requests_can_be_switched_off(hub: FakeHub, image: Image, tmp_path: Path) -> None:
    options = {"log": LogOptions(access=False)}
    async with CacheRig(hub.url, tmp_path / "cache", options=options) as cache:
        assert (await cache.get_manifest(REPOSITORY, "latest")).status == 200
    assert cache.log.getvalue() == ""


async def test_status_tells_of_a_running_fill(cache: CacheRig, hub: FakeHub) -> None:
    digest = hub.add_synthetic_blob(1_000_000)
    hub.add_image(REPOSITORY, "latest", [digest])
    hub.hold(digest, 500_000)

    pull = asyncio.ensure_future(cache.get_blob(REPOSITORY, digest))
    await hub.wait_held(digest)
    await eventually(lambda: [fill["received"] for fill in cache.app.status()["fills"]] == [500_000])  # type: ignore[attr-defined]
    (fill,) = (await cache.status())["fills"]
    hub.release()
    await pull

    assert fill.pop("seconds") >= 0
    assert fill == {
        "digest": digest,
        "repository": f"docker.io/{REPOSITORY}",
        "received": 500_000,
        "size": 1_000_000,
        "readers": 1,
    }
    await eventually(lambda: cache.app.status()["fills"] == [])
