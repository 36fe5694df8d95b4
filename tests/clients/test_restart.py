"""The cache is stopped, killed and started again, with and without its upstream."""

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from .cache import Cache
from .conftest import StartCache
from .costs import assert_cost_nothing
from .dockerd import dockerd
from .images import MIB, Image
from .processes import wait_until
from .pulls import Connection, pull
from .upstream import Upstream


@pytest.mark.clients("dockerd", "docker", "runc")
@pytest.mark.parametrize("tags", ["5m", "1ms"], ids=["fresh tags", "stale tags"])
def test_cached_images_still_pull_after_a_restart_with_the_upstream_gone(
    tags: str, start_cache: StartCache, upstream: Upstream, busybox: Image, scratch: Path
) -> None:
    cache = start_cache(freshness={"tags": tags})
    with dockerd(cache.url, scratch / "dockerd.log") as docker:
        docker.pull("busybox")

    with upstream.stopped():
        cache.restart()
        with dockerd(cache.url, scratch / "dockerd.log") as docker:
            docker.pull("busybox")
            assert docker.run("busybox", "echo", "ok") == "ok"


@pytest.mark.clients()
def test_after_a_kill_in_mid_fill_the_store_is_right_and_the_rest_is_fetched(
    cache: Cache, upstream: Upstream, steps: Image
) -> None:
    layer = steps.blobs[-1]
    with ThreadPoolExecutor() as clients, upstream.held(layer.digest, after=24 * MIB):
        cut_off = clients.submit(pull, cache.port, steps)
        wait_until(lambda: cache.partial_size(layer.digest) >= 16 * MIB, "the fill is half-way", process=cache.process)
        cache.kill()
        assert isinstance(cut_off.exception(), OSError), "the client was told a whole layer"

    assert _are_right(cache)
    on_disk = cache.partial_size(layer.digest)
    upstream.reset()
    cache.start()
    pull(cache.port, steps)

    ledger = upstream.ledger
    assert ledger.counted_pulls == {}, "the manifest was on disk"
    assert ledger.blob_bytes == {layer.digest: layer.size - on_disk}, "only what was missing is fetched"
    assert _are_right(cache)
    wait_until(lambda: cache.partial_size(layer.digest) == 0, "the blob has its name", process=cache.process)


@pytest.mark.clients()
def test_a_termination_lets_running_responses_finish(cache: Cache, upstream: Upstream, steps: Image) -> None:
    layer = steps.blobs[-1]
    started: list[bool] = []
    with ThreadPoolExecutor() as pool, upstream.held(layer.digest, after=24 * MIB):
        client = pool.submit(pull, cache.port, steps, watched=layer.digest, on_first_byte=lambda: started.append(True))
        wait_until(lambda: bool(started), "the client receives", process=cache.process)
        stopped: Future[int] = pool.submit(cache.terminate)
        wait_until(lambda: not _accepts(cache), "the cache takes no more connections")
        upstream.release(layer.digest)
        assert {blob.digest for blob in steps.blobs} == set(client.result())
        assert stopped.result() == 0
    assert _are_right(cache)

    upstream.reset()
    cache.start()
    pull(cache.port, steps)
    assert_cost_nothing(upstream.ledger)


def _are_right(cache: Cache) -> bool:
    """Is every blob in the store what its name says?"""
    blobs = cache.blobs()
    return bool(blobs) and all(hashlib.sha256(file.read_bytes()).hexdigest() == file.name for file in blobs)


def _accepts(cache: Cache) -> bool:
    try:
        Connection(cache.port).close()
    except ConnectionError:
        return False
    return True
