"""/api/quota, /api/top and the commands over them: who spends it, what was saved, what has happened."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.cli import main
from proxy.cli.status_text import status_text
from proxy.cli.top import top_text
from proxy.quota import traffic
from tests.cache_rig import CacheRig
from tests.cli_rig import Output, bare_environment
from tests.fake_hub import FakeHub, at
from tests.quota_rig import APP, api, events, governed, hub_of

__all__ = ["bare_environment"]

OFFICIAL = "library/alpine"
DOCKER = {"User-Agent": "docker/29.0 go/go1.25"}
PODMAN = {"User-Agent": "libpod/4.3.1"}
LAYER = b"layer" * 20_000


@pytest.fixture
async def busy(cache: CacheRig, hub: FakeHub) -> CacheRig:
    """A cache through which docker pulled one image twice, and podman another one once."""
    image = hub.add_image(OFFICIAL, "latest", [LAYER])
    for _ in range(2):
        await cache.get_manifest(OFFICIAL, "latest", **DOCKER)
        await cache.get_blob(OFFICIAL, image.layers[0], **DOCKER)
    hub.add_image(APP, "latest", [b"small"])
    await cache.get_manifest(APP, "latest", **PODMAN)
    await cache.app.quotas.books.flush(everything=True)
    return cache


async def top(cache: CacheRig, query: str) -> list[tuple[Any, ...]]:
    document = await api(cache, f"/api/top?{query}")
    return [(row["name"], row["pulls"], row["answers"]) for row in document["rows"]]


async def test_images_and_clients_by_pulls_and_by_bytes(busy: CacheRig) -> None:
    assert await top(busy, "by=image&order=bytes") == [
        ("docker.io/library/alpine", 1, 2),
        ("docker.io/acme/app", 1, 1),
    ]
    assert await top(busy, "by=agent&order=bytes") == [("docker", 1, 2), ("podman", 1, 1)]
    assert await top(busy, "by=client") == [("127.0.0.1", 2, 3)]
    assert await top(busy, "by=image&limit=1") == [("docker.io/library/alpine", 1, 2)]
    total = (await api(busy, "/api/top"))["total"]
    assert (total["pulls"], total["answers"]) == (2, 3)
    assert total["bytes"] == await busy.metric("pullthrough_served_bytes_total")


async def test_only_the_period_counts(busy: CacheRig, hub: FakeHub) -> None:
    busy.clock.advance(2 * 86400)
    hub.add_image(APP, "new", [b"new"])
    await busy.get_manifest(APP, "new")

    assert await top(busy, "period=1h") == [("docker.io/acme/app", 1, 1)]
    assert len(await top(busy, "period=7d")) == 2


@pytest.mark.parametrize("query", ["by=tag", "order=age", "period=0", "period=99d", "period=x", "limit=0", "limit=no"])
async def test_a_question_that_makes_no_sense_is_told_so(cache: CacheRig, query: str) -> None:
    document = await api(cache, f"/api/top?{query}")

    assert document["status"] == 400 and document["error"]


async def test_who_asks_is_kept_through_a_restart(busy: CacheRig) -> None:
    await busy.restart()

    assert await top(busy, "by=agent&order=bytes") == [("docker", 1, 2), ("podman", 1, 1)]


async def test_what_was_saved_is_what_clients_got_and_upstream_was_not_asked_for(busy: CacheRig) -> None:
    saved = (await hub_of(busy))["saved"]

    assert saved["since_start"]["pulls"] == 1
    served, fetched = [await busy.metric(f"pullthrough_{name}_bytes_total") or 0.0 for name in ("served", "fetched")]
    assert saved["since_start"]["bytes"] == served - fetched > len(LAYER)
    assert saved["ever"] == saved["since_start"]
    assert await busy.metric("pullthrough_saved_pulls_total") == 1
    assert await busy.metric("pullthrough_saved_bytes_total") == served - fetched


async def test_what_was_saved_ever_outlives_the_process(busy: CacheRig) -> None:
    before = (await hub_of(busy))["saved"]["ever"]
    await busy.restart()
    await busy.get_manifest(OFFICIAL, "latest")

    after = (await hub_of(busy))["saved"]
    assert after["since_start"]["pulls"] == 1
    assert after["ever"]["pulls"] == before["pulls"] + 1
    assert (await api(busy, "/api/quota"))["accounted_since"] is not None


async def test_an_outage_is_counted_once_however_many_answers_bridge_it(busy: CacheRig, hub: FakeHub) -> None:
    await hub.gone()
    for _ in range(3):
        busy.clock.advance(200)
        await busy.get_manifest(OFFICIAL, "latest")
    busy.clock.advance(traffic.OUTAGE_SECONDS + 1)
    await busy.get_manifest(OFFICIAL, "latest")

    saved = (await hub_of(busy))["saved"]["since_start"]
    assert (saved["stale_answers"], saved["outages"]) == (3, 2)
    assert await busy.metric("pullthrough_outages_bridged_total") == 2
    assert [kind for kind, _ in await events(busy)] == ["stale", "stale"]


EVENTS: dict[str, tuple[Callable[[FakeHub], object], str]] = {
    "limited": (lambda hub: hub.set_remaining(0), f"/v2/{APP}/manifests/cold"),
    "abuse": (lambda hub: hub.abuse_limit(), f"/v2/{APP}/manifests/cold"),
    "vanished": (lambda hub: hub.untag(OFFICIAL, "latest"), f"/v2/{OFFICIAL}/manifests/latest"),
}


@pytest.mark.parametrize("kind", EVENTS)
async def test_what_has_happened_is_told_and_outlives_the_process(busy: CacheRig, hub: FakeHub, kind: str) -> None:
    happen, path = EVENTS[kind]
    hub.add_image(APP, "cold", [b"cold"])
    busy.clock.advance(400)
    happen(hub)
    await busy.send("GET", path)

    told = await events(busy)
    await busy.restart()

    assert kind in [each for each, _ in told]
    assert set(told) <= set(await events(busy))


async def test_images_beyond_a_bound_are_summed_up(
    cache: CacheRig, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "MAX_ENTRIES", 2)
    for name in ("acme/one", "acme/two", "acme/three", "acme/four"):
        hub.add_image(name, "latest")
        await cache.get_manifest(name, "latest")

    names = {name for name, _, answers in await top(cache, "by=image") if answers}
    assert names == {"docker.io/acme/one", "docker.io/acme/two", "docker.io/(others)"}
    assert (await api(cache, "/api/top"))["total"]["answers"] == 4


async def test_the_quota_document_has_all_that_is_promised(busy: CacheRig) -> None:
    document = await api(busy, "/api/quota")

    assert set(document) == {"now", "started_at", "accounted_since", "governor", "upstreams", "events"}
    (upstream,) = document["upstreams"]
    for part, keys in {
        "forecast": "state text rate_per_hour measured_over_seconds exhausted_at low high returns_at returns_latest",
        "gates": "pulls_closed_seconds requests_closed_seconds",
        "saved": "since_start ever",
        "spenders": "images clients",
        "decisions": "pass saved stretched waited refused",
    }.items():
        assert set(upstream[part]) == set(keys.split())
    assert upstream["spenders"]["clients"] == [{"name": "127.0.0.1", "pulls": 2}]
    assert (upstream["account"], upstream["limit"], upstream["remaining"]) == ("alice", 100, 98)
    assert upstream["history"][-1][1] == 98
    assert document["governor"]["careful"] == 0.3


async def test_a_reload_changes_the_rules_and_keeps_what_is_known(tmp_path: Path, hub: FakeHub) -> None:
    hub.add_image(APP, "latest")
    async with governed(hub, tmp_path) as cache:
        await cache.get_manifest(APP, "latest")
        cache.options = {"quota": cache.config().quota.__class__(probe=0.0, careful=cache.config().quota.tight)}

        await cache.app.reload(cache.config())

        document = await api(cache, "/api/quota")
        assert document["governor"]["careful"] == 0.1
        assert document["upstreams"][0]["remaining"] == 99


@pytest.fixture
async def served(tmp_path: Path, busy: CacheRig, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[CacheRig]:
    """The commands ask this cache."""
    monkeypatch.setenv("PULLTHROUGH_ADMIN__LISTEN", busy.app.admin_url.partition("://")[2])
    yield busy


async def command(*arguments: str) -> int:
    """Run as another process would, so that the cache can answer."""
    return await asyncio.to_thread(main, list(arguments))


async def test_top_is_a_table_for_people_and_json_for_scripts(served: CacheRig, capsys: Output) -> None:
    assert await command("top", "--by", "agent", "--order", "bytes") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["PULLS", "ANSWERS", "SENT", "KIND", "OF", "CLIENT"]
    assert [line.split()[-1] for line in lines[1:3]] == ["docker", "podman"]
    assert lines[3].split()[:2] == ["2", "3"]

    assert await command("top", "--json") == 0
    assert json.loads(capsys.readouterr().out)["by"] == "image"


async def test_top_says_what_is_wrong_with_a_question(served: CacheRig, capsys: Output) -> None:
    assert await command("top", "--period", "forever") == 2
    assert "period is a duration" in capsys.readouterr().err


async def test_explain_says_it_in_sentences(served: CacheRig, capsys: Output) -> None:
    assert await command("explain", "alpine") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "docker.io/library/alpine:latest may be pulled through this cache"
    assert "no counted pull is needed" in lines

    assert await command("explain", "quay.io/some/app") == 1
    assert "quay.io is no upstream here" in capsys.readouterr().err


async def test_status_tells_how_long_the_quota_lasts_and_what_was_saved(served: CacheRig) -> None:
    shown = status_text(await served.status(), bars=False)

    assert "  quota: too little is known of the rate" in shown
    assert "  saved since the start: 1 pull, " in shown


@pytest.mark.parametrize(
    ("budget", "lines"),
    [
        ({"kind": "unknown", "level": "plenty"}, []),
        ({"kind": "limited", "level": "tight", "waiting": 2}, ["  quota (TIGHT): soon; 2 pulls waiting for it"]),
        (
            {"kind": "limited", "bypass_suspected": True, "unexplained_pulls": 12},
            ["  quota: soon", "  12 pulls NOT MADE BY THIS CACHE: somebody else uses this account or address"],
        ),
        (
            {"kind": "unlimited", "saved": {"since_start": {}, "ever": (5, 2048, 7, 1)}},
            ["  quota: soon", "  saved since ever: 5 pulls, 2KiB, 1 outage bridged with 7 stale answers"],
        ),
    ],
)
async def test_status_says_what_matters_of_a_budget(cache: CacheRig, budget: dict[str, Any], lines: list[str]) -> None:
    document = await cache.status()
    before = status_text(document, bars=False).splitlines()
    keys = ("pulls", "bytes", "stale_answers", "outages")
    saved = {
        when: dict(zip(keys, values or (0, 0, 0, 0), strict=True)) for when, values in budget.pop("saved", {}).items()
    }
    nothing = dict.fromkeys(("since_start", "ever"), dict.fromkeys(keys, 0))
    usual = {"level": "plenty", "forecast": "soon", "bypass_suspected": False, "unexplained_pulls": 0, "waiting": 0}
    document["upstreams"][0]["budget"] = usual | {"saved": nothing | saved} | budget

    after = status_text(document, bars=False).splitlines()

    assert [line for line in after if line not in before] == lines


def test_a_period_without_pulls_is_said_to_be_one() -> None:
    document = {"rows": [], "period_seconds": 5400.0}

    assert top_text(document) == "nothing was pulled through this cache in the last 1h30m"


async def test_faults_of_a_probe_are_no_faults_of_ours(tmp_path: Path, hub: FakeHub) -> None:
    hub.fail(at("manifest"), 500)
    async with governed(hub, tmp_path, probe=60.0) as cache:
        cache.clock.advance(100)

        await cache.app.prober.look()

        assert (await hub_of(cache))["kind"] == "unknown"
