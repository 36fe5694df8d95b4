"""The images: made offline from busybox-static and a seeded generator, the same bytes in every run."""

import gzip
import hashlib
import io
import json
import platform
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final, Protocol

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from .upstream.origin import Blob

MIB: Final = 1024 * 1024
HOST_ARCHITECTURE: Final = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]

_OCI: Final = "application/vnd.oci.image"
_DOCKER: Final = "application/vnd.docker"
_EPOCH: Final = "2026-01-01T00:00:00Z"
_APPLETS: Final = ("cat", "echo", "ls", "sh", "sha256sum", "wc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image in the upstream registry, and what a pull of it on this machine must fetch."""

    repository: str
    tag: str
    manifests: tuple[Blob, ...]  # what the tag names first; then, if that is an index, this platform's manifest
    blobs: tuple[Blob, ...]  # config and layers
    others: tuple[Blob, ...] = ()  # manifests of the index for other platforms, and its attestation

    @property
    def name(self) -> str:
        """As a client writes it, with the registry in front: docker.io/library/busybox:latest."""
        return f"docker.io/{self.repository}:{self.tag}"

    @property
    def digest(self) -> str:
        return self.manifests[0].digest

    @property
    def size(self) -> int:
        return sum(blob.size for blob in self.blobs)


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that was pushed: its descriptor, and the digest of its uncompressed tar for the config."""

    media_type: str
    blob: Blob
    diff_id: str

    @property
    def descriptor(self) -> dict[str, object]:
        return _descriptor(self.media_type, self.blob)


class Shelf(Protocol):
    """Where images are put, in the way of `upstream.origin.Origin`."""

    def push_blob(self, repository: str, content: bytes) -> Blob: ...

    def place_blob(self, repository: str, chunks: Iterable[bytes]) -> Blob: ...

    def push_manifest(self, repository: str, body: bytes, media_type: str, tag: str | None = None) -> Blob: ...


class Publisher:
    """Makes images and pushes them into the upstream registry."""

    def __init__(self, origin: Shelf) -> None:
        self._origin = origin

    def busybox(self, repository: str, tag: str = "latest", mark: str = "") -> Image:
        """Publish a multi-arch OCI index as BuildKit writes it: two platforms and an attestation.

        The child for this machine runs; the other holds a file in place of a program of a foreign machine. Images of
        different marks have nothing in common.
        """
        children = {
            architecture: self._child(repository, architecture, self._busybox_layer(repository, architecture, mark))
            for architecture in ("amd64", "arm64")
        }
        described = [
            _descriptor(f"{_OCI}.manifest.v1+json", child.manifests[0])
            | {"platform": {"architecture": architecture, "os": "linux"}}
            for architecture, child in children.items()
        ]
        host = children[HOST_ARCHITECTURE]
        attestation = self._attestation(repository, host)
        described.append(attestation)
        body = _json(
            {"schemaVersion": 2, "mediaType": f"{_OCI}.index.v1+json", "manifests": described},
        )
        index = self._origin.push_manifest(repository, body, f"{_OCI}.index.v1+json", tag)
        foreign = [child.manifests[0] for name, child in children.items() if name != HOST_ARCHITECTURE]
        others = (*foreign, Blob(str(attestation["digest"]), 0))
        return Image(
            repository=repository,
            tag=tag,
            manifests=(index, *host.manifests),
            blobs=host.blobs,
            others=others,
        )

    def artifact(
        self,
        repository: str,
        artifact_type: str,
        media_type: str,
        content: bytes,
        *,
        subject: Image | None = None,
        tag: str | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Image:
        """Publish a manifest that is no image: one layer with this content and, as OCI 1.1 has it, an empty config.

        `subject` makes it a referrer of that image's index; `annotations` are those of the layer.
        """
        config, layer = self._push(repository, b"{}"), self._push(repository, content)
        body: dict[str, object] = {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "artifactType": artifact_type,
            "config": _descriptor("application/vnd.oci.empty.v1+json", config),
            "layers": [_descriptor(media_type, layer) | {"annotations": dict(annotations or {})}],
        }
        if subject is not None:
            body["subject"] = _descriptor(f"{_OCI}.index.v1+json", subject.manifests[0])
        manifest = self._origin.push_manifest(repository, _json(body), f"{_OCI}.manifest.v1+json", tag)
        return Image(repository=repository, tag=tag or "", manifests=(manifest,), blobs=(config, layer))

    def list_referrers(self, subject: Image, artifacts: Mapping[str, Image]) -> None:
        """Publish the list of an image's referrers, by artifact type, as clients do where the registry keeps none."""
        entries = [
            _descriptor(f"{_OCI}.manifest.v1+json", artifact.manifests[0]) | {"artifactType": artifact_type}
            for artifact_type, artifact in artifacts.items()
        ]
        body = _json({"schemaVersion": 2, "mediaType": f"{_OCI}.index.v1+json", "manifests": entries})
        tag = subject.digest.replace(":", "-")
        self._origin.push_manifest(subject.repository, body, f"{_OCI}.index.v1+json", tag)

    def layered(self, repository: str, count: int) -> Image:
        """Publish a Docker schema 2 image of so many layers, each with a file of its own in /layers."""
        layers = [self._busybox_layer(repository, HOST_ARCHITECTURE)]
        for number in range(1, count):
            layers.append(self._gzipped_layer(repository, {f"layers/{number:03}": f"layer {number}\n".encode() * 500}))
        return self._image(repository, "1", HOST_ARCHITECTURE, layers, docker=True)

    def heavy(self, repository: str, sizes: Sequence[int]) -> Image:
        """Publish a runnable OCI image with an uncompressed layer of noise of each size; the last is /payload."""
        layers = [self._busybox_layer(repository, HOST_ARCHITECTURE)]
        for left, size in zip(reversed(range(len(sizes))), sizes, strict=True):
            layers.append(self._noise_layer(repository, f"payload.{left}" if left else "payload", size))
        return self._image(repository, "1", HOST_ARCHITECTURE, layers)

    def _child(self, repository: str, architecture: str, layer: Layer) -> Image:
        return self._image(repository, None, architecture, [layer])

    def _image(
        self, repository: str, tag: str | None, architecture: str, layers: Sequence[Layer], *, docker: bool = False
    ) -> Image:
        config_type = f"{_DOCKER}.container.image.v1+json" if docker else f"{_OCI}.config.v1+json"
        manifest_type = f"{_DOCKER}.distribution.manifest.v2+json" if docker else f"{_OCI}.manifest.v1+json"
        configuration = {
            "architecture": architecture,
            "os": "linux",
            "created": _EPOCH,
            "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/busybox", "echo", "ok"]},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            "history": [{"created": _EPOCH, "created_by": f"layer {number}"} for number, _ in enumerate(layers)],
        }
        config = self._push(repository, _json(configuration))
        described = [layer.descriptor for layer in layers]
        if docker:
            described = [each | {"mediaType": f"{_DOCKER}.image.rootfs.diff.tar.gzip"} for each in described]
        body = _json(
            {
                "schemaVersion": 2,
                "mediaType": manifest_type,
                "config": _descriptor(config_type, config),
                "layers": described,
            }
        )
        manifest = self._origin.push_manifest(repository, body, manifest_type, tag)
        blobs = (config, *(layer.blob for layer in layers))
        return Image(repository=repository, tag=tag or "", manifests=(manifest,), blobs=blobs)

    def _attestation(self, repository: str, about: Image) -> dict[str, object]:
        """Push an attestation manifest and return its entry in the index; PROTOCOL 8.7."""
        statement = _json({"_type": "https://in-toto.io/Statement/v0.1", "subject": [about.digest]})
        layer = Layer("application/vnd.in-toto+json", self._push(repository, statement), _sha256(statement))
        manifest = self._image(repository, None, "unknown", [layer]).manifests[0]
        return _descriptor(f"{_OCI}.manifest.v1+json", manifest) | {
            "platform": {"architecture": "unknown", "os": "unknown"},
            "annotations": {
                "vnd.docker.reference.type": "attestation-manifest",
                "vnd.docker.reference.digest": about.digest,
            },
        }

    def _busybox_layer(self, repository: str, architecture: str, mark: str = "") -> Layer:
        program = shutil.which("busybox")
        assert program is not None
        content = Path(program).read_bytes() if architecture == HOST_ARCHITECTURE else b"a program for another machine"
        files = {"bin/busybox": content, "etc/passwd": b"root:x:0:0:root:/:/bin/sh\n"}
        return self._gzipped_layer(repository, files | ({"etc/mark": mark.encode()} if mark else {}))

    def _gzipped_layer(self, repository: str, files: Mapping[str, bytes]) -> Layer:
        tar = _tar(files)
        blob = self._push(repository, gzip.compress(tar, mtime=0))
        return Layer(f"{_OCI}.layer.v1.tar+gzip", blob, _sha256(tar))

    def _noise_layer(self, repository: str, name: str, size: int) -> Layer:
        header = tarfile.TarInfo(name)
        header.size = size
        end = bytes(-size % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE)
        tar = chain([header.tobuf()], _noise(f"{repository} {name}", size), [end])
        blob = self._origin.place_blob(repository, tar)
        return Layer(f"{_OCI}.layer.v1.tar", blob, blob.digest)

    def _push(self, repository: str, content: bytes) -> Blob:
        return self._origin.push_blob(repository, content)


def _noise(seed: str, size: int) -> Iterator[bytes]:
    """Yield bytes that no compression makes smaller, at the speed of a processor's AES."""
    stream = Cipher(algorithms.AES(hashlib.sha256(seed.encode()).digest()), modes.CTR(bytes(16))).encryptor()
    for offset in range(0, size, MIB):
        yield stream.update(bytes(min(MIB, size - offset)))


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for directory in sorted({name.rpartition("/")[0] for name in files}):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
        for applet in _APPLETS if "bin/busybox" in files else ():
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    return buffer.getvalue()


def _descriptor(media_type: str, blob: Blob) -> dict[str, object]:
    return {"mediaType": media_type, "digest": blob.digest, "size": blob.size}


def _json(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
