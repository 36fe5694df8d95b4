"""What a scrape sees."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable

import pytest
from prometheus_client import Histogram
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from proxy.metrics import CacheSample, LimitSample, Metrics
from tests.programs import require_program

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(metrics: Metrics) -> Samples:
    body, _ = metrics.exposition("text/plain")
    families = parse_text(body.decode())
    return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return scrape(metrics).get((name, frozenset(labels.items())))


def names(metrics: Metrics) -> set[str]:
    return {name for name, _ in scrape(metrics)}


def everything(metrics: Metrics, limits: Iterable[LimitSample] = ()) -> Metrics:
    """One event of every kind."""
    metrics.request("manifest", "GET", 200)
    metrics.request("blob", "HEAD", 404)
    metrics.hit("blob")
    metrics.miss("manifest")
    metrics.stale("manifest", "limited")
    metrics.collapsed("blob")
    metrics.aborted("blob")
    metrics.served("blob", 1000)
    metrics.first_byte("blob", "hit", 0.003)
    metrics.fetched("docker.io", "blob", 400)
    metrics.upstream_response("docker.io", "blob", 307)
    metrics.counted_pull("docker.io")
    metrics.revalidation("docker.io", "unchanged")
    metrics.fill_failed("digest")
    metrics.credentials_rejected("docker.io", True)
    metrics.watch_fills(lambda: 3)
    metrics.watch_limits(lambda: limits)
    metrics.watch_cache(lambda: CacheSample(blobs=7, bytes=5000, memory_bytes=600))
    return metrics


HUB = LimitSample("docker.io", "alice", 200, 150, 21600)


def test_every_event_is_counted_under_its_labels() -> None:
    metrics = everything(Metrics(version="1.2.3"))
    expected: list[tuple[str, dict[str, str], float]] = [
        ("pullthrough_requests_total", {"kind": "manifest", "method": "GET", "code": "200"}, 1),
        ("pullthrough_requests_total", {"kind": "blob", "method": "HEAD", "code": "404"}, 1),
        ("pullthrough_hits_total", {"kind": "blob"}, 1),
        ("pullthrough_misses_total", {"kind": "manifest"}, 1),
        ("pullthrough_stale_total", {"kind": "manifest", "reason": "limited"}, 1),
        ("pullthrough_collapsed_total", {"kind": "blob"}, 1),
        ("pullthrough_aborted_total", {"kind": "blob"}, 1),
        ("pullthrough_served_bytes_total", {"kind": "blob"}, 1000),
        ("pullthrough_time_to_first_byte_seconds_count", {"kind": "blob", "outcome": "hit"}, 1),
        ("pullthrough_time_to_first_byte_seconds_bucket", {"kind": "blob", "outcome": "hit", "le": "0.0025"}, 0),
        ("pullthrough_time_to_first_byte_seconds_bucket", {"kind": "blob", "outcome": "hit", "le": "0.005"}, 1),
        ("pullthrough_fetched_bytes_total", {"upstream": "docker.io", "kind": "blob"}, 400),
        ("pullthrough_upstream_responses_total", {"upstream": "docker.io", "kind": "blob", "code": "3xx"}, 1),
        ("pullthrough_counted_pulls_total", {"upstream": "docker.io"}, 1),
        ("pullthrough_revalidations_total", {"upstream": "docker.io", "result": "unchanged"}, 1),
        ("pullthrough_fills_failed_total", {"reason": "digest"}, 1),
        ("pullthrough_credentials_rejected", {"upstream": "docker.io"}, 1),
        ("pullthrough_fills_running", {}, 3),
        ("pullthrough_cache_blobs", {}, 7),
        ("pullthrough_cache_bytes", {}, 5000),
        ("pullthrough_cache_memory_bytes", {}, 600),
        ("pullthrough_build_info", {"version": "1.2.3"}, 1),
    ]
    samples = scrape(metrics)
    for name, labels, number in expected:
        assert samples.get((name, frozenset(labels.items()))) == number, name


def test_many_of_a_kind_are_counted_at_once() -> None:
    metrics = Metrics(version="1")
    metrics.request("blob", "GET", 200, 5)
    metrics.hit("blob", 5)
    assert value(metrics, "pullthrough_requests_total", kind="blob", method="GET", code="200") == 5
    assert value(metrics, "pullthrough_hits_total", kind="blob") == 5


@pytest.mark.parametrize("accept", ["*/*", "application/openmetrics-text; version=1.0.0"])
def test_durations_are_told_as_those_of_prometheus_are(accept: str) -> None:
    ours, theirs = Metrics(version="1"), Metrics(version="1")
    theirs.registry.unregister(theirs._first_byte)
    buckets = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
    labels = ("kind", "outcome")
    name = "pullthrough_time_to_first_byte_seconds"
    about = "From the request of a client to the headers of our response."
    usual = Histogram(name, about, labels, buckets=buckets, registry=theirs.registry)
    for kind, seconds, count in [
        ("blob", 0.0, 3),
        ("blob", 0.25, 1),
        ("blob", 31.5, 2),
        ("manifest", 0.75, 1),
    ]:  # Which add up exactly.
        ours.first_byte(kind, "hit", seconds, count)
        for _ in range(count):
            usual.labels(kind, "hit").observe(seconds)

    texts = [metrics.exposition(accept)[0].decode().splitlines() for metrics in (ours, theirs)]
    mine, right = [[line for line in text if name in line] for text in texts]
    assert sorted(mine) == sorted(right)
    assert len(mine) == 2 * 17 + 2


def test_an_upstream_that_could_not_be_asked_is_an_error() -> None:
    metrics = Metrics(version="1")
    metrics.upstream_response("docker.io", "token", None)
    assert value(metrics, "pullthrough_upstream_responses_total", upstream="docker.io", kind="token", code="error") == 1


def test_a_method_that_nobody_needs_makes_no_series_of_its_own() -> None:
    metrics = Metrics(version="1")
    for method in ("PATCH", "BREW", "GEt"):
        metrics.request("other", method, 405)
    assert value(metrics, "pullthrough_requests_total", kind="other", method="other", code="405") == 3


def test_hits_and_misses_start_at_zero_so_that_their_first_event_has_a_rate() -> None:
    metrics = Metrics(version="1")
    assert value(metrics, "pullthrough_hits_total", kind="blob") == 0
    assert value(metrics, "pullthrough_misses_total", kind="manifest") == 0


def test_known_limits_are_exported_with_the_account_they_belong_to() -> None:
    metrics = everything(Metrics(version="1"), [HUB])
    labels = {"upstream": "docker.io", "account": "alice"}
    assert value(metrics, "pullthrough_ratelimit_limit", **labels) == 200
    assert value(metrics, "pullthrough_ratelimit_remaining", **labels) == 150
    assert value(metrics, "pullthrough_ratelimit_window_seconds", **labels) == 21600


def test_what_upstream_did_not_say_has_no_sample() -> None:
    metrics = everything(Metrics(version="1"), [LimitSample("docker.io", "anonymous", None, 0, None)])
    seen = names(metrics)
    assert not seen & {"pullthrough_ratelimit_limit", "pullthrough_ratelimit_window_seconds"}
    assert value(metrics, "pullthrough_ratelimit_remaining", upstream="docker.io", account="anonymous") == 0


def test_aliases_are_off_unless_asked_for() -> None:
    metrics = everything(Metrics(version="1"), [HUB])
    assert not [name for name in names(metrics) if not name.startswith(("pullthrough_", "process_"))]


def test_aliases_hold_the_same_numbers() -> None:
    metrics = everything(Metrics(version="1", aliases=True), [HUB])
    assert value(metrics, "dockerhub_limit_max_requests_total", upstream="docker.io", account="alice") == 200
    assert value(metrics, "dockerhub_limit_remaining_requests_total", upstream="docker.io", account="alice") == 150
    assert value(metrics, "registry_proxy_requests_total", type="blob") == 1
    assert value(metrics, "registry_proxy_hits_total", type="blob") == 1
    assert value(metrics, "registry_proxy_misses_total", type="manifest") == 1
    assert value(metrics, "registry_proxy_pulled_bytes_total", type="blob") == 400
    assert value(metrics, "registry_proxy_pushed_bytes_total", type="blob") == 1000
    assert value(metrics, "registry_proxy_pushed_bytes_total", type="manifest") == 0


def test_an_alias_of_an_unknown_limit_has_no_sample() -> None:
    metrics = everything(Metrics(version="1", aliases=True), [LimitSample("docker.io", "alice", None, None, None)])
    assert not [name for name in names(metrics) if name.startswith("dockerhub_")]


def test_two_objects_share_nothing() -> None:
    first, second = Metrics(version="1"), Metrics(version="1")
    first.hit("blob")
    assert value(second, "pullthrough_hits_total", kind="blob") == 0


def test_the_format_follows_the_scraper() -> None:
    metrics = everything(Metrics(version="1", aliases=True), [HUB])
    body, content_type = metrics.exposition("application/openmetrics-text; version=1.0.0,text/plain;q=0.5")
    assert content_type.startswith("application/openmetrics-text")
    families = parse_openmetrics(body.decode())  # type: ignore[no-untyped-call]
    assert "pullthrough_hits" in {family.name for family in families}

    body, content_type = metrics.exposition("*/*")
    assert content_type.startswith("text/plain")
    assert b"_created" not in body


def test_the_snapshot_adds_up_what_the_status_document_shows() -> None:
    metrics = everything(Metrics(version="1"))
    metrics.stale("manifest", "unreachable")
    metrics.fetched("ghcr.io", "blob", 100)
    assert metrics.snapshot() == {
        "hits": {"manifest": 0, "blob": 1},
        "misses": {"manifest": 1, "blob": 0},
        "stale": {"manifest": 2},
        "collapsed": {"manifest": 0, "blob": 1},
        "served_bytes": {"manifest": 0, "blob": 1000},
        "fetched_bytes": {"blob": 500},
        "counted_pulls": {"docker.io": 1},
    }


@pytest.mark.clients
def test_promtool_finds_nothing_to_complain_about() -> None:
    require_program("promtool", "prometheus")
    body, _ = everything(Metrics(version="1"), [HUB]).exposition("text/plain")
    checked = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
