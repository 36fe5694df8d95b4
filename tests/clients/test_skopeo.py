"""skopeo, which keeps the very bytes it was given."""

import hashlib
from pathlib import Path

import pytest

from .cache import Cache
from .costs import assert_cost_nothing, assert_fetched_once
from .images import Image
from .podman import containers_tools
from .upstream import Upstream

pytestmark = pytest.mark.clients("skopeo")


def test_skopeo_copies_the_same_bytes_cold_and_warm_and_warm_at_no_cost(
    cache: Cache, upstream: Upstream, busybox: Image
) -> None:
    with containers_tools(cache.url) as tools:
        cold = _digests(tools.skopeo_copy(busybox.name))
        assert {blob.digest for blob in (busybox.manifests[-1], *busybox.blobs)} <= cold
        assert_fetched_once(upstream.ledger, busybox)

        upstream.reset()
        assert _digests(tools.skopeo_copy(busybox.name)) == cold
        assert_cost_nothing(upstream.ledger)


def test_skopeo_copies_a_whole_index_with_its_attestation(cache: Cache, upstream: Upstream, busybox: Image) -> None:
    with containers_tools(cache.url) as tools:
        copy = tools.skopeo_copy(busybox.name, "--all")
        manifests = {manifest.digest for manifest in (*busybox.manifests, *busybox.others)}
        assert manifests <= _digests(copy)
    assert upstream.ledger.counted_pulls == dict.fromkeys(manifests, 1)
    assert set(upstream.ledger.blob_gets.values()) == {1}


def _digests(directory: Path) -> set[str]:
    return {f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}" for file in directory.iterdir()}
