"""What belongs to an image without being of it is found through the cache exactly as without the cache.

A signature under cosign's tag, artifacts that refer to the image, and the attestation in its index; with an upstream
that has the referrers API, and with one that has not, where clients keep the list of referrers under a tag.
"""

import http.client
import json
import tempfile
import urllib.error
import urllib.request
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .cache import Cache
from .costs import assert_cost_nothing
from .images import Image, Publisher
from .podman import containers_tools
from .signatures import SIGNATURE, CosignKey
from .traces import Address, dockerd_29
from .upstream import Upstream
from .wire import Answer, Wire

pytestmark = pytest.mark.clients()

REPOSITORY = "acme/signed"
SBOM = "application/vnd.example.sbom.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
INDEX = "application/vnd.oci.image.index.v1+json"
ACCEPT = ", ".join((INDEX, "application/vnd.oci.image.manifest.v1+json"))

Ask = Callable[[str, str], Answer]


@dataclass(frozen=True)
class Signed:
    """An upstream with an image that has a signature of this key and two referrers."""

    hub: Upstream
    key: CosignKey
    image: Image
    signature: Image  # of the index
    referrers: dict[str, Image]

    @property
    def attestation(self) -> str:
        return self.image.others[-1].digest


@pytest.fixture(scope="module")
def signed_hub() -> Iterator[Signed]:
    """An upstream of this file's own."""
    with (
        tempfile.TemporaryDirectory(prefix="pt-hub-") as directory,
        Upstream(Path(directory), public=[REPOSITORY], private=[]) as hub,
    ):
        publisher, key = Publisher(hub.origin), CosignKey()
        image = publisher.busybox(REPOSITORY, mark="signed")
        signatures = [key.sign(publisher, image, manifest.digest) for manifest in image.manifests]
        referrers = {
            kind: publisher.artifact(REPOSITORY, kind, kind, b'{"about": "the image"}' + kind.encode(), subject=image)
            for kind in (SBOM, BUNDLE)
        }
        publisher.list_referrers(image, referrers)
        yield Signed(hub, key, image, signatures[0], referrers)


@pytest.fixture
def signed(signed_hub: Signed) -> Iterator[Signed]:
    """The upstream, with nothing counted."""
    signed_hub.hub.reset()
    yield signed_hub
    signed_hub.hub.reset()
    assert signed_hub.hub.violations == []


@pytest.fixture(params=[True, False], ids=["with the referrers API", "without the referrers API"])
def knows_referrers(request: pytest.FixtureRequest, signed: Signed) -> bool:
    """Whether the upstream has the referrers API."""
    known: bool = request.param
    signed.hub.know_referrers(known)
    return known


@pytest.fixture
def cache(signed: Signed, scratch: Path) -> Iterator[Cache]:
    """A cache whose tags and lists are always asked for."""
    with Cache(scratch, signed.hub, freshness={"tags": "1ms"}) as cache:
        yield cache


@pytest.mark.parametrize(
    ("base", "query"),
    [("/v2/", ""), ("/v2/", "ns=docker.io"), ("/v2/docker.io/", ""), ("/docker.io/v2/", "ns=docker.io")],
    ids=["root", "ns", "path", "path before v2"],
)
def test_everything_about_an_image_is_found_as_without_the_cache(
    cache: Cache, signed: Signed, knows_referrers: bool, base: str, query: str
) -> None:
    expected = _everything_about(signed, _direct(signed.hub))
    _assert_is_whole(signed, expected, knows_referrers)

    found = _everything_about(signed, _through(cache, base, query))
    assert found.keys() == expected.keys()
    for what, answer in expected.items():
        assert _seen(what, found[what]) == _seen(what, answer), what


def test_what_is_found_is_found_again_at_no_cost_and_with_the_upstream_gone(
    cache: Cache, signed: Signed, knows_referrers: bool
) -> None:
    ask = _through(cache, "/v2/", "")
    cold = _everything_about(signed, ask)
    assert set(signed.hub.ledger.counted_pulls.values()) == {1}

    signed.hub.reset()
    signed.hub.know_referrers(knows_referrers)
    warm = _everything_about(signed, ask)
    assert_cost_nothing(signed.hub.ledger)
    with signed.hub.stopped():
        down = _everything_about(signed, ask)
    for what, answer in cold.items():
        assert _seen(what, warm[what]) == _seen(what, answer) == _seen(what, down[what]), what
    tagged = down[f"HEAD manifests/{signed.image.tag}"]
    assert tagged.headers["Warning"].startswith("299 - ")


def test_that_there_are_no_referrers_is_told_as_the_upstream_tells_it(
    cache: Cache, signed: Signed, knows_referrers: bool
) -> None:
    answer = _through(cache, "/v2/", "")("GET", f"referrers/{signed.attestation}")
    if knows_referrers:
        assert (answer.status, answer.headers["Content-Type"]) == (200, INDEX)
        assert json.loads(answer.body)["manifests"] == []
    else:
        # An empty list would hide the signatures that are kept under a tag.
        assert (answer.status, answer.headers["Content-Type"]) == (404, "application/json")


def test_dockerd_29_pulls_with_the_attestation(cache: Cache, signed: Signed, knows_referrers: bool) -> None:
    at = Address(cache.port, f"/v2/{REPOSITORY}", "?ns=docker.io")
    for _ in ("cold", "warm"):
        dockerd_29(at, signed.image)
    asked = signed.hub.ledger.listings[f"/v2/{REPOSITORY}/referrers/{signed.attestation}"]
    assert asked == (2 if knows_referrers else 1), "that there is no such API is remembered"
    assert signed.hub.ledger.counted_pulls.total() == 3


@pytest.mark.clients("skopeo")
def test_skopeo_copies_a_signature_that_verifies_the_same_as_without_the_cache(cache: Cache, signed: Signed) -> None:
    direct = _copied(signed.hub.url, signed.image)
    signed.hub.reset()
    signed.hub.violations.clear()  # Go's client asks the content network for gzip, which is a fault in ours only
    cold, warm = _copied(cache.url, signed.image), _copied(cache.url, signed.image)
    assert direct == cold == warm

    body = json.loads(cold["signature-1"].partition(b"\n")[2])
    payload = b64decode(body["payload"])
    assert signed.key.has_signed(payload, body["annotations"][SIGNATURE])
    assert json.loads(payload)["critical"]["image"]["docker-manifest-digest"] == signed.image.digest
    assert not CosignKey().has_signed(payload, body["annotations"][SIGNATURE])


def _copied(mirror: str, image: Image) -> dict[str, bytes]:
    with containers_tools(mirror) as tools:
        tools.want_signatures()
        copy = tools.skopeo_copy(image.name, "--all")
        return {file.name: file.read_bytes() for file in copy.iterdir()}


def _everything_about(signed: Signed, ask: Ask) -> dict[str, Answer]:
    """Look for all that belongs to the image, as cosign, ORAS and dockerd do; return every answer."""
    found: dict[str, Answer] = {}

    def look(what: str, method: str = "GET") -> Answer:
        answer = found[f"{method} {what}"] = ask(method, what)
        return answer

    def look_into(manifest: str) -> None:
        answer = look(f"manifests/{manifest}")
        if answer.status == 200:
            content = json.loads(answer.body)
            for blob in (content["config"], *content["layers"]):
                look(f"blobs/{blob['digest']}", "HEAD")
                look(f"blobs/{blob['digest']}")

    digest, schema = signed.image.digest, signed.image.digest.replace(":", "-")
    look(f"manifests/{signed.image.tag}", "HEAD")
    look(f"manifests/{digest}")
    look_into(signed.attestation)
    look(f"manifests/{schema}.sig", "HEAD")
    for suffix in (".sig", ".att", ".sbom"):
        look_into(schema + suffix)
    for query in ("", f"?artifactType={SBOM.replace('+', '%2B')}", "?artifactType=application%2Fnone"):
        look(f"referrers/{digest}{query}")
    look(f"referrers/{signed.attestation}")
    listed = found[f"GET referrers/{digest}"]
    if listed.status == 404:
        listed = look(f"manifests/{schema}")
    for entry in json.loads(listed.body)["manifests"]:
        look_into(entry["digest"])
    return found


def _assert_is_whole(signed: Signed, found: dict[str, Answer], knows_referrers: bool) -> None:
    """All there is about the image was found, and in the way that this upstream offers."""
    digests = {answer.digest for what, answer in found.items() if what.startswith("GET") and answer.status == 200}
    for artifact in (signed.signature, *signed.referrers.values()):
        assert {each.digest for each in (*artifact.manifests, *artifact.blobs)} <= digests
    assert {signed.image.digest, signed.attestation} <= digests

    listed = found[f"GET referrers/{signed.image.digest}"]
    filtered = found[f"GET referrers/{signed.image.digest}?artifactType={SBOM.replace('+', '%2B')}"]
    assert (listed.status, filtered.status) == ((200, 200) if knows_referrers else (404, 404))
    if knows_referrers:
        assert filtered.headers["OCI-Filters-Applied"] == "artifactType"
        assert [entry["artifactType"] for entry in json.loads(filtered.body)["manifests"]] == [SBOM]


def _seen(what: str, answer: Answer) -> tuple[int, list[str | None], bytes]:
    """What a client sees of an answer and may rely on; of one that says that there is nothing, the status."""
    if answer.status != 200:
        return answer.status, [], b""
    names = ["Content-Type", "Content-Length", "Content-Encoding", "OCI-Filters-Applied", "Link", "OCI-Subject"]
    if "manifests/" in what:
        names += ["Docker-Content-Digest", "Etag"]  # a blob comes from a content network, which knows neither
    return answer.status, [answer.headers[name] for name in names], answer.body


def _through(cache: Cache, base: str, query: str) -> Ask:
    def ask(method: str, path: str) -> Answer:
        with Wire(cache.port) as wire:
            joined = f"{path}{'&' if '?' in path else '?'}{query}" if query else path
            return wire.ask(method, f"{base}{REPOSITORY}/{joined}", [("Accept", ACCEPT)])

    return ask


def _direct(hub: Upstream) -> Ask:
    """Ask the upstream itself, as a client does that was told of no cache: with a token, and after redirects."""
    scope = f"?service=registry.docker.io&scope=repository:{REPOSITORY}:pull"
    with urllib.request.urlopen(hub.realm + scope, timeout=30) as response:
        token = json.load(response)["token"]

    def ask(method: str, path: str) -> Answer:
        request = urllib.request.Request(f"{hub.url}/v2/{REPOSITORY}/{path}", method=method, headers={"Accept": ACCEPT})
        request.add_unredirected_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return Answer(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, http.client.HTTPMessage(), error.read())

    return ask
