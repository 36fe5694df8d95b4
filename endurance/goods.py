"""What can be pulled in a long run: images whose layers are shared, and what their bytes have to be."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.fake_hub import FakeHub, Image
from tests.fake_hub.content import Content

KIB: Final = 1024
MIB: Final = 1024 * 1024
_PIECE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob of a repository."""

    repository: str
    digest: str
    size: int
    content: Content = field(repr=False)

    @property
    def path(self) -> str:
        return f"/v2/{self.repository}/blobs/{self.digest}"


@dataclass(slots=True)
class Tag:
    """A tag, and all images it ever pointed to: the newest last."""

    repository: str
    name: str
    images: list[Image]

    @property
    def path(self) -> str:
        return f"/v2/{self.repository}/manifests/{self.name}"


class Goods:
    """The images of one upstream. Some of their layers belong to several of them, as layers do."""

    def __init__(self, hub: FakeHub, sizes: Sequence[int], repositories: int, rng: random.Random) -> None:
        self._hub = hub
        self._rng = rng
        self._layers = [hub.add_synthetic_blob(size, seed) for seed, size in enumerate(sizes)]
        self._serial = 0
        self.tags = [Tag(f"acme/app{number}", "latest", []) for number in range(repositories)]
        for tag in self.tags:
            self.move(tag)

    @property
    def blobs(self) -> list[Blob]:
        """Everything that some image has now, but manifests."""
        return [self._blob(tag.repository, digest) for tag in self.tags for digest in tag.images[-1].blobs]

    def blobs_of(self, image: Image) -> list[Blob]:
        """The config and the layers of an image."""
        return [self._blob(image.repository, digest) for digest in image.blobs]

    def move(self, tag: Tag) -> None:
        """Let a tag point to a new image, of some old layers and a config of its own."""
        self._serial += 1
        layers = self._rng.sample(self._layers, k=min(3, len(self._layers)))
        image = self._hub.add_image(tag.repository, tag.name, layers, platform=f"linux/v{self._serial}")
        tag.images.append(image)

    def content_of(self, digest: str) -> Content:
        """The right bytes of a blob."""
        return self._hub.content_of(digest)

    def _blob(self, repository: str, digest: str) -> Blob:
        content = self._hub.content_of(digest)
        return Blob(repository, digest, content.size, content)


def mixed_sizes(count: int, largest: int, rng: random.Random) -> list[int]:
    """Sizes in bytes: half of them small, as many between 1 and 2 KiB as between 0.5 and 1 MiB, and half large."""
    small = [round(KIB * (MIB / KIB) ** rng.random()) for _ in range(count // 2)]
    return small + [rng.randint(MIB, largest) for _ in range(count - len(small))]


def wrong_blobs(directory: Path) -> list[str]:
    """The files of the store whose bytes are not those of their name. Blocking."""
    return [path.name for path in (directory / "blobs").glob("*/*/*") if _sha256(path) != path.name]


def partials(directory: Path) -> dict[str, int]:
    """The sizes in bytes of what unfinished fills have left, by digest. Blocking."""
    found = (directory / "partial").glob("sha256-*")
    return {path.name.replace("-", ":", 1): path.stat().st_size for path in found}


def wrong_partials(directory: Path, goods: Goods) -> list[str]:
    """The partials that are not the beginning of their blob. Blocking."""
    wrong = []
    for digest, size in partials(directory).items():
        content = goods.content_of(digest)
        path = directory / "partial" / digest.replace(":", "-")
        with path.open("rb") as file:
            pieces = ((start, file.read(_PIECE)) for start in range(0, size, _PIECE))
            if size > content.size or any(piece != content.read(at, at + len(piece)) for at, piece in pieces):
                wrong.append(digest)
    return wrong


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
