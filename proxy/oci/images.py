"""Images as people write them: `alpine`, `alpine:3.20`, `ghcr.io/owner/app@sha256:...`.

The rules are those of docker: a first component with a dot or a port, or `localhost`, is a registry, and the tag comes
after the last slash. Here the name of a configured upstream is a registry too, and without one the first upstream is
meant.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from proxy.oci.errors import NameInvalid
from proxy.oci.names import DOCKER_HUB, DOCKER_HUB_ALIASES, Digest, Reference, Repository, Tag

LATEST: Final = Tag("latest")

_OFFICIAL: Final = "library/"
_REGISTRY: Final = re.compile(r"\A[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(?::[0-9]{1,5})?\Z")


@dataclass(frozen=True, slots=True)
class ImageName:
    """A repository and, where it was given, what of it is meant."""

    repository: Repository
    reference: Reference | None

    @classmethod
    def parse(cls, text: str, registries: Sequence[str] = (DOCKER_HUB,)) -> Self:
        """`registries` are those with a name of their own, the default one first. Raises RegistryError.

        Of `alpine:3.20@sha256:...` the digest counts, as everywhere.
        """
        rest, at, digest = text.partition("@")
        first, slash, path = rest.partition("/")
        named = bool(slash) and (first in registries or _is_host(first))
        name, colon, tag = (path if named else rest).partition(":")
        reference: Reference | None = Tag.parse(tag) if colon else None
        if at:
            reference = Digest.parse(digest)
        return cls(Repository.parse(name, _registry(first) if named else registries[0]), reference)

    def __str__(self) -> str:
        if self.reference is None:
            return str(self.repository)
        return f"{self.repository}{':' if isinstance(self.reference, Tag) else '@'}{self.reference}"


def familiar(repository: str, default: str) -> str:
    """The shortest name that people write for a repository, given in full; `default` is the default registry."""
    registry, _, name = repository.partition("/")
    first, slash, _ = name.partition("/")
    if registry != default or (slash and _is_host(first)):
        return repository
    short = name.removeprefix(_OFFICIAL)
    return short if registry == DOCKER_HUB and "/" not in short else name


def _is_host(component: str) -> bool:
    """The rule of all clients: a host has a dot or a port, or is localhost."""
    return "." in component or ":" in component or component == "localhost"


def _registry(host: str) -> str:
    if host in DOCKER_HUB_ALIASES:
        return DOCKER_HUB
    if not _REGISTRY.match(host):
        raise NameInvalid("a registry is a host name, with a port if it has one of its own")
    return host
