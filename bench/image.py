"""The image of many layers, published into files that a web server shows as a registry."""

import hashlib
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.clients.images import Publisher
from tests.clients.upstream.origin import Blob

MIB = 1 << 20
REPOSITORY, TAG = "bench/pull", "1"
IMAGE = f"{REPOSITORY}:{TAG}"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
SIZES = [size * MIB for size in (64, *[16] * 4, *[4] * 8, *[1] * 6)]  # with busybox below them
LAYERS = len(SIZES) + 1


class Shelf:
    """A folder into which images are published."""

    def __init__(self, files: Path) -> None:
        self._root = files / "v2"

    def push_blob(self, repository: str, content: bytes) -> Blob:
        """Keep a blob."""
        return self.place_blob(repository, [content])

    def place_blob(self, repository: str, chunks: Iterable[bytes]) -> Blob:
        """Keep a blob that comes in pieces."""
        folder = self._folder(repository, "blobs")
        hashing, size = hashlib.sha256(), 0
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            for chunk in chunks:
                hashing.update(chunk)
                size += file.write(chunk)
        blob = Blob(f"sha256:{hashing.hexdigest()}", size)
        Path(file.name).rename(folder / blob.digest).chmod(0o644)
        return blob

    def push_manifest(self, repository: str, body: bytes, media_type: str, tag: str | None = None) -> Blob:
        """Keep a manifest by digest and by tag; the web server says of all that they are of one type."""
        assert media_type == MANIFEST_TYPE
        blob = Blob(f"sha256:{hashlib.sha256(body).hexdigest()}", len(body))
        for name in filter(None, (blob.digest, tag)):
            (self._folder(repository, "manifests") / name).write_bytes(body)
        return blob

    def _folder(self, repository: str, kind: str) -> Path:
        folder = self._root / repository / kind
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def publish_image(files: Path) -> str:
    """Write the image below the registry's files and return the digest of its manifest."""
    return Publisher(Shelf(files)).heavy(REPOSITORY, SIZES).digest
