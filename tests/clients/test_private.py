"""A private repository, which the account may pull and a stranger may not."""

from pathlib import Path

import pytest

from .cache import Cache
from .conftest import StartCache
from .costs import assert_cost_nothing, assert_fetched_once
from .dockerd import dockerd
from .images import Image
from .processes import CommandFailed
from .pulls import Connection, pull
from .upstream import Upstream


@pytest.mark.clients()
def test_a_private_repository_is_refused_with_the_setting_that_would_allow_it(
    cache: Cache, upstream: Upstream, secret: Image
) -> None:
    with Connection(cache.port) as client:
        refused = [
            client.get(f"/v2/{secret.repository}/manifests/{secret.tag}"),
            client.get(f"/v2/{secret.repository}/manifests/{secret.digest}"),
            client.get(f"/v2/{secret.repository}/blobs/{secret.blobs[-1].digest}"),
        ]
    for response in refused:
        assert response.status == 403
        assert "www-authenticate" not in response.headers
        error = response.json()["errors"][0]
        assert error["code"] == "DENIED"
        assert "private" in error["message"]
    assert_cost_nothing(upstream.ledger)


@pytest.mark.clients("dockerd", "docker")
def test_dockerd_cannot_pull_a_private_image(cache: Cache, secret: Image, scratch: Path) -> None:
    with dockerd(cache.url, scratch / "dockerd.log") as docker, pytest.raises(CommandFailed):
        docker.pull(secret.name)


@pytest.mark.clients("dockerd", "docker", "runc")
def test_a_private_image_is_served_when_the_operator_says_so(
    start_cache: StartCache, upstream: Upstream, secret: Image, scratch: Path
) -> None:
    cache = start_cache(access={"private": "serve"})
    with dockerd(cache.url, scratch / "dockerd.log") as docker:
        docker.pull(secret.name)
        assert docker.run(secret.name, "echo", "ok") == "ok"
    assert_fetched_once(upstream.ledger, secret)


@pytest.mark.clients()
def test_what_is_cached_of_a_private_repository_is_refused_once_the_operator_forbids_it(
    start_cache: StartCache, upstream: Upstream, secret: Image, busybox: Image
) -> None:
    cache = start_cache(access={"private": "serve"})
    pull(cache.port, secret)
    cache.terminate()

    cache = start_cache(access={"private": "deny"})
    only_secret = secret.blobs[-1].digest
    with Connection(cache.port) as client:
        manifest = client.get(f"/v2/{secret.repository}/manifests/{secret.digest}")
        blob = client.get(f"/v2/{secret.repository}/blobs/{only_secret}")
        # Nor under the name of a repository everybody may pull, which does not hold it.
        borrowed = client.get(f"/v2/{busybox.repository}/blobs/{only_secret}")
    assert (manifest.status, blob.status, borrowed.status) == (403, 403, 404)
