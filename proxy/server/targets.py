"""What a request path asks for: the specification's grammar of paths, and the names of upstreams within it.

    /v2/<name>/manifests/<reference>       of the default upstream, or of the one that `?ns=` names
    /v2/<upstream>/<name>/...              of the upstream named in the path
    /<upstream>/v2/<name>/...              likewise: a mirror configured with a path (PROTOCOL 5.6)

Repository names may contain `manifests` and `blobs`, so paths are read from the right. Upstreams are looked up among
the configured ones and never dialled from what a client says. Nothing leaves here that did not match its grammar.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, unquote

from proxy.oci.errors import NameUnknown, NotServed
from proxy.oci.names import DOCKER_HUB, DOCKER_HUB_ALIASES, Digest, Reference, Repository, parse_reference

_BASE: Final = re.compile(r"\A/(?:(?P<host>[^/]+)/)?v2/?\Z")
_OBJECT: Final = re.compile(
    r"\A/(?:(?P<host>[^/]+)/)?v2/(?P<name>.+)/(?P<kind>manifests|blobs)/(?P<reference>[^/]*)\Z", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class BaseTarget:
    """`/v2/`: does this speak the protocol?"""


@dataclass(frozen=True, slots=True)
class ManifestTarget:
    """A manifest by tag or digest."""

    repository: Repository
    reference: Reference


@dataclass(frozen=True, slots=True)
class BlobTarget:
    """A blob by digest."""

    repository: Repository
    digest: Digest


Target = BaseTarget | ManifestTarget | BlobTarget


class Targets:
    """Parses request targets for these upstreams; the first is the default."""

    def __init__(self, registries: Collection[str]) -> None:
        self._registries = tuple(registries)

    def parse(self, raw_target: str) -> tuple[Target, str | None]:
        """What a raw request target asks for, and its `ns` as given. Raises RegistryError."""
        raw_path, _, query = raw_target.partition("?")
        path = unquote(raw_path, errors="surrogateescape")
        namespace = _namespace(query)
        match = _OBJECT.match(path)
        if match is None:
            return self._parse_base(path), namespace
        registry = self._registry(namespace) if namespace is not None else self._registries[0]
        name = match["name"]
        if match["host"] is not None:
            registry = self._registry(match["host"])
        elif (found := self._find(name.partition("/")[0])) is not None and "/" in name:
            registry, name = found, name.partition("/")[2]
        repository = Repository.parse(name, registry)
        if match["kind"] == "blobs":
            return BlobTarget(repository, Digest.parse(match["reference"])), namespace
        return ManifestTarget(repository, parse_reference(match["reference"])), namespace

    def _parse_base(self, path: str) -> BaseTarget:
        match = _BASE.match(path)
        if match is None:
            raise NotServed("this cache serves /v2/<name>/manifests/<reference> and /v2/<name>/blobs/<digest>")
        if match["host"] is not None:
            self._registry(match["host"])
        return BaseTarget()

    def _registry(self, host: str) -> str:
        found = self._find(host)
        if found is None:
            known = ", ".join(self._registries)
            raise NameUnknown(f"no upstream of that name is configured here; known are: {known}")
        return found

    def _find(self, host: str) -> str | None:
        name = DOCKER_HUB if host in DOCKER_HUB_ALIASES else host
        return name if name in self._registries else None


def _namespace(query: str) -> str | None:
    values = parse_qs(query, max_num_fields=100).get("ns") if "ns=" in query else None
    return values[0] if values else None
