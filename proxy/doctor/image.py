"""The image that a canary pull asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from proxy.oci.names import DOCKER_HUB, DOCKER_HUB_ALIASES, Reference, Repository, Tag, parse_reference

CANARY: Final = "library/hello-world"


@dataclass(frozen=True, slots=True)
class Image:
    """A repository and what to pull from it."""

    repository: Repository
    reference: Reference

    @classmethod
    def parse(cls, text: str) -> Self:
        """As people write it: `alpine`, `alpine:3.20`, `ghcr.io/owner/image@sha256:...`. Raises RegistryError."""
        rest, at, digest = text.partition("@")
        first, slash, path = rest.partition("/")
        registry, name = (first, path) if slash and _is_host(first) else (DOCKER_HUB, rest)
        name, colon, tag = name.partition(":")
        reference = parse_reference(digest) if at else parse_reference(tag) if colon else Tag("latest")
        return cls(Repository.parse(name, DOCKER_HUB if registry in DOCKER_HUB_ALIASES else registry), reference)

    def __str__(self) -> str:
        return f"{self.repository}{':' if isinstance(self.reference, Tag) else '@'}{self.reference}"


def _is_host(component: str) -> bool:
    """The rule of all clients: a host has a dot or a port, or is localhost."""
    return "." in component or ":" in component or component == "localhost"
