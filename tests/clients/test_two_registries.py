"""Two real registries behind one listener, with the same repository names and different content: never mixed up."""

import hashlib
import tempfile
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from .cache import Cache
from .containerd import containerd, hosts_toml
from .dockerd import dockerd
from .images import Image, Publisher
from .podman import containers_tools, registries_conf
from .pulls import Connection
from .upstream import Upstream

pytestmark = pytest.mark.clients()

APP, SHARED, HALF, SECRET = "acme/app", "acme/shared", "acme/half", "alice/secret"

# By which name a client asks: the path before the repository, and the query.
HUB_FORMS = {
    "root": ("/v2/", ""),
    "ns": ("/v2/", "?ns=docker.io"),
    "path": ("/v2/docker.io/", ""),
    "path and ns": ("/v2/docker.io/", "?ns=docker.io"),
    "path before v2": ("/docker.io/v2/", ""),
    "alias": ("/v2/", "?ns=registry-1.docker.io"),
}
GHCR_FORMS = {
    "ns": ("/v2/", "?ns=ghcr.io"),
    "path": ("/v2/ghcr.io/", ""),
    "path and ns": ("/v2/ghcr.io/", "?ns=ghcr.io"),
    "path before v2": ("/ghcr.io/v2/", ""),
    "path before v2 and ns": ("/ghcr.io/v2/", "?ns=ghcr.io"),
}


@dataclass(frozen=True)
class Two:
    """The registries and, of each, the images that the other one has under the same names."""

    hub: Upstream
    ghcr: Upstream
    hub_app: Image
    ghcr_app: Image
    shared: Image  # the same in both
    secret: Image  # for the account of ghcr.io only; everybody may pull docker.io's of that name

    def reset(self) -> None:
        for registry in (self.hub, self.ghcr):
            registry.reset()


@pytest.fixture(scope="module")
def registries() -> Iterator[Two]:
    """Two registries with accounts of their own."""
    with ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pt-hub-"))) for _ in range(2)]
        hub = stack.enter_context(Upstream(folders[0], public=[APP, SHARED, HALF, SECRET], private=[]))
        ghcr = stack.enter_context(
            Upstream(folders[1], public=[APP, SHARED], private=[SECRET], username="bob", pat="ghp_of-another-registry")
        )
        on_hub, on_ghcr = Publisher(hub.origin), Publisher(ghcr.origin)
        for publisher in (on_hub, on_ghcr):
            shared = publisher.busybox(SHARED)
        on_hub.busybox(HALF, mark="half")
        on_hub.busybox(SECRET, mark="no secret")
        yield Two(
            hub=hub,
            ghcr=ghcr,
            hub_app=on_hub.busybox(APP, mark="this is docker.io"),
            ghcr_app=on_ghcr.busybox(APP, mark="this is ghcr.io"),
            shared=shared,
            secret=on_ghcr.busybox(SECRET, mark="the secret"),
        )


@pytest.fixture
def two(registries: Two) -> Iterator[Two]:
    """The registries with nothing counted; neither may ever see what belongs to the other."""
    registries.reset()
    yield registries
    seen = (registries.hub.ledger.tokens, registries.ghcr.ledger.tokens)
    registries.reset()
    assert (registries.hub.violations, registries.ghcr.violations) == ([], [])
    assert [tokens.keys() - {""} <= {name} for tokens, name in zip(seen, ("alice", "bob"), strict=True)] == [True] * 2


@pytest.fixture
def cache(two: Two, scratch: Path) -> Iterator[Cache]:
    """One cache of both; the tags are always asked for."""
    with Cache(scratch, two.hub, {"ghcr.io": two.ghcr}, freshness={"tags": "1ms"}) as cache:
        yield cache
    log = (scratch / "cache.log").read_text()
    assert not [secret for secret in (two.hub.pat, two.ghcr.pat, "verify=", "eyJ") if secret in log]


@pytest.mark.parametrize("ghcr_first", [False, True], ids=["docker.io first", "ghcr.io first"])
def test_each_registry_answers_under_every_form_of_its_name(cache: Cache, two: Two, ghcr_first: bool) -> None:
    asked = [(form, two.hub_app) for form in HUB_FORMS.values()] + [
        (form, two.ghcr_app) for form in GHCR_FORMS.values()
    ]
    for (base, query), image in reversed(asked) if ghcr_first else asked:
        assert _pulled(cache, base, query, image) == {digest: digest for digest in _digests(image)}, (base, query)
    for registry, image in ((two.hub, two.hub_app), (two.ghcr, two.ghcr_app)):
        ledger = registry.ledger
        assert ledger.counted_pulls == {manifest.digest: 1 for manifest in image.manifests}
        assert ledger.blob_gets == {blob.digest: 1 for blob in image.blobs}


def test_what_only_one_registry_has_is_not_found_under_the_name_of_the_other(cache: Cache, two: Two) -> None:
    _pulled(cache, "/v2/", "", two.hub_app)
    _pulled(cache, "/v2/ghcr.io/", "", two.ghcr_app)
    with Connection(cache.port) as client:
        for image, others in ((two.hub_app, GHCR_FORMS), (two.ghcr_app, HUB_FORMS)):
            for base, query in others.values():
                paths = [f"{base}{APP}/blobs/{blob.digest}{query}" for blob in image.blobs]
                paths += [f"{base}{APP}/manifests/{manifest.digest}{query}" for manifest in image.manifests]
                for path in paths:
                    answers = client.get(path), client.get(path, method="HEAD")
                    assert [answer.status for answer in answers] == [404, 404], path
                    assert answers[0].json()["errors"][0]["code"] in ("BLOB_UNKNOWN", "MANIFEST_UNKNOWN")
    assert (two.hub.ledger.blob_bytes.keys() & two.ghcr.ledger.blob_bytes.keys()) == set()


def test_what_both_registries_have_is_fetched_once_and_proven_by_each(cache: Cache, two: Two) -> None:
    expected = {digest: digest for digest in _digests(two.shared)}
    assert _pulled(cache, "/v2/", "", two.shared) == expected
    assert _pulled(cache, "/v2/ghcr.io/", "", two.shared) == expected
    assert two.hub.ledger.blob_bytes == {blob.digest: blob.size for blob in two.shared.blobs}
    assert (two.ghcr.ledger.blob_bytes, two.ghcr.ledger.counted_pulls) == ({}, {})
    assert two.ghcr.ledger.manifest_heads > 0


def test_a_repository_that_is_private_in_one_registry_is_served_of_the_other_only(cache: Cache, two: Two) -> None:
    with Connection(cache.port) as client:
        public = client.get(f"/v2/{SECRET}/manifests/latest")
        for base, query in GHCR_FORMS.values():
            for reference in ("latest", two.secret.digest):
                assert client.get(f"{base}{SECRET}/manifests/{reference}{query}").status == 403
            assert client.get(f"{base}{SECRET}/blobs/{two.secret.blobs[-1].digest}{query}").status == 403
    assert (public.status, public.headers["docker-content-digest"] == two.secret.digest) == (200, False)
    assert two.ghcr.ledger.blob_bytes == {}


def test_each_registry_is_asked_with_its_own_account(two: Two, scratch: Path) -> None:
    with Cache(scratch, two.hub, {"ghcr.io": two.ghcr}, access={"private": "serve"}) as cache:
        assert _pulled(cache, "/v2/ghcr.io/", "", two.secret).keys() == set(_digests(two.secret))
        with Connection(cache.port) as client:
            of_hub = client.get(f"/v2/{SECRET}/manifests/{two.secret.digest}")
            blob_of_hub = client.get(f"/v2/{SECRET}/blobs/{two.secret.blobs[-1].digest}")
    assert (of_hub.status, blob_of_hub.status) == (404, 404)
    assert [set(registry.ledger.tokens) for registry in (two.hub, two.ghcr)] == [{"alice"}, {"bob"}]


def test_a_repository_that_only_one_registry_has_is_not_of_the_other(cache: Cache, two: Two) -> None:
    with Connection(cache.port) as client:
        assert client.get(f"/v2/{HALF}/manifests/latest").status == 200
        refused = client.get(f"/v2/ghcr.io/{HALF}/manifests/latest")
        assert client.get(f"/v2/{HALF}/tags/list").json() == {"name": HALF, "tags": ["latest"]}
        assert client.get(f"/v2/{HALF}/tags/list?ns=ghcr.io").status == refused.status
    assert refused.status in (403, 404)


def test_a_path_and_a_query_that_disagree_get_neither(cache: Cache, two: Two) -> None:
    with Connection(cache.port) as client:
        for path in (f"/v2/ghcr.io/{APP}/manifests/latest?ns=docker.io", f"/docker.io/v2/{APP}/tags/list?ns=ghcr.io"):
            assert client.get(path).status == 404
        unknown = client.get(f"/v2/{APP}/manifests/latest?ns=quay.io")
    assert unknown.status == 404
    assert "docker.io, ghcr.io" in unknown.json()["errors"][0]["message"]
    assert (two.hub.ledger.tokens, two.ghcr.ledger.tokens) == ({}, {})


def test_a_spent_quota_of_one_registry_leaves_the_other_open(cache: Cache, two: Two) -> None:
    two.hub.set_remaining(0)
    with Connection(cache.port) as client:
        assert client.get(f"/v2/{APP}/manifests/latest").status == 429
        assert client.get(f"/v2/ghcr.io/{APP}/manifests/latest").status == 200
        assert client.get(f"/v2/{SHARED}/manifests/latest").status == 429
        assert client.get(f"/v2/ghcr.io/{SHARED}/manifests/latest").status == 200
    remaining = "pullthrough_ratelimit_remaining"
    assert cache.metrics(upstream="docker.io")[remaining] == 0
    assert cache.metrics(upstream="ghcr.io")[remaining] == 10_000 - 2
    assert cache.metrics(upstream="ghcr.io")["pullthrough_counted_pulls_total"] == 2


def test_the_trouble_of_one_registry_is_not_that_of_the_other(cache: Cache, two: Two) -> None:
    apps = {"/v2/": two.hub_app, "/v2/ghcr.io/": two.ghcr_app}
    for base, image in apps.items():
        _pulled(cache, base, "", image)
    with two.ghcr.stopped(), Connection(cache.port) as client:
        hub, ghcr = (client.get(f"{base}{APP}/manifests/latest") for base in apps)
        assert client.get(f"/v2/ghcr.io/{SHARED}/manifests/latest").status == 503
        assert client.get(f"/v2/{SHARED}/manifests/latest").status == 200
    assert ("warning" in hub.headers, "warning" in ghcr.headers) == (False, True)
    assert [answer.headers["docker-content-digest"] for answer in (hub, ghcr)] == [
        image.digest for image in apps.values()
    ]


def test_a_tag_that_moves_in_one_registry_stays_in_the_other(cache: Cache, two: Two) -> None:
    apps = {"/v2/": two.hub_app, "/v2/ghcr.io/": two.ghcr_app}
    for base, image in apps.items():
        _pulled(cache, base, "", image)
    moved = Publisher(two.ghcr.origin).busybox(APP, mark="this is ghcr.io, and newer")
    try:
        with Connection(cache.port) as client:
            heads = [client.get(f"{base}{APP}/manifests/latest", method="HEAD") for base in apps]
    finally:
        Publisher(two.ghcr.origin).busybox(APP, mark="this is ghcr.io")
    assert [head.headers["docker-content-digest"] for head in heads] == [two.hub_app.digest, moved.digest]


@pytest.mark.clients("containerd", "ctr", "runc")
def test_containerd_gets_each_registrys_image(cache: Cache, two: Two, scratch: Path) -> None:
    with containerd(cache.url, scratch / "containerd.log") as store:
        store.use_hosts("ghcr.io", hosts_toml(cache.url))
        for name, image in _names(two).items():
            store.pull(name)
            assert store.digest(name) == image.digest
            assert store.run(name, "/bin/busybox", "cat", "/etc/mark") == f"this is {name.partition('/')[0]}"


@pytest.mark.clients("podman", "runc")
def test_podman_gets_each_registrys_image(cache: Cache, two: Two) -> None:
    with containers_tools(cache.url) as tools:
        authority = cache.url.removeprefix("http://")
        # docker.io by the root, ghcr.io by its path: podman sends no `ns`.
        both = registries_conf(authority), registries_conf(f"{authority}/ghcr.io", registry="ghcr.io")
        tools.use_registries("\n".join(both))
        for name, image in _names(two).items():
            tools.podman_pull(name)
            assert tools.podman_digest(name) == image.digest
            assert tools.podman_run(name, "cat", "/etc/mark") == f"this is {name.partition('/')[0]}"


@pytest.mark.clients("dockerd", "docker", "runc")
def test_dockerd_gets_each_registrys_image(cache: Cache, two: Two, scratch: Path) -> None:
    authority = cache.url.removeprefix("http://")
    with dockerd(cache.url, scratch / "dockerd.log") as docker:
        for name, image in {f"{authority}/{name}": image for name, image in _names(two).items()}.items():
            docker.pull(name)
            assert docker.digests(name) == [image.digest]
            assert docker.run(name, "cat", "/etc/mark") == f"this is {name.split('/')[1]}"


def test_the_upstreams_notice_what_belongs_to_another(registries: Two) -> None:
    hub, ghcr = registries.hub, registries.ghcr
    registries.reset()
    login = {"Authorization": f"Basic {b64encode(f'{hub.username}:{hub.pat}'.encode()).decode()}"}
    query = f"?service=registry.docker.io&scope=repository:{APP}:pull"
    assert _status(ghcr.realm + query, login) == 401
    token = hub.origin.token(APP)
    assert _status(f"{ghcr.url}/v2/{APP}/manifests/latest", {"Authorization": f"Bearer {token}"}) == 401
    assert ghcr.ledger.violations == [
        "a login that is not of this registry was sent to its token server",
        "a token of another registry was sent to this one",
    ]
    registries.reset()
    ghcr.violations.clear()


def _names(two: Two) -> dict[str, Image]:
    return {f"docker.io/{APP}:latest": two.hub_app, f"ghcr.io/{APP}:latest": two.ghcr_app}


def _digests(image: Image) -> list[str]:
    return [each.digest for each in (*image.manifests, *image.blobs)]


def _pulled(cache: Cache, base: str, query: str, image: Image) -> dict[str, str]:
    """Ask for the tag and for every part of the image; return, by the digest asked for, that of the bytes that came."""
    at = f"{base}{image.repository}"
    with Connection(cache.port) as client:
        tagged = client.get(f"{at}/manifests/{image.tag}{query}")
        assert (tagged.status, _sha256(tagged.body)) == (200, image.digest)
        paths = {each.digest: f"{at}/manifests/{each.digest}{query}" for each in image.manifests}
        paths |= {each.digest: f"{at}/blobs/{each.digest}{query}" for each in image.blobs}
        answers = {digest: client.get(path) for digest, path in paths.items()}
    assert {answer.status for answer in answers.values()} == {200}
    return {digest: _sha256(answer.body) for digest, answer in answers.items()}


def _sha256(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def _status(url: str, headers: dict[str, str]) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
