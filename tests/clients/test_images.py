"""Images of every shape: several platforms, very many layers, one very large layer."""

from pathlib import Path

import pytest

from .cache import Cache
from .conftest import Say
from .costs import assert_cost_nothing, assert_fetched_once
from .dockerd import dockerd
from .images import HOST_ARCHITECTURE, MIB, Image
from .podman import containers_tools
from .pulls import pull
from .upstream import Upstream


@pytest.mark.clients("skopeo")
def test_every_platform_of_an_index_costs_one_counted_pull_more(
    cache: Cache, upstream: Upstream, busybox: Image
) -> None:
    foreign = {"amd64": "arm64", "arm64": "amd64"}[HOST_ARCHITECTURE]
    with containers_tools(cache.url) as tools:
        tools.skopeo_copy(busybox.name)
        assert upstream.ledger.counted_pulls.total() == 2  # the index and the child for this machine
        tools.skopeo_copy(busybox.name, "--override-arch", foreign)
        assert upstream.ledger.counted_pulls.total() == 3


@pytest.mark.clients("dockerd", "docker", "runc")
def test_an_image_of_sixty_layers_runs(cache: Cache, upstream: Upstream, sixty: Image, scratch: Path) -> None:
    with dockerd(cache.url, scratch / "dockerd.log") as docker:
        docker.pull(sixty.name)
        assert len(docker.run(sixty.name, "ls", "/layers").splitlines()) == 59  # and busybox below them
    assert_fetched_once(upstream.ledger, sixty)


@pytest.mark.clients("dockerd", "docker", "runc")
def test_a_layer_of_one_gibibyte_runs_and_is_warm_afterwards(
    cache: Cache, upstream: Upstream, gigabyte: Image, scratch: Path, say: Say
) -> None:
    say("dockerd pulls 1 GiB")
    with dockerd(cache.url, scratch / "dockerd.log") as docker:
        docker.pull(gigabyte.name)  # dockerd verifies every digest
        assert docker.run(gigabyte.name, "sh", "-c", "wc -c </payload") == str(1024 * MIB)
    assert_fetched_once(upstream.ledger, gigabyte)

    upstream.reset()
    pull(cache.port, gigabyte)
    assert_cost_nothing(upstream.ledger)
