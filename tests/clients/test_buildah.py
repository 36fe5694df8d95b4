"""buildah, whose FROM is a pull through the cache."""

import pytest

from .cache import Cache
from .costs import assert_cost_nothing, assert_fetched_once
from .images import Image
from .podman import containers_tools
from .upstream import Upstream

pytestmark = pytest.mark.clients("buildah")


def test_an_empty_buildah_builds_at_no_cost_from_what_another_one_pulled_before(
    cache: Cache, upstream: Upstream, busybox: Image
) -> None:
    with containers_tools(cache.url) as tools:
        container = tools.buildah("from", busybox.name)
        assert tools.buildah("run", "--isolation", "chroot", container, "--", "/bin/busybox", "echo", "ok") == "ok"
    assert_fetched_once(upstream.ledger, busybox)

    upstream.reset()
    with containers_tools(cache.url) as tools:
        container = tools.buildah("from", busybox.name)
        assert tools.buildah("run", "--isolation", "chroot", container, "--", "/bin/busybox", "echo", "ok") == "ok"
    assert_cost_nothing(upstream.ledger)
