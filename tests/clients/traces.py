"""What clients send that Debian does not package, request by request, and what each of them insists on.

dockerd 29 with the containerd store (PROTOCOL 4.3), containerd 2.x fetching in chunks (5.2), BuildKit (5.3), podman's
partial pulls of zstd:chunked (5.4), and kaniko and crane (5.5). Each returns once it has the whole image, verified.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from .images import HOST_ARCHITECTURE, Image
from .wire import Answer, Headers, Wire

_INDEX: Final = "application/vnd.oci.image.index.v1+json"
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
_DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
_SCHEMA_1: Final = "application/vnd.docker.distribution.manifest.v1+json"
_SCHEMA_1_SIGNED: Final = "application/vnd.docker.distribution.manifest.v1+prettyjws"
CHUNK: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Address:
    """Where a client takes a repository to be: before, behind or without the name of the registry."""

    port: int
    base: str
    query: str = ""

    def manifest(self, reference: str) -> str:
        return f"{self.base}/manifests/{reference}{self.query}"

    def blob(self, digest: str) -> str:
        return f"{self.base}/blobs/{digest}{self.query}"

    def referrers(self, digest: str) -> str:
        return f"{self.base}/referrers/{digest}{self.query}"


def dockerd_29(at: Address, image: Image) -> None:
    """Pull as dockerd 29.1 does with the containerd image store: with the attestation, and what refers to that."""
    with Wire(at.port, ("User-Agent", "docker/29.1.0 containerd-client/2.2 storage-driver/overlayfs")) as wire:
        index = _resolve_and_fetch(wire, at, image)
        attestation = next(entry for entry in index["manifests"] if _is_attestation(entry))
        for layer in _manifest(wire, at, attestation)["layers"]:
            _blob(wire, at, layer["digest"], _containerd_accepts(layer["mediaType"]))
        referrers = wire.ask("GET", at.referrers(attestation["digest"]), _containerd_accepts(_INDEX))
        assert referrers.status in (200, 404)
        if referrers.status == 404:
            schema = at.manifest(attestation["digest"].replace(":", "-"))
            missing = wire.ask("GET", schema, _containerd_accepts(_INDEX))
            assert (missing.status, json.loads(missing.body)["errors"][0]["code"]) == (404, "MANIFEST_UNKNOWN")


def buildkit(at: Address, image: Image) -> None:
    """Pull as BuildKit does for `FROM`."""
    with Wire(at.port, ("User-Agent", "buildkit/v0.25")) as wire:
        _resolve_and_fetch(wire, at, image)


def containerd_2_chunked(at: Address, image: Image, while_filling: Callable[[], None] = lambda: None) -> None:
    """Pull as containerd 2.1 does with `concurrent_layer_fetch_buffer`: open-ended ranges, each left half-way.

    `while_filling` is called when the first chunk of the layer was taken and its connection closed.
    """
    whole = ("Range", "bytes=0-")
    with Wire(at.port, ("User-Agent", "containerd/v2.1.4"), whole) as wire:
        index = _resolve(wire, at, image)
        child = _child(_checked(wire.ask("GET", at.manifest(index), _containerd_accepts(_INDEX)), index))
        manifest = _checked(wire.ask("GET", at.manifest(child), _containerd_accepts(_MANIFEST)), child)
        content = json.loads(manifest)
        config = content["config"]["digest"]
        _checked(wire.ask("GET", at.blob(config), _containerd_accepts(content["config"]["mediaType"])), config)
    for layer in content["layers"]:
        _in_chunks(at, layer, while_filling)
    _assert_digests(image, (index, child), (config, *(layer["digest"] for layer in content["layers"])))


def crane(at: Address, image: Image) -> None:
    """Pull as go-containerregistry does, which is in crane, ko, cosign and kaniko."""
    accept = ", ".join((_SCHEMA_1, _SCHEMA_1_SIGNED, _DOCKER_MANIFEST, _DOCKER_LIST, _MANIFEST, _INDEX))
    with Wire(at.port, ("User-Agent", "go-containerregistry/v0.20"), ("Accept-Encoding", "gzip")) as wire:
        assert wire.ask("GET", "/v2/").status == 200
        described = wire.ask("HEAD", at.manifest(image.tag), [("Accept", accept)])
        assert (described.status, described.headers["Content-Type"]) == (200, _INDEX)
        assert described.headers["Docker-Content-Digest"] == image.digest
        index = wire.ask("GET", at.manifest(image.tag), [("Accept", accept)])
        assert len(index.body) == int(described.headers["Content-Length"])
        child = _child(_checked(index, image.digest))
        content = json.loads(_checked(wire.ask("GET", at.manifest(child), [("Accept", accept)]), child))
        blobs = [_blob(wire, at, blob["digest"], ()) for blob in (content["config"], *content["layers"])]
    _assert_digests(image, (image.digest, child), blobs)


def podman_zstd_chunked(at: Address, image: Image) -> None:
    """Pull as podman does when it wants some pieces of a layer only: many ranges in one request.

    It takes 200 with the whole, 206, or 400, and fails at everything else; the contract says 200 (PROTOCOL 10).
    """
    accepted = (_MANIFEST, _DOCKER_MANIFEST, _SCHEMA_1_SIGNED, _SCHEMA_1, _DOCKER_LIST, _INDEX)
    accept = [("Accept", media_type) for media_type in accepted]
    with Wire(at.port, ("User-Agent", "containers/5.34.0 (github.com/containers/image)")) as wire:
        assert wire.ask("GET", "/v2/").status == 200
        index = _checked(wire.ask("GET", at.manifest(image.tag), accept), image.digest)
        child = _child(index)
        content = json.loads(_checked(wire.ask("GET", at.manifest(child), accept), child))
        config = _blob(wire, at, content["config"]["digest"], ())
        ranges = [("Range", "bytes=0-99,500-700,4096-8191")]
        layers = [_blob(wire, at, layer["digest"], ranges) for layer in content["layers"]]
    _assert_digests(image, (image.digest, child), (config, *layers))


def _resolve(wire: Wire, at: Address, image: Image) -> str:
    """HEAD of the tag, as containerd's resolver does; it takes the digest from the headers and nothing else."""
    media_types = ", ".join((_DOCKER_MANIFEST, _DOCKER_LIST, _MANIFEST, _INDEX, "*/*"))
    head = wire.ask("HEAD", at.manifest(image.tag), [("Accept", media_types)])
    assert (head.status, head.headers["Content-Type"]) == (200, _INDEX)
    assert int(head.headers["Content-Length"]) > 0
    _assert_namespace(at, head)
    return str(head.headers["Docker-Content-Digest"])


def _resolve_and_fetch(wire: Wire, at: Address, image: Image) -> dict[str, Any]:
    """Fetch the image as containerd's resolver and fetcher do; return the index."""
    digest = _resolve(wire, at, image)
    body = _checked(wire.ask("GET", at.manifest(digest), _containerd_accepts(_INDEX)), digest)
    index: dict[str, Any] = json.loads(body)
    child = next(entry for entry in index["manifests"] if entry["digest"] == _child(body))
    content = _manifest(wire, at, child)
    blobs = [
        _blob(wire, at, blob["digest"], _containerd_accepts(blob["mediaType"]))
        for blob in (content["config"], *content["layers"])
    ]
    _assert_digests(image, (digest, child["digest"]), blobs)
    return index


def _manifest(wire: Wire, at: Address, entry: dict[str, Any]) -> dict[str, Any]:
    answer = wire.ask("GET", at.manifest(entry["digest"]), _containerd_accepts(entry["mediaType"]))
    _assert_namespace(at, answer)
    content: dict[str, Any] = json.loads(_checked(answer, entry["digest"]))
    return content


def _containerd_accepts(media_type: str) -> Headers:
    return ("Accept", f"{media_type}, */*"), ("Accept-Encoding", "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5")


def _is_attestation(entry: dict[str, Any]) -> bool:
    annotations: dict[str, str] = entry.get("annotations", {})
    return annotations.get("vnd.docker.reference.type") == "attestation-manifest"


def _child(index: bytes) -> str:
    """Return the digest of this machine's manifest."""
    manifests = json.loads(index)["manifests"]
    return next(str(each["digest"]) for each in manifests if each["platform"]["architecture"] == HOST_ARCHITECTURE)


def _blob(wire: Wire, at: Address, digest: str, headers: Headers) -> str:
    answer = wire.ask("GET", at.blob(digest), headers)
    assert answer.status == 200, f"{answer.status} {answer.body[:200]!r}"
    _checked(answer, digest)
    return digest


def _in_chunks(at: Address, layer: dict[str, Any], while_filling: Callable[[], None]) -> None:
    """Fetch a layer as overlapping open-ended ranges in parallel, and leave each after its chunk."""

    def chunk(offset: int) -> bytes:
        headers = [*_containerd_accepts(layer["mediaType"]), ("Range", f"bytes={offset}-")]
        with Wire(at.port, ("User-Agent", "containerd/v2.1.4")) as wire:
            response = wire.begin("GET", at.blob(layer["digest"]), headers)
            assert response.status == 206
            assert response.headers["Content-Range"] == f"bytes {offset}-{size - 1}/{size}"
            assert int(response.headers["Content-Length"]) == size - offset
            return response.read(min(CHUNK, size - offset))

    size = int(layer["size"])
    assert size > 2 * CHUNK, "a layer of several chunks"
    first = chunk(0)
    with ThreadPoolExecutor() as clients:
        others = [clients.submit(chunk, offset) for offset in range(CHUNK, size, CHUNK)]
        while_filling()
        body = b"".join((first, *(other.result() for other in others)))
    assert f"sha256:{hashlib.sha256(body).hexdigest()}" == layer["digest"]


def _checked(answer: Answer, digest: str) -> bytes:
    """Return the body if it is what was asked for, as it was pushed: in no encoding that a client would undo."""
    assert answer.status in (200, 206), f"{answer.status} {answer.body[:200]!r}"
    assert answer.headers["Content-Encoding"] is None
    assert answer.headers["Transfer-Encoding"] is None
    assert answer.headers["WWW-Authenticate"] is None
    assert int(answer.headers["Content-Length"]) == len(answer.body)
    assert (answer.digest, answer.headers["Docker-Content-Digest"]) == (digest, digest)
    if answer.status == 206:
        assert answer.headers["Content-Range"] == f"bytes 0-{len(answer.body) - 1}/{len(answer.body)}"
    return answer.body


def _assert_namespace(at: Address, answer: Answer) -> None:
    namespace = at.query.removeprefix("?ns=") or None
    assert answer.headers["OCI-Namespace"] == namespace


def _assert_digests(image: Image, manifests: Iterable[str], blobs: Iterable[str]) -> None:
    assert sorted(manifests) == sorted(manifest.digest for manifest in image.manifests)
    assert sorted(blobs) == sorted(blob.digest for blob in image.blobs)
