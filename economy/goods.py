"""The images of the day, on a Docker-Hub-like upstream. Their layers are small, and shared as real ones are."""

from __future__ import annotations

from typing import Final

from economy.workload import Day, ImageName
from tests.fake_hub import FakeHub, Image, Index

KIB: Final = 1024
PREVIEW: Final = "ratelimitpreview/test"
"""What Docker Hub has for asking about the quota."""


class Goods:
    """What is where. All versions are there from the beginning; it is the tag that moves."""

    def __init__(self, hub: FakeHub, day: Day) -> None:
        self._hub = hub
        self._roots: dict[tuple[ImageName, int], str] = {}
        self._seed = 0
        self._shared: dict[str, str] = {}
        hub.add_image(PREVIEW, "latest")
        for image in day.images:
            self._put(image, 0)
            self.move(image, 0)
        for move in day.moves:
            self._put(move.image, move.version)

    def move(self, image: ImageName, version: int) -> None:
        """Point the tag of an image to this version."""
        self._hub.tag(image.repository, image.tag, self._roots[image, version])

    def digest(self, image: ImageName, version: int = 0) -> str:
        """Of the index, or of the only manifest."""
        return self._roots[image, version]

    def current(self, image: ImageName) -> str:
        """Where the tag points now."""
        return self._hub.repositories[image.repository].tags[image.tag]

    def _put(self, image: ImageName, version: int) -> None:
        images = {each: self._image(image, version, each) for each in image.platforms}
        root: Image | Index = next(iter(images.values()))
        if image.has_index:
            root = self._hub.add_index(image.repository, None, images)
        self._roots[image, version] = root.digest

    def _image(self, image: ImageName, version: int, platform: str) -> Image:
        """Two layers of the base, one of the image, one of the version."""
        layers = [
            self._layer(f"base {image.base} {platform}", 160),
            self._layer(f"base {image.base} {platform}, more", 80),
            self._layer(f"{image.repository} {platform}", 60),
            self._layer(f"{image.repository} {platform} {version}", 20),
        ]
        return self._hub.add_image(image.repository, None, layers, platform=platform)

    def _layer(self, what: str, kib: int) -> str:
        if what not in self._shared:
            self._seed += 1
            self._shared[what] = self._hub.add_synthetic_blob(kib * KIB, self._seed)
        return self._shared[what]
