"""containerd through `ctr`, with the cache in hosts.toml: every request says `?ns=docker.io`."""

from pathlib import Path

import pytest

from .cache import Cache
from .containerd import containerd
from .costs import assert_cost_nothing, assert_fetched_once
from .images import Image
from .pulls import Connection
from .upstream import Upstream

pytestmark = pytest.mark.clients("containerd", "ctr", "runc")


def test_an_empty_containerd_pulls_and_runs_at_no_cost_what_another_one_pulled_before(
    cache: Cache, upstream: Upstream, busybox: Image, scratch: Path
) -> None:
    with containerd(cache.url, scratch / "containerd.log") as store:
        store.pull(busybox.name)
        assert store.run(busybox.name, "/bin/busybox", "echo", "ok") == "ok"
        assert store.digest(busybox.name) == busybox.digest
    assert_fetched_once(upstream.ledger, busybox)

    upstream.reset()
    with containerd(cache.url, scratch / "containerd.log") as store:
        store.pull(busybox.name)
        assert store.run(busybox.name, "/bin/busybox", "echo", "ok") == "ok"
    assert_cost_nothing(upstream.ledger)


def test_containerd_fetches_all_platforms_and_the_attestation_each_manifest_once(
    cache: Cache, upstream: Upstream, busybox: Image, scratch: Path
) -> None:
    with containerd(cache.url, scratch / "containerd.log") as store:
        store.fetch(busybox.name, "--all-platforms")
        manifests = {manifest.digest for manifest in (*busybox.manifests, *busybox.others)}
        assert manifests <= store.content()
    assert upstream.ledger.counted_pulls == dict.fromkeys(manifests, 1)


def test_a_request_that_names_its_registry_is_told_so(cache: Cache, busybox: Image) -> None:
    with Connection(cache.port) as client:
        named = client.get(f"/v2/{busybox.repository}/manifests/{busybox.tag}?ns=docker.io", method="HEAD")
        unnamed = client.get(f"/v2/{busybox.repository}/manifests/{busybox.tag}", method="HEAD")
    assert (named.status, named.headers.get("oci-namespace")) == (200, "docker.io")
    assert (unnamed.status, unnamed.headers.get("oci-namespace")) == (200, None)
