"""Docker Hub's pull quota is spent."""

from pathlib import Path

import pytest

from .cache import Cache
from .conftest import StartCache
from .dockerd import dockerd
from .images import Image
from .processes import CommandFailed
from .pulls import Connection, pull
from .upstream import Upstream


@pytest.mark.clients("dockerd", "docker", "runc")
def test_cached_images_still_pull_when_the_quota_is_spent(
    start_cache: StartCache, upstream: Upstream, busybox: Image, sixty: Image, scratch: Path
) -> None:
    cache = start_cache(freshness={"tags": "1ms"})
    with dockerd(cache.url, scratch / "dockerd.log") as docker:
        docker.pull("busybox")

    upstream.set_remaining(0)
    with dockerd(cache.url, scratch / "dockerd.log") as docker:
        docker.pull("busybox")
        assert docker.run("busybox", "echo", "ok") == "ok"
        with pytest.raises(CommandFailed):
            docker.pull(sixty.name)


@pytest.mark.clients()
def test_the_upstream_is_not_asked_again_for_what_the_quota_forbids(
    cache: Cache, upstream: Upstream, busybox: Image, sixty: Image
) -> None:
    upstream.set_remaining(0)
    with Connection(cache.port) as client:
        first = client.get(f"/v2/{sixty.repository}/manifests/{sixty.tag}")
        again = client.get(f"/v2/{busybox.repository}/manifests/{busybox.tag}")
    for refused in (first, again):
        assert refused.status == 429
        assert refused.json()["errors"][0]["code"] == "TOOMANYREQUESTS"
        assert int(refused.headers["retry-after"]) > 0
    assert upstream.ledger.refused_pulls <= 1
    assert cache.metrics()["pullthrough_ratelimit_remaining"] == 0


@pytest.mark.clients()
def test_the_metrics_tell_what_the_upstream_counts(cache: Cache, upstream: Upstream, sixty: Image) -> None:
    pull(cache.port, sixty)
    metrics = cache.metrics()
    assert metrics["pullthrough_counted_pulls_total"] == upstream.ledger.counted_pulls.total()
    assert metrics["pullthrough_fetched_bytes_total"] >= upstream.ledger.blob_bytes.total()
    assert metrics["pullthrough_ratelimit_limit"] == 10_000
    assert metrics["pullthrough_ratelimit_remaining"] == 9_999
    assert metrics["pullthrough_ratelimit_window_seconds"] == 21_600
