"""Repositories, tags and digests, parsed once at the border and passed as values from there on.

Grammar: OCI distribution spec, "Pulling manifests"; digests: OCI image spec, "Digests". Nothing here reaches a file
name or an upstream URL unless it matched in full (`\\Z`, not `$`, which would let a trailing newline through).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from proxy.oci.errors import DigestInvalid, NameInvalid, TagInvalid

if TYPE_CHECKING:
    from hashlib import _Hash

DOCKER_HUB: Final = "docker.io"
DOCKER_HUB_ALIASES: Final = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"\A{_COMPONENT}(?:/{_COMPONENT})*\Z")
_TAG = re.compile(r"\A[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}\Z")
_HEX = re.compile(r"\A[0-9a-f]+\Z")
_HEX_LENGTH: Final = {"sha256": 64, "sha512": 128}
_NAME_LENGTH: Final = 255

ALGORITHMS: Final = tuple(sorted(_HEX_LENGTH))
"""Of digests, in the order of their names."""


@dataclass(frozen=True, slots=True)
class Digest:
    """A content address whose algorithm we can compute: `sha256:<64 hex>` or `sha512:<128 hex>`, lower case."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises DigestInvalid."""
        algorithm, _, value = text.partition(":")
        if len(value) != _HEX_LENGTH.get(algorithm) or not _HEX.match(value):
            raise DigestInvalid("not a sha256 or sha512 digest in lower-case hexadecimal")
        return cls(algorithm, value)

    @classmethod
    def of(cls, content: bytes, algorithm: str = "sha256") -> Self:
        """The digest of these bytes."""
        return cls(algorithm, hashlib.new(algorithm, content).hexdigest())

    def hasher(self) -> _Hash:
        """A fresh hash of this digest's algorithm."""
        return hashlib.new(self.algorithm)

    def matches(self, content: bytes) -> bool:
        """Whether these bytes are the ones this digest names."""
        return hashlib.new(self.algorithm, content).hexdigest() == self.hex

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


@dataclass(frozen=True, slots=True)
class Tag:
    """A mutable pointer to a manifest."""

    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises TagInvalid."""
        if not _TAG.match(text):
            raise TagInvalid("a tag has at most 128 of the characters a-z A-Z 0-9 _ . - and starts with none of . -")
        return cls(text)

    def __str__(self) -> str:
        return self.name


Reference = Tag | Digest


def parse_reference(text: str) -> Reference:
    """A digest if it has a colon (no tag can), else a tag. Raises DigestInvalid or TagInvalid."""
    return Digest.parse(text) if ":" in text else Tag.parse(text)


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository of one upstream registry, such as `docker.io` + `library/alpine`."""

    registry: str
    name: str

    @classmethod
    def parse(cls, name: str, registry: str = DOCKER_HUB) -> Self:
        """Raises NameInvalid. One-component names of Docker Hub are official images: `alpine` is `library/alpine`."""
        if len(name) > _NAME_LENGTH or not _NAME.match(name):
            raise NameInvalid("a repository name is lower-case components of a-z 0-9 . _ - joined by /, at most 255")
        if registry == DOCKER_HUB and "/" not in name:
            name = f"library/{name}"
        return cls(registry, name)

    def __str__(self) -> str:
        return f"{self.registry}/{self.name}"
