"""The image that a canary pull asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from proxy.oci.images import LATEST, ImageName
from proxy.oci.names import Reference, Repository, Tag

CANARY: Final = "library/hello-world"


@dataclass(frozen=True, slots=True)
class Image:
    """A repository and what to pull from it."""

    repository: Repository
    reference: Reference

    @classmethod
    def parse(cls, text: str) -> Self:
        """As people write it: `alpine`, `alpine:3.20`, `ghcr.io/owner/image@sha256:...`. Raises RegistryError."""
        named = ImageName.parse(text)
        return cls(named.repository, named.reference or LATEST)

    def __str__(self) -> str:
        return f"{self.repository}{':' if isinstance(self.reference, Tag) else '@'}{self.reference}"
