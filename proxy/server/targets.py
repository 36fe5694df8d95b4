"""What a request path asks for: the specification's grammar of paths, and the names of upstreams within it.

    /v2/<name>/manifests/<reference>       of the default upstream, or of the one that `?ns=` names
    /v2/<upstream>/<name>/...              of the upstream named in the path
    /<upstream>/v2/<name>/...              likewise: a mirror configured with a path (PROTOCOL 5.6)
    /v2/<name>/tags/list, /v2/<name>/referrers/<digest>
    /setup/<client>                        for people: how to set up that client

Repository names may contain `manifests` and `blobs`, so paths are read from the right. Upstreams are looked up among
the configured ones and never dialled from what a client says. Where both the path and `ns` name one they must agree: a
client that is told two things would get an image of the wrong registry. Nothing leaves here that did not match its
grammar.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, parse_qsl, unquote

from proxy.lru import Lru
from proxy.oci.errors import NameInvalid, NameUnknown, NotServed, QueryInvalid
from proxy.oci.listings import clean_query
from proxy.oci.names import DOCKER_HUB, DOCKER_HUB_ALIASES, Digest, Reference, Repository, parse_reference

_HOST: Final = r"(?:(?P<host>(?!v2/)[^/]+)/)?"
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_HOST_LIKE: Final = re.compile(rf"\A(?:localhost|{_LABEL}(?:\.{_LABEL})+|{_LABEL}(?=:))(?::[0-9]{{1,5}})?\Z")
_CATALOG_PAGE: Final = 1000
_REMEMBERED: Final = 4096
_REMEMBERED_LENGTH: Final = 512

_BASE: Final = re.compile(rf"\A/{_HOST}v2/?\Z")
_SETUP: Final = re.compile(r"\A/setup(?:/(?P<client>[a-z0-9-]{0,40}))?\Z")
_OBJECT: Final = re.compile(
    rf"\A/{_HOST}v2/(?P<name>.+)/(?:(?P<kind>manifests|blobs|referrers)/(?P<reference>[^/]*)|tags/list)\Z", re.DOTALL
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


@dataclass(frozen=True, slots=True)
class ListingTarget:
    """A page of a repository's tags or, with a subject, of what refers to that digest."""

    repository: Repository
    subject: Digest | None
    query: str


@dataclass(frozen=True, slots=True)
class CatalogTarget:
    """A page of the catalogue: at most `count` names after `last`."""

    count: int
    last: str


@dataclass(frozen=True, slots=True)
class SetupTarget:
    """`/setup/<client>`: how that client is told about this cache; `client` is empty in `/setup`."""

    client: str


Target = BaseTarget | ManifestTarget | BlobTarget | ListingTarget | CatalogTarget | SetupTarget


class Targets:
    """Parses request targets for these upstreams; the first is the default.

    `setup` and `catalog`: whether /setup and /v2/_catalog are answered.
    """

    def __init__(self, registries: Collection[str], *, setup: bool = True, catalog: bool = False) -> None:
        self.registries = tuple(registries)
        self._setup = setup
        self._catalog = catalog
        self._parsed: Lru[tuple[str, str | None], Target] = Lru(_REMEMBERED)
        """The same few targets are asked for again and again, and parsing one costs as much as answering it."""

    def namespace(self, raw_target: str) -> str | None:
        """The `ns` of a raw request target, one of the names we know, or None without. Raises RegistryError."""
        if "?" not in raw_target or "ns=" not in raw_target:
            return None
        values = parse_qs(raw_target.partition("?")[2]).get("ns")
        if values is None:
            return None
        if any(value != values[0] for value in values):
            raise NameInvalid("the query names several registries")
        self._registry(values[0])
        return values[0]

    def parse(self, raw_target: str, namespace: str | None = None) -> Target:
        """What a raw request target asks for, given its `namespace`. Raises RegistryError."""
        known = self._parsed.get((raw_target, namespace))
        if known is None:
            known = self._parse(raw_target, namespace)
            if len(raw_target) <= _REMEMBERED_LENGTH:
                self._parsed.put((raw_target, namespace), known)
        return known

    def _parse(self, raw_target: str, namespace: str | None) -> Target:
        raw_path, _, query = raw_target.partition("?")
        path = unquote(raw_path, errors="surrogateescape")
        found = _OBJECT.match(path)
        if found is None:
            return self._parse_catalog(query) if self._catalog and path == "/v2/_catalog" else self._parse_base(path)
        host, name = found["host"], found["name"]
        first, slash, rest = name.partition("/")
        if host is None and slash and self._is_upstream(first, namespace):
            host, name = first, rest
        repository = Repository.parse(name, self._choose(host, namespace))
        match found["kind"]:
            case "manifests":
                return ManifestTarget(repository, parse_reference(found["reference"]))
            case "blobs":
                return BlobTarget(repository, Digest.parse(found["reference"]))
            case "referrers":
                return ListingTarget(repository, Digest.parse(found["reference"]), clean_query(query))
            case _:
                return ListingTarget(repository, None, clean_query(query))

    def _parse_catalog(self, query: str) -> CatalogTarget:
        fields = dict(parse_qsl(clean_query(query)))
        count = fields.get("n", str(_CATALOG_PAGE))
        if not re.fullmatch(r"[1-9][0-9]{0,5}", count, re.ASCII):
            raise QueryInvalid("n is a number of repositories, at least 1")
        return CatalogTarget(min(int(count), _CATALOG_PAGE), fields.get("last", ""))

    def _parse_base(self, path: str) -> BaseTarget | SetupTarget:
        setup = _SETUP.match(path) if self._setup else None
        if setup is not None:
            return SetupTarget(setup["client"] or "")
        match = _BASE.match(path)
        if match is None:
            raise NotServed("this cache serves manifests, blobs, tags/list and referrers below /v2/<name>/")
        if match["host"] is not None:
            self._registry(match["host"])
        return BaseTarget()

    def _is_upstream(self, first: str, namespace: str | None) -> bool:
        """Whether the first component of a name is an upstream. Raises NameUnknown for one that we do not know.

        Where nothing else names the registry, clients take what looks like a host for one (PROTOCOL 5.6). Names of
        Docker Hub never do; those of other registries may.
        """
        if self._find(first) is not None:
            return True
        if namespace is None and self.registries[0] == DOCKER_HUB and _HOST_LIKE.match(first):
            self._registry(first)
        return False

    def _choose(self, host: str | None, namespace: str | None) -> str:
        named = {self._registry(each) for each in (host, namespace) if each is not None}
        if len(named) > 1:
            raise NameUnknown("the path and the query name different registries")
        return named.pop() if named else self.registries[0]

    def _registry(self, host: str) -> str:
        found = self._find(host)
        if found is None:
            known = ", ".join(self.registries)
            raise NameUnknown(f"no upstream of that name is configured here; known are: {known}")
        return found

    def _find(self, host: str) -> str | None:
        name = DOCKER_HUB if host in DOCKER_HUB_ALIASES else host
        return name if name in self.registries else None
