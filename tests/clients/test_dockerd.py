"""dockerd with the cache as its registry-mirror."""

from pathlib import Path

import pytest

from .cache import Cache
from .costs import assert_cost_nothing, assert_fetched_once
from .dockerd import dockerd
from .images import Image
from .upstream import Upstream

pytestmark = pytest.mark.clients("dockerd", "docker", "runc")


def test_an_empty_dockerd_pulls_and_runs_at_no_cost_what_another_one_pulled_before(
    cache: Cache, upstream: Upstream, busybox: Image, scratch: Path
) -> None:
    # The name people type: no registry, no library/, no tag.
    with dockerd(cache.url, scratch / "dockerd.log") as docker:
        docker.pull("busybox")
        assert docker.run("busybox", "echo", "ok") == "ok"
        assert docker.digests("busybox") == [busybox.digest]
    assert_fetched_once(upstream.ledger, busybox)
    assert upstream.ledger.tokens.keys() <= {"", upstream.username}

    upstream.reset()
    with dockerd(cache.url, scratch / "dockerd.log") as docker:
        docker.pull("busybox")
        assert docker.run("busybox", "echo", "ok") == "ok"
        assert docker.digests("busybox") == [busybox.digest]
    assert_cost_nothing(upstream.ledger)


def test_dockerd_pulls_by_digest(cache: Cache, upstream: Upstream, busybox: Image, scratch: Path) -> None:
    with dockerd(cache.url, scratch / "dockerd.log") as docker:
        docker.pull(f"busybox@{busybox.digest}")
        assert docker.run(f"busybox@{busybox.digest}", "echo", "ok") == "ok"
    assert_fetched_once(upstream.ledger, busybox)
