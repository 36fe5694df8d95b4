"""The upstream's CDN loses connections; no client notices."""

from pathlib import Path

import pytest

from .cache import Cache
from .containerd import containerd
from .dockerd import dockerd
from .images import MIB, Image
from .podman import containers_tools
from .upstream import Upstream


@pytest.mark.clients("dockerd", "docker", "runc")
def test_dockerd_sees_nothing_of_a_layer_cut_twice(
    cache: Cache, upstream: Upstream, steps: Image, scratch: Path
) -> None:
    _cut(upstream, steps)
    with dockerd(cache.url, scratch / "dockerd.log") as docker:
        assert "Retrying" not in docker.pull(steps.name)
        assert docker.run(steps.name, "sh", "-c", "wc -c </payload") == str(64 * MIB)
    _assert_resumed(upstream, steps)


@pytest.mark.clients("containerd", "ctr")
def test_containerd_sees_nothing_of_a_layer_cut_twice(
    cache: Cache, upstream: Upstream, steps: Image, scratch: Path
) -> None:
    _cut(upstream, steps)
    with containerd(cache.url, scratch / "containerd.log") as store:
        store.pull(steps.name)
        assert store.digest(steps.name) == steps.digest
    _assert_resumed(upstream, steps)


@pytest.mark.clients("skopeo")
def test_skopeo_sees_nothing_of_a_layer_cut_twice(cache: Cache, upstream: Upstream, steps: Image) -> None:
    _cut(upstream, steps)
    with containers_tools(cache.url) as tools:
        tools.skopeo_copy(steps.name)
    _assert_resumed(upstream, steps)


def _cut(upstream: Upstream, image: Image) -> None:
    upstream.cut(image.blobs[-1].digest, after=20 * MIB, times=2)


def _assert_resumed(upstream: Upstream, image: Image) -> None:
    layer = image.blobs[-1]
    ledger = upstream.ledger
    assert ledger.blob_gets[layer.digest] == 3
    # What was still in a socket when it was cut is fetched again, and no more than that.
    assert layer.size <= ledger.blob_bytes[layer.digest] < layer.size + 16 * MIB
    assert ledger.counted_pulls == {image.digest: 1}
