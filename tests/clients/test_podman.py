"""podman with the cache as a mirror of docker.io in registries.conf."""

import pytest

from .cache import Cache
from .costs import assert_cost_nothing, assert_fetched_once
from .images import Image
from .podman import containers_tools
from .upstream import Upstream

pytestmark = pytest.mark.clients("podman", "runc")


def test_an_empty_podman_pulls_and_runs_at_no_cost_what_another_one_pulled_before(
    cache: Cache, upstream: Upstream, busybox: Image
) -> None:
    with containers_tools(cache.url) as tools:
        tools.podman_pull(busybox.name)
        assert tools.podman_run(busybox.name, "echo", "ok") == "ok"
        assert tools.podman_digest(busybox.name) == busybox.digest
    assert_fetched_once(upstream.ledger, busybox)

    upstream.reset()
    with containers_tools(cache.url) as tools:
        tools.podman_pull(busybox.name)
        assert tools.podman_run(busybox.name, "echo", "ok") == "ok"
    assert_cost_nothing(upstream.ledger)
