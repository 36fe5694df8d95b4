"""A cache folder of 64 MiB: images larger than that are pulled all the same, and smaller ones after them are cached.

`grace` is 0 here. It keeps what was used in the last ten minutes, which on a disk that a single pull fills is all there
is: the small images would be passed through for so long.
"""

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .cache import Cache
from .conftest import Say, StartCache
from .containerd import containerd
from .costs import assert_cost_nothing
from .dockerd import dockerd
from .images import MIB, Image, Publisher
from .podman import containers_tools
from .upstream import Upstream

_DISK = 64 * MIB
_PART = 24 * MIB


@pytest.fixture(scope="module")
def huge(publisher: Publisher, say: Say) -> Image:
    """An image with one layer that is larger than the disk."""
    say("publishing a layer of 80 MiB")
    return publisher.heavy("acme/huge", [80 * MIB])


@pytest.fixture(scope="module")
def several(publisher: Publisher, say: Say) -> Image:
    """An image of four layers, of which the disk holds two."""
    say("publishing four layers of 24 MiB")
    return publisher.heavy("acme/several", [_PART] * 4)


@pytest.fixture(scope="module")
def small(publisher: Publisher) -> Image:
    """An image of a few small layers and one of 8 MiB."""
    return publisher.heavy("acme/small", [8 * MIB])


@pytest.fixture
def cache(scratch: Path, small_disk: Path, start_cache: StartCache) -> Cache:
    assert small_disk == scratch / "store"
    return start_cache(cache={"grace": "0s"})


@pytest.fixture
def small_disk(scratch: Path) -> Iterator[Path]:
    """A file system in memory, where the cache keeps its folder."""
    directory = scratch / "store"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", str(directory)], check=True)
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


@pytest.mark.clients("dockerd", "docker", "runc")
def test_dockerd_pulls_images_larger_than_the_disk_and_smaller_ones_are_cached(
    cache: Cache, upstream: Upstream, huge: Image, several: Image, small: Image, scratch: Path, say: Say
) -> None:
    with dockerd(cache.url, scratch / "dockerd.log") as docker:

        def pull(image: Image) -> None:
            assert "Retrying" not in docker.pull(image.name)
            assert image.digest in docker.digests(image.name)

        for image, size in ((huge, 80 * MIB), (several, _PART)):
            pull(image)
            assert docker.run(image.name, "sh", "-c", "wc -c </payload") == str(size)
            docker.forget(image.name)
        pull(small)
        docker.forget(small.name)
        _assert_cached(cache, upstream, small, pull, say)


@pytest.mark.clients("podman", "skopeo", "runc")
def test_podman_and_skopeo_pull_images_larger_than_the_disk_and_smaller_ones_are_cached(
    cache: Cache, upstream: Upstream, huge: Image, several: Image, small: Image, say: Say
) -> None:
    with containers_tools(cache.url) as tools:
        for image, size in ((huge, 80 * MIB), (several, _PART)):
            tools.podman_pull(image.name)
            assert tools.podman_run(image.name, "sh", "-c", "wc -c </payload") == str(size)
            tools.forget()
            tools.skopeo_copy(image.name)
        tools.podman_pull(small.name)
        tools.forget()
        _assert_cached(cache, upstream, small, lambda image: str(tools.podman_pull(image.name)), say)
        _assert_cached(cache, upstream, small, lambda image: str(tools.skopeo_copy(image.name)), say)


@pytest.mark.clients("containerd", "ctr")
def test_containerd_pulls_images_larger_than_the_disk_and_smaller_ones_are_cached(
    cache: Cache, upstream: Upstream, huge: Image, several: Image, small: Image, scratch: Path, say: Say
) -> None:
    for image in (huge, several, small):
        with containerd(cache.url, scratch / "containerd.log") as store:
            store.pull(image.name)
            assert store.digest(image.name) == image.digest
    with containerd(cache.url, scratch / "containerd.log") as store:
        _assert_cached(cache, upstream, small, lambda each: store.pull(each.name), say)


def _assert_cached(cache: Cache, upstream: Upstream, image: Image, pull: Callable[[Image], object], say: Say) -> None:
    """Pulling it costs nothing upstream; and the disk was never more than full."""
    before = cache.metrics()
    upstream.reset()
    begin = time.monotonic()
    pull(image)
    took = time.monotonic() - begin
    after = cache.metrics()

    assert_cost_nothing(upstream.ledger)
    assert after.get("pullthrough_misses_total") == before.get("pullthrough_misses_total")
    assert cache.metrics(reason="too-large")["pullthrough_not_stored_total"] >= 1
    assert cache.metrics(reason="room")["pullthrough_evicted_blobs_total"] >= 1
    assert after["pullthrough_cache_bytes"] <= _DISK
    assert not [line for line in cache.process.tail().splitlines() if "Traceback" in line]
    say(
        f"evicted {after['pullthrough_evicted_bytes_total'] / MIB:.0f} MiB, passed through "
        f"{after['pullthrough_not_stored_total']:.0f} blobs, on disk {after['pullthrough_cache_bytes'] / MIB:.1f} MiB; "
        f"the warm pull took {took:.1f} s"
    )
