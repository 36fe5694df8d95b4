"""Manifests: opaque bytes with a media type, of which we read no more than the descriptors they hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from proxy.oci.errors import DigestInvalid
from proxy.oci.names import Digest

MAX_MANIFEST_BYTES: Final = 8 * 1024 * 1024
"""The specification asks registries for 4 MiB at least; no client here takes more than 8 (PROTOCOL 6)."""

DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"

ACCEPT_ALL: Final = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, "*/*"))
"""What we ask upstream for, so that a tag has one digest whoever asked first."""

SIZE_LIMIT: Final = 10**18
"""No size is so large; whoever says one says nothing. It fits a file offset and an integer of the index."""

_MEDIA_TYPE: Final = re.compile(r"\A[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,127}/[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,127}\Z")
"""RFC 6838 section 4.2. What goes into headers and the index is of no other characters."""

_WILDCARDS: Final = frozenset({"*/*", "application/*"})
_MAX_DESCRIPTORS: Final = 10_000
_BUILDKIT_TYPE: Final = "vnd.docker.reference.type"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a manifest says of a piece of content; `size` is in bytes, None where it is not known."""

    digest: Digest
    media_type: str
    size: int | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest exactly as upstream sent it: `body` is never parsed and written again."""

    digest: Digest
    media_type: str
    body: bytes

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(self.digest, self.media_type, len(self.body))


def media_type_of(content_type: str) -> str:
    """A Content-Type without its parameters (OCI distribution spec: SHOULD have none); "" for what is no media type."""
    media_type = _without_parameters(content_type)
    return media_type if _MEDIA_TYPE.match(media_type) else ""


def declared_media_type(body: bytes) -> str | None:
    """The `mediaType` a manifest gives itself, if it is JSON and has one."""
    document = _document(body)
    declared = document.get("mediaType")
    return (media_type_of(declared) or None) if isinstance(declared, str) else None


def is_manifest(body: bytes) -> bool:
    """Whether this is JSON with the `schemaVersion` that every manifest has (OCI image spec)."""
    return "schemaVersion" in _document(body)


def children(body: bytes) -> list[Descriptor]:
    """The manifests, config and layers that a manifest names. Malformed parts are passed over, never raised."""
    return list(_descriptors(_document(body)))[:_MAX_DESCRIPTORS]


def platforms(body: bytes) -> dict[Digest, str]:
    """What an index says its manifests are for: `linux/arm64/v8`, or `attestation` for what BuildKit adds to images."""
    listed = _document(body).get("manifests")
    found: dict[Digest, str] = {}
    for entry in listed if isinstance(listed, list) else []:
        descriptor = _descriptor(entry)
        platform = None if descriptor is None else _listed_platform(entry)
        if descriptor is not None and platform is not None:
            found[descriptor.digest] = platform
    return found


def config_platform(body: bytes) -> str | None:
    """What the config of an image says that the image is for."""
    return _platform(_document(body))


def accepts(accept: Iterable[str], media_type: str) -> bool:
    """Whether a client that sent these Accept values takes this type. Without any, or with a wildcard, it does."""
    ranges = _ranges(accept)
    return not ranges or media_type.lower() in ranges or not ranges.isdisjoint(_WILDCARDS)


def accept_key(accept: Iterable[str]) -> str:
    """The same text for every order and spelling of one set of accepted types."""
    return ", ".join(sorted(_ranges(accept)))


def _ranges(accept: Iterable[str]) -> set[str]:
    """The media ranges of all lines, without parameters, lower case: types are compared without regard to it.

    What is no ASCII is of no type; it becomes `?`, since headers and the index do not hold every byte that comes.
    """
    ranges = (_without_parameters(part).lower() for line in accept for part in line.split(","))
    return {each.encode("ascii", "replace").decode() for each in ranges} - {""}


def _without_parameters(text: str) -> str:
    return text.partition(";")[0].strip()


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _listed_platform(entry: dict[str, Any]) -> str | None:
    annotations = entry.get("annotations")
    kind = annotations.get(_BUILDKIT_TYPE) if isinstance(annotations, dict) else None
    if kind == "attestation-manifest":
        return "attestation"
    platform = entry.get("platform")
    return _platform(platform) if isinstance(platform, dict) else None


def _platform(document: dict[str, Any]) -> str | None:
    parts = [document.get(field) for field in ("os", "architecture", "variant")]
    texts = [part for part in parts if isinstance(part, str) and part]
    return "/".join(texts) if len(texts) >= 2 else None


def _descriptors(document: dict[str, Any]) -> Iterator[Descriptor]:
    for field in ("manifests", "layers", "config", "blobs"):
        value = document.get(field)
        for entry in value if isinstance(value, list) else [value]:
            descriptor = _descriptor(entry)
            if descriptor is not None:
                yield descriptor


def _descriptor(entry: object) -> Descriptor | None:
    if not isinstance(entry, dict):
        return None
    digest, size, media_type = entry.get("digest"), entry.get("size"), entry.get("mediaType")
    if not isinstance(digest, str):
        return None
    try:
        parsed = Digest.parse(digest)
    except DigestInvalid:
        return None
    sized = size if isinstance(size, int) and not isinstance(size, bool) and 0 <= size < SIZE_LIMIT else None
    return Descriptor(parsed, media_type_of(media_type) if isinstance(media_type, str) else "", sized)
