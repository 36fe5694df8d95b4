"""What a hub holds: repositories with their tags, manifests and links to blobs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .content import Bytes, Content, Synthetic, digest_of

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest's bytes exactly as they were pushed."""

    digest: str
    media_type: str
    body: bytes = field(repr=False)

    def document(self) -> dict[str, Any]:
        """Return what the bytes say, or nothing if they are not a JSON object."""
        try:
            document = json.loads(self.body)
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}


@dataclass(frozen=True, slots=True)
class Image:
    """An image in a repository, with the digests of all its parts."""

    repository: str
    tag: str | None
    digest: str
    media_type: str
    body: bytes = field(repr=False)
    config: str
    layers: tuple[str, ...]

    @property
    def blobs(self) -> tuple[str, ...]:
        return (self.config, *self.layers)


@dataclass(frozen=True, slots=True)
class Index:
    """An index in a repository and the images it lists."""

    repository: str
    tag: str | None
    digest: str
    media_type: str
    body: bytes = field(repr=False)
    images: tuple[Image, ...]


@dataclass(slots=True)
class Repository:
    """One repository; blobs are stored once for all and linked here."""

    manifests: dict[str, Manifest] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    blobs: set[str] = field(default_factory=set)
    private: bool = False
    sponsored: bool = False


class Library:
    """All repositories and blobs, and the ways a test fills and changes them."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self._blobs: dict[str, Content] = {}

    def add_blob(self, content: bytes) -> str:
        """Store a blob, which no repository links yet; return its digest."""
        return self._store(Bytes(content))

    def add_synthetic_blob(self, size: int, seed: int = 0) -> str:
        """Store a blob that is generated whenever it is read; return its digest."""
        return self._store(Synthetic(size, seed))

    def link_blob(self, repository: str, digest: str) -> None:
        """Make a stored blob part of a repository, which comes to be if need be."""
        self._repository(repository).blobs.add(digest)

    def add_manifest(
        self, repository: str, body: bytes, media_type: str = DOCKER_MANIFEST, tag: str | None = None
    ) -> str:
        """Store a manifest, whatever its bytes are, and tag it; return its digest."""
        digest = digest_of(body)
        self._repository(repository).manifests[digest] = Manifest(digest, media_type, body)
        if tag is not None:
            self.tag(repository, tag, digest)
        return digest

    def add_image(
        self,
        repository: str,
        tag: str | None = None,
        layers: Sequence[bytes | str] = (),
        *,
        platform: str = "linux/amd64",
        oci: bool = False,
        subject: str | None = None,
    ) -> Image:
        """Store an image; layers are contents or digests of stored blobs, by default one that is its own."""
        contents = layers or [f"layer of {repository}:{tag} for {platform}".encode()]
        digests = tuple(self.add_blob(layer) if isinstance(layer, bytes) else layer for layer in contents)
        config = self.add_blob(_config(platform, digests))
        for digest in (config, *digests):
            self.link_blob(repository, digest)
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST if oci else DOCKER_MANIFEST,
            "config": self._descriptor(config, OCI_CONFIG if oci else DOCKER_CONFIG),
            "layers": [self._descriptor(digest, OCI_LAYER if oci else DOCKER_LAYER) for digest in digests],
        }
        if subject is not None:
            listed = self._repository(repository).manifests[subject]
            document["subject"] = _descriptor(subject, listed.media_type, len(listed.body))
        body = _pretty(document)
        digest = self.add_manifest(repository, body, document["mediaType"], tag)
        return Image(repository, tag, digest, document["mediaType"], body, config, digests)

    def add_index(
        self,
        repository: str,
        tag: str | None = None,
        images: Mapping[str, Image] | None = None,
        *,
        oci: bool = False,
    ) -> Index:
        """Store an index of images by platform, by default of two new ones."""
        if images is None:
            platforms = ("linux/amd64", "linux/arm64")
            images = {
                each: self.add_image(
                    repository, None, [f"{each} of {repository}:{tag}".encode()], platform=each, oci=oci
                )
                for each in platforms
            }
        media_type = OCI_INDEX if oci else DOCKER_LIST
        children = [
            _descriptor(image.digest, image.media_type, len(image.body)) | {"platform": _platform(platform)}
            for platform, image in images.items()
        ]
        body = _pretty({"schemaVersion": 2, "mediaType": media_type, "manifests": children})
        digest = self.add_manifest(repository, body, media_type, tag)
        return Index(repository, tag, digest, media_type, body, tuple(images.values()))

    def tag(self, repository: str, tag: str, digest: str) -> None:
        """Point a tag, old or new, to a manifest."""
        self._repository(repository).tags[tag] = digest

    def untag(self, repository: str, tag: str) -> None:
        """Take a tag away; its manifest stays."""
        del self.repositories[repository].tags[tag]

    def make_private(self, repository: str) -> None:
        """Let only the account pull; tokens already granted stay good until they expire."""
        self._repository(repository).private = True

    def make_public(self, repository: str) -> None:
        """Let everybody pull."""
        self._repository(repository).private = False

    def sponsor(self, repository: str) -> None:
        """Let pulls of a repository cost nobody anything: its manifests come without quota headers."""
        self._repository(repository).sponsored = True

    def remove_repository(self, repository: str) -> None:
        """Take a repository away with all its manifests, tags and links."""
        del self.repositories[repository]

    def content_of(self, digest: str) -> Content:
        """Return a stored blob's content, linked or not."""
        return self._blobs[digest]

    def _store(self, content: Content) -> str:
        digest = digest_of(content)
        self._blobs[digest] = content
        return digest

    def _repository(self, name: str) -> Repository:
        return self.repositories.setdefault(name, Repository())

    def _descriptor(self, digest: str, media_type: str) -> dict[str, Any]:
        return _descriptor(digest, media_type, self._blobs[digest].size)


def _descriptor(digest: str, media_type: str, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "size": size, "digest": digest}


def _platform(name: str) -> dict[str, str]:
    system, _, architecture = name.partition("/")
    return {"architecture": architecture, "os": system}


def _config(platform: str, layers: Sequence[str]) -> bytes:
    rootfs = {"type": "layers", "diff_ids": list(layers)}
    return _pretty(_platform(platform) | {"config": {"Cmd": ["/bin/true"]}, "rootfs": rootfs})


def _pretty(document: dict[str, Any]) -> bytes:
    """Return JSON laid out as Docker does, which a cache that re-serializes would not."""
    return json.dumps(document, indent=3).encode()
