"""Clients that pull through TLS, with a certificate of an authority that only certs.d makes them trust."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ..authority import Authority
from .cache import Cache
from .conftest import StartCache
from .costs import assert_cost_nothing, assert_fetched_once
from .dockerd import dockerd
from .images import Image
from .podman import containers_tools
from .processes import CommandFailed
from .upstream import Upstream

_REGISTRIES = """\
[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = "{mirror}"
"""


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def cache(start_cache: StartCache, scratch: Path, authority: Authority) -> Cache:
    """One that speaks TLS."""
    certificate, key = authority.issue(scratch)
    return start_cache(server={"tls_certificate": str(certificate), "tls_key": str(key)})


@contextmanager
def trusting(certs: Path, cache: Cache, authority: Authority) -> Iterator[None]:
    """Put the authority where the clients of this machine look for it, and take it away again."""
    folder = certs / cache.url.removeprefix("https://")
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True)
    try:
        (folder / "ca.crt").write_bytes(authority.write(folder).read_bytes())
        (folder / "ca.pem").unlink()
        yield
    finally:
        shutil.rmtree(folder)
        for each in made[1:]:
            each.rmdir()


def refused(cache: Cache) -> float:
    """How many handshakes have failed."""
    return cache.metrics(reason="tls_handshake").get("pullthrough_connections_refused_total", 0)


@pytest.mark.clients("podman", "runc")
def test_podman_pulls_by_an_authority_in_certs_d_and_not_without(
    cache: Cache, upstream: Upstream, busybox: Image, authority: Authority
) -> None:
    with containers_tools(cache.url) as tools:
        tools.use_registries(_REGISTRIES.format(mirror=cache.url.removeprefix("https://")))
        with pytest.raises(CommandFailed):
            tools.podman_pull(busybox.name)
        assert refused(cache) > 0
        assert upstream.ledger.counted_pulls == {}

        with trusting(Path("/etc/containers/certs.d"), cache, authority):
            tools.podman_pull(busybox.name)
            assert tools.podman_digest(busybox.name) == busybox.digest
            assert tools.podman_run(busybox.name, "echo", "ok") == "ok"
    assert_fetched_once(upstream.ledger, busybox)


@pytest.mark.clients("dockerd", "docker", "runc")
def test_dockerd_pulls_by_an_https_mirror(
    cache: Cache, upstream: Upstream, busybox: Image, authority: Authority, scratch: Path
) -> None:
    """It verifies no certificate of a registry on loopback, so certs.d is only seen to do no harm here."""
    with (
        trusting(Path("/etc/docker/certs.d"), cache, authority),
        dockerd(cache.url, scratch / "dockerd.log") as docker,
    ):
        docker.pull("busybox")
        assert docker.digests("busybox") == [busybox.digest]
        assert_fetched_once(upstream.ledger, busybox)
        docker.forget("busybox")
        upstream.reset()
        docker.pull("busybox")
        assert docker.run("busybox", "echo", "ok") == "ok"
    assert_cost_nothing(upstream.ledger)
    assert refused(cache) == 0
