"""Where faults happen: an upstream, a cache, the thing a client asks for; and the rules that no fault may break."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

from proxy.config import Config
from tests.blob_rig import MIB, REPOSITORY, Layer, add_layer, nothing_left_open, stored
from tests.cache_rig import CacheRig
from tests.fake_hub import FakeHub, Image
from tests.faults.client import Received, received

HOUR = 3600.0
AFTERWARDS = 7 * HOUR
"""Longer than anything is remembered that a fault could teach: limits, refusals, rests."""


class Asked(Enum):
    """What a client asks for while something is wrong."""

    COLD_BLOB = "a blob, cold"
    WARM_BLOB = "a blob, cached"
    SMALL_BLOB = "a small blob, cached"
    NEW_TAG = "a tag, cold"
    OLD_TAG = "a tag, cached, no longer fresh"
    MOVED_TAG = "a tag, cached, moved upstream"
    MANIFEST = "a manifest by digest, cold"

    @property
    def is_cold(self) -> bool:
        return self in (Asked.COLD_BLOB, Asked.NEW_TAG, Asked.MANIFEST)

    @property
    def is_blob(self) -> bool:
        return self in (Asked.COLD_BLOB, Asked.WARM_BLOB, Asked.SMALL_BLOB)


class RigWithoutScrub(CacheRig):
    """A cache that reads nothing again by itself: what is bad on disk is found by the pull, or when the test says."""

    def config(self) -> Config:
        config = super().config()
        return replace(config, cache=replace(config.cache, scrub_rate=0))


@dataclass
class Stand:
    """One upstream, one cache, one blob, one image. The upstream is told what goes wrong by `hub`."""

    hub: FakeHub
    cache: CacheRig
    folder: Path
    after: AsyncExitStack
    """What is to be taken down when all is over."""
    layer: Layer = field(init=False)
    small: Layer = field(init=False)
    image: Image = field(init=False)
    before: Image = field(init=False)
    """What the tag pointed to at first: a right answer too while upstream cannot be asked."""

    def __post_init__(self) -> None:
        self.layer = add_layer(self.hub, MIB)
        self.small = add_layer(self.hub, 1000, seed=1)
        self.image = self.before = self.hub.add_image(REPOSITORY, "latest", [b"layer"])

    async def prepare(self, asked: Asked) -> None:
        """Bring the cache to where the client meets it: the repository known, the tokens of the last hour expired."""
        await self.cache.head_blob(REPOSITORY, self.small.digest)
        if asked in (Asked.WARM_BLOB, Asked.SMALL_BLOB):
            await self.pull(asked)
            await stored(self.cache, self.digest_of(asked))
        if asked in (Asked.OLD_TAG, Asked.MOVED_TAG):
            await self.pull(asked)
        if asked is Asked.MOVED_TAG:
            self.image = self.hub.add_image(REPOSITORY, "latest", [b"another layer"])
        self.cache.clock.advance(HOUR)
        self.hub.reset_counts()

    @property
    def upstream_refused(self) -> bool:
        """Whether upstream said no to anything; a registry's 401 is how it asks for a token."""
        said = ((request.listener, request.status or 0) for request in self.hub.requests)
        return any(400 <= status < 500 and (listener, status) != ("registry", 401) for listener, status in said)

    def digest_of(self, asked: Asked) -> str:
        """The digest of what is asked for."""
        if asked.is_blob:
            return self.small.digest if asked is Asked.SMALL_BLOB else self.layer.digest
        return self.image.digest

    def path_of(self, asked: Asked) -> str:
        """The path of what is asked for."""
        if asked.is_blob:
            return f"/v2/{REPOSITORY}/blobs/{self.digest_of(asked)}"
        return f"/v2/{REPOSITORY}/manifests/{self.image.digest if asked is Asked.MANIFEST else 'latest'}"

    def content_of(self, asked: Asked) -> bytes:
        """The right bytes of what is asked for."""
        if asked.is_blob:
            return self.small.content if asked is Asked.SMALL_BLOB else self.layer.content
        return self.image.body

    async def pull(self, asked: Asked, headers: Mapping[str, str] | None = None) -> Received:
        """What a client gets that reads all it can."""
        accept = {} if asked.is_blob else {"Accept": self.image.media_type}
        return await received(self.cache.open(self.path_of(asked), accept | dict(headers or {})))

    def blob_path(self, digest: str) -> Path:
        """Where the store has this digest, or would have it."""
        return self.cache.directory / "blobs" / "sha256" / digest[7:9] / digest[7:]

    def on_disk(self, digest: str, content: bytes) -> str:
        """What the cache has of this digest, in words; what has a name must be right, and a partial a beginning."""
        if digest in self.cache.blobs_on_disk():
            return "all of it, verified" if self._is_right(self.blob_path(digest)) else "a file that is not right"
        partial = self.cache.directory / "partial" / digest.replace(":", "-")
        if not partial.exists():
            return "nothing of it"
        assert content.startswith(partial.read_bytes()), "a partial holds wrong bytes"
        return "what had arrived, to go on from"

    def assert_blobs_are_right(self) -> None:
        """Whatever has a name in the store has the content of that name."""
        for path in (self.cache.directory / "blobs").glob("*/*/*"):
            assert self._is_right(path), f"{path.name} is wrong on disk"

    def _is_right(self, path: Path) -> bool:
        try:
            return hashlib.sha256(path.read_bytes()).hexdigest() == path.name
        except OSError:
            return False

    async def assert_nothing_is_left_over(self) -> None:
        """No fill, no task of one, no open file; and upstream was never told or sent what it must not be."""
        await nothing_left_open(self.cache)
        assert self.hub.violations == []
